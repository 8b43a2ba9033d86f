# SPDX-License-Identifier: Apache-2.0
"""Hair on the head: grows the locks of a style on a posed head and draws them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from hiface.synthetic.hair_heads import grow
from hiface.synthetic.hair_styles import HairStyle
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.scene import Canvas
from hiface.synthetic.strands import LABEL_HAIR, Dye, draw_locks, polar_of

__all__ = ["LABEL_HAIR", "Stand", "draw_hair"]
_FULL_DETAIL = 2200.0  # sub-pixels a metre from which on all locks are drawn
_CLOSE = ("horseshoe", "buzz", "crop", "side", "back", "tail", "bun")
_UNDER_HAT_M = 0.008  # height to which a hat presses hair
_GLOSS = {"buzz": 0.02, "afro": 0.02, "curly": 0.05, "horseshoe": 0.04}


@dataclass(frozen=True)
class Stand:
    """Where the head stands in a picture.

    Attributes:
        skull_cam: [A, P, 3] from `SkullTable.points` in camera space.
        centre_cam: [3] the head's centre.
        down_cam: [3] unit vector to the ground, in camera axes.
        K: [3, 3] intrinsics in sub-pixels.
        lights: Light in camera axes.
        R_cam_head: [3, 3] axes of the head.
    """

    skull_cam: Tensor
    centre_cam: Tensor
    down_cam: Tensor
    K: Tensor
    lights: Surroundings
    R_cam_head: Tensor


def draw_hair(canvas: Canvas, style: HairStyle, stand: Stand, max_polar: float | None = None) -> None:
    """Draws hair onto a canvas.

    Args:
        canvas: With the head already on it.
        style: Hair.
        stand: Where the head is.
        max_polar: Hair above this polar angle is under a hat and is not drawn.
    """
    if max_polar is not None:
        top, side = style.volume
        style = replace(style, volume=(min(top, _UNDER_HAT_M), side), lift=0.3 * style.lift)
    R = stand.R_cam_head.numpy()
    centre = stand.centre_cam.numpy()
    radius = (stand.skull_cam - stand.centre_cam).norm(dim=-1).numpy()
    down = (R.T @ stand.down_cam.numpy()).astype(np.float32)
    metre_px = float(stand.K[0, 0]) / max(float(stand.centre_cam[2]), 0.1)
    share = float(np.clip(metre_px / _FULL_DETAIL, 0.35, 1.0))
    dye = Dye(style.colour, style.streaks, _GLOSS.get(style.kind, 0.08), 9.0, style.seed)
    for i, locks in enumerate(grow(style, radius, down, share)):
        polar = None if max_polar is None else polar_of(locks.points)
        placed = replace(locks, points=locks.points @ R.T + centre, outward=locks.outward @ R.T)
        own = replace(dye, seed=style.seed + i)
        close = style.kind in _CLOSE and i == 0
        draw_locks(canvas, placed, own, stand.K, stand.lights, polar, max_polar, close)
