# SPDX-License-Identifier: Apache-2.0
"""All points that pictures are labelled with, found in one go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.morphable.contour import gather_contour, select_contour


@dataclass(frozen=True)
class Points:
    """Points of a head in camera space, metres.

    Attributes:
        ibug68: [68, 3] where they are on the mesh.
        dense: [D, 3].
        iris: [I, 3], or None if the model has no such set.
        contour: [17, C, 3] candidates of the jaw's points, or None if the model has no lines.
    """

    ibug68: Tensor
    dense: Tensor
    iris: Tensor | None
    contour: Tensor | None

    def outline68(self, model: MorphableModel) -> Tensor:
        """[68, 3] with the jaw on the outline, as `MorphableModel.landmarks_cam` does it."""
        lines = model.data.contour
        if lines is None or self.contour is None:
            return self.ibug68
        jaw = gather_contour(self.contour, select_contour(self.contour, lines.valid))
        return torch.cat([jaw, self.ibug68[len(jaw) :]])


@cached_per_tensor
def _table(triangles: Tensor, model: MorphableModel) -> tuple[Tensor, Tensor, list[int]]:
    """Corners [N, 3] and weights [N, 3, 1] of all points, and how many each set has."""
    data = model.data
    sets = [data.landmark_sets.get(name) for name in ("ibug68", "dense", "iris")]
    sets.append(None if data.contour is None else data.contour.points)
    found = [one for one in sets if one is not None]
    corners = triangles[torch.cat([one.triangle_ids for one in found])]
    weights = torch.cat([one.barycentric for one in found])[..., None]
    return corners, weights, [0 if one is None else len(one) for one in sets]


def points_of(model: MorphableModel, verts_cam: Tensor) -> Points:
    """All points of a head with vertices [V, 3] in camera space, metres."""
    corners, weights, counts = _table(model.data.triangles, model)
    ibug68, dense, iris, contour = (verts_cam[corners] * weights).sum(dim=-2).split(counts)
    lines = model.data.contour
    return Points(
        ibug68,
        dense,
        iris if len(iris) else None,
        None if lines is None else contour.reshape(*lines.valid.shape, 3),
    )
