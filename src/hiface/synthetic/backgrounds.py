# SPDX-License-Identifier: Apache-2.0
"""Backgrounds made of nothing but arithmetic."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.synthetic.noise import noise_image


def _colour(rng: np.random.Generator, spread: float = 0.35) -> Tensor:
    level = math.exp(rng.uniform(math.log(0.015), math.log(0.8)))
    return torch.from_numpy((level * np.exp(rng.normal(0, spread, 3))).astype(np.float32))[:, None, None]


def _axes(size: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(size) + 0.5) / size
    return line[None, :].expand(size, size), line[:, None].expand(size, size)


def _gradient(rng: np.random.Generator, size: int) -> Tensor:
    x, y = _axes(size)
    angle = rng.uniform(0, 2 * math.pi)
    t = ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.5).clamp(0, 1)
    if rng.random() < 0.4:
        centre = rng.uniform(0.2, 0.8, 2)
        t = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt().clamp(0, 1)
    return torch.lerp(_colour(rng), _colour(rng), t[None])


def _noise(rng: np.random.Generator, size: int) -> Tensor:
    kind = str(rng.choice(["pink", "cloud", "white", "strand", "curl"], p=[0.3, 0.4, 0.08, 0.1, 0.12]))
    field = noise_image(rng, kind, size, float(rng.uniform(0.7, 5)))
    other = noise_image(rng, "cloud", size, 2.0)
    mix = torch.sigmoid(field * rng.uniform(0.5, 3))
    return torch.lerp(_colour(rng), _colour(rng), mix[None]) * (0.3 * other).exp()


def _shapes(rng: np.random.Generator, size: int) -> Tensor:
    """Overlapping boxes, discs and slanted bars, as rooms and streets are full of."""
    x, y = _axes(size)
    picture = _gradient(rng, size)
    for _ in range(int(rng.integers(4, 16))):
        cx, cy, w, h = (
            rng.uniform(-0.1, 1.1),
            rng.uniform(-0.1, 1.1),
            rng.exponential(0.2),
            rng.exponential(0.25),
        )
        angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(0, math.pi)
        u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        inside = (
            (u / max(w, 0.01)) ** 2 + (v / max(h, 0.01)) ** 2 < 1
            if rng.random() < 0.3
            else ((u.abs() < w) & (v.abs() < h))
        )
        colour = _colour(rng) * (1 + rng.normal(0, 0.5) * v[None]).clamp(0.2, 2)
        picture = torch.where(inside[None], colour, picture)
    return picture


def _bokeh(rng: np.random.Generator, size: int) -> Tensor:
    x, y = _axes(size)
    picture = _gradient(rng, size) * 0.4
    for _ in range(int(rng.integers(6, 24))):
        cx, cy = rng.uniform(0, 1, 2)
        radius = rng.uniform(0.015, 0.09)
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
        disc = ((radius - distance) / 0.006).clamp(0, 1)
        picture = picture + disc[None] * _colour(rng, 0.8) * rng.uniform(0.1, 0.7)
    return picture


def _planks(rng: np.random.Generator, size: int) -> Tensor:
    """Bricks, tiles, planks, books or window bars."""
    x, y = _axes(size)
    if rng.random() < 0.5:
        x, y = y, x
    rows, columns = rng.uniform(3, 16), rng.uniform(1, 8)
    row = (y * rows).floor()
    shifted = x * columns + (row * rng.choice([0.0, 0.5, 0.37]))
    joint = ((y * rows).frac() < rng.uniform(0.03, 0.12)) | (shifted.frac() < rng.uniform(0.02, 0.08))
    cell = (row * 12.9898 + shifted.floor() * 78.233).sin() * 43758.5453
    shade = cell.frac().abs() * rng.uniform(0.2, 1.2) + 0.6
    grain = (0.2 * noise_image(rng, "strand", size)).exp()
    return torch.where(joint[None], _colour(rng), _colour(rng) * (shade * grain)[None])


def _text(rng: np.random.Generator, size: int) -> Tensor:
    """Rows of dark or light bars that look like writing from afar."""
    picture = _gradient(rng, size).expand(3, size, size).clone()
    ink = _colour(rng)
    y = int(rng.integers(0, size // 4))
    while y < size:
        height = int(rng.integers(3, max(4, size // 12)))
        x = int(rng.integers(0, size // 4))
        while x < size:
            width = int(rng.integers(2, 3 * height))
            picture[:, y : y + height, x : x + width] = ink
            x += width + int(rng.integers(1, height + 1))
        y += height * 2
    return picture


_KINDS = {_gradient: 0.26, _noise: 0.2, _shapes: 0.28, _bokeh: 0.08, _planks: 0.12, _text: 0.06}


def sample_background(rng: np.random.Generator, size: int) -> Tensor:
    """Draws a background.

    Args:
        rng: Source of randomness.
        size: Side in pixels.

    Returns:
        [3, size, size] linear colour.
    """
    if size >= 128 and rng.random() < 0.5:
        half = sample_background(rng, size // 2)
        return F.interpolate(half[None], size=(size, size), mode="bilinear", align_corners=False)[0]
    makers, shares = list(_KINDS), np.array(list(_KINDS.values()))
    picture = makers[rng.choice(len(makers), p=shares / shares.sum())](rng, size)
    if rng.random() < 0.35:
        layer = makers[rng.choice(len(makers), p=shares / shares.sum())](rng, size)
        mask = torch.sigmoid(6 * noise_image(rng, "cloud", size, 2.0) + rng.normal(0, 3))
        picture = torch.lerp(picture.expand(3, size, size), layer.expand(3, size, size), mask[None])
    picture = picture.expand(3, size, size).contiguous()
    if rng.random() < 0.6:
        picture = smooth(picture, rng.uniform(0.5, 0.05 * size))
    return picture.clamp(0, 4)


def smooth(picture: Tensor, sigma_px: float) -> Tensor:
    """Blurs [C, S, S] by about a Gaussian of `sigma_px` (two box filters, at low resolution when wide)."""
    size = picture.shape[-1]
    step = 1 if sigma_px < 3 else 2 if sigma_px < 6 else 4
    small = F.avg_pool2d(picture[None], step) if step > 1 else picture[None]
    width = 2 * max(1, round(sigma_px / step * 0.87)) + 1
    width = min(width, 2 * (small.shape[-1] // 2) - 1)
    for _ in range(2):
        small = F.avg_pool2d(F.pad(small, (width // 2,) * 4, mode="replicate"), width, stride=1)
    if step > 1:
        small = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    return small[0]
