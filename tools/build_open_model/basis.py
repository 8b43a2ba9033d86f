# SPDX-License-Identifier: Apache-2.0
"""From sampled people to a mean and a linear basis: rigid alignment, then weighted principal components.

Every person is counted twice, as drawn and mirrored. The covariance then falls apart into a mirror-symmetric
and an antisymmetric block, so each component is exactly one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import PART_NAMES, HeadMesh

FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class IdentityBasis:
    """Linear model of the sampled people; points are the head's vertices followed by the joints.

    Attributes:
        mean: ``[P, 3]`` metres.
        basis: ``[K, P, 3]`` metres per sigma, largest weighted variance first.
        std: ``[K]`` sigma of each component in the weighted space (metres, rms over the weighted head).
        explained: ``[K]`` cumulative share of the weighted variance.
        symmetric: ``[K]`` bool, mirror-symmetric (else antisymmetric).
    """

    mean: np.ndarray
    basis: np.ndarray
    std: np.ndarray
    explained: np.ndarray
    symmetric: np.ndarray


def region_weights(head: HeadMesh, template: np.ndarray) -> np.ndarray:
    """How much each vertex counts: face 1, rest of the front 0.6, cranium, ears and neck 0.3, sockets less.

    Args:
        head: connectivity.
        template: ``[V, 3]`` metres, origin between the eyes.

    Returns:
        ``[V]`` float64 in (0, 1], a smooth function of the position on the template.
    """
    x, y, z = template.T
    depth = _smoothstep(z, -0.055, -0.020)
    oval = np.sqrt((x / 0.072) ** 2 + ((y + 0.030) / 0.092) ** 2)
    face = depth * _smoothstep(-oval, -1.12, -0.92)
    weight = 0.3 + 0.3 * depth * _smoothstep(y, -0.135, -0.115) + 0.4 * face
    inner = np.ones(len(template), dtype=bool)
    inner[head.part_vertices("skin")] = False
    weight[inner] = 0.15
    for name in ("eye_left", "eye_right"):
        weight[head.part_vertices(name)] = 0.6
    return np.minimum(weight, 1.0)


def _smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def vertex_areas(triangles: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Area of each vertex's share of its triangles, ``[V]`` square metres."""
    p0, p1, p2 = (vertices[triangles[:, i]] for i in range(3))
    area = 0.5 * np.linalg.norm(np.cross(p1 - p0, p2 - p0), axis=1)
    return np.bincount(triangles.ravel(), np.repeat(area / 3.0, 3), minlength=len(vertices))


def align_rigid(points: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Moves each shape rigidly (no scale) onto the reference, weighted least squares (Kabsch).

    Args:
        points: ``[n, P, 3]``.
        reference: ``[P, 3]``.
        weights: ``[P]``, zero where a point does not count.
    """
    share = weights / weights.sum()
    centre = np.einsum("p,npc->nc", share, points)
    target = share @ reference
    used = share > 0
    cross = np.einsum(
        "p,npi,pj->nij",
        share[used],
        points[:, used] - centre[:, None],
        reference[used] - target,
        optimize=True,
    )
    u, _, vt = np.linalg.svd(cross)
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= sign[:, None]
    rotation = u @ vt
    return (points - centre[:, None]) @ rotation + target


def principal_components(
    samples: np.ndarray, point_weights: np.ndarray, mirror: np.ndarray, count: int
) -> IdentityBasis:
    """Weighted PCA of samples and their mirror images.

    Args:
        samples: ``[n, P, 3]`` aligned people, metres.
        point_weights: ``[P]`` region weight times square root of the area share; zero leaves a point out of
        the
            metric (it still gets its regression on the components).
        mirror: ``[P]`` index of the mirrored point.
        count: number of components kept.
    """
    flipped = samples[:, mirror] * FLIP
    even, odd = 0.5 * (samples + flipped), 0.5 * (samples - flipped)
    mean = even.mean(axis=0)
    even = even - mean
    blocks = [_block(x, point_weights) for x in (even, odd)]
    values = np.concatenate([b[0] for b in blocks])
    order = np.argsort(-values, kind="stable")[:count]
    vectors = np.concatenate([b[1] for b in blocks])[order]
    symmetric = np.repeat([True, False], [len(b[0]) for b in blocks])[order]
    total = sum(b[2] for b in blocks)
    return IdentityBasis(mean, vectors, np.sqrt(values[order]), np.cumsum(values[order]) / total, symmetric)


def _block(data: np.ndarray, point_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues (descending), components times sigma and total variance of one mirror block."""
    n, points, _ = data.shape
    weighted = (data * point_weights[:, None]).reshape(n, -1).astype(np.float64)
    gram = weighted @ weighted.T / n
    values, left = np.linalg.eigh(gram)
    values, left = values[::-1], left[:, ::-1]
    keep = values > values[0] * 1e-7
    left = left[:, keep]
    basis = (left.T @ data.reshape(n, -1) / np.sqrt(n)).reshape(-1, points, 3)
    sign = np.sign(
        basis.reshape(len(basis), -1)[np.arange(len(basis)), np.abs(basis.reshape(len(basis), -1)).argmax(1)]
    )
    return values[keep], basis * sign[:, None, None], float(values.sum())


def part_mask(head: HeadMesh, names: tuple[str, ...], vertex_count: int) -> np.ndarray:
    """Vertices that belong to the named parts and not to the skin's rim, ``[V]`` bool."""
    mask = np.zeros(vertex_count, dtype=bool)
    for name in names:
        mask[head.part_vertices(name)] = True
    if "skin" not in names:
        mask[head.part_vertices(PART_NAMES[0])] = False
    return mask
