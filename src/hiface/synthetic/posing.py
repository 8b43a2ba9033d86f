# SPDX-License-Identifier: Apache-2.0
"""Geometry of a person: what does not change from picture to picture is worked out once."""

from __future__ import annotations

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
    shape = model.shape(identity, torch.zeros(len(model.data.expression_names)))
    return Rest(shape, model.joints(identity))


def rest_of(model: MorphableModel, identity: Tensor) -> Rest:
    """A person at rest; remembered as long as the tensor `identity` [K] lives."""
    return _rest(identity, model)


def rotation(rotvec: np.ndarray | Tensor) -> Tensor:
    """[3, 3] rotation matrix of a rotation vector [3], radians (Rodrigues)."""
    vector = np.asarray(rotvec, dtype=np.float64)
    angle = float(np.sqrt(vector @ vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return torch.from_numpy(matrix.astype(np.float32))


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
    for j, parent in enumerate(parents):
        turn = np.eye(4, dtype=np.float32)
        turn[:3, :3] = rotation(pose[j]).numpy()
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
    blended = (model.skin_weights @ T[:, :3].flatten(1)).reshape(-1, 3, 4)
    return (blended[..., :3] * shape[:, None]).sum(dim=-1) + blended[..., 3], T
