# SPDX-License-Identifier: Apache-2.0
"""The linear model gathered at a few surface points, and their projection with analytic Jacobians."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from hiface.fitting.parameters import (
    ParamLayout,
    PoseFrame,
    PoseValues,
    cross_matrix,
    gaze_rotvecs,
    left_jacobian,
    pose_values,
)
from hiface.morphable import MorphableModelData
from hiface.types import LandmarkSet

EYE_JOINTS = ("eye_left", "eye_right")


@dataclass(frozen=True)
class PointBasis:
    """S = mean + basis [identity; expression] at L points, and the eye joint that carries each of them.

    Attributes:
        mean: [L, 3] metres, object space.
        basis: [L, 3, K + E].
        eye: [L] int64: 0 left eye joint, 1 right eye joint, -1 none.
        joint_mean: [2, 3] rest positions of the eye joints.
        joint_basis: [2, 3, K + E] (zero for expressions of most models).
    """

    mean: Tensor
    basis: Tensor
    eye: Tensor
    joint_mean: Tensor
    joint_basis: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, index: Tensor) -> PointBasis:
        """Some of the points."""
        return PointBasis(
            self.mean[index], self.basis[index], self.eye[index], self.joint_mean, self.joint_basis
        )

    def to(self, dtype: torch.dtype) -> PointBasis:
        """Copy in another dtype."""
        return PointBasis(
            self.mean.to(dtype),
            self.basis.to(dtype),
            self.eye,
            self.joint_mean.to(dtype),
            self.joint_basis.to(dtype),
        )

    @staticmethod
    def join(parts: list[PointBasis]) -> PointBasis:
        """Points of several bases, one after the other."""
        return PointBasis(
            torch.cat([p.mean for p in parts]),
            torch.cat([p.basis for p in parts]),
            torch.cat([p.eye for p in parts]),
            parts[0].joint_mean,
            parts[0].joint_basis,
        )


def gather_vertices(data: MorphableModelData, vertex_ids: Tensor, n_identity: int) -> PointBasis:
    """Gathers the model at some vertices.

    Args:
        data: Face model.
        vertex_ids: [L] int64.
        n_identity: Leading identity coefficients to keep.

    Returns:
        PointBasis of L points in the model's dtype.
    """
    identity = data.identity_basis[:n_identity, vertex_ids].permute(1, 2, 0)
    expression = data.expression_basis[:, vertex_ids].permute(1, 2, 0)
    eye = torch.full_like(vertex_ids, -1)
    joint_mean = data.template.new_zeros(2, 3)
    joint_basis = data.template.new_zeros(2, 3, identity.shape[-1] + expression.shape[-1])
    for side, name in enumerate(EYE_JOINTS):
        if name in data.joint_names:
            joint = data.joint_names.index(name)
            eye[data.skin_weights[vertex_ids, joint] > 0.5] = side
            joint_mean[side] = data.joints_template[joint]
            joint_basis[side, :, :n_identity] = data.joints_identity_basis[:n_identity, joint].T
            if data.joints_expression_basis is not None:
                joint_basis[side, :, identity.shape[-1] :] = data.joints_expression_basis[:, joint].T
    return PointBasis(
        data.template[vertex_ids],
        torch.cat([identity, expression], dim=-1).contiguous(),
        eye,
        joint_mean,
        joint_basis,
    )


def gather_points(data: MorphableModelData, points: LandmarkSet, n_identity: int) -> PointBasis:
    """Gathers the model at surface points; arguments and result as in `gather_vertices`."""
    corners = gather_vertices(data, data.triangles[points.triangle_ids].flatten(), n_identity)
    weights = points.barycentric.to(corners.mean.dtype)
    mean = (corners.mean.reshape(-1, 3, 3) * weights[..., None]).sum(1)
    basis = torch.einsum("lc,lcxk->lxk", weights, corners.basis.unflatten(0, (-1, 3)))
    eye = corners.eye.reshape(-1, 3)[:, 0]
    return PointBasis(mean, basis, eye, corners.joint_mean, corners.joint_basis)


def positions(points: PointBasis, x: Tensor, layout: ParamLayout) -> tuple[Tensor, Tensor, Tensor | None]:
    """Posed points and their derivatives.

    Args:
        points: L points.
        x: [P] parameters.
        layout: Their layout.

    Returns:
        Positions [L, 3] in object space (metres), their derivative [L, 3, K + E] to identity and expression,
        and that to the four gaze parameters [L, 3, 4] (None if no point belongs to an eye).
    """
    coefficients = x[: layout.n_identity + layout.n_expression]
    rest = points.mean + points.basis @ coefficients
    index = torch.nonzero(points.eye >= 0)[:, 0]
    if index.numel() == 0:
        return rest, points.basis, None
    side = points.eye[index]
    rotvec = gaze_rotvecs(x, layout)
    R = roma.rotvec_to_rotmat(rotvec)[side]
    joint = (points.joint_mean + points.joint_basis @ coefficients)[side]
    arm = (R @ (rest[index] - joint)[..., None])[..., 0]
    posed, jacobian = rest.clone(), points.basis.clone()
    posed[index] = joint + arm
    joint_basis = points.joint_basis[side]
    jacobian[index] = joint_basis + R @ (points.basis[index] - joint_basis)
    turn = (-cross_matrix(arm) @ left_jacobian(rotvec)[side])[..., :2]
    gaze = rest.new_zeros(len(points), 3, 4)
    for eye in range(2):
        chosen = side == eye
        gaze[index[chosen], :, 2 * eye : 2 * eye + 2] = turn[chosen]
    return posed, jacobian, gaze


@dataclass(frozen=True)
class Projection:
    """Projected points and their derivatives.

    Attributes:
        px: [L, 2] pixels.
        jacobian: [L, 2, n_geometry] derivative to the geometry parameters.
        points_cam: [L, 3] metres, camera space.
    """

    px: Tensor
    jacobian: Tensor
    points_cam: Tensor


def to_camera(points_object: Tensor, pose: PoseValues, frame: PoseFrame) -> Tensor:
    """[L, 3] object-space points to camera space, metres."""
    return (points_object - frame.anchor) @ pose.R.T + pose.t_anchor


def project_px(points: PointBasis, x: Tensor, layout: ParamLayout, frame: PoseFrame) -> Tensor:
    """Projected points [L, 2] in pixels, without derivatives."""
    posed, _, _ = positions(points, x, layout)
    pose = pose_values(x, layout, frame)
    cam = to_camera(posed, pose, frame)
    return pose.focal_px * cam[:, :2] / cam[:, 2:].clamp_min(1e-3) + frame.principal_px


def project(points: PointBasis, x: Tensor, layout: ParamLayout, frame: PoseFrame) -> Projection:
    """Projects points with their derivative to every geometry parameter.

    Args:
        points: L points.
        x: [P] parameters.
        layout: Their layout.
        frame: Pose frame.

    Returns:
        Projection of L points.
    """
    posed, shape_jacobian, gaze_jacobian = positions(points, x, layout)
    pose = pose_values(x, layout, frame)
    cam = to_camera(posed, pose, frame)
    depth = cam[:, 2:].clamp_min(1e-3)
    ratio = cam[:, :2] / depth
    px = pose.focal_px * ratio + frame.principal_px
    # Derivative of the pixel to the camera-space point, [L, 2, 3].
    to_px = torch.zeros(len(points), 2, 3, dtype=x.dtype, device=x.device)
    to_px[:, 0, 0] = to_px[:, 1, 1] = pose.focal_px / depth[:, 0]
    to_px[:, :, 2] = -pose.focal_px * ratio / depth
    to_object = to_px @ pose.R
    jacobian = px.new_zeros(len(points), 2, layout.n_geometry)
    n_shape = shape_jacobian.shape[-1]
    jacobian[..., :n_shape] = to_object @ shape_jacobian
    turn = -cross_matrix(cam - pose.t_anchor) @ pose.rotation_jacobian
    jacobian[..., layout["rotation"]] = to_px @ turn
    jacobian[..., layout["centre"]] = to_px[..., :2] * (frame.size_px / pose.scale_px)
    jacobian[..., layout["log_scale"]] = -to_px @ pose.t_anchor[:, None]
    along = to_px[..., 2] * pose.t_anchor[2]
    jacobian[..., layout["log_focal"]] = (px - frame.principal_px + along)[..., None]
    if gaze_jacobian is not None:
        jacobian[..., layout["gaze"]] = to_object @ gaze_jacobian
    return Projection(px, jacobian, cam)
