# SPDX-License-Identifier: Apache-2.0
"""Facial lines of the open model: ``python -m tools.build_open_model.wrinkles --out src/hiface/assets/open``.

``wrinkle_recipe.json`` places the lines of the right side and of the midline relative to the landmarks in the
texture square; the left side is the exact mirror image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import hiface
from hiface.morphable import MorphableModel

Point = tuple[int, np.ndarray]

_RECIPE = Path(__file__).with_name("wrinkle_recipe.json")
_SPACING_M = 0.002
_EYES_MM = 90.0  # what the recipe calls the distance of the outer corners of the eyes
_OUTER_CORNERS = (36, 45)


class Skin:
    """The skin's triangles in the texture square."""

    def __init__(self, model: MorphableModel) -> None:
        data = model.data
        self.triangles = data.triangles.numpy()
        self.template = data.template.numpy().astype(np.float64)
        corner_uv = data.uv[data.uv_triangles].numpy().astype(np.float64)
        self.ids = np.flatnonzero(data.triangle_parts.numpy() == data.part_names.index("skin"))
        self.uv = corner_uv[self.ids]
        mirror = data.mirror_vertices.numpy()
        key = {tuple(sorted(t)): i for i, t in enumerate(self.triangles.tolist())}
        self.mirror_vertices = mirror
        self.mirror_triangles = [key[tuple(sorted(t))] for t in mirror[self.triangles].tolist()]
        points = data.landmark_sets["ibug68"]
        weights = points.barycentric.numpy().astype(np.float64)
        self.landmarks_uv = (corner_uv[points.triangle_ids.numpy()] * weights[..., None]).sum(axis=1)
        first, second = self.landmarks_uv[list(_OUTER_CORNERS)]
        self.uv_per_mm = float(np.linalg.norm(first - second)) / _EYES_MM

    def locate(self, uv: np.ndarray) -> Point:
        """The surface point at a place of the texture square ``[2]``."""
        a, b, c = self.uv[:, 0] - uv, self.uv[:, 1] - uv, self.uv[:, 2] - uv
        areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
        weights = areas / areas.sum(axis=1, keepdims=True)
        best = int(weights.min(axis=1).argmax())
        if weights[best].min() < -1e-6:
            raise ValueError(f"no skin at {uv}")
        weight = weights[best].clip(0, 1)
        return int(self.ids[best]), weight / weight.sum()

    def position(self, point: Point) -> np.ndarray:
        """``[3]`` metres on the mean head."""
        return point[1] @ self.template[self.triangles[point[0]]]

    def mirrored(self, point: Point) -> Point:
        """The exact mirror image of a surface point."""
        source = self.mirror_vertices[self.triangles[point[0]]].tolist()
        target = self.mirror_triangles[point[0]]
        return target, point[1][[source.index(v) for v in self.triangles[target].tolist()]]

    def control(self, where: list[Any]) -> np.ndarray:
        """``[2]`` texture coordinates of a control point of the recipe, on the right side."""
        name, outward, down = where
        first, *rest = name.split(":")
        uv = self.landmarks_uv[int(first)]
        if rest:
            uv = uv + float(rest[1]) * (self.landmarks_uv[int(rest[0])] - uv)
        return uv + self.uv_per_mm * np.array([-outward, down])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def spline(controls: np.ndarray, count: int) -> np.ndarray:
    """Catmull-Rom curve through control points ``[N, 2]``, ``[count, 2]``."""
    padded = np.concatenate([2 * controls[:1] - controls[1:2], controls, 2 * controls[-1:] - controls[-2:-1]])
    at = np.linspace(0, len(controls) - 1, count)
    k = np.minimum(at.astype(int), len(controls) - 2)
    t = (at - k)[:, None]
    p0, p1, p2, p3 = (padded[k + i] for i in range(4))
    return 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )


def polyline(skin: Skin, line: dict[str, Any]) -> list[Point]:
    """Surface points about 2 mm apart along a line of the recipe; both halves of a line over the midline."""
    controls = np.stack([skin.control(p) for p in line["points"]])
    if line["side"] == "both":
        controls = np.concatenate([controls, (controls[:-1] * [-1, 1] + [1, 0])[::-1]])
    dense = spline(controls, 200)
    places = np.stack([skin.position(skin.locate(uv)) for uv in dense])
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))])
    count = max(3, round(float(way[-1]) / _SPACING_M) + 1)
    even = np.stack([np.interp(np.linspace(0, way[-1], count), way, dense[:, i]) for i in range(2)], axis=1)
    return [skin.locate(uv) for uv in even]


def build_wrinkles(model: MorphableModel) -> dict[str, Any]:
    """Content of ``wrinkles.json``: kinds of lines, and lines as points on the surface, from end to end."""
    recipe, skin = json.loads(_RECIPE.read_text(encoding="utf-8")), Skin(model)
    lines = []
    for line in recipe["lines"]:
        points = polyline(skin, line)
        sides = [(line["side"], points)]
        if line["side"] == "right":
            sides.append(("left", [skin.mirrored(p) for p in points]))
        for side, way in sides:
            lines.append(
                {
                    "kind": line["kind"],
                    "side": side,
                    "triangle_ids": [p[0] for p in way],
                    "barycentric": [[round(float(w), 6) for w in p[1]] for p in way],
                }
            )
    return {
        "name": "wrinkles",
        "version": recipe["version"],
        "model": model.data.name,
        "n_vertices": model.data.n_vertices,
        "kinds": recipe["kinds"],
        "lines": lines,
    }


def main() -> None:
    """Writes ``wrinkles.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the asset files")
    content = build_wrinkles(hiface.load_model("open"))
    path = parser.parse_args().out / "wrinkles.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
