# SPDX-License-Identifier: Apache-2.0
"""Drives one person's face with another's expression and pose, and moves detail from person to person.

After HiFace, figure of animation: shape and static detail are the source's, expression and pose the driver's;
dynamic detail follows from the source's codes and the driver's expression.
"""

from __future__ import annotations

from hiface.animation.gaze import pose_from_expression
from hiface.animation.motion import Motion
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel
from hiface.types import FaceParams


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
