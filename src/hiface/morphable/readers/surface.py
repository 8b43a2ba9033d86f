# SPDX-License-Identifier: Apache-2.0
"""What can be worked out from a bare mesh: its winding, a UV layout, mirror images, points at vertices."""

from __future__ import annotations

import numpy as np

from hiface.errors import ModelFormatError

MIRROR_TOLERANCE_M = 0.004
_BLOCK = 1024


def winds_inwards(vertices: np.ndarray, triangles: np.ndarray) -> bool:
    """Whether most of a head's or face's surface is clockwise seen from outside.

    Args:
        vertices: [V, 3].
        triangles: [T, 3].
    """
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(axis=1) - vertices.mean(axis=0)
    return bool((normals * outward).sum() < 0)


def cylindrical_uv(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A layout around the vertical axis, the face in the middle, its own left at the right, seam behind.

    Triangles across the seam end at the right edge.

    Args:
        vertices: [V, 3] object space.
        triangles: [T, 3].

    Returns:
        uv [U, 2] of 0..1, origin top-left, and uv_triangles [T, 3] int64.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    size = np.maximum(high - low, np.finfo(np.float64).tiny)
    middle = (low + high) / 2
    angle = np.arctan2(vertices[:, 0] - middle[0], vertices[:, 2] - middle[2])
    uv = np.stack([angle / (2 * np.pi) + 0.5, (high[1] - vertices[:, 1]) / size[1]], axis=1)
    uv_triangles = triangles.astype(np.int64).copy()
    u = uv[uv_triangles, 0]
    over = (u < 0.5) & ((u.max(axis=1) - u.min(axis=1)) > 0.5)[:, None]
    moved, index = np.unique(uv_triangles[over], return_inverse=True)
    uv_triangles[over] = len(uv) + index
    ends = uv[moved].copy()
    ends[:, 0] = 1.0
    return np.concatenate([uv, ends]), uv_triangles


def mirror_vertices(vertices: np.ndarray, tolerance: float = MIRROR_TOLERANCE_M) -> np.ndarray:
    """The vertex nearest to each vertex's image in the plane x = 0.

    Args:
        vertices: [V, 3] metres, object space.
        tolerance: Metres; a vertex without one this near, or whose nearest has another partner, is its own.

    Returns:
        [V] int64, an involution.
    """
    order = np.argsort(vertices[:, 1], kind="stable")
    points = vertices[order]
    heights = points[:, 1]
    images = points * np.array([-1.0, 1.0, 1.0])
    nearest = np.arange(len(points))
    for start in range(0, len(points), _BLOCK):
        block = images[start : start + _BLOCK]
        low = np.searchsorted(heights, block[0, 1] - tolerance, "left")
        high = np.searchsorted(heights, block[-1, 1] + tolerance, "right")
        near = points[low:high]
        apart = sum((block[:, None, axis] - near[None, :, axis]) ** 2 for axis in range(3))
        best = np.asarray(apart).argmin(axis=1)
        close = np.asarray(apart)[np.arange(len(block)), best] <= tolerance**2
        nearest[start : start + _BLOCK][close] = low + best[close]
    mutual = nearest[nearest] == np.arange(len(nearest))
    nearest = np.where(mutual, nearest, np.arange(len(nearest)))
    result = np.empty_like(nearest)
    result[order] = order[nearest]
    return result


def points_at_vertices(ids: np.ndarray, triangles: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Points at vertices as triangles and barycentric coordinates.

    Args:
        ids: [L] vertices.
        triangles: [T, 3].
        what: What the error calls the points.

    Returns:
        Triangle of each point [L] int64 and weights [L, 3].

    Raises:
        ModelFormatError: A vertex is not part of the mesh.
    """
    flat = triangles.reshape(-1)
    vertices, first = np.unique(flat, return_index=True)
    place = np.searchsorted(vertices, ids).clip(0, len(vertices) - 1)
    if not (vertices[place] == ids).all():
        lost = ids[vertices[place] != ids][0]
        raise ModelFormatError(
            f"{what} are at vertices of another mesh: no triangle has vertex {int(lost)}, the mesh has "
            f"{int(triangles.max()) + 1}"
        )
    corners = first[place]
    return corners // 3, np.eye(3)[corners % 3]


def nearest_vertices(points: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest vertex of each point and how far it is, for a few points."""
    apart = np.linalg.norm(points[:, None] - vertices[None], axis=2)
    index = apart.argmin(axis=1)
    return index, apart[np.arange(len(points)), index]
