# SPDX-License-Identifier: Apache-2.0
"""The vector of unknowns of one photo: layout, meaning, and its way back to `FaceParams`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import roma
import torch
from torch import Tensor

from hiface.morphable import MorphableModelData
from hiface.types import Camera, FaceParams

N_GAZE = 4
N_LIGHT = 27
N_JAW_ANGLES = 3
_SIGMA_BOUND = 4.0  # of expressions in sigma
_JAW_BOUNDS = ((-0.05, 0.6), (-0.15, 0.15), (-0.1, 0.1))  # radians about x (opens), y, z


@dataclass(frozen=True)
class ParamLayout:
    """Which part of the vector is what.

    The vector is [identity, expression, rotation 3, centre 2, log scale, log focal, gaze 4, albedo, light
    27]: identity and albedo in sigma; expression 0..1 or in sigma, and behind it the rotation vector
    (radians) of a jaw joint that opens the mouth, if the model has one; rotation as a rotation vector
    (radians) to the left of the frame's rotation; centre in units of the face's size; gaze as the x and y
    parts of the rotation vectors (radians) of the left and the right eye joint; light 9 x RGB row by row.

    Attributes:
        n_identity: Identity coefficients that are fitted.
        n_expression: Expression coefficients with the angles of the jaw.
        n_albedo: Albedo coefficients.
        n_jaw: Angles of a jaw joint among the expressions, 3 or 0.
        sigma_expressions: Whether expressions are in sigma, N(0, 1), and not 0..1.
    """

    n_identity: int
    n_expression: int
    n_albedo: int
    n_jaw: int = 0
    sigma_expressions: bool = False

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Slice of each named part."""
        sizes = {
            "identity": self.n_identity,
            "expression": self.n_expression,
            "rotation": 3,
            "centre": 2,
            "log_scale": 1,
            "log_focal": 1,
            "gaze": N_GAZE,
            "albedo": self.n_albedo,
            "light": N_LIGHT,
        }
        result, start = {}, 0
        for name, size in sizes.items():
            result[name] = slice(start, start + size)
            start += size
        return result

    def __getitem__(self, name: str) -> slice:
        return self.slices[name]

    @property
    def size(self) -> int:
        """Length P of the vector."""
        return self.n_identity + self.n_expression + 7 + N_GAZE + self.n_albedo + N_LIGHT

    @property
    def n_geometry(self) -> int:
        """Number of leading parameters that move points (all but albedo and light)."""
        return self.n_identity + self.n_expression + 7 + N_GAZE

    def split_expression(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Expression coefficients [E] and the jaw's rotation vector ([3] or empty) of x [P]."""
        both, count = x[self["expression"]], self.n_expression - self.n_jaw
        return both[:count], both[count:]

    def expression_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of expressions and jaw angles, each [n_expression]."""
        low, high = (-_SIGMA_BOUND, _SIGMA_BOUND) if self.sigma_expressions else (0.0, 1.0)
        bounds = [(low, high)] * (self.n_expression - self.n_jaw) + list(_JAW_BOUNDS[: self.n_jaw])
        rows = like.new_tensor(bounds).reshape(-1, 2)
        return rows[:, 0], rows[:, 1]

    def mask(self, *names: str) -> Tensor:
        """[P] bool, True in the named parts."""
        result = torch.zeros(self.size, dtype=torch.bool)
        for name in names:
            result[self.slices[name]] = True
        return result


@dataclass(frozen=True)
class PoseFrame:
    """Fixed numbers that give the pose parameters their meaning (zero parameters = this pose).

    Attributes:
        R: [3, 3] rotation, object to camera.
        anchor: [3] object-space point that `centre` and `scale` belong to, metres.
        centre_px: [2] projection of the anchor, pixels.
        scale_px: Pixels per metre at the anchor's depth.
        focal_px: Focal length, pixels.
        principal_px: [2] principal point, pixels.
        size_px: Size of the face in pixels (distance of the outer eye corners seen from the front).
        width: Image width, pixels.
        height: Image height, pixels.
    """

    R: Tensor
    anchor: Tensor
    centre_px: Tensor
    scale_px: float
    focal_px: float
    principal_px: Tensor
    size_px: float
    width: int
    height: int

    def to(self, dtype: torch.dtype) -> PoseFrame:
        """Copy in another dtype."""
        return replace(
            self,
            R=self.R.to(dtype),
            anchor=self.anchor.to(dtype),
            centre_px=self.centre_px.to(dtype),
            principal_px=self.principal_px.to(dtype),
        )


@dataclass(frozen=True)
class PoseValues:
    """Pose parameters turned into a camera.

    Attributes:
        R: [3, 3] rotation, object to camera.
        rotation_jacobian: [3, 3] left Jacobian of SO(3) at the rotation parameters.
        t_anchor: [3] anchor in camera space, metres.
        scale_px: scalar, pixels per metre at the anchor.
        focal_px: scalar, pixels.
    """

    R: Tensor
    rotation_jacobian: Tensor
    t_anchor: Tensor
    scale_px: Tensor
    focal_px: Tensor


def pose_values(x: Tensor, layout: ParamLayout, frame: PoseFrame) -> PoseValues:
    """Camera of a parameter vector x [P].

    The anchor's depth is focal / scale, so that a change of focal length alone keeps the size of the face.
    """
    rotation = x[layout["rotation"]]
    scale = frame.scale_px * torch.exp(x[layout["log_scale"]][0])
    focal = frame.focal_px * torch.exp(x[layout["log_focal"]][0])
    centre = frame.centre_px + frame.size_px * x[layout["centre"]]
    t = torch.cat([(centre - frame.principal_px) / scale, (focal / scale)[None]])
    R = roma.rotvec_to_rotmat(rotation) @ frame.R
    return PoseValues(R, left_jacobian(rotation), t, scale, focal)


def cross_matrix(v: Tensor) -> Tensor:
    """Matrices [..., 3, 3] of vectors v [..., 3] whose product with w is v x w."""
    zero = torch.zeros_like(v[..., 0])
    a, b, c = v[..., 0], v[..., 1], v[..., 2]
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], dim=-1).unflatten(-1, (3, 3))


def left_jacobian(rotvec: Tensor) -> Tensor:
    """Left Jacobian of SO(3): exp(rotvec + d) is exp(J d) exp(rotvec) to first order.

    Args:
        rotvec: [..., 3] radians.

    Returns:
        [..., 3, 3] (Barfoot, "State Estimation for Robotics", eq. 7.77).
    """
    angle2 = (rotvec * rotvec).sum(-1)[..., None, None]
    angle = angle2.clamp_min(1e-24).sqrt()
    small = angle2 < 1e-8
    a = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / angle**2)
    b = torch.where(small, 1 / 6 - angle2 / 120, (angle - torch.sin(angle)) / angle**3)
    w = cross_matrix(rotvec)
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + a * w + b * (w @ w)


def gaze_rotvecs(x: Tensor, layout: ParamLayout) -> Tensor:
    """[2, 3] rotation vectors of the left and the right eye joint."""
    gaze = x[layout["gaze"]].reshape(2, 2)
    return torch.cat([gaze, torch.zeros_like(gaze[:, :1])], dim=-1)


def to_face_params(x: Tensor, layout: ParamLayout, frame: PoseFrame, data: MorphableModelData) -> FaceParams:
    """Coefficients of a parameter vector, float32.

    Args:
        x: [P] parameters.
        layout: Their layout.
        frame: Pose frame.
        data: The model; identity coefficients that were not fitted are 0.

    Returns:
        FaceParams without batch dimensions.
    """
    pose = pose_values(x, layout, frame)
    t = pose.t_anchor - pose.R @ frame.anchor
    camera = Camera.from_pose(
        pose.R.float(),
        t.float(),
        pose.focal_px.float(),
        frame.width,
        frame.height,
        frame.principal_px.float(),
    )
    identity = torch.zeros(data.n_identity)
    identity[: layout.n_identity] = x[layout["identity"]].float()
    joints = torch.zeros(data.n_joints, 3)
    rotvecs = gaze_rotvecs(x, layout).float()
    for name, rotvec in zip(("eye_left", "eye_right"), rotvecs, strict=True):
        if name in data.joint_names:
            joints[data.joint_names.index(name)] = rotvec
    expression, jaw = layout.split_expression(x)
    if layout.n_jaw:
        joints[data.joint_names.index("jaw")] = jaw.float()
    return FaceParams(
        identity=identity,
        expression=expression.float(),
        pose=joints,
        albedo=x[layout["albedo"]].float(),
        light=x[layout["light"]].float().reshape(9, 3),
        camera=camera,
    )
