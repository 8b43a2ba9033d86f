# SPDX-License-Identifier: Apache-2.0
"""Reads and writes bare meshes; the order of vertices is the file's, whatever textures or colours it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.errors import MeshFileError
from hiface.geometry.obj_files import parse_obj
from hiface.geometry.ply_files import parse_ply

MESH_SUFFIXES = (".obj", ".ply")


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
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise MeshFileError(f"{path} is not a mesh; expected one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise MeshFileError(f"{path} does not exist; check the path")
    if path.suffix.lower() == ".obj":
        mesh = parse_obj(path)
        vertices, triangles = mesh.vertices, mesh.triangles
    else:
        vertices, polygons = parse_ply(path)
        fans = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
        triangles = np.array(fans, dtype=np.int64).reshape(-1, 3)
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
    return torch.from_numpy(parse_obj(Path(path)).vertices)


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
