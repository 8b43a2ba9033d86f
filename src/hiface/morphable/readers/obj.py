# SPDX-License-Identifier: Apache-2.0
"""Reads .obj meshes with polygons and texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiface.errors import ModelFormatError


@dataclass(frozen=True)
class ObjMesh:
    """A mesh as its file has it; polygons are split into fans.

    Attributes:
        vertices: [V, 3].
        triangles: [T, 3] int64, corner order of the file.
        quads: [Q, 4] int64 where every polygon has four corners, else None.
        uv: [U, 2] origin top-left, or None where a corner has no texture coordinate.
        uv_triangles: [T, 3] int64 or None.
        polygon_of_triangle: [T] int64.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    quads: np.ndarray | None
    uv: np.ndarray | None
    uv_triangles: np.ndarray | None
    polygon_of_triangle: np.ndarray


def read_obj_vertices(path: Path) -> np.ndarray:
    """Only the vertices, [V, 3].

    Raises:
        ModelFormatError: The file is missing, damaged or has none.
    """
    return _rows(_lines(path), "v", 3, path)


def read_obj(path: Path) -> ObjMesh:
    """Reads a mesh.

    Raises:
        ModelFormatError: The file is missing, damaged or has no polygons.
    """
    lines = _lines(path)
    vertices = _rows(lines, "v", 3, path)
    polygons = [line.split()[1:] for line in lines if line.startswith("f ")]
    if not polygons:
        raise ModelFormatError(
            f"{path.name}: expected a mesh, found {len(vertices)} vertices and no polygons"
        )
    try:
        corners = [[corner.split("/") for corner in polygon] for polygon in polygons]
        places = [[_index(c[0], len(vertices)) for c in polygon] for polygon in corners]
        textured = all(len(c) > 1 and c[1] for polygon in corners for c in polygon)
        uv = _rows(lines, "vt", 2, path) if textured else None
        uv_places = [[_index(c[1], len(uv)) for c in p] for p in corners] if uv is not None else None
    except ValueError as error:
        raise ModelFormatError(f"{path.name}: a polygon cannot be read ({error})") from error
    triangles = _fans(places)
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise ModelFormatError(f"{path.name}: a polygon points past the last of {len(vertices)} vertices")
    uv_triangles = None if uv_places is None else _fans(uv_places)
    if uv is not None and uv_triangles is not None:
        if uv_triangles.min() < 0 or uv_triangles.max() >= len(uv):
            raise ModelFormatError(f"{path.name}: a polygon points past the last of {len(uv)} UV coordinates")
        uv = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)
    owner = np.repeat(np.arange(len(places)), [len(p) - 2 for p in places])
    quads = np.array(places, np.int64) if all(len(p) == 4 for p in places) else None
    return ObjMesh(vertices, triangles, quads, uv, uv_triangles, owner)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read ({error.strerror}); check its name") from error


def _rows(lines: list[str], kind: str, width: int, path: Path) -> np.ndarray:
    rows = [line.split()[1 : width + 1] for line in lines if line.startswith(f"{kind} ")]
    try:
        array = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ModelFormatError(f"{path.name}: a line {kind!r} is damaged ({error})") from error
    if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
        raise ModelFormatError(
            f"{path.name}: expected lines {kind!r} of {width} numbers; the file is damaged"
        )
    return array


def _index(text: str, count: int) -> int:
    number = int(text)
    return number - 1 if number > 0 else count + number


def _fans(polygons: list[list[int]]) -> np.ndarray:
    fans = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(fans, dtype=np.int64).reshape(-1, 3)
