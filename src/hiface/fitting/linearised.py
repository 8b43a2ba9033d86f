# SPDX-License-Identifier: Apache-2.0
"""The linear model that a bilinear or posed face model is near one point, for the steps of a fit.

The fit works with points that are linear in identity and expression. A model with a bilinear term, pose
correctives, joints that move with the expression, or a jaw joint that opens the mouth is replaced by its
first-order expansion about the present coefficients, which has the same positions and derivatives there; the
fit expands it anew after every stage. The jaw's rotation vector goes behind the expressions. With R the jaw's
rotation, w its weights, J its place at rest and p the unposed vertices with correctives,

    S = p + w (R - I) (p - J),   dS = (I + w (R - I)) dp - w (R - I) dJ - w [R (p - J)]_x J_left dr.
"""

from __future__ import annotations

from dataclasses import replace

import roma
import torch
from torch import Tensor

from hiface.fitting.parameters import N_JAW_ANGLES, ParamLayout, cross_matrix, gaze_rotvecs, left_jacobian
from hiface.morphable import MorphableModelData

JAW = "jaw"
_EYES = ("eye_left", "eye_right")
_JAW_AXES = ("jawPitch", "jawYaw", "jawRoll")


def jaw_opens_mouth(data: MorphableModelData) -> bool:
    """Whether the mouth is opened by a joint, as FLAME's is, and not by an expression."""
    return JAW in data.joint_names and "jawOpen" not in data.expression_names


def layout_of(data: MorphableModelData, n_identity: int) -> ParamLayout:
    """Layout of a fit of a model with its leading identity coefficients."""
    n_jaw = N_JAW_ANGLES if jaw_opens_mouth(data) else 0
    return ParamLayout(
        min(n_identity, data.n_identity),
        len(data.expression_names) + n_jaw,
        data.albedo_basis.shape[0],
        n_jaw,
        data.expression_kind == "sigma",
    )


def is_linear(data: MorphableModelData) -> bool:
    """Whether the model is its own expansion, with the eyes straight ahead."""
    curved = (data.pose_correctives, data.bilinear_basis)
    return not jaw_opens_mouth(data) and all(part is None for part in curved)


def linearised(data: MorphableModelData, layout: ParamLayout, x: Tensor) -> MorphableModelData:
    """First-order expansion of a model about coefficients.

    Args:
        data: The model.
        layout: From `layout_of`.
        x: [P] parameters; identity, expression and gaze say where.

    Returns:
        A linear model whose expressions are the model's and the jaw's three angles. Its shape at `x` is the
        model's with the jaw turned and the correctives of jaw and eyes; eyes are turned by whoever uses it.
    """
    n, dtype = layout.n_identity, data.template.dtype
    identity = x[layout["identity"]].to(dtype)
    expression, jaw = (part.to(dtype) for part in layout.split_expression(x))
    by_identity, by_expression = data.identity_basis[:n], data.expression_basis
    shape = data.template + torch.tensordot(identity, by_identity, 1)
    shape = shape + torch.tensordot(expression, by_expression, 1)
    if data.bilinear_basis is not None:
        bilinear = data.bilinear_basis[:n]
        with_identity = torch.tensordot(identity, bilinear, 1)
        shape = shape + torch.tensordot(expression, with_identity, 1)
        by_identity = by_identity + torch.einsum("e,kevc->kvc", expression, bilinear)
        by_expression = by_expression + with_identity
    shape = shape + _correctives(data, _pose(data, layout, x))
    by_jaw = data.template.new_zeros(0, *data.template.shape)
    if layout.n_jaw:
        turn = _JawTurn(data, layout, identity, expression, jaw)
        by_jaw = turn.derivative(shape)
        shape = turn.posed(shape, turn.joint)
        by_identity = turn.posed(by_identity, data.joints_identity_basis[:n, turn.index])
        moved = data.joints_expression_basis
        by_joint = by_expression.new_zeros(len(by_expression), 3) if moved is None else moved[:, turn.index]
        by_expression = turn.posed(by_expression, by_joint)
    template = (
        shape - torch.tensordot(identity, by_identity, 1) - torch.tensordot(expression, by_expression, 1)
    )
    template = template - torch.tensordot(jaw, by_jaw, 1)
    at_joints = data.joints_expression_basis
    if at_joints is not None:
        at_joints = torch.cat([at_joints, at_joints.new_zeros(layout.n_jaw, data.n_joints, 3)])
    return replace(
        data,
        template=template,
        identity_basis=by_identity,
        identity_std=data.identity_std[:n],
        joints_identity_basis=data.joints_identity_basis[:n],
        expression_basis=torch.cat([by_expression, by_jaw]),
        expression_names=(*data.expression_names, *_JAW_AXES[: layout.n_jaw]),
        joints_expression_basis=at_joints,
        pose_correctives=None,
        bilinear_basis=None,
    )


def _pose(data: MorphableModelData, layout: ParamLayout, x: Tensor) -> Tensor:
    """[J, 3] rotation vectors of jaw and eyes at `x`."""
    pose = data.template.new_zeros(data.n_joints, 3)
    for name, rotvec in zip(_EYES, gaze_rotvecs(x, layout), strict=True):
        if name in data.joint_names:
            pose[data.joint_names.index(name)] = rotvec.to(pose.dtype)
    if layout.n_jaw:
        pose[data.joint_names.index(JAW)] = layout.split_expression(x)[1].to(pose.dtype)
    return pose


def _correctives(data: MorphableModelData, pose: Tensor) -> Tensor:
    """[V, 3] pose correctives, 0 of a model without."""
    if data.pose_correctives is None:
        return torch.zeros_like(data.template)
    features = (roma.rotvec_to_rotmat(pose[1:]) - torch.eye(3, dtype=pose.dtype)).flatten()
    return torch.tensordot(features, data.pose_correctives, 1)


class _JawTurn:
    """Skinning by the jaw alone, all other joints at rest."""

    def __init__(
        self,
        data: MorphableModelData,
        layout: ParamLayout,
        identity: Tensor,
        expression: Tensor,
        rotvec: Tensor,
    ) -> None:
        self.index = data.joint_names.index(JAW)
        self._data, self._rotvec = data, rotvec
        self._R = roma.rotvec_to_rotmat(rotvec)
        self._weight = data.skin_weights[:, self.index, None]
        joint = data.joints_template[self.index]
        joint = joint + identity @ data.joints_identity_basis[: layout.n_identity, self.index]
        if data.joints_expression_basis is not None:
            joint = joint + expression @ data.joints_expression_basis[:, self.index]
        self.joint = joint

    def posed(self, values: Tensor, joint: Tensor) -> Tensor:
        """Positions (or their derivatives) [*B, V, 3] with those of the joint, [*B, 3], after the turn."""
        arm = values - joint[..., None, :]
        return values + self._weight * (arm @ self._R.T - arm)

    def derivative(self, shape: Tensor) -> Tensor:
        """[3, V, 3] derivative of the posed `shape` to the rotation vector."""
        left = left_jacobian(self._rotvec)
        arm = (shape - self.joint) @ self._R.T
        turned = (-cross_matrix(arm) @ left).permute(2, 0, 1) * self._weight
        correctives = self._data.pose_correctives
        if correctives is None or self.index == 0:
            return turned
        d_R = cross_matrix(left.T) @ self._R  # [3, 3, 3], one matrix per angle
        block = correctives[9 * (self.index - 1) : 9 * self.index]
        offsets = torch.tensordot(d_R.flatten(1), block, 1)
        return turned + self.posed(offsets, offsets.new_zeros(3, 3))
