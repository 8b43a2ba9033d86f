# SPDX-License-Identifier: Apache-2.0
"""Linear blend skinning, the one copy of it."""

from __future__ import annotations

from collections.abc import Sequence

import roma
import torch
from torch import Tensor


def joint_transforms(joints: Tensor, rotvec: Tensor, parents: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Global transform of every joint relative to its rest position.

    Args:
        joints: [*B, J, 3] rest positions, metres.
        rotvec: [*B, J, 3] rotations relative to the parent, radians.
        parents: J parent indices, -1 for a root; parents come before children.

    Returns:
        R [*B, J, 3, 3] and t [*B, J, 3] so that a point x bound to joint j moves to R_j x + t_j.
    """
    local = roma.rotvec_to_rotmat(rotvec)
    rotations: list[Tensor] = []
    positions: list[Tensor] = []
    for j, parent in enumerate(parents):
        if parent < 0:
            rotations.append(local[..., j, :, :])
            positions.append(joints[..., j, :])
        else:
            offset = (joints[..., j, :] - joints[..., parent, :])[..., None]
            rotations.append(rotations[parent] @ local[..., j, :, :])
            positions.append(positions[parent] + (rotations[parent] @ offset)[..., 0])
    R = torch.stack(rotations, dim=-3)
    t = torch.stack(positions, dim=-2) - (R @ joints[..., None])[..., 0]
    return R, t


def linear_blend_skinning(
    vertices: Tensor, joints: Tensor, rotvec: Tensor, parents: Sequence[int], weights: Tensor
) -> Tensor:
    """S_p = LBS(S, p, J; W) (HiFace, section 3.1): vertices moved by weighted joint transforms.

    Args:
        vertices: [*B, V, 3] rest shape, metres.
        joints: [*B, J, 3] rest joint positions, metres.
        rotvec: [*B, J, 3] joint rotations relative to the parent, radians.
        parents: J parent indices, -1 for a root.
        weights: [V, J] skinning weights, rows summing to 1.

    Returns:
        [*B, V, 3] posed vertices. Differentiable to vertices, joints and rotvec.
    """
    R, t = joint_transforms(joints, rotvec, parents)
    blended = weights.to(vertices.dtype) @ torch.cat([R.flatten(-2), t], dim=-1)
    R_v = blended[..., :9].unflatten(-1, (3, 3))
    return (R_v @ vertices[..., None])[..., 0] + blended[..., 9:]
