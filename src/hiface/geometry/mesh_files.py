# SPDX-License-Identifier: Apache-2.0
"""Reads and writes bare meshes; the order of vertices is the file's, whatever textures or colours it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.errors import MeshFileError, MissingExtraError

MESH_SUFFIXES = (".obj", ".ply")
_OTHER_INDICES = re.compile(r"/\S*")


@dataclass(frozen=True)
class PlainMesh:
    """A mesh without texture.

    Attributes:
        vertices: [V, 3] float64, the file's unit.
        triangles: [T, 3] int64; polygons are split into fans.
    """

    vertices: Tensor
    triangles: Tensor


def read_mesh(path: str | Path) -> PlainMesh:
    """Reads an .obj or .ply file. Colours, normals, texture coordinates and groups are left out.

    Args:
        path: The file.

    Returns:
        Its vertices, in the file's order, and its triangles.

    Raises:
        MeshFileError: Missing, of another kind, without vertices or triangles, or with numbers that are not
            finite.
        MissingExtraError: .ply needs libigl.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise MeshFileError(f"{path} is not a mesh; expected one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise MeshFileError(f"{path} does not exist; check the path")
    try:
        vertices, triangles = _read_obj(path) if path.suffix.lower() == ".obj" else _read_ply(path)
    except (ValueError, IndexError, OSError, RuntimeError) as error:
        raise MeshFileError(f"{path} is damaged or not a mesh ({error})") from error
    if not len(vertices) or not len(triangles):
        raise MeshFileError(f"{path} has {len(vertices)} vertices and {len(triangles)} triangles")
    if not np.isfinite(vertices).all():
        bad = int(np.argwhere(~np.isfinite(vertices).all(axis=1))[0, 0])
        raise MeshFileError(f"{path} has coordinates that are not finite, first in vertex {bad}")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise MeshFileError(f"{path} has triangles that point past its {len(vertices)} vertices")
    return PlainMesh(torch.from_numpy(vertices), torch.from_numpy(triangles))


def read_points(path: str | Path) -> Tensor:
    """Vertices of an .obj file that need not have triangles, [V, 3] float64.

    Raises:
        MeshFileError: Missing, damaged, empty or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise MeshFileError(f"{path} does not exist; check the path")
    try:
        vertices = _read_obj(path)[0]
    except (ValueError, IndexError, OSError) as error:
        raise MeshFileError(f"{path} is damaged or not an .obj file ({error})") from error
    if not len(vertices) or not np.isfinite(vertices).all():
        raise MeshFileError(f"{path} has no vertices or some that are not finite")
    return torch.from_numpy(vertices)


def obj_text(vertices: Tensor, triangles: Tensor | None = None) -> str:
    """Text of an .obj file with nine digits a coordinate: enough to give float32 back.

    Args:
        vertices: [V, 3].
        triangles: [T, 3] int64 or None for points alone.
    """
    rows = ["v {:.9g} {:.9g} {:.9g}".format(*row) for row in vertices.tolist()]
    if triangles is not None:
        rows += ["f {} {} {}".format(*row) for row in (triangles + 1).tolist()]
    return "\n".join(rows) + "\n"


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    places = [line[2:] for line in lines if line.startswith(("v ", "v\t"))]
    corners = [line[2:] for line in lines if line.startswith(("f ", "f\t"))]
    if not places:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    numbers = np.array(" ".join(places).split(), dtype=np.float64)
    width = len(places[0].split())
    if width < 3 or numbers.size != width * len(places):
        raise ValueError("vertices with different numbers of coordinates")
    vertices = np.ascontiguousarray(numbers.reshape(-1, width)[:, :3])
    return vertices, _fans(corners, len(vertices))


def _fans(corners: list[str], n_vertices: int) -> np.ndarray:
    """Triangles of polygons given as lines of corners such as "3/1/2 4//5 -1"."""
    polygons = [_OTHER_INDICES.sub("", line).split() for line in corners]
    sizes = {len(polygon) for polygon in polygons}
    if sizes == {3}:
        triangles = np.array(polygons, dtype=np.int64)
    else:
        numbers = [[int(word) for word in polygon] for polygon in polygons]
        fans = [(p[0], p[i], p[i + 1]) for p in numbers for i in range(1, len(p) - 1)]
        triangles = np.array(fans, dtype=np.int64).reshape(-1, 3)
    if (triangles == 0).any():
        raise ValueError("a corner with the number 0; .obj files count from 1")
    return np.where(triangles < 0, n_vertices + triangles, triangles - 1)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import igl
    except ImportError as error:
        raise MissingExtraError(".ply files need libigl; type: pip install 'hiface[eval]'") from error
    vertices, triangles = igl.read_triangle_mesh(str(path))
    places = np.asarray(vertices, dtype=np.float64)
    return np.ascontiguousarray(places[:, :3]), np.ascontiguousarray(np.asarray(triangles, dtype=np.int64))
