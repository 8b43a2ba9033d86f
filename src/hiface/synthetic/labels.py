# SPDX-License-Identifier: Apache-2.0
"""Where the points are and which of them can be seen."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.synthetic.compose import Composed, Picture

_SELF_M = 0.006
_HIDING = (4, 5, 6)


def _eye_points(model: MorphableModel, picture: Picture) -> Tensor:
    """[2, 3] foremost points of the eyeballs, camera space, right eye first, if there are no iris points."""
    names, data = model.data.joint_names, model.data
    out = []
    for side in ("right", "left"):
        part = f"eye_{side}"
        if part in data.part_names:
            ids = data.triangles[data.triangle_parts == data.part_names.index(part)].unique()
            point = picture.vertices[ids[data.template[ids, 2].argmax()]]
        else:
            point = model.joints(picture.params.identity)[names.index(part)]
        out.append(picture.params.camera.to_cam(point[None])[0])
    return torch.stack(out)


def visible_points(points_cam: Tensor, picture: Picture, composed: Composed, segmentation: Tensor) -> Tensor:
    """Which points are inside the picture and hidden by nothing.

    Args:
        points_cam: [N, 3] metres.
        picture: Camera.
        composed: Depths.
        segmentation: [S, S] uint8 with occluders.

    Returns:
        [N] bool.
    """
    size = segmentation.shape[-1]
    px = picture.params.camera.cam_to_px(points_cam)
    inside = ((px >= 0) & (px < size)).all(dim=1)
    column = (px[:, 0] * composed.subpixels).long().clamp(1, size * composed.subpixels - 2)
    row = (px[:, 1] * composed.subpixels).long().clamp(1, size * composed.subpixels - 2)
    reached = torch.zeros(len(px), dtype=torch.bool)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            reached |= points_cam[:, 2] <= composed.head_depth[row + dy, column + dx] + _SELF_M
    x = px[:, 0].long().clamp(0, size - 1)
    y = px[:, 1].long().clamp(0, size - 1)
    over = torch.isin(segmentation[y, x], torch.tensor(_HIDING, dtype=torch.uint8))
    behind = points_cam[:, 2] > composed.depth[row, column] - _SELF_M
    flat = segmentation[y, x] == 5
    return inside & reached & ~(over & (behind | flat))


def label_points(
    model: MorphableModel, picture: Picture, composed: Composed, segmentation: Tensor
) -> dict[str, Tensor]:
    """Positions and visibility of all point sets.

    Args:
        model: Face model.
        picture: Pose and camera.
        composed: Depths.
        segmentation: [S, S] uint8.

    Returns:
        The fields of `SyntheticSample` that speak of points, by name.
    """
    camera = picture.params.camera
    verts_cam = camera.to_cam(picture.vertices)
    points68 = model.landmarks_cam("ibug68", verts_cam)
    dense = model.landmarks_cam("dense", verts_cam)
    has_iris = "iris" in model.data.landmark_sets
    iris = model.landmarks_cam("iris", verts_cam) if has_iris else _eye_points(model, picture)
    px = camera.cam_to_px(points68)
    return {
        "landmarks68_px": px,
        "dense_px": camera.cam_to_px(dense),
        "iris_px": camera.cam_to_px(iris),
        "visible68": visible_points(points68, picture, composed, segmentation),
        "visible_dense": visible_points(dense, picture, composed, segmentation),
        "visible_iris": visible_points(iris, picture, composed, segmentation),
        "depth68_cam": points68[:, 2] - picture.T_cam_head[2, 3],
        "box": torch.cat([px.min(dim=0).values, px.max(dim=0).values]),
    }
