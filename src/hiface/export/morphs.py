# SPDX-License-Identifier: Apache-2.0
"""Morph targets for other programs: the 52 expressions of one identity, with eyeballs that follow eyeLook.

Inside hiface the eyeballs are turned by their joints only. A viewer that drives nothing but the 52 shapes
must turn them too, so the exported eyeLook targets turn the eyeball by the angle of a value of 1, and the
exported values come from the eye joints' rotations.

Other models export the expressions they have, the first `MOST_TARGETS` of them under their own names. What no
viewer knows, the correctives of the present pose and further expressions, is one more target of weight 1.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor

from hiface.animation.gaze import (
    EYE_JOINTS,
    EYELOOK_NAMES,
    eyelook_angle,
    gaze_to_eyelook,
    gaze_to_rotvec,
    rotvec_to_gaze,
)
from hiface.errors import ShapeError
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.types import FaceParams

MOST_TARGETS = 52
PRESENT = "present"
"""Name of the target that holds the rest of the present face; it is not there if there is no rest."""


def check_single(params: FaceParams) -> None:
    """Raises `ShapeError` unless `params` describes one face (no batch dimensions)."""
    if params.identity.dim() != 1:
        raise ShapeError(
            f"expected one face, identity is {tuple(params.identity.shape)}; index the batch: params[0]"
        )


def neutral_vertices(model: MorphableModel, params: FaceParams) -> Tensor:
    """[V, 3] metres, object space: the person's shape without expression and pose."""
    return model.shape(params.identity, torch.zeros_like(params.expression))


def morph_deltas(model: MorphableModel, identity: Tensor) -> Tensor:
    """Displacement of every vertex by every expression.

    Args:
        model: The face model.
        identity: [k] sigma.

    Returns:
        [E, V, 3] metres. Rows of eyeLook turn the eyeball about its joint, the eyelids move as in the model.
    """
    deltas = model.expression_basis.clone()
    if model.bilinear_basis is not None:
        deltas = deltas + torch.tensordot(identity, model.bilinear_basis[: len(identity)], 1)
    neutral = model.shape(identity, identity.new_zeros(len(deltas)))
    joints = model.joints(identity)
    names = model.data.expression_names
    for name in EYELOOK_NAMES:
        joint_name = EYE_JOINTS[0 if name.endswith("Left") else 1]
        if name not in names or joint_name not in model.data.joint_names:
            continue
        joint = model.data.joint_names.index(joint_name)
        yaw, pitch = (neutral.new_tensor(angle) for angle in eyelook_angle(name))
        R = roma.rotvec_to_rotmat(gaze_to_rotvec(yaw, pitch))
        arm = neutral - joints[joint]
        deltas[names.index(name)] += model.skin_weights[:, joint, None] * (arm @ R.T - arm)
    return deltas


def normal_deltas(neutral: Tensor, deltas: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Vertex normals and their change by every morph target.

    Args:
        neutral: [V, 3] metres.
        deltas: [E, V, 3] metres.
        triangles: [T, 3] int64.

    Returns:
        normals [V, 3] (unit) and their differences [E, V, 3].
    """
    normals = vertex_normals(neutral, triangles)
    return normals, torch.stack([vertex_normals(neutral + delta, triangles) - normals for delta in deltas])


def morph_weights(model: MorphableModel, expression: Tensor, pose: Tensor) -> Tensor:
    """Expression values for a viewer that drives only morph targets.

    Args:
        model: The face model.
        expression: [*B, E] 0..1 or in sigma, as the model's.
        pose: [*B, J, 3] joint rotations, radians.

    Returns:
        [*B, E], those of 0..1 within these. Where an eye joint is turned, that eye's four eyeLook values say
        its gaze; elsewhere they are those of `expression`.
    """
    names, joints = model.data.expression_names, model.data.joint_names
    weights = expression.clamp(0.0, 1.0) if model.data.expression_kind == "unit" else expression.clone()
    if not set(EYELOOK_NAMES) <= set(names) or not set(EYE_JOINTS) <= set(joints):
        return weights
    eyes = pose[..., [joints.index(name) for name in EYE_JOINTS], :]
    columns = [names.index(name) for name in EYELOOK_NAMES]
    yaw, pitch = rotvec_to_gaze(eyes)
    turned = (eyes.norm(dim=-1) > 1e-6).repeat_interleave(4, dim=-1)
    weights = weights.clone()
    weights[..., columns] = torch.where(turned, gaze_to_eyelook(yaw, pitch), weights[..., columns])
    return weights


def exported_names(model: MorphableModel) -> list[str]:
    """Names of the morph targets in files, in order."""
    names = list(model.data.expression_names[:MOST_TARGETS])
    return [*names, PRESENT] if has_present(model) else names


def has_present(model: MorphableModel) -> bool:
    """Whether files of a model need the target `PRESENT`."""
    return model.pose_correctives is not None or len(model.data.expression_names) > MOST_TARGETS


def exported_deltas(model: MorphableModel, params: FaceParams) -> Tensor:
    """[M, V, 3] metres, displacements of the targets of `exported_names` for one face."""
    deltas = morph_deltas(model, params.identity)
    if not has_present(model):
        return deltas
    further = params.expression[MOST_TARGETS:]
    rest = torch.tensordot(further, deltas[MOST_TARGETS:], 1) + model.pose_offsets(params.pose)
    return torch.cat([deltas[:MOST_TARGETS], rest[None]])


def exported_weights(model: MorphableModel, weights: Tensor) -> Tensor:
    """Values [*B, E] of `morph_weights` as values [*B, M] of the targets of `exported_names`."""
    if not has_present(model):
        return weights
    return torch.cat([weights[..., :MOST_TARGETS], torch.ones_like(weights[..., :1])], dim=-1)
