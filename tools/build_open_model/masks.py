# SPDX-License-Identifier: Apache-2.0
"""Named vertex masks of the open model, from its landmarks and the way its surface hangs together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse.csgraph import dijkstra

from .surface import Point, Surface

HAIRLINE_DEGREES = (0.0, 20.0, 40.0, 52.0, 60.0, 72.0, 90.0, 100.0, 115.0, 130.0, 180.0)
"""Directions about the head's vertical axis, 0 at the face's middle, 90 at the ear."""
HAIRLINE_HEIGHT_MM = (62.0, 62.0, 55.0, 43.0, 26.0, 12.0, 5.0, 4.0, -20.0, -60.0, -75.0)
"""Height of the hairline above the eyes at these directions."""
LID_REACH = 0.006
BROW_BELOW_POINTS = 0.001
"""How far the middle of the brow lies below the landmarks on its upper middle, metres."""
BROW_HALF_HEIGHT = (0.0065, 0.0045)
"""Half height of the brow band at its inner and its outer end, metres."""
EYE_REGION_AXES = (0.022, 0.0125)
"""Half width and half height of the region around each eye, metres."""


@dataclass(frozen=True)
class Anatomy:
    """What the masks are cut from.

    Attributes:
        surface: the head.
        ibug: ``[68, 3]`` positions of the iBUG points.
        nose_tip: vertex at the nose tip.
        jaw_line: the last points of the contour lines.
        chains: vertices of the recipe's lines, right side.
        ears: vertices of the right ear.
    """

    surface: Surface
    ibug: np.ndarray
    nose_tip: int
    jaw_line: list[Point]
    chains: dict[str, list[int]]
    ears: list[int]


def make_masks(anatomy: Anatomy) -> dict[str, np.ndarray]:
    """All masks, bool ``[V]`` each, exactly mirror-symmetric."""
    surface = anatomy.surface
    skin = _flags(surface, surface.part_vertices("skin"))
    ears = _both_sides(surface, anatomy.ears)
    scalp = skin & ~ears & _above_hairline(surface)
    interior = skin & ~_outer_skin(anatomy)
    face, neck = _face_and_neck(anatomy, ears, scalp, interior)
    eye_left, eye_right = _eye_regions(anatomy, face)
    lids = _eyelids(anatomy, interior)
    nose, mouth, forehead, cheek = _face_regions(anatomy, face & ~eye_left & ~eye_right)
    masks = {
        "skin": skin & ~scalp & ~interior,
        "face": face,
        "nose": nose,
        "mouth": mouth,
        "forehead": forehead,
        "cheek": cheek,
        "lips": _lips(anatomy, interior) & skin,
        "eyelids": lids,
        "ears": ears,
        "neck": neck,
        "scalp": scalp,
        "brows": _brows(anatomy) & face,
        "left_eye_region": eye_left | _flags(surface, surface.part_vertices("eye_left")),
        "right_eye_region": eye_right | _flags(surface, surface.part_vertices("eye_right")),
    }
    for name in masks:
        if "eye_region" not in name:
            masks[name] = masks[name] | masks[name][surface.mirror]
    return masks


def _flags(surface: Surface, vertices: Any) -> np.ndarray:
    out = np.zeros(len(surface.vertices), dtype=bool)
    out[np.asarray(vertices, dtype=np.int64)] = True
    return out


def _both_sides(surface: Surface, vertices: list[int]) -> np.ndarray:
    right = _flags(surface, vertices)
    return right | right[surface.mirror]


def _above_hairline(surface: Surface) -> np.ndarray:
    skin = surface.vertices[surface.part_vertices("skin")]
    axis_z = 0.5 * (skin[:, 2].min() + skin[:, 2].max())
    x, y, z = surface.vertices.T
    direction = np.degrees(np.arctan2(np.abs(x), z - axis_z))
    return y * 1e3 > np.interp(direction, HAIRLINE_DEGREES, HAIRLINE_HEIGHT_MM)


def _rims(anatomy: Anatomy) -> np.ndarray:
    """Lid margins, nostril rims and the line where the lips meet."""
    names = ("lid_upper", "lid_lower", "lip_inner_upper", "lip_inner_lower", "nostril")
    return _both_sides(anatomy.surface, [v for name in names for v in anatomy.chains[name]])


def _outer_skin(anatomy: Anatomy) -> np.ndarray:
    """Skin that can be reached from the nose tip without crossing a rim, and the rims."""
    rims = _rims(anatomy)
    return rims | anatomy.surface.flood(anatomy.surface.part_triangles("skin"), anatomy.nose_tip, rims)


def _face_and_neck(
    anatomy: Anatomy, ears: np.ndarray, scalp: np.ndarray, interior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    surface = anatomy.surface
    triangles = surface.part_triangles("skin")
    corners = [int(surface.triangles[i][np.argmax(w)]) for i, w in anatomy.jaw_line]
    corners = corners[: len(corners) // 2 + 1]
    hair = np.flatnonzero(scalp & (surface.vertices[:, 0] <= 0.0))
    away = np.linalg.norm(surface.vertices[hair] - surface.vertices[corners[0]], axis=1)
    stops = [int(hair[np.argmin(away)]), *corners]
    fence: set[int] = set()
    for a, b in pairwise(stops):
        fence.update(surface.path(triangles, a, b))
    border = _both_sides(surface, sorted(fence))
    blocked = border | ears | scalp
    rims = _rims(anatomy)
    face = surface.flood(triangles, anatomy.nose_tip, blocked | rims) | ((border | rims) & ~ears & ~scalp)
    lowest = int(
        np.argmin(np.where(_flags(surface, surface.part_vertices("skin")), surface.vertices[:, 1], np.inf))
    )
    neck = surface.flood(triangles, lowest, blocked)
    return face & ~interior, neck | neck[surface.mirror]


def _lips(anatomy: Anatomy, interior: np.ndarray) -> np.ndarray:
    surface = anatomy.surface
    outer = _both_sides(surface, anatomy.chains["lip_outer_upper"] + anatomy.chains["lip_outer_lower"])
    inside = surface.flood(surface.part_triangles("skin"), anatomy.chains["lip_inner_upper"][0], outer)
    inside |= surface.flood(surface.part_triangles("skin"), anatomy.chains["lip_inner_lower"][0], outer)
    return inside | outer


def _eyelids(anatomy: Anatomy, interior: np.ndarray) -> np.ndarray:
    surface = anatomy.surface
    margin = anatomy.chains["lid_upper"] + anatomy.chains["lid_lower"]
    graph = surface.edge_graph(surface.part_triangles("skin"))
    near = dijkstra(graph, directed=False, indices=margin, limit=LID_REACH, min_only=True)
    lids = np.isfinite(near)
    return (lids | lids[surface.mirror]) & ~interior


def _eye_regions(anatomy: Anatomy, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    v, width, height = anatomy.surface.vertices, *EYE_REGION_AXES
    regions = []
    for corners, lids in (((42, 45), (43, 44, 46, 47)), ((36, 39), (37, 38, 40, 41))):
        centre_x = anatomy.ibug[list(corners), 0].mean()
        centre_y = anatomy.ibug[list(lids), 1].mean()
        inside = ((v[:, 0] - centre_x) / width) ** 2 + ((v[:, 1] - centre_y) / height) ** 2 < 1.0
        regions.append(inside & face)
    return regions[0], regions[1]


def _brow_height(anatomy: Anatomy) -> np.ndarray:
    """``[V]`` height of the brow line at each vertex's distance from the middle, metres."""
    line, x = anatomy.ibug[[21, 20, 19, 18, 17]], np.abs(anatomy.surface.vertices[:, 0])
    return np.interp(x, np.abs(line[:, 0]), line[:, 1]) - BROW_BELOW_POINTS


def _brows(anatomy: Anatomy) -> np.ndarray:
    v = anatomy.surface.vertices
    inner, outer = abs(anatomy.ibug[21, 0]), abs(anatomy.ibug[17, 0])
    x = np.abs(v[:, 0])
    half = np.interp(x, [inner, outer], BROW_HALF_HEIGHT)
    band = np.abs(v[:, 1] - _brow_height(anatomy)) < half
    return band & (x > inner - 0.0025) & (x < outer + 0.002)


def _face_regions(
    anatomy: Anatomy, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Disjoint nose, mouth (with chin), forehead (with brows) and cheek."""
    v, points = anatomy.surface.vertices, anatomy.ibug * np.array([-1.0, 1.0, 1.0])
    x, y = np.abs(v[:, 0]), v[:, 1]
    mm = 1e-3
    base = points[33, 1] - 4 * mm
    side_x = [
        points[31, 0] + 3.5 * mm,
        points[31, 0] + 7 * mm,
        points[31, 0] + 5.5 * mm,
        13 * mm,
        10 * mm,
        7 * mm,
    ]
    side_y = [points[31, 1] - 5 * mm, points[31, 1] + 0.5 * mm, points[30, 1] + 1.5 * mm]
    side_y += [points[28, 1] - 3.5 * mm, points[27, 1] - 5 * mm, points[27, 1] + 4 * mm]
    above_sill = y > np.interp(x, [0.0, side_x[0]], [base, side_y[0]])
    nose = face & above_sill & (x < np.interp(y, side_y, side_x)) & (y < points[27, 1] + 4 * mm)
    corner = points[48]
    reach_y = [points[8, 1] - 20 * mm, corner[1] - 12 * mm, corner[1] + 6 * mm, side_y[0]]
    reach_x = [points[7, 0] + 16 * mm, corner[0] + 9 * mm, corner[0] + 8 * mm, side_x[0]]
    mouth = face & ~nose & (y < side_y[0]) & (x < np.interp(y, reach_y, reach_x))
    mouth |= face & ~nose & (y >= side_y[0]) & ~above_sill & (x < side_x[0])
    lid_fold = (y > points[[36, 39], 1].mean()) & (x < points[17, 0] - 5.5 * mm)
    forehead = face & ~nose & ~mouth & (lid_fold | (y > _brow_height(anatomy) - 3 * mm))
    return nose, mouth, forehead, face & ~nose & ~mouth & ~forehead
