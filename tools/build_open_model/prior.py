# SPDX-License-Identifier: Apache-2.0
"""Betters the prior of the sampled people: survey measures and a smooth Gaussian process.

The sculpted targets say how faces can vary but not how faces do vary. Two corrections are linear and keep the
coefficients standard normal: the basis is conditioned on caliper measures of adults, and smooth modes of a
mirrored Gaussian process are mixed in for the directions that no target reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .basis import IdentityBasis
from .mesh import HeadMesh

FLIP = np.array([-1.0, 1.0, 1.0])
KERNELS = ((0.0040, 0.060), (0.0025, 0.030), (0.0010, 0.016))
"""Standard deviation and length of each squared-exponential kernel, metres."""
GP_WEIGHT = 0.3
ANTISYMMETRIC_SHARE = 0.25
INDUCING_POINTS = 500
EYE_SHIELD = (0.020, 0.034)
"""Distances from an eyeball's centre between which the process takes over from its own motion, metres."""
MODES_PER_FIELD = 130


@dataclass(frozen=True)
class Measure:
    """A distance between two points of the head, with the mean and spread found among adults.

    Attributes:
        name: what it is called in anthropometry.
        first: point id.
        second: point id.
        mean: metres, mean of women and men.
        sd: metres, spread over women and men together.
        noise: metres, doubt about whether the two points mean the same on the mesh as under the caliper.
    """

    name: str
    first: int
    second: int
    mean: float
    sd: float
    noise: float


SURVEY_MM = {
    "interpupillary": (63.2, 3.8, 1.0),
    "menton_sellion": (118.1, 8.0, 2.0),
    "subnasale_sellion": (50.1, 4.4, 2.0),
    "bizygomatic": (139.3, 7.9, 4.0),
    "bigonial": (115.2, 8.0, 6.0),
    "nose_breadth": (34.9, 4.3, 6.0),
    "nose_protrusion": (20.5, 2.8, 4.0),
    "lip_length": (49.5, 4.4, 2.0),
    "head_breadth": (149.9, 6.6, 3.0),
    "head_length": (192.4, 8.8, 4.0),
}
"""Mean, spread and doubt in mm, after the 2003 NIOSH head-and-face survey (Zhuang and Bradtmiller 2005),
women and men weighted alike."""


def find_measures(head: HeadMesh, points: np.ndarray) -> list[Measure]:
    """Finds the points of each measure on the mean head by their geometry.

    Args:
        head: connectivity.
        points: ``[V + 5, 3]`` mean head and joints, metres, origin between the eyes.
    """
    count = len(head.mirror_vertices)
    skin = head.part_vertices("skin")
    middle = skin[np.abs(points[skin, 0]) < 1e-4]
    x, y, z = points.T
    sellion = _pick(middle, (np.abs(y) < 0.012) & (z > 0), -z)
    pronasale = _pick(middle, (y < -0.015) & (y > -0.07), z)
    upper_lip = _pick(middle, (y < y[pronasale] - 0.015) & (y > y[pronasale] - 0.03), z)
    along = points[upper_lip] - points[pronasale]
    behind = (points - points[pronasale]) @ np.cross(along, [1.0, 0.0, 0.0])
    between = (y < y[pronasale]) & (y > y[upper_lip]) & (z > 0.01)
    subnasale = _pick(middle, between, np.sign(-np.cross(along, [1.0, 0.0, 0.0])[2]) * behind)
    menton = _pick(middle, z > -0.02, -y + 0.3 * z)
    rim = np.intersect1d(head.part_vertices("mouth_interior"), skin)
    zygion = _pick(skin, (y > -0.035) & (y < 0) & (z > -0.052) & (z < -0.035), x)
    gonion = _pick(skin, (y > -0.090) & (y < -0.074) & (z > -0.062) & (z < -0.040), x)
    alare = _pick(skin, (y > -0.052) & (y < -0.036) & (z > 0.020) & (x < 0.026), x)
    cheilion = _pick(rim, x > 0, x)
    euryon = _pick(skin, (y > 0.015) & (z < -0.050), x)
    glabella = _pick(middle, (y > 0.01) & (y < 0.03) & (z > 0), z)
    opisthocranion = _pick(middle, y > 0, -z)
    mirror = head.mirror_vertices
    pairs = {
        "interpupillary": (count + 3, count + 4),
        "menton_sellion": (menton, sellion),
        "subnasale_sellion": (subnasale, sellion),
        "nose_protrusion": (pronasale, subnasale),
        "head_length": (glabella, opisthocranion),
    }
    wide = {"bizygomatic": zygion, "bigonial": gonion, "nose_breadth": alare}
    wide |= {"lip_length": cheilion, "head_breadth": euryon}
    pairs |= {name: (i, int(mirror[i])) for name, i in wide.items()}
    return [Measure(n, *pairs[n], *(0.001 * value for value in SURVEY_MM[n])) for n in SURVEY_MM]


def _pick(candidates: np.ndarray, condition: np.ndarray, score: np.ndarray) -> int:
    inside = candidates[condition[candidates]]
    return int(inside[score[inside].argmax()])


def measure(points: np.ndarray, measures: list[Measure]) -> np.ndarray:
    """Distances of every measure: ``[*B, P, 3]`` → ``[*B, M]`` metres."""
    return np.stack(
        [np.linalg.norm(points[..., m.first, :] - points[..., m.second, :], axis=-1) for m in measures], -1
    )


def calibrate(mean: np.ndarray, basis: np.ndarray, measures: list[Measure]) -> tuple[np.ndarray, np.ndarray]:
    """Conditions a linear model with standard normal coefficients on measured means and spreads.

    The mean moves by the most likely coefficients that explain the survey's means up to the doubt of each
    measure; the spread of each measure is scaled to the survey's (between 0.6 and 1.25 times), all else is
    left alone.

    Args:
        mean: ``[P, 3]``.
        basis: ``[K, P, 3]``.
        measures: from ``find_measures``.

    Returns:
        New mean and basis.
    """
    jacobian = _jacobian(mean, basis, measures)
    spread = jacobian @ jacobian.T
    doubt = np.diag([m.noise**2 for m in measures])
    wanted = np.array([m.mean for m in measures]) - measure(mean, measures)
    shift = jacobian.T @ np.linalg.solve(spread + doubt, wanted)
    ratio = np.array([m.sd for m in measures]) / np.sqrt(np.diag(spread))
    scale = np.diag(np.clip(ratio, 0.6, 1.25) - 1.0)
    mix = np.eye(len(basis)) + jacobian.T @ np.linalg.solve(spread, scale @ jacobian)
    moved = mean + np.tensordot(shift, basis, 1)
    return moved, np.tensordot(mix.T, basis, 1)


def _jacobian(mean: np.ndarray, basis: np.ndarray, measures: list[Measure]) -> np.ndarray:
    rows = []
    for m in measures:
        direction = mean[m.first] - mean[m.second]
        rows.append((basis[:, m.first] - basis[:, m.second]) @ (direction / np.linalg.norm(direction)))
    return np.stack(rows)


def gaussian_process_modes(
    head: HeadMesh, points: np.ndarray, weights: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Smooth random displacements as a linear basis, mirror-symmetric ones in full and others in part.

    Teeth and tongue move as one piece with the mean of the process over them, and so does each eyeball with
    its lids. The rigid part, seen by ``weights``, is taken out, as people are aligned.

    Args:
        head: connectivity.
        points: ``[P, 3]`` vertices and joints, metres.
        weights: ``[P]`` alignment weights.
        mirror: ``[P]`` mirrored point.

    Returns:
        ``[K, P, 3]`` float32 displacements for standard normal coefficients, metres.
    """
    even, odd = _scalar_modes(points, mirror)
    modes = []
    for fields, axes, share in (
        (even, (1, 2), 1.0),
        (odd, (0,), 1.0),
        (odd, (1, 2), None),
        (even, (0,), None),
    ):
        for axis in axes:
            block = np.zeros((len(fields), len(points), 3))
            block[:, :, axis] = fields * (ANTISYMMETRIC_SHARE if share is None else share)
            modes.append(block)
    stacked = np.concatenate(modes)
    for name in ("eye_left", "eye_right"):
        ids = head.part_vertices(name)
        piece = stacked[:, ids].mean(axis=1, keepdims=True)
        near = np.linalg.norm(points - points[ids].mean(axis=0), axis=1)
        free = np.clip((near - EYE_SHIELD[0]) / (EYE_SHIELD[1] - EYE_SHIELD[0]), 0.0, 1.0)
        free = (free * free * (3.0 - 2.0 * free))[None, :, None]
        stacked = free * stacked + (1.0 - free) * piece
    for name in ("teeth_upper", "teeth_lower", "tongue"):
        ids = head.part_vertices(name)
        stacked[:, ids] = stacked[:, ids].mean(axis=1, keepdims=True)
    return (GP_WEIGHT * _without_rigid(stacked, points, weights)).astype(np.float32)


def _scalar_modes(points: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading modes of the even and the odd scalar process, two ``[n, P]`` arrays (Nyström)."""
    chosen = _spread_points(points, mirror, INDUCING_POINTS)
    out = []
    for sign in (1.0, -1.0):
        cross = 0.5 * (_kernel(points, points[chosen]) + sign * _kernel(points[mirror], points[chosen]))
        values, vectors = np.linalg.eigh(cross[chosen])
        order = np.argsort(-values)[:MODES_PER_FIELD]
        order = order[values[order] > 1e-12]
        out.append((cross @ vectors[:, order] / np.sqrt(values[order])).T)
    return out[0] * np.sqrt(2.0), out[1] * np.sqrt(2.0)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = ((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2.0 * a @ b.T).clip(min=0.0)
    return np.sum([sd**2 * np.exp(-0.5 * squared / length**2) for sd, length in KERNELS], axis=0)


def _spread_points(points: np.ndarray, mirror: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point sampling of one side of the head (the midline included)."""
    side = np.flatnonzero(points[:, 0] >= -1e-9)
    chosen = [int(side[points[side, 2].argmax()])]
    distance = np.full(len(side), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(points[side] - points[chosen[-1]], axis=1))
        chosen.append(int(side[distance.argmax()]))
    return np.array(chosen)


def _without_rigid(modes: np.ndarray, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    unit = np.eye(3)
    moves = [np.broadcast_to(u, points.shape) for u in unit] + [np.cross(u, points) for u in unit]
    rigid = np.stack(moves).reshape(6, -1)
    weighted = rigid * np.repeat(weights, 3)
    flat = modes.reshape(len(modes), -1)
    part = np.linalg.solve(weighted @ rigid.T, weighted @ flat.T)
    return (flat - part.T @ rigid).reshape(modes.shape)


def recompress(
    mean: np.ndarray, rows: np.ndarray, point_weights: np.ndarray, mirror: np.ndarray, count: int
) -> IdentityBasis:
    """Turns any rows for standard normal coefficients into principal components of the same distribution.

    Args:
        mean: ``[P, 3]``.
        rows: ``[n, P, 3]``.
        point_weights: ``[P]`` weights of the metric.
        mirror: ``[P]`` mirrored point.
        count: number of components kept.
    """
    flipped = rows[:, mirror] * FLIP
    values, vectors, symmetric = [], [], []
    for sign in (1.0, -1.0):
        block = (0.5 * (rows + sign * flipped)).reshape(len(rows), -1).astype(np.float64)
        weighted = block * np.repeat(point_weights, 3)
        squares, left = np.linalg.eigh(weighted @ weighted.T)
        keep = np.argsort(-squares)[: 2 * count]
        values.append(squares[keep])
        vectors.append((left[:, keep].T @ block).reshape(-1, *mean.shape))
        symmetric.append(np.full(len(keep), sign > 0))
    total = sum(float(v.sum()) for v in values)
    squares = np.concatenate(values)
    order = np.argsort(-squares, kind="stable")[:count]
    basis = np.concatenate(vectors)[order]
    flat = basis.reshape(count, -1)
    sign = np.sign(flat[np.arange(count), np.abs(flat).argmax(axis=1)])
    shares = np.cumsum(squares[order]) / total
    return IdentityBasis(
        mean, basis * sign[:, None, None], np.sqrt(squares[order]), shares, np.concatenate(symmetric)[order]
    )
