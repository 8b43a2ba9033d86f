# SPDX-License-Identifier: Apache-2.0
"""First pose from landmarks: scaled orthography, robust to a few wild points."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.errors import FitError
from hiface.morphable import MorphableModel
from hiface.render.shade import ambient_light
from hiface.types import Camera, FaceParams


def mean_face(model: MorphableModel, width: int, height: int, focal_px: float) -> FaceParams:
    """The mean face a metre before the camera of a photo, where nothing is known yet; no batch dimensions."""
    data = model.data
    camera = Camera.from_pose(torch.eye(3), torch.tensor([0.0, 0.0, 1.0]), focal_px, width, height)
    return FaceParams(
        torch.zeros(data.n_identity),
        torch.zeros(len(data.expression_names)),
        torch.zeros(data.n_joints, 3),
        torch.zeros(len(data.albedo_basis)),
        ambient_light(1.0, data.template),
        camera,
    )


def weak_perspective(
    points_object: Tensor, points_px: Tensor, sigma_px: Tensor, R_cam_object: Tensor | None = None
) -> tuple[Tensor, float, Tensor]:
    """Scaled-orthographic pose (POS: DeMenthon and Davis, IJCV 1995) by re-weighted least squares.

    Args:
        points_object: [N, 3] metres, object space.
        points_px: [N, 2] pixels.
        sigma_px: [N] standard deviations.
        R_cam_object: [3, 3] rotation to keep; estimated if None.

    Returns:
        R [3, 3], scale in pixels per metre, and the projection [2] of the points' centroid.

    Raises:
        FitError: The points do not span an image area.
    """
    anchor = points_object.mean(dim=0)
    centred = points_object - anchor
    weight = 1 / sigma_px**2
    R, scale, centre = _solve(centred, points_px, weight, R_cam_object)
    for _ in range(10):
        residual = points_px - (scale * centred @ R[:2].T + centre)
        squared = (residual**2).sum(-1)
        spread = torch.maximum(squared.median() / 1.386, 1e-6 * (scale * centred.std()) ** 2)
        weight = (1 / sigma_px**2) / (1 + squared / (4 * spread)) ** 2
        R, scale, centre = _solve(centred, points_px, weight, R_cam_object)
    if not (bool(torch.isfinite(R).all()) and float(scale) > 0):
        raise FitError("no head pose fits the landmarks: they lie on one point or on one line")
    return R, float(scale), centre


def _solve(
    points: Tensor, px: Tensor, weight: Tensor, R_known: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    weight = weight / weight.sum()
    mean_object, mean_px = weight @ points, weight @ px
    x, u = points - mean_object, px - mean_px
    if R_known is not None:
        flat = x @ R_known[:2].T
        scale = (weight[:, None] * flat * u).sum() / (weight[:, None] * flat**2).sum()
        return R_known, scale.clamp_min(1e-6), mean_px - scale * R_known[:2] @ mean_object
    moment = x.T @ (weight[:, None] * x)
    moment = moment + 1e-9 * moment.trace() * torch.eye(3, dtype=x.dtype)
    linear = torch.linalg.solve(moment, x.T @ (weight[:, None] * u)).T
    if not bool(torch.isfinite(linear).all()):
        raise FitError("no head pose fits the landmarks; they are not finite or lie on one point")
    left, singular, right = torch.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    R = torch.cat([rows, torch.linalg.cross(rows[0], rows[1])[None]])
    scale = singular.mean()
    return R, scale, mean_px - scale * rows @ mean_object
