# SPDX-License-Identifier: Apache-2.0
"""The dense landmark set: feature lines plus farthest points, closer together around eyes, lips and nose."""

from __future__ import annotations

import numpy as np

from .surface import Point, Surface, along_chain

DENSE_COUNT = 320
FACE_SPACING, EAR_SPACING = 0.0165, 0.022
FOREHEAD_REACH = 0.036
"""Height above the brow up to which the forehead gets points, metres."""
FINE_AREAS = (
    (tuple(range(36, 42)), 0.013, 0.0048),
    (tuple(range(48, 68)), 0.010, 0.0055),
    (tuple(range(28, 36)), 0.012, 0.0055),
    (tuple(range(17, 22)), 0.007, 0.0070),
)
"""iBUG numbers, reach and spacing (metres) of the areas with closer points."""
_MIDLINE = 1e-7
_CHAIN_POINTS = {
    "lid_upper": 9,
    "lid_lower": 9,
    "lip_outer_upper": 8,
    "lip_outer_lower": 7,
    "lip_inner_upper": 7,
    "lip_inner_lower": 6,
    "nose_bridge": 7,
    "nostril": 6,
}


def dense_points(
    surface: Surface,
    chains: dict[str, list[int]],
    masks: dict[str, np.ndarray],
    ibug: list[Point],
    ibug_mirror: list[int],
) -> tuple[list[Point], list[int]]:
    """Chooses ``DENSE_COUNT`` points, exactly mirror-symmetric.

    Args:
        surface: the head.
        chains: vertices of the feature lines of the right side.
        masks: vertex masks of the head.
        ibug: the iBUG points, which are all part of the set (first 68, same order).
        ibug_mirror: their mirror numbers.

    Returns:
        The points and each one's mirror number.
    """
    points, mirror = list(ibug), list(ibug_mirror)
    for name, count in _CHAIN_POINTS.items():
        for at in np.linspace(0.0, 1.0, count):
            candidate = along_chain(surface, chains[name], float(at))
            if _distance(surface, candidate, points) > 0.0012:
                _add(surface, points, mirror, candidate)
    vertices, spacing = _candidates(surface, masks, ibug)
    nearest = np.min(
        np.linalg.norm(surface.vertices[vertices][:, None] - surface.positions(points)[None], axis=2), axis=1
    )
    while len(points) < DENSE_COUNT:
        only_middle = DENSE_COUNT - len(points) == 1
        score = nearest / spacing
        if only_middle:
            score = np.where(surface.mirror[vertices] == vertices, score, -1.0)
        chosen = surface.at_vertex(int(vertices[int(np.argmax(score))]))
        added = _add(surface, points, mirror, chosen)
        away = np.linalg.norm(surface.vertices[vertices][:, None] - surface.positions(added)[None], axis=2)
        nearest = np.minimum(nearest, away.min(axis=1))
    return points, mirror


def _add(surface: Surface, points: list[Point], mirror: list[int], point: Point) -> list[Point]:
    """Appends a point and, off the midline, its mirror image."""
    if abs(surface.position(point)[0]) < _MIDLINE:
        mirror.append(len(points))
        points.append(point)
        return [point]
    mirror += [len(points) + 1, len(points)]
    points += [point, surface.mirrored(point)]
    return points[-2:]


def _distance(surface: Surface, point: Point, points: list[Point]) -> float:
    return float(np.min(np.linalg.norm(surface.positions(points) - surface.position(point), axis=1)))


def _candidates(
    surface: Surface, masks: dict[str, np.ndarray], ibug: list[Point]
) -> tuple[np.ndarray, np.ndarray]:
    """Right-side and midline vertices of face and ear, and the wanted spacing at each, in metres."""
    v = surface.vertices
    brow = surface.position(ibug[19])
    on_head = (masks["face"] & (v[:, 1] < brow[1] + FOREHEAD_REACH)) | (
        masks["ears"] & _looks_outward(surface)
    )
    vertices = np.flatnonzero(on_head & (v[:, 0] <= _MIDLINE))
    p = v[vertices]
    spacing = np.where(masks["ears"][vertices], EAR_SPACING, FACE_SPACING)
    for numbers, reach, fine in FINE_AREAS:
        d = np.linalg.norm(p[:, None] - surface.positions([ibug[i] for i in numbers])[None], axis=2).min(
            axis=1
        )
        spacing = np.minimum(spacing, FACE_SPACING - (FACE_SPACING - fine) * np.exp(-((d / reach) ** 2)))
    return vertices, spacing


def _looks_outward(surface: Surface) -> np.ndarray:
    """``[V]`` bool: vertices whose normal looks sideways and a little forward, away from the head."""
    t = surface.triangles
    corners = surface.vertices[t]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = np.zeros_like(surface.vertices)
    for k in range(3):
        np.add.at(normal, t[:, k], normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    outward = np.array([0.8, 0.0, 0.6])
    return np.abs(normal[:, 0]) * outward[0] + normal[:, 2] * outward[2] > 0.6
