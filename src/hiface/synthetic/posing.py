# SPDX-License-Identifier: Apache-2.0
"""Geometry of a person: what does not change from picture to picture is worked out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel


@dataclass(frozen=True)
class Rest:
    """A person at rest.

    Attributes:
        shape: [V, 3] metres, object space.
        joints: [J, 3] metres.
    """

    shape: Tensor
    joints: Tensor


@cached_per_tensor
def _rest(identity: Tensor, model: MorphableModel) -> Rest:
    offset = identity @ model.identity_basis[: len(identity)].flatten(1)
    return Rest(model.template + offset.reshape(-1, 3), model.joints(identity))


def rest_of(model: MorphableModel, identity: Tensor) -> Rest:
    """A person at rest; remembered as long as the tensor `identity` [K] lives."""
    return _rest(identity, model)


def rotation(rotvec: np.ndarray | Tensor) -> Tensor:
    """[3, 3] rotation matrix of a rotation vector [3], radians (Rodrigues)."""
    return torch.from_numpy(rotation_array(rotvec.tolist()))


def rotation_array(rotvec: Sequence[float]) -> np.ndarray:
    """[3, 3] float32, the same for three numbers."""
    x, y, z = rotvec
    angle = math.sqrt(x * x + y * y + z * z)
    size = max(angle, 1e-12)
    x, y, z = x / size, y / size, z / size
    s, c = math.sin(angle), 1 - math.cos(angle)
    rows = [
        [1 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y],
        [c * x * y + s * z, 1 - c * (x * x + z * z), c * y * z - s * x],
        [c * x * z - s * y, c * y * z + s * x, 1 - c * (x * x + y * y)],
    ]
    return np.array(rows, dtype=np.float32)


def joint_matrices(joints: Tensor, pose: Tensor, parents: Sequence[int]) -> Tensor:
    """`hiface.morphable.skinning.joint_transforms` of one person in numpy.

    Args:
        joints: [J, 3] rest positions, metres.
        pose: [J, 3] rotations relative to the parent, radians.
        parents: J parent indices, -1 for a root; parents come before children.

    Returns:
        [J, 4, 4] transforms of points bound to the joints.
    """
    at, moved = joints.numpy(), np.tile(np.eye(4, dtype=np.float32), (len(parents), 1, 1))
    for j, (parent, rotvec) in enumerate(zip(parents, pose.tolist(), strict=True)):
        turn = np.eye(4, dtype=np.float32)
        if any(rotvec):
            turn[:3, :3] = rotation_array(rotvec)
            turn[:3, 3] = at[j] - turn[:3, :3] @ at[j]
        moved[j] = turn if parent < 0 else moved[parent] @ turn
    return torch.from_numpy(moved)


def pose_shape(model: MorphableModel, rest: Rest, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `MorphableModel.vertices`, for one person that is known.

    Args:
        model: Face model.
        rest: The person at rest.
        expression: [E] 0..1.
        pose: [J, 3] rotations relative to the parent, radians.

    Returns:
        [V, 3] metres, object space, and [J, 4, 4] transforms of the joints.
    """
    moved = expression.nonzero().reshape(-1)
    basis = model.expression_basis.flatten(1).index_select(0, moved)
    shape = rest.shape + (expression[moved] @ basis).reshape(-1, 3)
    T = joint_matrices(rest.joints, pose, model.data.joint_parents)
    turned = tuple(j for j, rotvec in enumerate(pose.tolist()) if any(rotvec))
    ids = _borne(model.skin_weights, tuple(model.data.joint_parents), turned)
    if 2 * len(ids) > len(shape):
        return _blend(model.skin_weights, T, shape), T
    shape[ids] = _blend(model.skin_weights[ids], T, shape[ids])
    return shape, T


def _blend(weights: Tensor, T: Tensor, points: Tensor) -> Tensor:
    blended = (weights @ T[:, :3].flatten(1)).reshape(-1, 3, 4)
    return torch.einsum("vij,vj->vi", blended[..., :3], points) + blended[..., 3]


@cached_per_tensor
def _borne(skin_weights: Tensor, parents: tuple[int, ...], turned: tuple[int, ...]) -> Tensor:
    """Vertices that move if some joints turn."""
    moving = [j in turned for j in range(len(parents))]
    for j, parent in enumerate(parents):
        moving[j] = moving[j] or (parent >= 0 and moving[parent])
    return (skin_weights[:, moving].abs().sum(dim=1) > 0).nonzero().reshape(-1)
