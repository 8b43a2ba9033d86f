# SPDX-License-Identifier: Apache-2.0
"""What is not a face but looks like one: people without a face, pieces of people, skin-coloured shapes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FACE_LABELS = (1, 2, 3)  # skin, eyes, mouth interior in the shards' segmentation
_LIGHT_SKIN = (226.0, 178.0, 150.0)
_DARK_SKIN = (74.0, 46.0, 34.0)


def erase_face(rng: np.random.Generator, tile: Tensor, segmentation: Tensor, box: Tensor) -> None:
    """Takes the face out of a synthetic picture, in place.

    The skin is painted with one colour or its own smooth shading, or the pieces of the face are shuffled.

    Args:
        rng: All randomness comes from here.
        tile: [4, S, S] uint8 colour and alpha.
        segmentation: [S, S] uint8 region of each pixel.
        box: [4] the face's box, pixels of the tile.
    """
    kind = rng.random()
    x0, y0, x1, y1 = (int(v) for v in box.clamp(0, tile.shape[-1]))
    if kind < 0.35 and min(x1 - x0, y1 - y0) >= 18:
        _shuffle(rng, tile[:3, y0:y1, x0:x1])
        return
    face = torch.isin(segmentation, torch.tensor(FACE_LABELS, dtype=segmentation.dtype))
    if kind < 0.55 or min(x1 - x0, y1 - y0) < 2:
        paint = torch.from_numpy(rng.integers(0, 256, 3).astype(np.uint8))
        tile[:3] = torch.where(face, paint[:, None, None], tile[:3])
        return
    part = tile[:3, y0:y1, x0:x1]
    shading = F.interpolate(part.float()[None], size=(2, 2), mode="area")
    smooth = F.interpolate(shading, size=part.shape[1:], mode="bilinear")[0].byte()
    part.copy_(torch.where(face[y0:y1, x0:x1], smooth, part))


def _shuffle(rng: np.random.Generator, part: Tensor) -> None:
    """Moves the 3 x 3 cells of [3, h, w] so that at most two stay in their place."""
    h, w = part.shape[1] // 3, part.shape[2] // 3
    cells = [(i * h, j * w) for i in range(3) for j in range(3)]
    order = rng.permutation(9)
    while int((order == np.arange(9)).sum()) > 2:
        order = rng.permutation(9)
    source = part.clone()
    for (y, x), k in zip(cells, order, strict=True):
        v, u = cells[k]
        part[:, y : y + h, x : x + w] = source[:, v : v + h, u : u + w]


def cut_piece(rng: np.random.Generator, tile: Tensor, box: Tensor) -> Tensor | None:
    """A piece of a synthetic picture with next to nothing of the face: hair, neck, ear, clothes, hand.

    Args:
        rng: All randomness comes from here.
        tile: [4, S, S] uint8 colour and alpha.
        box: [4] the face's box, pixels of the tile.

    Returns:
        [4, h, w] uint8, or None where no such piece was hit upon.
    """
    size = tile.shape[-1]
    for _ in range(5):
        w, h = (int(v) for v in rng.uniform(0.1, 0.5, 2) * size)
        x, y = int(rng.integers(0, size - w)), int(rng.integers(0, size - h))
        dx = min(x + w, float(box[2])) - max(x, float(box[0]))
        dy = min(y + h, float(box[3])) - max(y, float(box[1]))
        piece = tile[:, y : y + h, x : x + w]
        if max(dx, 0.0) * max(dy, 0.0) > 0.12 * w * h or float(piece[3].float().mean()) < 90:
            continue
        piece = piece.clone()
        if rng.random() < 0.5:
            piece[3] = (piece[3].float() * _ellipse(h, w)).byte()
        elif rng.random() < 0.5:
            piece[3] = 255
        return piece.rot90(int(rng.integers(4)), (1, 2)) if rng.random() < 0.5 else piece
    return None


def skin_shape(rng: np.random.Generator) -> Tensor:
    """[4, h, w] uint8 ellipse or bar in a skin's colour, shaded, at times with dark spots like eyes."""
    h, w = int(rng.integers(24, 72)), int(rng.integers(24, 72))
    tone = rng.random() + rng.normal(0, 0.04, 3)
    colour = np.array(_DARK_SKIN) * tone + np.array(_LIGHT_SKIN) * (1 - tone)
    if rng.random() < 0.25:
        colour = rng.uniform(0, 255, 3)
    angle = rng.uniform(0, 2 * math.pi)
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    shade = 1.0 + rng.uniform(0, 0.5) * (x * math.cos(angle) + y * math.sin(angle))
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.5 else 0):
        cx, cy, radius = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), rng.uniform(0.05, 0.3)
        near = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2 * rng.uniform(0.5, 4.0)) / radius**2)
        shade = shade * (1 - rng.uniform(0.2, 0.9) * near)
    out = torch.empty(4, h, w)
    out[:3] = torch.tensor(colour, dtype=torch.float32)[:, None, None] * shade
    out[3] = 255.0 * (_ellipse(h, w) if rng.random() < 0.6 else 1.0)
    return out.clamp_(0, 255).byte()


def _ellipse(h: int, w: int) -> Tensor:
    """[h, w] 1 inside, soft at the edge."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return ((1.0 - (x * x + y * y).sqrt()) * 8.0).clamp(0, 1)
