# SPDX-License-Identifier: Apache-2.0
"""Things in front of a face, drawn flat: fingers and hands, microphones, cups, bars, cloth."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hiface.synthetic.noise import noise_image


def _capsule(x: Tensor, y: Tensor, a: np.ndarray, b: np.ndarray, radius: float) -> Tensor:
    """[S, S] signed distance to a rounded stick from a to b."""
    dx, dy = float(b[0] - a[0]), float(b[1] - a[1])
    t = (((x - a[0]) * dx + (y - a[1]) * dy) / max(dx * dx + dy * dy, 1e-6)).clamp(0, 1)
    return ((x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2).sqrt() - radius


def _hand(
    rng: np.random.Generator, x: Tensor, y: Tensor, tip: np.ndarray, unit: float
) -> tuple[Tensor, Tensor]:
    """Distance of a hand whose fingers point at `tip`, and its shading 0..1."""
    angle = rng.uniform(0, 2 * math.pi)
    forward = np.array([math.cos(angle), math.sin(angle)])
    sideways = np.array([-forward[1], forward[0]])
    palm = tip - forward * unit * rng.uniform(0.75, 1.0)
    distance = _capsule(x, y, palm - forward * 0.4 * unit, palm, 0.30 * unit)
    distance = torch.minimum(
        distance, _capsule(x, y, palm - forward * 2.5 * unit, palm - forward * 0.4 * unit, 0.2 * unit)
    )
    height = (-distance / (0.3 * unit)).clamp(0, 1)
    spread = rng.uniform(0.02, 0.3)
    for i in range(4):
        slot = i - 1.5
        base = palm + sideways * slot * 0.17 * unit
        length = (0.95 - 0.1 * abs(slot - 0.3)) * rng.uniform(0.6, 1.0) * unit
        end = base + (forward + sideways * slot * spread) * length
        finger = _capsule(x, y, base, end, 0.085 * unit)
        height = torch.maximum(height, (-finger / (0.085 * unit)).clamp(0, 1) * 0.9)
        distance = torch.minimum(distance, finger)
    thumb = _capsule(
        x, y, palm - forward * 0.2 * unit, palm + (forward * 0.3 + sideways * 0.6) * unit, 0.095 * unit
    )
    height = torch.maximum(height, (-thumb / (0.095 * unit)).clamp(0, 1) * 0.9)
    return torch.minimum(distance, thumb), height


def _object(
    rng: np.random.Generator, x: Tensor, y: Tensor, at: np.ndarray, unit: float
) -> tuple[Tensor, Tensor]:
    """Distance of a box, stick, disc or wavy blob, and its shading."""
    kind = rng.integers(4)
    angle = rng.uniform(0, math.pi)
    u = (x - at[0]) * math.cos(angle) + (y - at[1]) * math.sin(angle)
    v = (y - at[1]) * math.cos(angle) - (x - at[0]) * math.sin(angle)
    if kind == 0:
        half = rng.uniform(0.15, 0.5, 2) * unit
        distance = torch.maximum(u.abs() - half[0], v.abs() - half[1])
    elif kind == 1:
        end = at + np.array([math.cos(angle), math.sin(angle)]) * 4 * unit
        head = ((x - at[0]) ** 2 + (y - at[1]) ** 2).sqrt() - 0.22 * unit
        distance = torch.minimum(head, _capsule(x, y, at, end, 0.1 * unit))
    elif kind == 2:
        distance = v.abs() - rng.uniform(0.04, 0.2) * unit
    else:
        wobble = noise_image(rng, "cloud", x.shape[0], 1.5)
        distance = (u**2 + (v * rng.uniform(0.7, 1.5)) ** 2).sqrt() - (0.4 + 0.12 * wobble) * unit
    return distance, (-distance / (0.3 * unit)).clamp(0, 1)


def draw_occluder(
    rng: np.random.Generator, size: int, box: tuple[float, float, float, float], skin: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """Draws one thing near a face.

    Args:
        rng: Source of randomness.
        size: Side of the picture, pixels.
        box: x0, y0, x1, y1 of the face, pixels.
        skin: [3] linear colour of skin, for hands.
        level: Strength of the light.

    Returns:
        Linear colour [3, S, S] and opacity [S, S].
    """
    line = torch.arange(size) + 0.5
    x, y = line[None, :].expand(size, size), line[:, None].expand(size, size)
    unit = max(box[2] - box[0], box[3] - box[1])
    at = np.array([rng.uniform(box[0], box[2]), rng.uniform(box[1] + 0.1 * unit, box[3] + 0.2 * unit)])
    is_hand = rng.random() < 0.55
    distance, height = (_hand if is_hand else _object)(rng, x, y, at, unit * rng.uniform(0.7, 1.1))
    angle = rng.uniform(0, 2 * math.pi)
    slope = ((x - at[0]) * math.cos(angle) + (y - at[1]) * math.sin(angle)) / unit
    if is_hand:
        base = skin[:, None, None] * (1 + 0.10 * noise_image(rng, "cloud", size))
        shading = 0.45 + 0.55 * height.sqrt() + 0.35 * slope
    else:
        base = torch.from_numpy(
            np.exp(rng.uniform(math.log(0.01), math.log(0.7)) + rng.normal(0, 0.4, 3))
        ).float()
        base = base[:, None, None] * (rng.uniform(0, 0.4) * noise_image(rng, "pink", size)).exp()
        shading = 0.6 + 0.4 * height.sqrt() + 0.4 * slope
    opacity = (0.5 - distance / 1.2).clamp(0, 1)
    return base * shading.clamp(0.12, 1.6) * level, opacity
