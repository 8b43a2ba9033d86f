# SPDX-License-Identifier: Apache-2.0
"""Landmark sets of the open model: iBUG-68, NoW-7, a dense set, irises, the jaw contour, lid and lip pairs.

What a point means is written in ``landmark_recipe.json`` for the right side and the midline, in ids of the
source body mesh; the left side is the exact mirror image.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.morphable.contour import select_contour

from .dense import dense_points
from .masks import Anatomy, make_masks
from .realy import MIRROR as REALY_MIRROR
from .realy import realy85_points
from .surface import Point, Surface, along_chain, resample, section

VERSION = 2
IBUG_MIRROR = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30),
    *(35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48),
    *(59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60),
    *(67, 66, 65),
)
"""iBUG number of each point's mirror image."""

NOW7_IN_IBUG68 = (36, 39, 42, 45, 33, 48, 54)
CONTOUR_CANDIDATES = 25
JAW_LINES = 17
PORTRAIT_DISTANCE = 1.0
"""Camera distance in metres for which the fixed contour of ``ibug68`` is chosen."""
LIMBUS_RADIUS = 0.0059
"""Radius of the iris in metres; the visible iris of adults is 11.8 mm wide within half a millimetre."""

_RECIPE = Path(__file__).with_name("landmark_recipe.json")


def read_recipe() -> dict[str, Any]:
    """The hand-made definitions."""
    return json.loads(_RECIPE.read_text(encoding="utf-8"))


def build_landmarks(base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All landmark files of the model.

    Args:
        base: head mesh: ``template [V, 3]`` metres, ``triangles``, ``triangle_parts``, ``part_names``,
            ``mirror_vertices``, ``source_ids``.

    Returns:
        File stem → JSON content. Point sets have ``triangle_ids``, ``barycentric`` and ``mirror``.
    """
    surface, recipe = Surface.from_base(base), read_recipe()
    lines = contour_lines(surface, recipe)
    ibug = ibug68_points(surface, recipe, lines)
    now7 = [ibug[i] for i in NOW7_IN_IBUG68]
    realy85 = realy85_points(surface, recipe, ibug)
    masks = make_masks(anatomy(surface, recipe, ibug, lines))
    dense, dense_mirror = dense_points(
        surface, recipe_chains(surface, recipe), masks, ibug, list(IBUG_MIRROR)
    )
    iris, iris_mirror = iris_points(surface)
    return {
        "ibug68": _as_set(surface, "ibug68", ibug, list(IBUG_MIRROR)),
        "now7": _as_set(surface, "now7", now7, [3, 2, 1, 0, 4, 6, 5]) | {"ibug68": list(NOW7_IN_IBUG68)},
        "realy85": _as_set(surface, "realy85", realy85, [*IBUG_MIRROR, *REALY_MIRROR]),
        "dense": _as_set(surface, "dense", dense, dense_mirror),
        "iris": _as_set(surface, "iris", iris, iris_mirror) | {"labels": list(IRIS_LABELS)},
        "contour": _head("contour", surface) | {"lines": [_points(line) for line in lines]},
        "eyelid_pairs": _head("eyelid_pairs", surface) | lid_pairs(surface, recipe),
        "lip_pairs": _head("lip_pairs", surface) | lip_pairs(surface, recipe),
    }


def build_masks(base: dict[str, Any]) -> dict[str, np.ndarray]:
    """Bool ``[V]`` vertex masks: face and its regions, skin, lips, lids, ears, neck, scalp, brows, eyes."""
    surface, recipe = Surface.from_base(base), read_recipe()
    lines = contour_lines(surface, recipe)
    return make_masks(anatomy(surface, recipe, ibug68_points(surface, recipe, lines), lines))


def anatomy(surface: Surface, recipe: dict[str, Any], ibug: list[Point], lines: list[list[Point]]) -> Anatomy:
    """Gathers what the masks are cut from."""
    return Anatomy(
        surface=surface,
        ibug=surface.positions(ibug),
        nose_tip=int(surface.triangles[ibug[30][0]][np.argmax(ibug[30][1])]),
        jaw_line=[line[-1] for line in lines],
        chains=recipe_chains(surface, recipe),
        ears=[surface.of_source[s] for s in recipe["ears"]],
    )


def write_landmarks(base: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Builds all sets and writes one JSON file each into ``folder``."""
    sets = build_landmarks(base)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sets.items():
        (folder / f"{name}.json").write_text(
            json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8"
        )
    return sets


def _head(name: str, surface: Surface) -> dict[str, Any]:
    return {
        "name": name,
        "version": VERSION,
        "model": "open",
        "n_vertices": len(surface.vertices),
        "n_triangles": len(surface.triangles),
    }


def _points(points: list[Point]) -> dict[str, Any]:
    weights = [np.round(w, 7) for _, w in points]
    return {"triangle_ids": [int(i) for i, _ in points], "barycentric": [w.tolist() for w in weights]}


def _as_set(surface: Surface, name: str, points: list[Point], mirror: list[int]) -> dict[str, Any]:
    return _head(name, surface) | _points(points) | {"mirror": mirror}


def recipe_chains(surface: Surface, recipe: dict[str, Any]) -> dict[str, list[int]]:
    """The recipe's chains as vertices of the head."""
    return {name: _chain(surface, recipe, name) for name in recipe["chains"]}


def _chain(surface: Surface, recipe: dict[str, Any], name: str) -> list[int]:
    return [surface.of_source[s] for s in recipe["chains"][name]]


def recipe_point(surface: Surface, recipe: dict[str, Any], entry: dict[str, Any]) -> Point:
    """One point of the recipe: on a chain, half-way to a chain beside it, or between weighted vertices."""
    if "chain" in entry:
        chain, by_chord = _chain(surface, recipe, entry["chain"]), entry.get("by") == "chord"
        point = along_chain(surface, chain, entry["at"], by_chord)
        if "beside" not in entry:
            return point
        other = _chain(surface, recipe, entry["beside"])
        beside = surface.position(along_chain(surface, other, entry["at"], by_chord))
        near = np.unique([t for v in [*chain, *other] for t in surface.incident[v]])
        return surface.closest(0.5 * (surface.position(point) + beside), near)
    ids = [surface.of_source[s] for s in entry["vertices"]]
    if len(ids) == 1:
        return surface.at_vertex(ids[0])
    weights = np.array(entry["weights"])
    target = weights @ surface.vertices[ids] / weights.sum()
    near = np.unique([t for v in ids for t in surface.incident[v]])
    return surface.closest(target, near)


def contour_lines(surface: Surface, recipe: dict[str, Any]) -> list[list[Point]]:
    """The 17 lines from the front of the face to the jaw line, each with ``CONTOUR_CANDIDATES`` points.

    Lines 0-7 are on the right side, 8 runs down the chin, 9-16 mirror 7-0.
    """
    skin = surface.part_triangles("skin")
    fronts = [recipe_point(surface, recipe, e) for e in recipe["contour"]["front"]]
    jaws = [recipe_point(surface, recipe, e) for e in recipe["contour"]["jaw"]]
    right = [
        resample(surface, section(surface, skin, a, b), CONTOUR_CANDIDATES)
        for a, b in zip(fronts[:-1], jaws[:-1], strict=True)
    ]
    ends = [int(surface.triangles[i][np.argmax(w)]) for i, w in (fronts[-1], jaws[-1])]
    midline = skin[(surface.mirror[surface.triangles[skin]] == surface.triangles[skin]).sum(axis=1) >= 2]
    way = surface.path(midline, ends[0], ends[1])
    steps = [[_in_triangle(p, a), p] for a, p in _edge_starts(surface, way)]
    middle = resample(surface, steps, CONTOUR_CANDIDATES)
    left = [[surface.mirrored(p) for p in line] for line in reversed(right)]
    return [*right, middle, *left]


def _edge_starts(surface: Surface, way: list[int]) -> list[tuple[np.ndarray, Point]]:
    out = []
    for a, b in pairwise(way):
        triangle, weights = surface.on_edge(a, b, 1.0)
        out.append(((surface.triangles[triangle] == a).astype(np.float64), (triangle, weights)))
    return out


def _in_triangle(point: Point, weights: np.ndarray) -> Point:
    return point[0], weights


def frontal_candidates(surface: Surface, lines: list[list[Point]]) -> list[Point]:
    """The contour of the unturned head seen from ``PORTRAIT_DISTANCE``; exactly mirror-symmetric."""
    candidates = np.stack([surface.positions(line) for line in lines])
    in_camera = candidates * np.array([1.0, -1.0, -1.0]) + np.array([0.0, 0.0, PORTRAIT_DISTANCE])
    valid = torch.ones(candidates.shape[:2], dtype=torch.bool)
    chosen = select_contour(
        torch.from_numpy(in_camera), valid, torch.tensor([0.0, -1.0], dtype=torch.float64)
    )
    half = [line[int(k)] for line, k in zip(lines, chosen, strict=True)][: JAW_LINES // 2 + 1]
    return half + [surface.mirrored(p) for p in reversed(half[:-1])]


def ibug68_points(surface: Surface, recipe: dict[str, Any], lines: list[list[Point]]) -> list[Point]:
    """The 68 points: the frontal jaw contour, the recipe's right side and midline, their mirror images."""
    points: dict[int, Point] = {}
    frontal = frontal_candidates(surface, lines)
    for i, point in enumerate(frontal):
        points[i] = point
    for key, entry in recipe["ibug68"].items():
        points[int(key)] = recipe_point(surface, recipe, entry)
    for i, j in enumerate(IBUG_MIRROR):
        if i not in points:
            points[i] = surface.mirrored(points[j])
    return [points[i] for i in range(len(IBUG_MIRROR))]


IRIS_LABELS = tuple(
    f"{side}_{what}"
    for side in ("right", "left")
    for what in ("pupil", "limbus_temporal", "limbus_upper", "limbus_nasal", "limbus_lower")
)


def iris_points(surface: Surface) -> tuple[list[Point], list[int]]:
    """Pupil centre and four limbus points of each eyeball, right eye first, in the order of ``IRIS_LABELS``.

    The optical axis goes from the eyeball's centre through the middle of its front pole.
    """
    ids = surface.part_triangles("eye_right")
    eye = surface.part_vertices("eye_right")
    centre = surface.vertices[eye].mean(axis=0)
    front = surface.vertices[eye][np.argsort(-surface.vertices[eye, 2])[:8]].mean(axis=0)
    forward = (front - centre) / np.linalg.norm(front - centre)
    radius = float(np.linalg.norm(surface.vertices[eye] - centre, axis=1).mean())
    temporal = np.cross(forward, np.array([0.0, 1.0, 0.0]))
    temporal *= -np.sign(temporal[0]) / np.linalg.norm(temporal)
    up = np.array([0.0, 1.0, 0.0]) - forward[1] * forward
    up /= np.linalg.norm(up)
    depth = np.sqrt(radius**2 - LIMBUS_RADIUS**2)
    targets = [centre + radius * forward]
    for direction in (temporal, up, -temporal, -up):
        targets.append(centre + depth * forward + LIMBUS_RADIUS * direction)
    right = [surface.closest(t, ids) for t in targets]
    return right + [surface.mirrored(p) for p in right], [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def _nearest_pairs(surface: Surface, upper: list[int], lower: list[int]) -> list[list[int]]:
    """Pairs each inner vertex of the sparser chain with the nearest one of the other, ``[upper, lower]``."""
    swap = len(upper) < len(lower)
    few, many = (upper, lower) if swap else (lower, upper)
    axis = surface.vertices[few[-1]] - surface.vertices[few[0]]
    at = (surface.vertices[many[1:-1]] - surface.vertices[few[0]]) @ axis
    pairs = []
    for vertex in few[1:-1]:
        k = int(np.argmin(np.abs(at - (surface.vertices[vertex] - surface.vertices[few[0]]) @ axis)))
        pairs.append([vertex, many[1 + k]] if swap else [many[1 + k], vertex])
    return pairs


def lid_pairs(surface: Surface, recipe: dict[str, Any]) -> dict[str, Any]:
    """Facing vertices of the upper and lower lid margins, outer to inner corner, right eye first."""
    chains = recipe_chains(surface, recipe)
    right = _nearest_pairs(surface, chains["lid_upper"], chains["lid_lower"])
    left = [[int(surface.mirror[u]), int(surface.mirror[v])] for u, v in right]
    return {"pairs": right + left, "eyes": ["right"] * len(right) + ["left"] * len(left)}


def lip_pairs(surface: Surface, recipe: dict[str, Any]) -> dict[str, Any]:
    """Facing vertices of the upper and lower inner lip lines, from the right corner to the left."""
    chains = recipe_chains(surface, recipe)
    upper, lower = chains["lip_inner_upper"], chains["lip_inner_lower"]
    half = [[upper[0], lower[0]], *_nearest_pairs(surface, upper, lower), [upper[-1], lower[-1]]]
    left = [[int(surface.mirror[u]), int(surface.mirror[v])] for u, v in half[1:]]
    return {"pairs": half[::-1] + left}
