# SPDX-License-Identifier: Apache-2.0
"""Eyeballs at fragments: iris, pupil, white, the shade of the lids, and the cornea's normals.

Fragments of eyes are few, so this is numpy, whose small operations cost less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hiface.synthetic.eyes import Lids, lid_shade
from hiface.synthetic.noise import noise_pool
from hiface.synthetic.people import Person
from hiface.synthetic.scene import Drawn

_BULGE = 0.35
_CORNEA = 1.05  # reach of the cornea in radii of the iris


@dataclass(frozen=True)
class Eyeball:
    """One eye in front of the camera.

    Attributes:
        side: 0 left, 1 right.
        centre_cam: [3] metres.
        gaze_cam: [3, 3] rotation from eyeball axes to camera axes.
        iris_axis: [3] direction of the pupil from the eye's centre at rest.
        iris_rad: Angle from the pupil to the edge of the iris, radians.
    """

    side: int
    centre_cam: Tensor
    gaze_cam: Tensor
    iris_axis: Tensor
    iris_rad: float


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.maximum((vectors * vectors).sum(axis=0), 1e-20))


def _within(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


def eye_surface(
    drawn: Drawn, where: np.ndarray, eye: Eyeball, K: Tensor, person: Person, lids: Lids | None
) -> tuple[np.ndarray, np.ndarray]:
    """Surface of an eyeball.

    Args:
        drawn: Fragments.
        where: [Q] int64 those of this eye.
        eye: The eyeball.
        K: [3, 3] intrinsics in sub-pixels.
        person: Whose eye.
        lids: Edges of the lids, or None.

    Returns:
        Albedo [3, Q] and the cornea's unit normals [3, Q], camera axes, float32.
    """
    pixel, z = drawn.pixel.numpy()[where], drawn.z.numpy()[where]
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    row = pixel // drawn.size
    x, y = (pixel - row * drawn.size + (0.5 - cx)) / fx, (row + (0.5 - cy)) / fy
    cam = np.stack([x * z, y * z, z]).astype(np.float32)
    outward = _unit(cam - eye.centre_cam.numpy()[:, None])
    gaze, axis = eye.gaze_cam.numpy(), eye.iris_axis.numpy()
    local = gaze.T @ outward
    angle = np.arccos(_within(axis @ local, -1, 1)) / np.float32(eye.iris_rad)
    around = np.arctan2(local[1] - axis[1], local[0] - axis[0]) / np.float32(2 * math.pi)
    features, pupil = person.features, 0.33 + 0.2 * person.oiliness
    colour = iris_paint(angle, around, eye.side, person.iris_colour, features.sclera, pupil)
    if lids is not None:
        colour *= lid_shade(lids, eye.side, outward, features.lid_shade)
    normals = _unit(outward - np.float32(_BULGE) * (gaze @ axis)[:, None] * (angle < _CORNEA))
    return colour.astype(np.float32, copy=False), normals


def iris_paint(
    angle: np.ndarray, around: np.ndarray, side: int, colour: np.ndarray, sclera: np.ndarray, pupil: float
) -> np.ndarray:
    """Colour of an eyeball.

    Args:
        angle: [Q] from the pupil in radii of the iris.
        around: [Q] turn about the pupil, -0.5..0.5.
        side: 0 left, 1 right: which fibres.
        colour: [3] linear albedo of the iris.
        sclera: [3] of the white.
        pupil: Radius of the pupil in radii of the iris.

    Returns:
        [3, Q] linear.
    """
    tile = noise_pool("curl")[side].numpy()
    last = len(tile) - 1
    column = ((around + np.float32(0.5)) * len(tile)).astype(np.int32) & last
    fibres = tile[(angle * np.float32(0.08 * len(tile))).astype(np.int32) & last, column]
    tone = _within(1.0 + 0.28 * fibres, 0.3, 2.0) * (1.15 - 0.75 * _within((angle - 0.72) / 0.28, 0, 1))
    iris = colour[:, None] * (tone * (0.75 + 0.5 * _within((angle - 0.4) * 2, 0, 1)))
    yellow = 1 - 0.10 * _within(angle - 1, 0, 2)
    white = sclera[:, None] * np.stack([np.ones_like(angle), yellow, yellow])
    edge = _within((angle - 0.94) / 0.12, 0, 1)
    return (iris * (1 - edge) + white * edge) * _within((angle - pupil) / 0.06, 0.04, 1)
