# SPDX-License-Identifier: Apache-2.0
"""Writes a mesh as binary PLY with normals and vertex colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface import __version__
from hiface.atomic import atomic_write_bytes
from hiface.colour import to_uint8
from hiface.errors import ShapeError
from hiface.export.units import ExportInfo, units_per_metre
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.texture import sample_texture
from hiface.types import FaceMesh

_POSITION = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
_COLOUR = [(name, "u1") for name in ("red", "green", "blue")]
_PLY_TYPE = {"<f4": "float", "u1": "uchar"}


def vertex_colours(model: MorphableModel, texture_srgb: Tensor) -> np.ndarray:
    """Colours of a texture at the vertices; at a texture seam, the mean of both sides.

    Args:
        model: The face model.
        texture_srgb: [3, H, W] sRGB, 0..1.

    Returns:
        [V, 3] uint8 sRGB.
    """
    return mesh_colours(model.mesh(model.template), texture_srgb)


def mesh_colours(mesh: FaceMesh, texture_srgb: Tensor) -> np.ndarray:
    """The same for a mesh, such as a refined head."""
    at_uv = sample_texture(texture_srgb.cpu().float(), mesh.uv.cpu().float())
    vertex, uv = mesh.triangles.cpu().flatten(), mesh.uv_triangles.cpu().flatten()
    total = torch.zeros(len(mesh.vertices), 3).index_add_(0, vertex, at_uv[uv])
    count = torch.zeros(len(mesh.vertices)).index_add_(0, vertex, torch.ones(len(vertex)))
    mean = total / count.clamp_min(1.0)[:, None]
    return to_uint8(mean).numpy()


def write_ply(
    path: str | Path,
    vertices: Tensor,
    triangles: Tensor,
    colours_srgb: np.ndarray | None = None,
    *,
    units: str = "m",
    info: ExportInfo | None = None,
) -> Path:
    """Writes a binary little-endian PLY file.

    Args:
        path: File to write.
        vertices: [V, 3] metres.
        triangles: [T, 3] int64.
        colours_srgb: [V, 3] uint8 sRGB, or None.
        units: "m", "cm" or "mm".
        info: Where the face came from, for a comment.

    Returns:
        The path.

    Raises:
        ShapeError: An array has the wrong shape.
        OutputError: The file cannot be written or the unit is unknown.
    """
    scale = units_per_metre(units)
    if vertices.dim() != 2 or vertices.shape[1] != 3:
        raise ShapeError(f"a file holds one mesh: vertices must be [V, 3], got {tuple(vertices.shape)}")
    columns = _POSITION if colours_srgb is None else _POSITION + _COLOUR
    table = np.zeros(len(vertices), dtype=columns)
    values = torch.cat([vertices.double() * scale, vertex_normals(vertices, triangles).double()], dim=1)
    for i, (name, _) in enumerate(_POSITION):
        table[name] = values[:, i].detach().cpu().numpy()
    if colours_srgb is not None:
        if colours_srgb.shape != (len(vertices), 3) or colours_srgb.dtype != np.uint8:
            raise ShapeError(f"colours must be [{len(vertices)}, 3] uint8, got {colours_srgb.shape}")
        for i, (name, _) in enumerate(_COLOUR):
            table[name] = colours_srgb[:, i]
    faces = np.zeros(len(triangles), dtype=[("count", "u1"), ("ids", "<i4", (3,))])
    faces["count"], faces["ids"] = 3, triangles.cpu().numpy()
    source = (info or ExportInfo()).scale_source
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment hiface {__version__}; units {units}; scale from {source}",
        f"element vertex {len(vertices)}",
        *(f"property {_PLY_TYPE[kind]} {name}" for name, kind in columns),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    text = "\n".join(header) + "\n"
    return atomic_write_bytes(path, text.encode("ascii") + table.tobytes() + faces.tobytes())
