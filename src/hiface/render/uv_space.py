# SPDX-License-Identifier: Apache-2.0
"""Vertex attributes as maps over the texture square: one product with a constant sparse matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor
from hiface.render.rasterize import rasterize


@dataclass(frozen=True)
class UvSpace:
    """How texels of a square map lie on a mesh.

    Attributes:
        triangle_id: [size, size] int32 triangle of each texel centre, -1 outside all charts.
        matrix: [size * size, V] barycentric weights; rows of texels outside the charts and their margin are
            empty.
        dtype: Floating type of the weights.
    """

    triangle_id: Tensor
    matrix: ConstantMatrix
    dtype: torch.dtype

    @property
    def mask(self) -> Tensor:
        """[size, size] bool, texels whose centre lies in a chart."""
        return self.triangle_id >= 0

    def of_triangles(self, values: Tensor, outside: float) -> Tensor:
        """[size, size] values [T] of the triangles under the texels, `outside` where there is none."""
        triangle = self.triangle_id.long()
        return torch.where(triangle >= 0, values.to(triangle.device)[triangle.clamp_min(0)], outside)

    def lift(self, attributes: Tensor) -> Tensor:
        """Spreads vertex attributes over the map.

        Args:
            attributes: [*B, V, C] in the dtype of the weights.

        Returns:
            [*B, C, size, size]; 0 outside the charts and their margin. Differentiable.

        Raises:
            ShapeError: The number of vertices is not that of the mesh.
        """
        n_verts, channels = attributes.shape[-2:]
        if n_verts != self.matrix.shape[1]:
            raise ShapeError(f"expected attributes of {self.matrix.shape[1]} vertices, got {n_verts}")
        size = self.triangle_id.shape[0]
        flat = attributes.reshape(-1, n_verts, channels)
        texels = self.matrix.apply(flat.permute(1, 2, 0).reshape(n_verts, -1))
        maps = texels.reshape(size, size, channels, flat.shape[0]).permute(3, 2, 0, 1).contiguous()
        return maps.reshape(*attributes.shape[:-2], channels, size, size)


def _with_margin(triangle_id: Tensor, margin_px: int) -> Tensor:
    """Gives texels around the charts the triangle of a neighbour, `margin_px` times."""
    for _ in range(margin_px):
        for shift, dim in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            moved = triangle_id.roll(shift, dim)
            moved.select(dim, 0 if shift > 0 else -1).fill_(-1)
            triangle_id = torch.where(triangle_id < 0, moved, triangle_id)
    return triangle_id


@cached_per_tensor
def uv_space(
    uv: Tensor, uv_triangles: Tensor, triangles: Tensor, n_verts: int, size: int, margin_px: int = 2
) -> UvSpace:
    """Works out which triangle each texel lies on; remembered as long as `uv` lives.

    Args:
        uv: [U, 2] texture coordinates, origin top-left, 0..1; its dtype is that of the maps.
        uv_triangles: [T, 3] int64 indices into `uv`.
        triangles: [T, 3] int64 vertex indices.
        n_verts: Number of vertices V of the mesh.
        size: Width and height of the maps in texels.
        margin_px: Texels around each chart that continue its nearest triangle, so that lookups and
            differences at the border of a chart see the surface go on.

    Returns:
        UvSpace on the device of `uv`.
    """
    points = torch.cat([uv * size, torch.ones_like(uv[:, :1])], dim=1)
    triangle_id = rasterize(points, uv_triangles, size, size)
    extended = _with_margin(triangle_id, margin_px).reshape(-1)
    texel = (extended >= 0).nonzero().reshape(-1)
    triangle = extended[texel].to(torch.int64)
    centre = torch.stack([texel % size, texel // size], dim=1).to(torch.float64) + 0.5
    a, b, c = (uv[uv_triangles[triangle]].to(torch.float64) * size - centre[:, None]).unbind(1)
    areas = torch.stack([p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0] for p, q in ((b, c), (c, a), (a, b))], dim=1)
    total = areas.sum(dim=1, keepdim=True)
    weights = torch.where(total.abs() > 1e-9, areas / total, 1 / 3)
    # Far outside a thin triangle its plane says nothing; stay near it.
    weights = weights.clamp(-2.0, 3.0)
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(uv.dtype)
    matrix = ConstantMatrix(
        texel.repeat_interleave(3),
        triangles[triangle].reshape(-1),
        weights.reshape(-1),
        (size * size, n_verts),
    )
    return UvSpace(triangle_id, matrix, uv.dtype)
