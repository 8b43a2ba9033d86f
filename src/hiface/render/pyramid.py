# SPDX-License-Identifier: Apache-2.0
"""Maps at several scales: filling holes from coarser levels, smoothing, resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FULL = 0.999


def push_pull(values: Tensor, weights: Tensor) -> Tensor:
    """Extends known values smoothly over a whole map (Gortler et al. 1996, "The Lumigraph").

    Args:
        values: [C, H, W]; whatever stands where the weight is 0 is ignored.
        weights: [H, W] confidence, 0..1.

    Returns:
        [C, H, W]: `values` where the weight is 1, a smooth continuation where it is 0; zero if all are 0.
    """
    height, width = weights.shape
    known = weights[None, None]
    level = torch.where(known > 0, values[None], 0.0)
    stack = [(level, known)]
    while min(level.shape[-2:]) > 1 and float(known.min()) < _FULL:
        pad = (0, level.shape[-1] % 2, 0, level.shape[-2] % 2)
        mass = F.avg_pool2d(F.pad(known, pad), 2)
        level = F.avg_pool2d(F.pad(level * known, pad), 2) / mass.clamp_min(1e-12)
        known = (4.0 * mass).clamp_max(1.0)
        stack.append((level, known))
    level = stack[-1][0]
    for finer, confidence in reversed(stack[:-1]):
        above = F.interpolate(level, size=finer.shape[-2:], mode="bilinear", align_corners=False)
        level = confidence * finer + (1.0 - confidence) * above
    return level[0].reshape(-1, height, width)


def blur(maps: Tensor, radius: int) -> Tensor:
    """Smooths maps with a bell of about this radius, borders repeated: [C, H, W] to [C, H, W].

    Two passes of a box, at a fraction of the resolution where the radius is large.
    """
    if radius < 1:
        return maps
    factor = 1
    while radius >= 6 * factor and min(maps.shape[-2:]) >= 16 * factor:
        factor *= 2
    size = maps.shape[-2:]
    small = (
        maps[None]
        if factor == 1
        else F.avg_pool2d(maps[None], factor, ceil_mode=True, count_include_pad=False)
    )
    r = max(1, round(radius / factor))
    for _ in range(2):
        for pad, kernel in (((r, r, 0, 0), (1, 2 * r + 1)), ((0, 0, r, r), (2 * r + 1, 1))):
            small = F.avg_pool2d(F.pad(small, pad, mode="replicate"), kernel, stride=1)
    if factor > 1:
        small = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return small[0]


def resize(maps: Tensor, size: int) -> Tensor:
    """Maps [C, H, W] at another size, [C, size, size], bilinear with antialiasing."""
    return F.interpolate(maps[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[
        0
    ]


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((x - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
