# SPDX-License-Identifier: Apache-2.0
"""Gaze angles, eye-joint rotations and the eight eyeLook values: three ways to say the same thing.

Yaw is positive towards the person's own left (+X), pitch is positive upwards (+Y), both zero straight ahead
(+Z). Eyes come in the order left, right. An eyeLook value of 1 stands for the angles of
`expressions/gaze.json`.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel

EYE_JOINTS = ("eye_left", "eye_right")
EYELOOK_NAMES = (
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeLookDownLeft",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeLookDownRight",
)
_YAW_SIGN = {"InLeft": -1.0, "OutLeft": 1.0, "InRight": 1.0, "OutRight": -1.0}
_PITCH_SIGN = {"Up": 1.0, "Down": -1.0}


@cache
def eyelook_angle(name: str) -> tuple[float, float]:
    """Gaze of one eye when one eyeLook shape is 1 and the others are 0.

    Args:
        name: One of `EYELOOK_NAMES`.

    Returns:
        (yaw, pitch) in radians.

    Raises:
        ShapeError: Not an eyeLook name.
    """
    if name not in EYELOOK_NAMES:
        raise ShapeError(f"{name!r} is not an eyeLook expression; choose one of {', '.join(EYELOOK_NAMES)}")
    degrees = load_json_asset("expressions/gaze.json")["degrees_at_one"]
    side = "Left" if name.endswith("Left") else "Right"
    direction = name.removeprefix("eyeLook").removesuffix(side)
    angle = math.radians(degrees[direction])
    if direction in _PITCH_SIGN:
        return 0.0, _PITCH_SIGN[direction] * angle
    return _YAW_SIGN[direction + side] * angle, 0.0


def gaze_to_eyelook(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Values of the eight eyeLook shapes for a gaze.

    Args:
        yaw: [*B, 2] radians, left and right eye, positive towards the person's own left.
        pitch: [*B, 2] radians, positive upwards.

    Returns:
        [*B, 8] in the order of `EYELOOK_NAMES`, clamped to 0..1. Differentiable where not clamped.
    """
    _check_eyes(yaw, pitch)
    values = []
    for name in EYELOOK_NAMES:
        eye = 0 if name.endswith("Left") else 1
        yaw_one, pitch_one = eyelook_angle(name)
        value = yaw[..., eye] / yaw_one if yaw_one else pitch[..., eye] / pitch_one
        values.append(value.clamp(0.0, 1.0))
    return torch.stack(values, dim=-1)


def eyelook_to_gaze(eyelook: Tensor) -> tuple[Tensor, Tensor]:
    """Gaze of eight eyeLook values; the inverse of `gaze_to_eyelook` inside its range.

    Args:
        eyelook: [*B, 8] in the order of `EYELOOK_NAMES`, 0..1.

    Returns:
        yaw [*B, 2] and pitch [*B, 2], radians, left and right eye.
    """
    if eyelook.shape[-1] != len(EYELOOK_NAMES):
        raise ShapeError(f"eyelook must be [*B, {len(EYELOOK_NAMES)}], got {tuple(eyelook.shape)}")
    angles = eyelook.new_tensor([eyelook_angle(name) for name in EYELOOK_NAMES])
    gaze = (eyelook[..., None] * angles).unflatten(-2, (2, 4)).sum(dim=-2)
    return gaze[..., 0], gaze[..., 1]


def gaze_to_rotvec(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Rotation that turns an eye from straight ahead to a gaze direction, without torsion (Listing's law).

    Args:
        yaw: [*B] radians.
        pitch: [*B] radians.

    Returns:
        [*B, 3] rotation vector, radians; its z is 0. Differentiable.
    """
    x = torch.sin(yaw) * torch.cos(pitch)
    y = torch.sin(pitch)
    z = torch.cos(yaw) * torch.cos(pitch)
    sine = torch.sqrt((x * x + y * y).clamp_min(1e-20))
    angle = torch.atan2(sine, z)
    scale = torch.where(sine > 1e-6, angle / sine, torch.ones_like(sine))
    return torch.stack([-y * scale, x * scale, torch.zeros_like(x)], dim=-1)


def rotvec_to_gaze(rotvec: Tensor) -> tuple[Tensor, Tensor]:
    """Gaze direction of an eye-joint rotation; torsion is dropped.

    Args:
        rotvec: [*B, 3] radians.

    Returns:
        yaw [*B] and pitch [*B], radians.
    """
    angle = rotvec.norm(dim=-1, keepdim=True)
    axis = rotvec / angle.clamp_min(1e-12)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    ahead = rotvec.new_tensor([0.0, 0.0, 1.0]).expand_as(rotvec)
    turned = cosine * ahead + sine * torch.linalg.cross(axis, ahead) + (1 - cosine) * axis[..., 2:] * axis
    yaw = torch.atan2(turned[..., 0], turned[..., 2])
    pitch = torch.asin(turned[..., 1].clamp(-1.0, 1.0))
    return yaw, pitch


def pose_from_expression(model: MorphableModel, expression: Tensor, pose: Tensor) -> Tensor:
    """Turns the eye joints as the eyeLook values say.

    Args:
        model: The face model; one without eye joints or eyeLook expressions leaves `pose` as it is.
        expression: [*B, E] 0..1.
        pose: [*B, J, 3] joint rotations, radians.

    Returns:
        [*B, J, 3] with the rows of the eye joints replaced. Differentiable.
    """
    names, joints = model.data.expression_names, model.data.joint_names
    if not set(EYELOOK_NAMES) <= set(names) or not set(EYE_JOINTS) <= set(joints):
        return pose
    yaw, pitch = eyelook_to_gaze(expression[..., [names.index(name) for name in EYELOOK_NAMES]])
    pose = pose.clone()
    pose[..., [joints.index(name) for name in EYE_JOINTS], :] = gaze_to_rotvec(yaw, pitch)
    return pose


def _check_eyes(yaw: Tensor, pitch: Tensor) -> None:
    if yaw.shape != pitch.shape or yaw.shape[-1:] != (2,):
        raise ShapeError(f"yaw and pitch must be [*B, 2], got {tuple(yaw.shape)} and {tuple(pitch.shape)}")
