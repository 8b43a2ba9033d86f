# SPDX-License-Identifier: Apache-2.0
"""Region error of a fitted face against a true one of the same topology, and its ratio to the mean face.

Protocol. Both shapes are the model's vertices in object space, with no expression (or the same one) and no
joint rotation, so vertex i of one corresponds to vertex i of the other and no closest-point search is needed.

1. "global": the fitted shape is aligned to the true one by the rigid transform (rotation and translation, no
   scale) that is least-squares best over the vertices of the mask `face`; one transform for all regions.
2. "regional": it is aligned by the rigid transform that is best over the region's own vertices.
3. "scaled": as 1 with the best scale as well (what a protocol blind to size would report).

The error of a region is the mean distance, in millimetres, over its vertices, each weighted by its area on
the model's mean shape. The mean face is put through the same steps, and the ratio is error of the fit / error
of the mean face, averaged over people as a ratio of averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ModelFormatError, ShapeError
from hiface.geometry.areas import vertex_areas
from hiface.geometry.procrustes import procrustes
from hiface.morphable import MorphableModelData

REGIONS = ("nose", "mouth", "forehead", "cheek")
PROTOCOLS = ("global", "regional", "scaled")


@dataclass(frozen=True)
class RegionErrors:
    """Errors of a batch of shapes.

    Attributes:
        regions: Names, REGIONS and "face".
        millimetres: Protocol name to [*B, R] mean distances.
    """

    regions: tuple[str, ...]
    millimetres: Mapping[str, Tensor]

    def mean(self, protocol: str) -> Tensor:
        """[*B] average of the four regions (without "face"), millimetres."""
        return self.millimetres[protocol][..., : len(REGIONS)].mean(-1)


def region_errors(data: MorphableModelData, fitted: Tensor, true: Tensor) -> RegionErrors:
    """Region errors of fitted shapes.

    Args:
        data: The model both shapes belong to.
        fitted: [*B, V, 3] metres, object space.
        true: [*B, V, 3] metres, object space.

    Returns:
        RegionErrors over the batch.

    Raises:
        ShapeError: The shapes do not have the model's vertices.
        ModelFormatError: The model lacks a region mask.
    """
    if fitted.shape[-2:] != true.shape[-2:] or fitted.shape[-2] != data.n_vertices:
        raise ShapeError(
            f"both shapes need {data.n_vertices} vertices, got {fitted.shape[-2]} and {true.shape[-2]}"
        )
    names = (*REGIONS, "face")
    missing = [name for name in names if name not in data.vertex_masks]
    if missing:
        raise ModelFormatError(f"face model {data.name!r} has no vertex mask {', '.join(missing)}")
    fitted, true = fitted.double(), true.double()
    areas = vertex_areas(data.template.double(), data.triangles)
    face = data.vertex_masks["face"]
    aligned = {
        protocol: procrustes(fitted[..., face, :], true[..., face, :], with_scale=protocol == "scaled").apply(
            fitted
        )
        for protocol in ("global", "scaled")
    }
    columns: dict[str, list[Tensor]] = {protocol: [] for protocol in PROTOCOLS}
    for name in names:
        mask = data.vertex_masks[name]
        target, weight = true[..., mask, :], areas[mask] / areas[mask].sum()
        own = procrustes(fitted[..., mask, :], target, weight).apply(fitted[..., mask, :])
        moved = {protocol: shape[..., mask, :] for protocol, shape in aligned.items()} | {"regional": own}
        for protocol, shape in moved.items():
            columns[protocol].append(1e3 * ((shape - target).norm(dim=-1) * weight).sum(-1))
    return RegionErrors(
        names, {protocol: torch.stack(values, dim=-1) for protocol, values in columns.items()}
    )


def ratio_to_mean(
    data: MorphableModelData, fitted: Tensor, true: Tensor, protocol: str = "global"
) -> dict[str, float]:
    """Error of the fits over that of the mean face, per region, for "face" and for the mean of the regions.

    Args:
        data: The model.
        fitted: [N, V, 3] neutral fitted shapes, metres.
        true: [N, V, 3] neutral true shapes, metres.
        protocol: One of PROTOCOLS.

    Returns:
        Name to ratio; 1 is as good as knowing nothing, 0 is perfect.
    """
    fit = region_errors(data, fitted, true)
    mean = region_errors(data, data.template.expand_as(true), true)
    ratios = fit.millimetres[protocol].mean(0) / mean.millimetres[protocol].mean(0)
    table = dict(zip(fit.regions, ratios.tolist(), strict=True))
    table["mean"] = float(fit.mean(protocol).mean() / mean.mean(protocol).mean())
    return table
