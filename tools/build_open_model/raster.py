# SPDX-License-Identifier: Apache-2.0
"""Draws triangles of the texture plane into a grid of texels (plain numpy, for building only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TexelMap:
    """What lies under each texel centre of a square map.

    Attributes:
        triangle_ids: [H, W] int64, -1 where no triangle lies.
        barycentric: [H, W, 3] float32, zero where no triangle lies.
        counts: [H, W] number of triangles whose inside holds the texel centre.
    """

    triangle_ids: np.ndarray
    barycentric: np.ndarray
    counts: np.ndarray

    def lift(self, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Interpolates values given at vertices.

        Args:
            values: [V, C] per vertex.
            triangles: [T, 3] vertex ids of the triangles that were drawn.

        Returns:
            [H, W, C]; zero where no triangle lies.
        """
        corners = values[triangles[np.maximum(self.triangle_ids, 0)]]
        return (corners * self.barycentric[..., None]).sum(axis=-2)


def rasterize_uv(uv: np.ndarray, uv_triangles: np.ndarray, size: int) -> TexelMap:
    """Finds the triangle and the barycentric coordinates at each texel centre.

    Args:
        uv: [U, 2] in [0, 1], origin top-left.
        uv_triangles: [T, 3] indices into `uv`.
        size: Width and height of the map.

    Returns:
        The map; where triangles overlap, the one drawn last.
    """
    ids = np.full((size, size), -1, dtype=np.int64)
    weights = np.zeros((size, size, 3), dtype=np.float32)
    counts = np.zeros((size, size), dtype=np.int32)
    points = uv.astype(np.float64)[uv_triangles] * size - 0.5
    low = np.maximum(np.ceil(points.min(axis=1) - 1e-9), 0).astype(int)
    high = np.minimum(np.floor(points.max(axis=1) + 1e-9), size - 1).astype(int)
    for t in np.flatnonzero((low <= high).all(axis=1)):
        (x0, y0), (x1, y1) = low[t], high[t]
        inside, bary = _cover(points[t], np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
        window = (slice(y0, y1 + 1), slice(x0, x1 + 1))
        ids[window][inside] = t
        weights[window][inside] = bary[inside]
        counts[window] += (bary.min(axis=-1) > 1e-6) & inside
    return TexelMap(ids, weights, counts)


def _cover(corners: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (ax, ay), (bx, by), (cx, cy) = corners
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    x, y = np.meshgrid(columns, rows)
    if abs(area) < 1e-12:
        return np.zeros(x.shape, dtype=bool), np.zeros((*x.shape, 3))
    second = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
    third = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
    bary = np.stack([1.0 - second - third, second, third], axis=-1)
    return bary.min(axis=-1) >= -1e-6, bary


def nearest_texel(covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the nearest covered texel for every texel, to fill the gutters between charts.

    Args:
        covered: [H, W] bool.

    Returns:
        Two [H, W] int arrays (rows, columns).
    """
    from scipy.ndimage import distance_transform_edt

    indices = np.asarray(distance_transform_edt(~covered, return_distances=False, return_indices=True))
    return indices[0], indices[1]
