# SPDX-License-Identifier: Apache-2.0
"""Object-attached photometric samples: where they lie, their albedo, and which of them are seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.fitting.point_basis import PointBasis, gather_points, gather_vertices
from hiface.geometry.constants import ConstantMatrix
from hiface.morphable import MorphableModel, MorphableModelData
from hiface.render.rasterize import rasterize
from hiface.render.texture import sample_texture
from hiface.render.visibility import light_transfer
from hiface.types import LandmarkSet

_ALBEDO_SIZE = 128  # texels: about 2 mm, the footprint of a sample


@dataclass(frozen=True)
class SurfaceSamples:
    """S points on the face skin with what is needed for position, normal and albedo.

    Attributes:
        triangle_ids: [S] triangle of the model that carries each sample.
        vertex_ids: [U] vertices that positions and normals depend on.
        points: PointBasis of the samples.
        vertices: PointBasis of the U vertices that positions and normals depend on.
        corners: [S, 3] index into `vertices` of each sample's corners.
        barycentric: [S, 3].
        triangles: [T', 3] the triangles around those corners, indices into `vertices`.
        to_vertex: [U, T'] sums triangles at their corners.
        to_sample: [S, U] barycentric interpolation.
        albedo_mean: [S, 3] linear.
        albedo_basis: [A, S, 3].
        transfer: [S, 9, 9] how the head's own shadow changes the light, object axes (`light_transfer`).
    """

    triangle_ids: Tensor
    vertex_ids: Tensor
    points: PointBasis
    vertices: PointBasis
    corners: Tensor
    barycentric: Tensor
    triangles: Tensor
    to_vertex: ConstantMatrix
    to_sample: ConstantMatrix
    albedo_mean: Tensor
    albedo_basis: Tensor
    transfer: Tensor

    def __len__(self) -> int:
        return self.triangle_ids.shape[0]


def build_samples(model: MorphableModel, count: int, n_identity: int, dtype: torch.dtype) -> SurfaceSamples:
    """Spreads samples over the visible face skin, evenly by area, the same ones every time.

    Args:
        model: Face model with vertex masks "face" and "skin".
        count: Number of samples S.
        n_identity: Leading identity coefficients to keep.
        dtype: Precision.

    Returns:
        SurfaceSamples.
    """
    data = model.data
    ids, weights = _spread(data, count)
    used = data.triangles[ids].unique()
    touching = torch.isin(data.triangles, used).any(dim=1)
    ring = data.triangles[touching]
    vertex_ids = ring.unique()
    lookup = torch.full((data.n_vertices,), -1)
    lookup[vertex_ids] = torch.arange(vertex_ids.shape[0])
    triangles, corners = lookup[ring], lookup[data.triangles[ids]]
    n_vertices, n_triangles = vertex_ids.shape[0], ring.shape[0]
    ones = torch.ones(triangles.numel(), dtype=dtype)
    to_vertex = ConstantMatrix(
        triangles.flatten(), torch.arange(n_triangles).repeat_interleave(3), ones, (n_vertices, n_triangles)
    )
    rows = torch.arange(ids.shape[0]).repeat_interleave(3)
    to_sample = ConstantMatrix(
        rows, corners.flatten(), weights.to(dtype).flatten(), (ids.shape[0], n_vertices)
    )
    uv = (data.uv[data.uv_triangles[ids]] * weights[..., None]).sum(1)
    factor = max(1, data.albedo_mean.shape[-1] // _ALBEDO_SIZE)
    albedo_mean = sample_texture(F.avg_pool2d(data.albedo_mean[None], factor), uv)[0]
    albedo_basis = sample_texture(
        F.avg_pool2d(data.albedo_basis, factor), uv.expand(len(data.albedo_basis), -1, 2)
    )
    return SurfaceSamples(
        ids,
        vertex_ids,
        gather_points(data, LandmarkSet("samples", ids, weights), n_identity).to(dtype),
        gather_vertices(data, vertex_ids, n_identity).to(dtype),
        corners,
        weights.to(dtype),
        triangles,
        to_vertex,
        to_sample,
        albedo_mean.to(dtype),
        albedo_basis.to(dtype),
        (light_transfer(model)[data.triangles[ids]] * weights[..., None, None]).sum(1).to(dtype),
    )


def with_geometry(samples: SurfaceSamples, data: MorphableModelData, n_identity: int) -> SurfaceSamples:
    """The same samples on another model of the same mesh, such as an expansion about other coefficients."""
    dtype = samples.barycentric.dtype
    points = LandmarkSet("samples", samples.triangle_ids, samples.barycentric.float())
    return replace(
        samples,
        points=gather_points(data, points, n_identity).to(dtype),
        vertices=gather_vertices(data, samples.vertex_ids, n_identity).to(dtype),
    )


def _spread(data: MorphableModelData, count: int) -> tuple[Tensor, Tensor]:
    """Triangles [S] and barycentric weights [S, 3], stratified by area over the face skin."""
    wanted = data.vertex_masks["face"] & data.vertex_masks["skin"]
    skin = data.triangle_parts == data.part_names.index("skin")
    chosen = torch.nonzero(skin & wanted[data.triangles].all(dim=1))[:, 0]
    a, b, c = data.template[data.triangles[chosen]].double().unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1).cumsum(0)
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count * area[-1]
    ids = chosen[torch.searchsorted(area, steps).clamp_max(len(chosen) - 1)]
    # A low-discrepancy sequence (R2) inside the triangles.
    index = torch.arange(1, count + 1, dtype=torch.float64)
    u, v = (0.7548776662466927 * index) % 1, (0.5698402909980532 * index) % 1
    over = u + v > 1
    u, v = torch.where(over, 1 - u, u), torch.where(over, 1 - v, v)
    return ids, torch.stack([1 - u - v, u, v], dim=-1).float()


def visible_samples(
    samples: SurfaceSamples,
    verts_px_z: Tensor,
    triangles: Tensor,
    size: tuple[int, int],
    tolerance_m: float = 0.004,
) -> Tensor:
    """Samples that nothing hides.

    Args:
        samples: S samples.
        verts_px_z: [V, 3] all vertices: crop pixels and depth in metres.
        triangles: [T, 3] the model's triangles.
        size: Height and width of the crop, pixels.
        tolerance_m: What lies less than this in front does not hide.

    Returns:
        [S] bool.
    """
    height, width = size
    ids = rasterize(verts_px_z.float(), triangles, height, width)
    corners = verts_px_z[triangles[samples.triangle_ids]]
    points = (corners * samples.barycentric.to(corners.dtype)[..., None]).sum(1)
    column, row = points[:, 0].floor().long(), points[:, 1].floor().long()
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    hit = ids[row.clamp(0, height - 1), column.clamp(0, width - 1)].long()
    nearest = verts_px_z[triangles[hit.clamp_min(0)]][..., 2].mean(-1)
    same = hit == samples.triangle_ids
    return inside & (hit >= 0) & (same | (points[:, 2] < nearest + tolerance_m))
