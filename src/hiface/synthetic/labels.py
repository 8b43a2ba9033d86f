# SPDX-License-Identifier: Apache-2.0
"""Where the points are and which of them can be seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.synthetic.compose import Composed, Picture
from hiface.synthetic.head import LABEL_EYES

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


def visible_points(points_cam: Tensor, px: Tensor, composed: Composed, segmentation: Tensor) -> Tensor:
    """Which points are inside the picture and hidden by nothing.

    Args:
        points_cam: [N, 3] metres.
        px: [N, 2] pixels of the points.
        composed: Depths.
        segmentation: [S, S] uint8 with occluders.

    Returns:
        [N] bool.
    """
    size, (x, y), z = segmentation.shape[-1], px.numpy().T, points_cam[:, 2].numpy()
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    # Points outside are moved to where there is something to read; they are not visible whatever it is.
    x, y = np.clip(x, 0, size - 1), np.clip(y, 0, size - 1)
    last = size * composed.subpixels - 2
    column, row = (np.clip((at * composed.subpixels).astype(np.int64), 1, last) for at in (x, y))
    head, whole = composed.head_depth.numpy(), composed.depth.numpy()
    around = np.array([-1, 0, 1])
    deepest = head[(row + around[:, None])[:, None], (column + around[:, None])[None]].max(axis=(0, 1))
    covered = segmentation.numpy()[y.astype(np.int64), x.astype(np.int64)]
    hidden = np.isin(covered, _HIDING) & ((z > whole[row, column] - _SELF_M) | (covered == 5))
    return torch.from_numpy(inside & (z <= deepest + np.float32(_SELF_M)) & ~hidden)


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
    found = composed.points
    iris = found.iris if found.iris is not None else _eye_points(model, picture)
    sets = [found.outline68(model), found.dense, iris]
    counts = [len(points) for points in sets]
    points = torch.cat(sets)
    px = camera.cam_to_px(points)
    visible = visible_points(points, px, composed, segmentation)
    px68, dense_px, iris_px = (part.clone() for part in px.split(counts))
    visible68, visible_dense, visible_iris = (part.clone() for part in visible.split(counts))
    if found.iris is not None:  # shut lids are nearer to the eyeball than `_SELF_M`
        x, y = iris_px.long().clamp(0, segmentation.shape[-1] - 1).unbind(1)
        visible_iris &= segmentation[y, x] == LABEL_EYES
    return {
        "landmarks68_px": px68,
        "dense_px": dense_px,
        "iris_px": iris_px,
        "visible68": visible68,
        "visible_dense": visible_dense,
        "visible_iris": visible_iris,
        "depth68_cam": sets[0][:, 2] - picture.T_cam_head[2, 3],
        "box": torch.cat([px68.min(dim=0).values, px68.max(dim=0).values]),
    }
