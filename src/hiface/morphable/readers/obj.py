# SPDX-License-Identifier: Apache-2.0
"""Meshes of face models that come as .obj files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hiface.errors import MeshFileError, ModelFormatError
from hiface.geometry.obj_files import ObjMesh, parse_obj


def read_obj_vertices(path: Path) -> np.ndarray:
    """Only the vertices, [V, 3].

    Raises:
        ModelFormatError: The file is missing, damaged or has none.
    """
    return _parsed(path, with_uv=False).vertices


def read_obj(path: Path) -> ObjMesh:
    """A mesh with its texture coordinates.

    Raises:
        ModelFormatError: The file is missing, damaged or has no polygons.
    """
    mesh = _parsed(path, with_uv=True)
    if not len(mesh.triangles):
        count = len(mesh.vertices)
        raise ModelFormatError(f"{path.name}: expected a mesh, found {count} vertices and no polygons")
    return mesh


def _parsed(path: Path, with_uv: bool) -> ObjMesh:
    try:
        return parse_obj(path, with_uv)
    except MeshFileError as error:
        raise ModelFormatError(str(error)) from error
