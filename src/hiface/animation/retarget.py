# SPDX-License-Identifier: Apache-2.0
"""Drives one person's face with another's expression and pose, and moves detail from person to person.

After HiFace, figure of animation: shape and static detail are the source's, expression and pose the driver's;
dynamic detail follows from the source's codes and the driver's expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.animation.gaze import pose_from_expression
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel
from hiface.types import FaceParams


@dataclass(frozen=True)
class Motion:
    """What a driver does, frame by frame.

    Attributes:
        expression: [N, E] 0..1, in the model's order.
        R_cam_head: [N, 3, 3] rotation of the head, object to camera, or None where it is not known.
        times: [N] seconds, increasing.
    """

    expression: Tensor
    R_cam_head: Tensor | None
    times: Tensor

    def __post_init__(self) -> None:
        n = len(self.expression)
        if self.expression.dim() != 2 or n == 0 or self.times.shape != (n,):
            raise ShapeError(
                f"a motion needs expressions [N, E] and N times, got {tuple(self.expression.shape)} and "
                f"{tuple(self.times.shape)}"
            )
        if self.R_cam_head is not None and self.R_cam_head.shape != (n, 3, 3):
            raise ShapeError(f"R_cam_head must be [{n}, 3, 3], got {tuple(self.R_cam_head.shape)}")

    def __len__(self) -> int:
        return len(self.expression)


def motion_of(faces: Sequence[FaceParams], fps: float = 24.0) -> Motion:
    """Motion of one person's coefficients, frame after frame.

    Args:
        faces: Unbatched coefficients.
        fps: Frames per second.
    """
    return Motion(
        torch.stack([face.expression for face in faces]),
        torch.stack([face.camera.R for face in faces]),
        torch.arange(len(faces)) / fps,
    )


def drive(
    model: MorphableModel, source: FaceParams, motion: Motion, with_pose: bool = True
) -> list[FaceParams]:
    """The source, doing what the driver does.

    Args:
        model: Face model of both.
        source: Unbatched coefficients of the source.
        motion: Of the driver.
        with_pose: Whether the head turns as the driver's; the source's place in the picture stays.

    Returns:
        Coefficients for each frame: identity, albedo, light and static detail are the source's; the eyes look
        as the driver's eyeLook values say.
    """
    frames = []
    for i, expression in enumerate(motion.expression):
        expression = expression.to(source.expression)
        camera = source.camera
        if with_pose and motion.R_cam_head is not None:
            T = camera.T_cam_object.clone()
            T[:3, :3] = motion.R_cam_head[i].to(T)
            camera = type(camera)(camera.K, T, camera.width, camera.height)
        pose = pose_from_expression(model, expression, source.pose)
        frames.append(source.replace(expression=expression, pose=pose, camera=camera))
    return frames


def with_detail_of(target: FaceParams, donor: FaceParams) -> FaceParams:
    """The target with the donor's static detail: another person's lines and folds on this face.

    Raises:
        ShapeError: The donor has no detail, or both have codes of different networks.
    """
    if donor.static is None:
        raise ShapeError("the donor has no detail codes; reconstruct it with the method hiface")
    if target.static is not None and target.static.shape != donor.static.shape:
        raise ShapeError(
            f"both need detail codes of one network, got {len(target.static)} and {len(donor.static)}"
        )
    return target.replace(static=donor.static)
