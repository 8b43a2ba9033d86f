# SPDX-License-Identifier: Apache-2.0
"""Smooth vertex normals as two products with constant sparse matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor

_TINY = 1e-30


@cached_per_tensor
def _operators(triangles: Tensor, n_verts: int, dtype: torch.dtype) -> tuple[ConstantMatrix, ConstantMatrix]:
    """Matrices from vertices to two edges of each triangle [2T, V], and from triangles to corners [V, T]."""
    n_triangles = triangles.shape[0]
    a, b, c = triangles.to(torch.int64).unbind(1)
    first = torch.arange(n_triangles, device=triangles.device)
    one = torch.ones(n_triangles, dtype=dtype, device=triangles.device)
    edges = ConstantMatrix(
        torch.cat([first, first, first + n_triangles, first + n_triangles]),
        torch.cat([b, a, c, a]),
        torch.cat([one, -one, one, -one]),
        (2 * n_triangles, n_verts),
    )
    gather = ConstantMatrix(
        torch.cat([a, b, c]), first.repeat(3), torch.cat([one, one, one]), (n_verts, n_triangles)
    )
    return edges, gather


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1 along a dimension, 0 where they are 0. Differentiable.

    Along a leading dimension of a map this is twenty times faster than `torch.nn.functional.normalize`.
    """
    return vectors * vectors.square().sum(dim=dim, keepdim=True).clamp_min(_TINY).rsqrt()


def vertex_normal_rows(verts: Tensor, triangles: Tensor) -> Tensor:
    """Vertex normals in rows, the layout that the renderer works in.

    Args:
        verts: [B, V, 3], any strides.
        triangles: [T, 3] int64.

    Returns:
        [3, B, V] unit normals, contiguous.
    """
    n_images, n_verts, _ = verts.shape
    n_triangles = triangles.shape[0]
    edges, gather = _operators(triangles, n_verts, verts.dtype)
    columns = verts.permute(1, 2, 0).reshape(n_verts, 3 * n_images)
    ab, ac = edges.apply(columns).reshape(2, n_triangles, 3, n_images).unbind(0)
    (x1, y1, z1), (x2, y2, z2) = ab.unbind(1), ac.unbind(1)
    area_normals = torch.stack([y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2], dim=1)
    sums = gather.apply(area_normals.reshape(n_triangles, 3 * n_images)).reshape(n_verts, 3, n_images)
    rows = sums.permute(1, 2, 0).contiguous()
    return unit(rows, 0)


def vertex_normals(verts: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals at the vertices, the sum of the adjoining triangles' normals weighted by their areas.

    Args:
        verts: [*B, V, 3] in any right-handed space. Lengths below 1e-7 m per triangle edge are treated as
            zero.
        triangles: [T, 3] int64, counter-clockwise seen from outside. Pass the same tensor object every time:
            the sparse matrices made from it are remembered.

    Returns:
        [*B, V, 3], pointing outward; zero at vertices without a triangle of any size. Differentiable to
        `verts`.

    Raises:
        ShapeError: A shape is wrong.
    """
    if verts.dim() < 2 or verts.shape[-1] != 3 or triangles.dim() != 2 or triangles.shape[1] != 3:
        raise ShapeError(
            "expected verts [*B, V, 3] and triangles [T, 3], "
            f"got {tuple(verts.shape)} and {tuple(triangles.shape)}"
        )
    flat = verts.reshape(-1, *verts.shape[-2:])
    return vertex_normal_rows(flat, triangles).permute(1, 2, 0).reshape(verts.shape)
