# SPDX-License-Identifier: Apache-2.0
"""Head rotations of a few crops in numpy; the same formulas as the tensors' in `hiface.networks.poses`."""

from __future__ import annotations

import numpy as np

_MIRROR = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], np.float32)


def rotations_from_6d(rotation6d: np.ndarray) -> np.ndarray:
    """Gram-Schmidt on two columns: [N, 6] to rotation matrices [N, 3, 3]."""
    R = np.empty((len(rotation6d), 3, 3), np.float32)
    x, y = rotation6d[:, :3], rotation6d[:, 3:]
    x = x / np.maximum(np.sqrt((x * x).sum(axis=1, keepdims=True)), 1e-8)
    y = y - (x * y).sum(axis=1, keepdims=True) * x
    y = y / np.maximum(np.sqrt((y * y).sum(axis=1, keepdims=True)), 1e-8)
    R[:, :, 0], R[:, :, 1] = x, y
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        R[:, i, 2] = x[:, j] * y[:, k] - x[:, k] * y[:, j]
    return R


def mirrored_rotations(R: np.ndarray) -> np.ndarray:
    """Rotations of mirrored heads in mirrored pictures: diag(-1,1,1) R diag(-1,1,1), [N, 3, 3]."""
    return R * _MIRROR


def turned_to_camera(R: np.ndarray, offset: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """From the axes of crops to those of the photo's camera: undoes the roll, then turns to the crop's ray.

    Args:
        R: [N, 3, 3] rotations from object space to cameras that look at the crops' centres.
        offset: [N, 2] rays x / z and y / z: pixel offset from the principal point over the focal length.
        roll: [N] radians, clockwise on screen.

    Returns:
        [N, 3, 3] float32.
    """
    z = 1.0 / np.sqrt(1.0 + (offset * offset).sum(axis=1))
    x, y = offset[:, 0] * z, offset[:, 1] * z
    k, c, s = 1.0 / (1.0 + z), np.cos(roll), np.sin(roll)
    turn, unroll = np.empty((len(R), 3, 3), np.float32), np.zeros((len(R), 3, 3), np.float32)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, 2, 2] = 1 - x * x * k, 1 - y * y * k, z
    turn[:, 0, 1] = turn[:, 1, 0] = -x * y * k
    turn[:, 0, 2], turn[:, 1, 2], turn[:, 2, 0], turn[:, 2, 1] = x, y, -x, -y
    unroll[:, 0, 0] = unroll[:, 1, 1] = c
    unroll[:, 0, 1], unroll[:, 1, 0], unroll[:, 2, 2] = -s, s, 1.0
    return turn @ (unroll @ R)
