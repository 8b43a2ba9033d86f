# SPDX-License-Identifier: Apache-2.0
"""Writes a mesh as Wavefront OBJ with its material library and texture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from hiface import __version__
from hiface.errors import ShapeError
from hiface.export.atomic import atomic_write_bytes, atomic_write_text
from hiface.export.parts import Material, material_of_parts, quad_corners
from hiface.export.pictures import png_bytes
from hiface.export.units import ExportInfo, units_per_metre
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel


def write_obj(
    path: str | Path,
    model: MorphableModel,
    vertices: Tensor,
    texture_srgb: Tensor | None,
    *,
    units: str = "m",
    info: ExportInfo | None = None,
) -> list[Path]:
    """Writes `face.obj`, `face.mtl` and, if there is a texture, `face.png` (named after `path`).

    The mesh keeps the model's quads where it has them. OBJ counts v from the bottom, so v is flipped.

    Args:
        path: The .obj file.
        model: The face model; its topology and UV layout are written.
        vertices: [V, 3] metres, posed or neutral, in any right-handed space with +Y up.
        texture_srgb: [3, H, W] sRGB, 0..1, or None.
        units: "m", "cm" or "mm".
        info: Where the face came from, for the comment at the top.

    Returns:
        The files written; the .obj is the last, so it never names a file that is not there.

    Raises:
        ShapeError: An array has the wrong shape.
        OutputError: A file cannot be written or the unit is unknown.
    """
    path = Path(path)
    scale = units_per_metre(units)
    if vertices.shape != model.template.shape:
        raise ShapeError(f"vertices must be {tuple(model.template.shape)}, got {tuple(vertices.shape)}")
    used = _used_materials(model)
    written = []
    if texture_srgb is not None:
        written.append(atomic_write_bytes(path.with_suffix(".png"), png_bytes(texture_srgb)))
    image = path.with_suffix(".png").name if texture_srgb is not None else None
    written.append(atomic_write_text(path.with_suffix(".mtl"), _material_library(used, image)))
    normals = vertex_normals(vertices, model.triangles).detach().cpu().numpy()
    lines = _header(model, path.with_suffix(".mtl").name, units, info or ExportInfo())
    lines += [
        f"v {x:.7g} {y:.7g} {z:.7g}"
        for x, y, z in (vertices.detach().cpu().double().numpy() * scale).tolist()
    ]
    lines += [f"vt {u:.6f} {1.0 - v:.6f}" for u, v in model.uv.cpu().tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    lines += _polygons(model, used)
    written.append(atomic_write_text(path, "\n".join(lines) + "\n"))
    return written


def _used_materials(model: MorphableModel) -> list[Material]:
    materials = material_of_parts(model.data)
    parts = sorted(set(model.data.triangle_parts.tolist()))
    return list(dict.fromkeys(materials[p] for p in parts))


def _header(model: MorphableModel, library: str, units: str, info: ExportInfo) -> list[str]:
    data = model.data
    lines = [
        f"# hiface {__version__}; model {data.name} {data.version}; {data.licence}",
        f"# units {units}; scale from {info.scale_source}; +Y up, +Z forward, +X to the face's left",
    ]
    return [*lines, f"mtllib {library}", "o head"]


def _material_library(materials: list[Material], image: str | None) -> str:
    lines = []
    for material in materials:
        colour = (1.0, 1.0, 1.0) if image else material.colour_linear
        shine = 2.0 / max(material.roughness, 0.05) ** 4 - 2.0
        lines += [
            f"newmtl {material.name}",
            "Ka 0 0 0",
            "Kd " + " ".join(f"{c:g}" for c in colour),
            "Ks 0.04 0.04 0.04",
            f"Ns {min(shine, 1000.0):.1f}",
            "illum 2",
        ]
        lines += [f"map_Kd {image}", ""] if image else [""]
    return "\n".join(lines)


def _polygons(model: MorphableModel, materials: list[Material]) -> list[str]:
    """`usemtl` and polygon lines, material by material; OBJ counts from 1."""
    quads = quad_corners(model.data)
    if quads is not None:
        corners, uv_corners, triangle = quads
    else:
        corners, uv_corners = model.triangles.cpu().numpy(), model.uv_triangles.cpu().numpy()
        triangle = np.arange(len(corners))
    material_of = material_of_parts(model.data)
    part = model.data.triangle_parts.cpu().numpy()[triangle]
    lines = []
    for material in materials:
        lines += [f"g {material.name}", f"usemtl {material.name}"]
        wanted = np.isin(part, [i for i, m in enumerate(material_of) if m == material])
        for ids, uvs in zip((corners[wanted] + 1).tolist(), (uv_corners[wanted] + 1).tolist(), strict=True):
            lines.append("f " + " ".join(f"{i}/{t}/{i}" for i, t in zip(ids, uvs, strict=True)))
    return lines
