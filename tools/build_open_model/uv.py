# SPDX-License-Identifier: Apache-2.0
"""Lays the head out on the texture square: one large chart of skin, a strip of small charts below it.

The skin is cut along the back midline from neck to crown and mapped one-to-one onto a rectangle; the face is
favoured. Left and right are exact mirror images about u = 0.5. Orientation: a triangle that is
counter-clockwise from outside is counter-clockwise in the picture too (v points down, so its signed area in
u, v is negative).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .parametrize import (
    along_polygon,
    boundary_loops,
    edge_counts,
    fill_loop,
    flatten,
    path_fractions,
    triangle_stretch,
)

LAYOUT_TEXELS = 256
"""Side of the grid in which the rectangles below are given."""
SKIN_RECT = (0, 0, 256, 214)
"""Left, top, width, height of the skin's chart."""
_STRIP_RECTS = {
    "eye": (216, 218, 36, 36),
    "eye_back": (208, 246, 6, 6),
    "socket": (188, 218, 24, 16),
    "mouth_interior": (156, 218, 28, 16),
    "tongue": (130, 218, 22, 16),
    "teeth_upper": (130, 238, 35, 16),
    "teeth_lower": (169, 238, 35, 16),
}
_SEAM_ON_SIDE = 0.7
"""Share of the back seam, from the neck up, on the vertical sides; the rest lies on the top edge."""
_FACE_IMPORTANCE, _REST_IMPORTANCE, _HOLE_IMPORTANCE = 1.0, 0.1, 0.3
_SKIN_ITERATIONS = 3
_EYE_ANGLES_DEG = (0.0, 22.5, 45.0, 67.5, 180.0)
_EYE_RADII = (0.0, 0.44, 0.68, 0.84, 1.0)
_EYE_BACK_DEG = 160.0
_SUPERELLIPSE_POWER = 5.0
_PHASES = 24


@dataclass(frozen=True)
class Chart:
    """A flat piece: triangles, their corners' indices into the chart's own points, and those points.

    Attributes:
        triangle_ids: [N] rows of the mesh's triangle list.
        corners: [N, 3] indices into `points` and `vertices`.
        points: [P, 2] in [0, 1], y up.
        vertices: [P] mesh vertex of each point.
        twins: [P] mirror image of each point for a chart that lies across u = 0.5, else None.
    """

    triangle_ids: np.ndarray
    corners: np.ndarray
    points: np.ndarray
    vertices: np.ndarray
    twins: np.ndarray | None = None


def build_uv(base: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Computes the texture layout of the open head.

    Args:
        base: reference [V, 3] metres (or template, where there is no reference), triangles [T, 3],
            triangle_parts [T], part_names, mirror_vertices [V].

    Returns:
        uv [U, 2] float32 in [0, 1], origin top-left, and uv_triangles [T, 3] int32.
    """
    names = [str(name) for name in base["part_names"]]
    template, triangles = base.get("reference", base["template"]), base["triangles"]
    parts, mirror = base["triangle_parts"], base["mirror_vertices"]
    of_part = {name: parts == part for part, name in enumerate(names)}
    left = template[triangles, 0].mean(axis=1) > 0
    sheet = _Sheet(triangles, mirror)
    skin = _skin_chart(template, triangles, np.flatnonzero(of_part["skin"]), mirror)
    sheet.place(skin, SKIN_RECT)
    for name, rect in _STRIP_RECTS.items():
        if name.startswith("eye"):
            ids = np.flatnonzero(of_part["eye_left"])
            chart = _eye_chart(template, triangles, ids, back=name == "eye_back")
        elif name == "socket":
            chart = _rounded_chart(
                template, triangles, np.flatnonzero(parts == names.index("socket_left")), rect
            )
        else:
            ids = np.flatnonzero(of_part[name] & left)
            chart = _rounded_chart(template, triangles, ids, rect)
        sheet.place_pair(chart, rect)
    return sheet.finish()


class _Sheet:
    """Collects placed charts into one list of points and one list of corners."""

    def __init__(self, triangles: np.ndarray, mirror: np.ndarray) -> None:
        self._corners = np.full(triangles.shape, -1, dtype=np.int64)
        self._points: list[np.ndarray] = []
        self._count = 0
        self._triangles, self._mirror = triangles, mirror
        self._by_vertices = {tuple(sorted(row)): t for t, row in enumerate(triangles.tolist())}

    def place(self, chart: Chart, rect: tuple[int, int, int, int]) -> None:
        placed = _to_sheet(chart.points, rect)
        if chart.twins is not None:
            left = placed[:, 0] < placed[chart.twins, 0]
            placed[left] = placed[chart.twins[left]]
            placed[left, 0] = np.float32(1) - placed[left, 0]
            placed[chart.twins == np.arange(len(placed)), 0] = 0.5
        self._append(chart.triangle_ids, chart.corners, placed)

    def place_pair(self, chart: Chart, rect: tuple[int, int, int, int]) -> None:
        """Places a chart of the left side, and its mirror image for the right side."""
        placed = _to_sheet(chart.points, rect)
        self._append(chart.triangle_ids, chart.corners, placed)
        twins, corners = np.empty_like(chart.triangle_ids), np.empty_like(chart.corners)
        local = {int(vertex): point for point, vertex in enumerate(self._mirror[chart.vertices])}
        for row, triangle in enumerate(self._mirror[self._triangles[chart.triangle_ids]]):
            twins[row] = self._by_vertices[tuple(sorted(triangle.tolist()))]
            corners[row] = [local[vertex] for vertex in self._triangles[twins[row]].tolist()]
        self._append(twins, corners, np.stack([np.float32(1) - placed[:, 0], placed[:, 1]], axis=1))

    def _append(self, triangle_ids: np.ndarray, corners: np.ndarray, placed: np.ndarray) -> None:
        self._corners[triangle_ids] = corners + self._count
        self._points.append(placed)
        self._count += len(placed)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        if (self._corners < 0).any():
            raise ValueError("some triangles belong to no chart")
        return np.concatenate(self._points), self._corners.astype(np.int32)


def _to_sheet(points: np.ndarray, rect: tuple[int, int, int, int]) -> np.ndarray:
    left, top, width, height = rect
    u = (left + points[:, 0] * width) / LAYOUT_TEXELS
    v = (top + (1.0 - points[:, 1]) * height) / LAYOUT_TEXELS
    return np.stack([u, v], axis=1).astype(np.float32)


def face_importance(template: np.ndarray) -> np.ndarray:
    """Smooth weight of the face, [V] in [0, 1]: one between hairline, chin and cheekbones, zero on the rest.

    Args:
        template: [V, 3] metres, origin between the eyeballs.
    """
    x, y, z = template.T
    centre_y, half_height, half_width = -0.028, 0.092, 0.074
    radius = np.sqrt((x / half_width) ** 2 + ((y - centre_y) / half_height) ** 2)
    front = np.clip((z + 0.055) / 0.025, 0.0, 1.0)
    weight = np.clip((1.15 - radius) / 0.25, 0.0, 1.0) * front
    return weight * weight * (3.0 - 2.0 * weight)


def _local(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vertices, corners = np.unique(triangles, return_inverse=True)
    return vertices, corners.reshape(-1, 3)


def _skin_chart(template: np.ndarray, triangles: np.ndarray, ids: np.ndarray, mirror: np.ndarray) -> Chart:
    vertices, corners = _local(triangles[ids])
    points, twins = template[vertices], np.searchsorted(vertices, mirror[vertices])
    loops = boundary_loops(corners)
    neck = min(loops, key=lambda loop: points[loop, 1].mean())
    seam = _back_seam(points, corners, neck, twins == np.arange(len(points)))
    copy_of = np.arange(len(points))
    copy_of[seam] = len(points) + np.arange(len(seam))
    right = points[corners, 0].mean(axis=1) < 0
    corners[right] = copy_of[corners[right]]
    twins[seam] = copy_of[seam]
    vertices, points, twins = np.r_[vertices, vertices[seam]], np.r_[points, points[seam]], np.r_[twins, seam]
    filled, closed = points, corners
    for loop in loops:
        if loop is not neck:
            filled, fan = fill_loop(filled, loop)
            closed = np.concatenate([closed, fan])
    (rim,) = boundary_loops(closed)
    importance = _REST_IMPORTANCE + (_FACE_IMPORTANCE - _REST_IMPORTANCE) * face_importance(filled)
    importance[len(points) :] = _HOLE_IMPORTANCE
    flat = flatten(filled, closed, rim, _skin_rim(points, rim), importance, _SKIN_ITERATIONS)[: len(points)]
    return Chart(ids, corners, flat / [1.0, SKIN_RECT[3] / SKIN_RECT[2]], vertices, twins)


def _back_seam(
    points: np.ndarray, corners: np.ndarray, neck: np.ndarray, on_midline: np.ndarray
) -> np.ndarray:
    """Midline vertices from the back of the neck up to the crown, without the crown."""
    edges, _ = edge_counts(corners)
    edges = edges[on_midline[edges].all(axis=1)]
    on_neck = neck[on_midline[neck]]
    walk = [int(on_neck[np.argmin(points[on_neck, 2])])]
    crown = int(np.argmax(np.where(on_midline, points[:, 1], -np.inf)))
    while walk[-1] != crown:
        touching = edges[(edges == walk[-1]).any(axis=1)].ravel()
        walk.append(next(int(vertex) for vertex in touching if vertex not in walk))
    return np.array(walk[:-1])


def _skin_rim(points: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Flat positions of the rim [B, 2]: neck on the bottom edge, seam on the sides and the top edge."""
    aspect = SKIN_RECT[3] / SKIN_RECT[2]
    middle = np.flatnonzero(points[rim, 0] == 0.0)
    height, depth = points[rim[middle], 1], points[rim[middle], 2]
    front, crown = middle[np.argmin(height - depth)], middle[np.argmax(height)]
    order = np.roll(np.arange(len(rim)), -front)
    ordered = points[rim[order]]
    corner = int(np.flatnonzero(ordered[1:, 0] == 0.0)[0]) + 1
    half = int(np.flatnonzero(order == crown)[0])
    bottom = along_polygon(np.array([[0.5, 0.0], [1.0, 0.0]]), path_fractions(ordered[: corner + 1]))
    share = path_fractions(ordered[corner : half + 1])
    share = np.interp(share, [0.0, _SEAM_ON_SIDE, 1.0], [0.0, aspect / (aspect + 0.5), 1.0])
    side = along_polygon(np.array([[1.0, 0.0], [1.0, aspect], [0.5, aspect]]), share)
    right_half = np.concatenate([bottom, side[1:]])
    left_half = right_half[1:-1][::-1] * [-1.0, 1.0] + [1.0, 0.0]
    placed = np.empty((len(rim), 2))
    placed[order] = np.concatenate([right_half, left_half])
    return placed


def _eye_chart(template: np.ndarray, triangles: np.ndarray, ids: np.ndarray, back: bool) -> Chart:
    """Polar chart around the optic axis, or the small cap at the back of the ball seen from behind."""
    axis, centre = eye_axis(template[np.unique(triangles[ids])])
    vertices = np.unique(triangles[ids])
    direction = template - centre
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(direction @ axis, -1.0, 1.0)))
    behind = (angle[triangles[ids]] > _EYE_BACK_DEG).all(axis=1)
    ids = ids[behind == back]
    vertices, corners = _local(triangles[ids])
    right = np.cross([0.0, 1.0, 0.0], axis)
    right /= np.linalg.norm(right)
    across = np.stack([direction[vertices] @ right, direction[vertices] @ np.cross(axis, right)], axis=1)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    if back:
        radius = (180.0 - angle[vertices]) / (180.0 - angle[vertices].min())
        across = across * [-1.0, 1.0]
    else:
        knots = np.array(_EYE_ANGLES_DEG)
        knots[-1] = angle[vertices].max()
        radius = np.interp(angle[vertices], knots, _EYE_RADII)
    return Chart(ids, corners, 0.5 + 0.5 * across * radius[:, None], vertices)


def eye_axis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optic axis and centre of an eyeball from its vertices.

    Args:
        points: [N, 3] vertices of one eyeball, whose rings go around the axis.

    Returns:
        Unit axis [3] pointing out of the pupil and centre [3] metres.
    """
    centre = 0.5 * (points.max(axis=0) + points.min(axis=0))
    direction = points - centre
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    axis = np.array([0.0, 0.0, 1.0])
    for _ in range(10):
        axis = direction[direction @ axis > np.cos(np.radians(33.0))].mean(axis=0)
        axis /= np.linalg.norm(axis)
    return axis, centre


def _rounded_chart(
    template: np.ndarray, triangles: np.ndarray, ids: np.ndarray, rect: tuple[int, int, int, int]
) -> Chart:
    """Maps a disc onto a rounded rectangle, turned so that it is stretched least."""
    vertices, corners = _local(triangles[ids])
    points = template[vertices]
    rim = max(boundary_loops(corners), key=len)
    fractions = path_fractions(points[np.r_[rim, rim[:1]]])[:-1]
    aspect = rect[3] / rect[2]
    outline = _superellipse(aspect)
    best, best_energy = None, np.inf
    for phase in np.arange(_PHASES) / _PHASES:
        flat = flatten(points, corners, rim, along_polygon(outline, (fractions + phase) % 1.0))
        energy = np.square(triangle_stretch(points, corners, flat)).sum(axis=1)
        energy = np.percentile(energy, 80)
        if energy < best_energy:
            best, best_energy = flat, energy
    assert best is not None
    return Chart(ids, corners, best / [1.0, aspect], vertices)


def _superellipse(aspect: float) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, 721)
    power = 2.0 / _SUPERELLIPSE_POWER
    x, y = (np.sign(value) * np.abs(value) ** power for value in (np.cos(angle), np.sin(angle)))
    return np.stack([0.5 + 0.5 * x, aspect * (0.5 + 0.5 * y)], axis=1)
