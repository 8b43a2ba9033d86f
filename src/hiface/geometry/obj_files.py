# SPDX-License-Identifier: Apache-2.0
"""Parses .obj meshes: vertices in the file's order, polygons, texture coordinates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiface.errors import MeshFileError

_OTHER_INDICES = re.compile(r"/\S*")


@dataclass(frozen=True)
class ObjMesh:
    """A mesh as its file has it; polygons are split into fans.

    Attributes:
        vertices: [V, 3] float64.
        triangles: [T, 3] int64, corner order of the file; [0, 3] for points alone.
        quads: [Q, 4] int64 where every polygon has four corners, else None.
        uv: [U, 2] origin top-left, or None where it was not asked for or a corner has no texture coordinate.
        uv_triangles: [T, 3] int64 or None.
        polygon_of_triangle: [T] int64.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    quads: np.ndarray | None
    uv: np.ndarray | None
    uv_triangles: np.ndarray | None
    polygon_of_triangle: np.ndarray


def parse_obj(path: Path, with_uv: bool = False) -> ObjMesh:
    """Reads a mesh; colours, normals and groups are left out.

    Args:
        path: The file.
        with_uv: Whether texture coordinates are read.

    Returns:
        The mesh.

    Raises:
        MeshFileError: Missing, damaged, without vertices, with coordinates that are not finite, or with
            corners past the last vertex.
    """
    if not path.is_file():
        raise MeshFileError(f"{path} does not exist; check the path")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.split("#", 1)[0].strip() for line in text.split("\n")]
    try:
        vertices = _rows(lines, "v", 3)
        texts = [line[2:] for line in _counted_from_start(lines) if line.startswith(("f ", "f\t"))]
        polygons = [_OTHER_INDICES.sub("", text).split() for text in texts]
        sizes = np.array([len(polygon) for polygon in polygons], dtype=np.int64)
        triangles, quads = _fans(polygons), None
        if len(sizes) and (sizes == 4).all():
            quads = _from_zero(np.array(polygons, dtype=np.int64))
        uv, uv_triangles = _layout(lines, texts) if with_uv else (None, None)
    except (ValueError, OverflowError) as error:
        raise MeshFileError(f"{path} is damaged or not an .obj file ({error})") from error
    if not len(vertices):
        raise MeshFileError(f"{path} has 0 vertices")
    if not np.isfinite(vertices).all():
        bad = int(np.argwhere(~np.isfinite(vertices).all(axis=1))[0, 0])
        raise MeshFileError(f"{path} has coordinates that are not finite, first in vertex {bad}")
    owner = np.repeat(np.arange(len(sizes)), np.maximum(sizes - 2, 0))
    _check_corners(
        triangles, len(vertices), f"{path} has polygons that point past its {len(vertices)} vertices"
    )
    if uv is not None and uv_triangles is not None:
        _check_corners(uv_triangles, len(uv), f"{path} has polygons past its {len(uv)} texture coordinates")
    return ObjMesh(vertices, triangles, quads, uv, uv_triangles, owner)


def uv_from_top(uv: np.ndarray) -> np.ndarray:
    """Texture coordinates [U, 2] with their origin at the top left, of those at the bottom left."""
    return np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)


def _counted_from_start(lines: list[str]) -> list[str]:
    """The lines with negative corners, which count back from where they stand, as positive ones."""
    if not any(line.startswith(("f ", "f\t")) and "-" in line for line in lines):
        return lines
    seen, out = {"v": 0, "vt": 0, "vn": 0}, []
    for line in lines:
        word = line.split(maxsplit=1)[0] if line else ""
        if word in seen:
            seen[word] += 1
        if word == "f":
            counts = (seen["v"], seen["vt"], seen["vn"])
            corners = [
                "/".join(
                    _positive(part, count) for part, count in zip(corner.split("/"), counts, strict=False)
                )
                for corner in line.split()[1:]
            ]
            line = f"f {' '.join(corners)}"
        out.append(line)
    return out


def _positive(text: str, count: int) -> str:
    return str(count + 1 + int(text)) if text.startswith("-") else text


def _check_corners(corners: np.ndarray, count: int, message: str) -> None:
    if len(corners) and (corners.min() < 0 or corners.max() >= count):
        raise MeshFileError(message)


def _rows(lines: list[str], kind: str, width: int) -> np.ndarray:
    """[N, width] first numbers of the lines of one kind."""
    rows = [line[len(kind) + 1 :] for line in lines if line.startswith((f"{kind} ", f"{kind}\t"))]
    if not rows:
        return np.zeros((0, width))
    numbers = np.array(" ".join(rows).split(), dtype=np.float64)
    found = len(rows[0].split())
    if found < width or numbers.size != found * len(rows):
        raise ValueError(f"lines {kind!r} with different or too few numbers")
    return np.ascontiguousarray(numbers.reshape(-1, found)[:, :width])


def _layout(lines: list[str], texts: list[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Texture coordinates and their triangles, or None where a corner has none."""
    corners = [[corner.split("/") for corner in text.split()] for text in texts]
    if not all(len(c) > 1 and c[1] for polygon in corners for c in polygon):
        return None, None
    uv = _rows(lines, "vt", 2)
    if not len(uv) or not np.isfinite(uv).all():
        raise ValueError("texture coordinates that are missing or not finite")
    triangles = _fans([[c[1] for c in polygon] for polygon in corners])
    return uv_from_top(uv), triangles


def _fans(polygons: list[list[str]]) -> np.ndarray:
    """[T, 3] triangles of polygons whose corners are texts that count from 1."""
    if {len(polygon) for polygon in polygons} == {3}:
        return _from_zero(np.array(polygons, dtype=np.int64))
    numbers = [[int(word) for word in polygon] for polygon in polygons]
    fans = [(p[0], p[i], p[i + 1]) for p in numbers for i in range(1, len(p) - 1)]
    return _from_zero(np.array(fans, dtype=np.int64).reshape(-1, 3))


def _from_zero(corners: np.ndarray) -> np.ndarray:
    if (corners == 0).any():
        raise ValueError("a corner with the number 0; .obj files count from 1")
    return corners - 1
