# SPDX-License-Identifier: Apache-2.0
"""Backgrounds made of nothing but arithmetic; places that look like something are in `places`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.synthetic.filters import box_blur
from hiface.synthetic.noise import plan_noise
from hiface.synthetic.places import crowd, foliage, landscape, shelves, window


def _colour(rng: np.random.Generator, spread: float = 0.2) -> Tensor:
    if spread < 0.3 and rng.random() < 0.15:
        spread = 0.6
    level = math.exp(rng.uniform(math.log(0.015), math.log(0.8)))
    return torch.from_numpy((level * np.exp(rng.normal(0, spread, 3))).astype(np.float32))[:, None, None]


Paint = Callable[[], Tensor]
"""Paints a picture [3, S, S] from numbers that are drawn already, so that they are used up in any case."""


@cache
def _axes(size: int) -> tuple[Tensor, Tensor]:
    """[1, size] and [size, 1] coordinates of the pixel centres, 0..1."""
    line = (torch.arange(size) + 0.5) / size
    return line[None, :], line[:, None]


def _gradient(rng: np.random.Generator, size: int) -> Paint:
    angle = rng.uniform(0, 2 * math.pi)
    centre = rng.uniform(0.2, 0.8, 2) if rng.random() < 0.4 else None
    first, last = _colour(rng), _colour(rng)

    def paint() -> Tensor:
        x, y = _axes(size)
        if centre is None:
            t = ((x - 0.5) * math.cos(angle) + ((y - 0.5) * math.sin(angle) + 0.5)).clamp(0, 1)
        else:
            t = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt().clamp(0, 1)
        return torch.lerp(first, last, t[None])

    return paint


def _noise(rng: np.random.Generator, size: int) -> Paint:
    kind = str(rng.choice(["pink", "cloud", "white", "strand", "curl"], p=[0.3, 0.4, 0.08, 0.1, 0.12]))
    field = plan_noise(rng, kind, size, float(rng.uniform(0.7, 5)))
    other = plan_noise(rng, "cloud", size, 2.0)
    contrast = rng.uniform(0.5, 3)
    first, last = _colour(rng), _colour(rng)
    return lambda: torch.lerp(first, last, torch.sigmoid(field() * contrast)[None]) * (0.3 * other()).exp()


@dataclass(frozen=True)
class _Shape:
    """A box or disc: centre, half sides, angle, colour and its slope; shares of the picture's side."""

    centre: tuple[float, float]
    half: tuple[float, float]
    angle: float
    is_disc: bool
    colour: Tensor
    slope: float

    def window(self, size: int) -> tuple[slice, slice]:
        """Rows and columns that it may cover."""
        c, s = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        w, h = (max(half, 0.01) for half in self.half)
        reach = (w * c + h * s, w * s + h * c)
        low = [max(0, math.floor((at - r) * size - 1)) for at, r in zip(self.centre, reach, strict=True)]
        high = [max(0, math.ceil((at + r) * size + 1)) for at, r in zip(self.centre, reach, strict=True)]
        return slice(low[1], high[1]), slice(low[0], high[0])

    def paint(self, picture: Tensor) -> None:
        """Covers its part of a picture [3, S, S] in place."""
        rows, columns = self.window(picture.shape[-1])
        x, y = _axes(picture.shape[-1])
        x, y, part = x[:, columns] - self.centre[0], y[rows] - self.centre[1], picture[:, rows, columns]
        c, s, (w, h) = math.cos(self.angle), math.sin(self.angle), self.half
        u, v = x * c + y * s, y * c - x * s
        if self.is_disc:
            inside = (u / max(w, 0.01)) ** 2 + (v / max(h, 0.01)) ** 2 < 1
        else:
            inside = (u.abs() < w) & (v.abs() < h)
        colour = self.colour * (1 + self.slope * v).clamp(0.2, 2)
        part.copy_(torch.where(inside, colour, part))


def _shape(rng: np.random.Generator) -> _Shape:
    centre = rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1.1)
    half = rng.exponential(0.2), rng.exponential(0.25)
    angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, math.pi)
    is_disc = rng.random() < 0.3
    return _Shape(centre, half, angle, is_disc, _colour(rng), rng.normal(0, 0.5))


def _shapes(rng: np.random.Generator, size: int) -> Paint:
    """Overlapping boxes, discs and slanted bars, as rooms and streets are full of."""
    ground = _gradient(rng, size)
    shapes = [_shape(rng) for _ in range(int(rng.integers(4, 16)))]

    def paint() -> Tensor:
        picture = ground()
        for shape in shapes:
            shape.paint(picture)
        return picture

    return paint


def _bokeh(rng: np.random.Generator, size: int) -> Paint:
    ground, discs = _gradient(rng, size), []
    for _ in range(int(rng.integers(6, 24))):
        cx, cy = rng.uniform(0, 1, 2)
        radius = rng.uniform(0.015, 0.09)
        discs.append((cx, cy, radius, _colour(rng, 0.8) * rng.uniform(0.1, 0.7)))

    def paint() -> Tensor:
        x, y = _axes(size)
        picture = ground() * 0.4
        for cx, cy, radius, colour in discs:
            low_x, low_y = (max(0, math.floor((at - radius) * size - 1)) for at in (cx, cy))
            high_x, high_y = (math.ceil((at + radius) * size + 1) for at in (cx, cy))
            rows, columns = slice(low_y, high_y), slice(low_x, high_x)
            distance = ((x[:, columns] - cx) ** 2 + (y[rows] - cy) ** 2).sqrt()
            picture[:, rows, columns] += ((radius - distance) / 0.006).clamp(0, 1) * colour
        return picture

    return paint


def _planks(rng: np.random.Generator, size: int) -> Paint:
    """Bricks, tiles, planks, books or window bars."""
    turned = rng.random() < 0.5
    rows, columns = rng.uniform(3, 16), rng.uniform(1, 8)
    offset = rng.choice([0.0, 0.5, 0.37])
    gaps = rng.uniform(0.03, 0.12), rng.uniform(0.02, 0.08)
    contrast = rng.uniform(0.2, 1.2)
    strands = plan_noise(rng, "strand", size)
    joint_colour, colour = _colour(rng), _colour(rng)

    def paint() -> Tensor:
        x, y = _axes(size)
        if turned:
            x, y = y, x
        row = (y * rows).floor()
        shifted = x * columns + (row * offset)
        joint = ((y * rows).frac() < gaps[0]) | (shifted.frac() < gaps[1])
        cell = (row * 12.9898 + shifted.floor() * 78.233).sin() * 43758.5453
        shade = cell.frac().abs() * contrast + 0.6
        return torch.where(joint[None], joint_colour, colour * (shade * (0.2 * strands()).exp())[None])

    return paint


def _text(rng: np.random.Generator, size: int) -> Paint:
    """Rows of dark or light bars that look like writing from afar."""
    ground, ink, bars = _gradient(rng, size), _colour(rng), []
    y = int(rng.integers(0, size // 4))
    while y < size:
        height = int(rng.integers(3, max(4, size // 12)))
        x = int(rng.integers(0, size // 4))
        while x < size:
            width = int(rng.integers(2, 3 * height))
            bars.append((slice(y, y + height), slice(x, x + width)))
            x += width + int(rng.integers(1, height + 1))
        y += height * 2

    def paint() -> Tensor:
        picture = ground()
        for rows, columns in bars:
            picture[:, rows, columns] = ink
        return picture

    return paint


_KINDS = {_gradient: 0.22, _noise: 0.13, _shapes: 0.18, _bokeh: 0.07, _planks: 0.09, _text: 0.04}
_PLACES = {foliage: 0.06, landscape: 0.06, shelves: 0.04, window: 0.05, crowd: 0.04}


def _place(
    maker: Callable[[np.random.Generator, int], Tensor],
) -> Callable[[np.random.Generator, int], Paint]:
    def plan(rng: np.random.Generator, size: int) -> Paint:
        seed = int(rng.integers(2**62))
        return lambda: maker(np.random.default_rng(seed), size)

    return plan


_KINDS |= {_place(maker): share for maker, share in _PLACES.items()}


def plan_background(rng: np.random.Generator, size: int) -> Paint:
    """Draws the numbers of a background, without painting it.

    Args:
        rng: Source of randomness.
        size: Side in pixels.

    Returns:
        A function that paints [3, size, size] linear colour.
    """
    if size >= 128 and rng.random() < 0.5:
        half = plan_background(rng, size // 2)
        return lambda: F.interpolate(half()[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    makers, shares = list(_KINDS), np.array(list(_KINDS.values()))
    ground = makers[rng.choice(len(makers), p=shares / shares.sum())](rng, size)
    layer, cloud, level, sigma = None, None, 0.0, 0.0
    if rng.random() < 0.35:
        layer = makers[rng.choice(len(makers), p=shares / shares.sum())](rng, size)
        cloud, level = plan_noise(rng, "cloud", size, 2.0), rng.normal(0, 3)
    if rng.random() < 0.6:
        sigma = rng.uniform(0.5, 0.05 * size)

    def paint() -> Tensor:
        picture = ground()
        if layer is not None and cloud is not None:
            picture = torch.lerp(picture, layer(), torch.sigmoid(6 * cloud() + level)[None])
        return (smooth(picture, sigma) if sigma > 0 else picture).clamp(0, 4)

    return paint


def sample_background(rng: np.random.Generator, size: int) -> Tensor:
    """Draws a background.

    Args:
        rng: Source of randomness.
        size: Side in pixels.

    Returns:
        [3, size, size] linear colour.
    """
    return plan_background(rng, size)()


def smooth(picture: Tensor, sigma_px: float) -> Tensor:
    """Blurs [C, S, S] by about a Gaussian of `sigma_px` (two box filters, at low resolution when wide)."""
    size = picture.shape[-1]
    step = 1 if sigma_px < 3 else 2 if sigma_px < 6 else 4
    small = F.avg_pool2d(picture[None], step)[0] if step > 1 else picture
    width = 2 * max(1, round(sigma_px / step * 0.87)) + 1
    width = min(width, 2 * (small.shape[-1] // 2) - 1)
    for _ in range(2):
        small = box_blur(small, width)
    if step > 1:
        small = F.interpolate(small[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    return small
