# SPDX-License-Identifier: Apache-2.0
"""Places on a mesh that are near and face the same way: on a closed mouth both lips are near."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.closest import SurfaceTree, barycentric_of, closest_on_triangles
from hiface.geometry.normals import vertex_normals
from hiface.optional import needed

NORMAL_M = 0.008
"""What a right angle between two normals counts as distance, over the square root of two."""
_CANDIDATES = 12
_BLOCK = 8192
_ON_EDGE = 1e-6


@dataclass(frozen=True)
class Places:
    """Points of a mesh's surface.

    Attributes:
        triangle_ids: [N] int64.
        barycentric: [N, 3] weights of the corners, at least 0, summing to 1.
        points: [N, 3] where they are.
        normals: [N, 3] unit normals of the triangles.
        distances: [N] to the points that were asked for.
        cosines: [N] between the normals there and those that were asked for.
        on_border: [N] bool, whether the place lies on an open edge of the mesh.
    """

    triangle_ids: Tensor
    barycentric: Tensor
    points: Tensor
    normals: Tensor
    distances: Tensor
    cosines: Tensor
    on_border: Tensor


class OrientedSurface:
    """Finds places of one mesh by position and normal, again and again (float64, on the CPU)."""

    def __init__(self, vertices: Tensor, triangles: Tensor, normal_m: float = NORMAL_M) -> None:
        """Builds the search trees.

        Args:
            vertices: [V, 3] metres, finite.
            triangles: [T, 3] int64, at least one.
            normal_m: Metres that a difference of unit normals of length 1 counts as.

        Raises:
            ShapeError: The mesh has no triangle, or a vertex that is not finite.
            MissingExtraError: libigl or scipy is not installed.
        """
        self._tree = SurfaceTree(vertices, triangles)
        self._triangles = triangles.detach().cpu()
        self._corners = vertices.detach().cpu().double()[self._triangles]
        self._normal_m = normal_m
        a, b, c = self._corners.unbind(1)
        self._normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        features = torch.cat([self._corners.mean(1), normal_m * self._normals], dim=1)
        self._nearby = needed("scipy.spatial", "comparing surfaces needs scipy").cKDTree(features.numpy())
        self._open_edges, self._open_vertices = open_border(self._triangles, vertices.shape[0])

    def find(self, points: Tensor, normals: Tensor) -> Places:
        """The best place for each point: near, and facing the same way.

        Args:
            points: [N, 3] metres.
            normals: [N, 3] unit.

        Returns:
            Places.
        """
        parts = [
            self._find(p, n)
            for p, n in zip(
                points.detach().cpu().double().split(_BLOCK),
                normals.detach().cpu().double().split(_BLOCK),
                strict=True,
            )
        ]
        names = Places.__dataclass_fields__
        return Places(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def _find(self, points: Tensor, normals: Tensor) -> Places:
        asked = torch.cat([points, self._normal_m * normals], dim=1).numpy()
        count = min(_CANDIDATES, len(self._triangles))
        near = np.asarray(self._nearby.query(asked, k=count)[1]).reshape(len(asked), -1)
        closest = self._tree.closest(points).triangle_ids
        ids = torch.cat([torch.from_numpy(near), closest[:, None]], dim=1)
        places = closest_on_triangles(points[:, None], self._corners[ids])
        squared = (places - points[:, None]).square().sum(-1)
        turned = (self._normals[ids] - normals[:, None]).square().sum(-1)
        best = (squared + self._normal_m**2 * turned).argmin(1)
        row = torch.arange(len(points))
        triangle, found = ids[row, best], places[row, best]
        weights = barycentric_of(found, self._corners[triangle]).clamp_min(0.0)
        weights = weights / weights.sum(-1, keepdim=True)
        at_edge = (weights < _ON_EDGE) & self._open_edges[triangle]
        at_vertex = (weights > 1 - _ON_EDGE) & self._open_vertices[self._triangles[triangle]]
        border = (at_edge | at_vertex).any(1)
        facing = self._normals[triangle]
        cosine = (facing * normals).sum(-1)
        return Places(triangle, weights, found, facing, squared[row, best].sqrt(), cosine, border)


def open_border(triangles: Tensor, n_vertices: int) -> tuple[Tensor, Tensor]:
    """Edges that belong to one triangle only.

    Args:
        triangles: [T, 3] int64.
        n_vertices: Number of vertices V.

    Returns:
        [T, 3] bool, whether the edge opposite to each corner is one, and [V] bool, vertices of such edges.
    """
    opposite = torch.stack([triangles[:, [1, 2]], triangles[:, [2, 0]], triangles[:, [0, 1]]], dim=1)
    edges = opposite.flatten(0, 1).sort(dim=1).values
    _, index, count = edges.unique(dim=0, return_inverse=True, return_counts=True)
    single = count[index] == 1
    vertices = torch.zeros(n_vertices, dtype=torch.bool)
    vertices[edges[single].flatten()] = True
    return single.reshape(-1, 3), vertices


def normals_of(vertices: Tensor, triangles: Tensor) -> Tensor:
    """[V, 3] unit vertex normals in float64 on the CPU."""
    return vertex_normals(vertices.detach().cpu().double(), triangles.detach().cpu())
