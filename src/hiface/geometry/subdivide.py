# SPDX-License-Identifier: Apache-2.0
"""Finer triangles from coarse ones: each into four at the middles of its edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Subdivision:
    """One step of refinement of a mesh with n vertices.

    Attributes:
        parents: [M, 2] int64 ends of the edge in whose middle each new vertex lies; new vertices follow the
            old ones.
        triangles: [4 T, 3] int64, wound as before.
    """

    parents: np.ndarray
    triangles: np.ndarray

    def middles(self, values: np.ndarray) -> np.ndarray:
        """Values [n, ...] of the vertices with those of the new ones behind them: [n + M, ...]."""
        return np.concatenate([values, 0.5 * (values[self.parents[:, 0]] + values[self.parents[:, 1]])])


def subdivide(triangles: np.ndarray, n_vertices: int) -> Subdivision:
    """Splits every triangle into four; an edge that two triangles share gets one new vertex.

    Args:
        triangles: [T, 3] int64.
        n_vertices: Number of vertices n.
    """
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    parents, number = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = (n_vertices + number.reshape(-1, 3)).T
    a, b, c = triangles.T
    corners = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    parts = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    return Subdivision(parents, parts.reshape(-1, 3))
