# SPDX-License-Identifier: Apache-2.0
"""Chooses, for a head pose, the points that people mark as the jaw contour (landmarks 0-16).

Each of the 17 lines runs over the skin from the front of the face to the jaw line: the front of the ear,
the angle and lower border of the jaw, the chin. On a turned head people mark the true jaw line on the near
side and the cheek's silhouette on the far side. Both are the candidate that lies farthest out in the image,
since the lines end at the jaw line. The idea of moving contour landmarks along lines follows Zhu et al.,
"High-Fidelity Pose and Expression Normalization for Face Recognition in the Wild", CVPR 2015.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hiface.errors import ShapeError

N_LINES = 17
_HORIZONTAL_LINES = 4
_ANGLE_POWER = 2.0
_SMALL = 1e-6


def outward_angles(dtype: torch.dtype = torch.float32) -> Tensor:
    """How far each line's outward direction points down, [17] radians: 0 at the ears, pi/2 at the chin."""
    from_ear = (N_LINES // 2 - (torch.arange(N_LINES, dtype=dtype) - N_LINES // 2).abs()) / (N_LINES // 2)
    return 0.5 * math.pi * from_ear**_ANGLE_POWER


def head_up_in_image(points_cam: Tensor, valid: Tensor) -> Tensor:
    """Direction of the head's up axis in the image, from the lines themselves.

    Args:
        points_cam: [*B, 17, C, 3] candidates in camera space (x right, y down, z forward).
        valid: [17, C] bool.

    Returns:
        [*B, 2] unit vectors (x right, y down); image-up where the head is seen from straight above or below.
    """
    weight = valid.to(points_cam.dtype)[..., None]
    middle = (points_cam * weight).sum(dim=-2) / weight.sum(dim=-2).clamp_min(1.0)
    half = N_LINES // 2
    lateral = (middle[..., half + 1 :, :].flip(-2) - middle[..., :half, :]).mean(dim=-2)
    last = valid.to(torch.int64).sum(dim=-1).clamp_min(1) - 1
    ends = points_cam.gather(-2, last[:, None, None].expand(*points_cam.shape[:-2], 1, 3)).squeeze(-2)
    depth = points_cam[..., 0, :] - ends
    forward = (depth + depth.flip(-2))[..., :_HORIZONTAL_LINES, :].mean(dim=-2)
    up = torch.linalg.cross(forward, lateral, dim=-1)[..., :2]
    length = torch.linalg.vector_norm(up, dim=-1, keepdim=True)
    upright = torch.tensor([0.0, -1.0], dtype=up.dtype, device=up.device)
    return torch.where(length > _SMALL, up / length.clamp_min(_SMALL), upright)


def select_contour(points_cam: Tensor, valid: Tensor, up_image: Tensor | None = None) -> Tensor:
    """Chooses the candidate of each contour line that lies farthest out in the image.

    Args:
        points_cam: [*B, 17, C, 3] candidates in camera space, metres; each line runs from the face's front to
            the jaw line. Lines 0-7 are on the subject's right, 8 is the chin.
        valid: [17, C] bool, False for padding.
        up_image: [*B, 2] direction of the head's up axis in the image (x right, y down), any length; None
            takes `head_up_in_image`.

    Returns:
        [*B, 17] int64 index of the chosen candidate.

    Raises:
        ShapeError: The shapes do not belong together.
    """
    if points_cam.shape[-3:-1] != valid.shape or valid.shape[0] != N_LINES or points_cam.shape[-1] != 3:
        raise ShapeError(
            f"points_cam must be [*B, {N_LINES}, C, 3] and valid [{N_LINES}, C], "
            f"got {tuple(points_cam.shape)} and {tuple(valid.shape)}"
        )
    up = head_up_in_image(points_cam, valid) if up_image is None else up_image
    up = up / torch.linalg.vector_norm(up, dim=-1, keepdim=True).clamp_min(_SMALL)
    to_left = torch.stack([-up[..., 1], up[..., 0]], dim=-1)
    angle = outward_angles(points_cam.dtype).to(points_cam.device)
    side = torch.sign(torch.arange(N_LINES, device=points_cam.device) - N_LINES // 2).to(points_cam.dtype)
    sideways = (side * angle.cos())[:, None] * to_left[..., None, :]
    outward = sideways - angle.sin()[:, None] * up[..., None, :]
    image = points_cam[..., :2] / points_cam[..., 2:].clamp_min(_SMALL)
    score = (image * outward[..., None, :]).sum(dim=-1)
    return score.masked_fill(~valid.to(score.device), -math.inf).argmax(dim=-1)


def gather_contour(points: Tensor, indices: Tensor) -> Tensor:
    """Picks one candidate of each line.

    Args:
        points: [*B, 17, C, D] candidates in any space.
        indices: [*B, 17] int64 from `select_contour`.

    Returns:
        [*B, 17, D]; differentiable to `points`.
    """
    index = indices[..., None, None].expand(*indices.shape, 1, points.shape[-1])
    return points.gather(-2, index).squeeze(-2)
