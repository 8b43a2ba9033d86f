# SPDX-License-Identifier: Apache-2.0
"""Flattens a piece of surface with the topology of a disc onto a convex shape, without flipped triangles."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array
from scipy.sparse.linalg import spsolve

STRETCH_EXPONENT = 0.7


def edge_counts(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected edges and the number of triangles at each.

    Args:
        triangles: [T, 3] vertex ids.

    Returns:
        [E, 2] sorted vertex pairs and [E] counts (1 on the boundary).
    """
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    return np.unique(edges, axis=0, return_counts=True)


def boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Boundary loops in the direction of the triangles' edges (surface on the left, seen from outside).

    Args:
        triangles: [T, 3] vertex ids of a manifold piece of surface.

    Returns:
        One array of vertex ids per loop, without a repeated first vertex.
    """
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in directed}
    following = {a: b for a, b in present if (b, a) not in present}
    loops = []
    while following:
        first = next(iter(following))
        loop, vertex = [], first
        while vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return loops


def fill_loop(vertices: np.ndarray, loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Closes a hole with a fan around the middle of its rim.

    Args:
        vertices: [V, 3] positions.
        loop: [L] rim vertices as `boundary_loops` gives them.

    Returns:
        [V + 1, 3] positions with the new vertex last and [L, 3] new triangles.
    """
    centre = vertices[loop].mean(axis=0)
    fan = np.stack([np.roll(loop, -1), loop, np.full_like(loop, len(vertices))], axis=1)
    return np.concatenate([vertices, centre[None]]), fan


def mean_value_weights(vertices: np.ndarray, triangles: np.ndarray) -> csr_array:
    """Mean-value coordinates of each vertex in its neighbours (Floater, 2003), not normalised.

    Args:
        vertices: [V, 3] positions.
        triangles: [T, 3].

    Returns:
        [V, V] positive weights w_ij = (tan(alpha/2) + tan(beta/2)) / |ij|.
    """
    rows, cols, values = [], [], []
    for corner in range(3):
        i, j, k = (triangles[:, (corner + step) % 3] for step in range(3))
        to_j, to_k = vertices[j] - vertices[i], vertices[k] - vertices[i]
        len_j, len_k = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_k, axis=1)
        cosine = np.clip((to_j * to_k).sum(1) / (len_j * len_k), -1.0, 1.0)
        half_tan = np.sqrt((1.0 - cosine) / np.maximum(1.0 + cosine, 1e-9))
        rows += [i, i]
        cols += [j, k]
        values += [half_tan / len_j, half_tan / len_k]
    size = (len(vertices), len(vertices))
    return coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))), shape=size
    ).tocsr()


def solve_convex(weights: csr_array, boundary: np.ndarray, boundary_uv: np.ndarray) -> np.ndarray:
    """Places every inner vertex at the weighted mean of its neighbours (Tutte, 1963).

    Args:
        weights: [V, V] positive weights.
        boundary: [B] vertices on the rim.
        boundary_uv: [B, 2] convex polygon.

    Returns:
        [V, 2] positions.
    """
    size = len(weights.indptr) - 1
    inner = np.setdiff1d(np.arange(size), boundary)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    uv = np.zeros((size, 2))
    uv[boundary] = boundary_uv
    rows = csr_array(weights[inner].multiply(1.0 / sums[inner, None]))
    matrix = eye_array(len(inner), format="csr") - rows[:, inner]
    uv[inner] = np.asarray(spsolve(matrix.tocsc(), rows[:, boundary] @ boundary_uv))
    return uv


def triangle_stretch(vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Singular values of the map from the plane to the surface (Sander et al., 2001).

    Args:
        vertices: [V, 3] positions.
        triangles: [T, 3].
        uv: [V, 2] flat positions, or [T, 3, 2] corners.

    Returns:
        [T, 2] largest and smallest singular value: length on the surface per unit of the plane.
    """
    corners = uv[triangles] if uv.ndim == 2 else uv
    flat = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=2)
    solid = np.stack(
        [
            vertices[triangles[:, 1]] - vertices[triangles[:, 0]],
            vertices[triangles[:, 2]] - vertices[triangles[:, 0]],
        ],
        axis=2,
    )
    determinant = flat[:, 0, 0] * flat[:, 1, 1] - flat[:, 0, 1] * flat[:, 1, 0]
    safe = np.where(np.abs(determinant) < 1e-14, 1e-14, determinant)
    entries = [flat[:, 1, 1], -flat[:, 0, 1], -flat[:, 1, 0], flat[:, 0, 0]]
    adjugate = np.stack(entries, axis=1).reshape(-1, 2, 2)
    jacobian = solid @ (adjugate / safe[:, None, None])
    return np.linalg.svd(jacobian, compute_uv=False)


def signed_areas(corners: np.ndarray) -> np.ndarray:
    """Signed area of flat triangles, [T, 3, 2] to [T]."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def flatten(
    vertices: np.ndarray,
    triangles: np.ndarray,
    boundary: np.ndarray,
    boundary_uv: np.ndarray,
    importance: np.ndarray | None = None,
    iterations: int = 6,
) -> np.ndarray:
    """Mean-value map onto a convex shape, then stretch-reducing iterations (Yoshizawa et al., 2004).

    Every iteration divides the weight towards a vertex by its local stretch to the power 0.7, so that
    stretched places receive more of the plane. Weights stay positive: each result is one-to-one.

    Args:
        vertices: [V, 3] positions.
        triangles: [T, 3] of a disc.
        boundary: [B] rim vertices in order.
        boundary_uv: [B, 2] convex polygon.
        importance: [V] factor on the stretch; 1 where the texture matters most. None is 1 everywhere.
        iterations: Number of stretch-reducing steps.

    Returns:
        [V, 2] flat positions.
    """
    weights = mean_value_weights(vertices, triangles)
    uv = solve_convex(weights, boundary, boundary_uv)
    importance = np.ones(len(vertices)) if importance is None else importance
    edge_a = vertices[triangles[:, 1]] - vertices[triangles[:, 0]]
    edge_b = vertices[triangles[:, 2]] - vertices[triangles[:, 0]]
    areas = 0.5 * np.linalg.norm(np.cross(edge_a, edge_b), axis=1)
    around = np.bincount(triangles.ravel(), np.repeat(areas, 3), len(vertices))
    for _ in range(iterations):
        singular = np.minimum(triangle_stretch(vertices, triangles, uv), 1e4)
        energy = np.repeat(areas * (singular**2).mean(axis=1), 3)
        stretch = importance * np.sqrt(np.bincount(triangles.ravel(), energy, len(vertices)) / around)
        weights = csr_array(weights.multiply(1.0 / stretch[None, :] ** STRETCH_EXPONENT))
        uv = solve_convex(weights, boundary, boundary_uv)
    return uv


def along_polygon(polygon: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Points at given fractions of the length of an open polyline.

    Args:
        polygon: [P, 2] corners.
        at: [N] fractions in [0, 1].

    Returns:
        [N, 2] points.
    """
    steps = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(polygon, axis=0), axis=1))]
    return np.stack([np.interp(at * steps[-1], steps, polygon[:, axis]) for axis in range(2)], axis=1)


def path_fractions(points: np.ndarray) -> np.ndarray:
    """Fraction of the length of a polyline reached at each of its points, [N, D] to [N]."""
    steps = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return steps / steps[-1]
