# SPDX-License-Identifier: Apache-2.0
"""Closest points on a triangle mesh: by the tree of libigl, and by trying everything, to compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.optional import needed


@dataclass(frozen=True)
class ClosestPoints:
    """Where on a surface some points are nearest.

    Attributes:
        points: [N, 3] closest points, in the unit of the mesh.
        distances: [N] unsigned distances to them.
        triangle_ids: [N] int64 triangle that each lies on.
    """

    points: Tensor
    distances: Tensor
    triangle_ids: Tensor


class SurfaceTree:
    """Finds closest points on one mesh again and again (bounding boxes in a tree, float64)."""

    def __init__(self, vertices: Tensor, triangles: Tensor) -> None:
        """Builds the tree.

        Args:
            vertices: [V, 3] any unit, finite.
            triangles: [T, 3] int64, at least one.

        Raises:
            ShapeError: The mesh has no triangle, or a vertex that is not finite.
            MissingExtraError: libigl is not installed.
        """
        _check(vertices, triangles)
        igl = needed("igl", "closest points on meshes need libigl")
        self._vertices = np.ascontiguousarray(vertices.detach().cpu().double().numpy())
        self._triangles = np.ascontiguousarray(triangles.detach().cpu().numpy().astype(np.int64))
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._triangles)

    def closest(self, points: Tensor) -> ClosestPoints:
        """Closest points on the surface.

        Args:
            points: [N, 3] finite, in the unit of the mesh.

        Returns:
            ClosestPoints in float64, on the CPU.

        Raises:
            ShapeError: `points` is not [N, 3] or not finite.
        """
        if points.dim() != 2 or points.shape[1] != 3 or not bool(points.isfinite().all()):
            raise ShapeError(f"points must be [N, 3] and finite, got {tuple(points.shape)}")
        if points.shape[0] == 0:
            empty = torch.zeros(0, 3, dtype=torch.float64)
            return ClosestPoints(empty, empty[:, 0], empty[:, 0].long())
        asked = np.ascontiguousarray(points.detach().cpu().double().numpy())
        squared, ids, found = (
            np.asarray(part) for part in self._tree.squared_distance(self._vertices, self._triangles, asked)
        )
        distances = torch.from_numpy(np.sqrt(np.atleast_1d(squared)))
        ids = np.atleast_1d(ids).astype(np.int64)
        return ClosestPoints(torch.from_numpy(found.reshape(-1, 3)), distances, torch.from_numpy(ids))


def closest_points_reference(points: Tensor, vertices: Tensor, triangles: Tensor) -> ClosestPoints:
    """What `SurfaceTree.closest` returns, by trying every triangle with every point.

    Args:
        points: [N, 3].
        vertices: [V, 3].
        triangles: [T, 3] int64.

    Returns:
        ClosestPoints in the dtype of `points`; time and memory grow with N T.
    """
    _check(vertices, triangles)
    places = closest_on_triangles(points[:, None], vertices[triangles])
    distances, which = (places - points[:, None]).norm(dim=-1).min(1)
    return ClosestPoints(places[torch.arange(points.shape[0]), which], distances, which)


def closest_on_triangles(points: Tensor, corners: Tensor) -> Tensor:
    """Closest place on each of many triangles.

    It is the point's projection if that lies inside the triangle, else the closest place on one of the three
    edges.

    Args:
        points: [*B, 3].
        corners: [*B, 3, 3] corner by corner.

    Returns:
        [*B, 3]; the leading dimensions are broadcast.
    """
    a, b, c = corners.unbind(-2)
    places, squared = None, None
    for start, end in ((a, b), (b, c), (c, a)):
        place = _on_segment(points, start, end)
        found = (place - points).square().sum(-1)
        if places is None or squared is None:
            places, squared = place, found
        else:
            places = torch.where((found < squared)[..., None], place, places)
            squared = torch.minimum(found, squared)
    assert places is not None
    normal = torch.linalg.cross(b - a, c - a)
    area2 = (normal**2).sum(-1)
    height = ((points - a) * normal).sum(-1, keepdim=True)
    flat = points - height / area2.clamp_min(1e-300)[..., None] * normal
    inside = area2 > 0
    for start, end in ((a, b), (b, c), (c, a)):
        edge = (end - start).expand_as(flat)
        inside = inside & ((torch.linalg.cross(edge, flat - start) * normal).sum(-1) >= 0)
    return torch.where(inside[..., None], flat, places)


def barycentric_of(points: Tensor, corners: Tensor) -> Tensor:
    """Weights of triangles' corners that give points in their planes.

    Args:
        points: [N, 3].
        corners: [N, 3, 3] corner by corner.

    Returns:
        [N, 3], summing to 1; at least 0 for points inside. A triangle without area gives its nearest corner.
    """
    a, b, c = corners.unbind(1)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    area = uu * vv - uv * uv
    good = area > 1e-14 * (uu * vv).clamp_min(1e-300)
    safe = torch.where(good, area, torch.ones_like(area))
    second, third = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    weights = torch.stack([1 - second - third, second, third], dim=-1)
    nearest = (corners - points[:, None]).norm(dim=-1).argmin(-1)
    single = torch.nn.functional.one_hot(nearest, 3).to(weights.dtype)
    return torch.where(good[:, None], weights, single)


def _on_segment(p: Tensor, start: Tensor, end: Tensor) -> Tensor:
    along = end - start
    share = ((p - start) * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-300)
    return start + share.clamp(0.0, 1.0)[..., None] * along


def _check(vertices: Tensor, triangles: Tensor) -> None:
    if vertices.dim() != 2 or vertices.shape[1] != 3 or triangles.dim() != 2 or triangles.shape[1] != 3:
        raise ShapeError(
            f"a mesh is [V, 3] vertices and [T, 3] triangles, got {tuple(vertices.shape)} "
            f"and {tuple(triangles.shape)}"
        )
    if triangles.shape[0] == 0:
        raise ShapeError("the mesh has no triangles, so no surface to find points on")
    if not bool(vertices.isfinite().all()):
        raise ShapeError("the mesh has vertices that are not finite numbers")
    if int(triangles.max()) >= vertices.shape[0] or int(triangles.min()) < 0:
        raise ShapeError("a triangle of the mesh points past its last vertex")
