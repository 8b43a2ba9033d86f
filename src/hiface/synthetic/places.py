# SPDX-License-Identifier: Apache-2.0
"""Backgrounds that look like places: leaves, land under a sky, book shelves, windows, other people."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.synthetic.noise import noise_image

_LEAVES = np.array([[0.05, 0.12, 0.02], [0.12, 0.20, 0.03], [0.22, 0.12, 0.03], [0.03, 0.07, 0.04]])
_SKIES = np.array([[0.25, 0.45, 0.85], [0.75, 0.80, 0.88], [0.85, 0.50, 0.28], [0.03, 0.05, 0.12]])
_GROUNDS = np.array([[0.10, 0.16, 0.04], [0.30, 0.25, 0.17], [0.16, 0.16, 0.16], [0.55, 0.48, 0.36]])
_SKINS = np.array([[0.55, 0.36, 0.28], [0.42, 0.25, 0.17], [0.20, 0.10, 0.06], [0.08, 0.04, 0.03]])


def _pick(rng: np.random.Generator, table: np.ndarray, spread: float = 0.15) -> Tensor:
    colour = table[int(rng.integers(len(table)))] * np.exp(rng.normal(0, 0.3) + rng.normal(0, spread, 3))
    return torch.from_numpy(colour.astype(np.float32))[:, None, None]


def _any(rng: np.random.Generator) -> Tensor:
    level = math.exp(rng.uniform(math.log(0.02), math.log(0.6)))
    return torch.from_numpy((level * np.exp(rng.normal(0, 0.35, 3))).astype(np.float32))[:, None, None]


def _axes(size: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(size) + 0.5) / size
    return line[None, :].expand(size, size), line[:, None].expand(size, size)


def foliage(rng: np.random.Generator, size: int) -> Tensor:
    """Leaves with sky between them, [3, size, size] linear."""
    coarse = noise_image(rng, "cloud", size, float(rng.uniform(1, 3)))
    leaves = noise_image(rng, "pink", size, float(rng.uniform(0.8, 2.5)))
    shade = (0.55 * leaves + 0.5 * coarse).exp()
    picture = torch.lerp(_pick(rng, _LEAVES), _pick(rng, _LEAVES), torch.sigmoid(2 * coarse)[None]) * shade
    gap = torch.sigmoid(8 * (leaves + coarse - float(rng.uniform(1.2, 3.0))))
    return torch.lerp(picture, _pick(rng, _SKIES[:2]), gap[None])


def landscape(rng: np.random.Generator, size: int) -> Tensor:
    """Ground, hills or roofs under a sky, [3, size, size] linear."""
    _, y = _axes(size)
    sky, low = _pick(rng, _SKIES), _pick(rng, _SKIES)
    horizon = float(rng.uniform(0.25, 0.9))
    picture = torch.lerp(sky, low, (y / horizon).clamp(0, 1)[None])
    clouds = torch.sigmoid(2.5 * noise_image(rng, "cloud", size, 2.0) + float(rng.normal(-1, 1)))
    picture = torch.lerp(picture, low.clamp_min(0.3), (0.7 * clouds * (y < horizon))[None])
    for far in (0.5, 1.0):
        line = noise_image(rng, "cloud", size, 2.0)[0] * 0.06 * far + horizon + 0.06 * (far - 0.5)
        if rng.random() < 0.35:  # roofs
            line = (line * 24).round() / 24
        ground = torch.lerp(_pick(rng, _GROUNDS), low, 0.4 * (1 - far))
        grain = (0.35 * noise_image(rng, "pink", size)).exp()
        picture = torch.where((y > line[None])[None], ground * grain, picture)
    return picture


def shelves(rng: np.random.Generator, size: int) -> Tensor:
    """Shelves full of books or boxes, [3, size, size] linear."""
    x, y = _axes(size)
    rows, columns = float(rng.uniform(2.5, 7)), float(rng.uniform(10, 40))
    row = (y * rows).floor()
    wide = x * columns + 0.8 * torch.sin(x * columns * 0.9 + row * 2.1)
    cell = wide.floor() * 78.233 + row * 12.9898 + float(rng.uniform(0, 90))
    tints = torch.stack([((cell + 3.1 * i).sin() * 43758.5453).frac().abs() for i in range(4)])
    tints[:3] = torch.lerp(tints[:3], tints[:3].mean(dim=0, keepdim=True), float(rng.uniform(0.2, 0.8)))
    books = (0.02 + float(rng.uniform(0.2, 0.6)) * tints[:3] ** 2) * (
        0.6 + 0.4 * ((wide.frac().abs() - 0.5).abs() < 0.42)
    )[None]
    inside = (y * rows).frac()
    top = 0.12 + 0.25 * tints[3]
    picture = torch.where((inside < top)[None], torch.full((3, 1, 1), 0.02), books)
    return torch.where((inside > 0.93)[None], _pick(rng, _GROUNDS), picture)


def window(rng: np.random.Generator, size: int) -> Tensor:
    """A bright window with bars in a darker wall, [3, size, size] linear."""
    x, y = _axes(size)
    wall = _any(rng) * 0.5 * (1 + 0.3 * (x - 0.5) + 0.1 * noise_image(rng, "cloud", size))
    cx, cy = float(rng.uniform(0, 1)), float(rng.uniform(0.1, 0.7))
    w, h = float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.2, 0.6))
    u, v = (x - cx) / w, (y - cy) / h
    view = torch.lerp(_pick(rng, _SKIES[:3]), _pick(rng, _LEAVES), torch.sigmoid(8 * v)[None]) * 1.8
    bars = ((u * int(rng.integers(1, 4)) + 0.5).frac().abs() < 0.06) | (
        (v * int(rng.integers(1, 3))).frac().abs() < 0.05
    )
    inside = torch.maximum(u.abs(), v.abs()) < 1
    picture = torch.where((inside & ~bars)[None], view, wall)
    frame = torch.maximum(u.abs(), v.abs())
    return torch.where(((frame > 1) & (frame < 1.08))[None], _any(rng), picture)


def crowd(rng: np.random.Generator, size: int) -> Tensor:
    """Other people, out of focus and without faces, [3, size, size] linear."""
    x, y = _axes(max(16, size // 4))
    picture = torch.lerp(_any(rng), _any(rng), y[None])
    base, step = float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.04, 0.12))
    for _ in range(int(rng.integers(2, 9))):
        cx, r = float(rng.uniform(0, 1)), step * float(rng.uniform(0.8, 1.3))
        cy = base + float(rng.normal(0, 0.06))
        u, v = (x - cx) / r, (y - cy) / r
        body = ((u / 2.1).abs() ** 2.5 + ((v - 3.6).clamp_max(0) / 2.2).abs() ** 2.5 < 1) & (v > 0.5)
        picture = torch.where(body[None], _any(rng) * (1 + 0.15 * u), picture)
        skin = _pick(rng, _SKINS, 0.05)
        picture = torch.where(((u.abs() < 0.42) & (v > 0) & (v < 1.6))[None], 0.7 * skin, picture)
        hair = _any(rng) * 0.12
        long = float(rng.uniform(1.0, 1.5))
        picture = torch.where(((u / 0.95) ** 2 + ((v + 0.15) / long) ** 2 < 1)[None], hair, picture)
        face = (u / 0.74) ** 2 + ((v - 0.22) / 0.98) ** 2 < 1
        picture = torch.where(face[None], skin * (1 + 0.25 * u), picture)
    blur = max(3, 2 * round(len(x) * step * 0.25) + 1)
    small = F.avg_pool2d(F.pad(picture[None], (blur // 2,) * 4, mode="replicate"), blur, 1)
    return F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)[0]
