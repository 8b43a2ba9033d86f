# SPDX-License-Identifier: Apache-2.0
"""Writes a mesh as Wavefront OBJ with its material library and texture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from hiface import __version__
from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import ShapeError
from hiface.export.dense import DenseMesh
from hiface.export.parts import SKIN, Material, material_of_parts, quad_corners
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
    normal_map: Tensor | None = None,
) -> list[Path]:
    """Writes `face.obj`, `face.mtl` and, if there is a texture, `face.png` (named after `path`).

    With a normal map there is a `face_normals.png` too. The mesh keeps the model's quads where it has them.
    OBJ counts v from the bottom, so v is flipped.

    Args:
        path: The .obj file.
        model: The face model; its topology and UV layout are written.
        vertices: [V, 3] metres, posed or neutral, in any right-handed space with +Y up.
        texture_srgb: [3, H, W] sRGB, 0..1, or None.
        units: "m", "cm" or "mm".
        info: Where the face came from, for the comment at the top.
        normal_map: [3, S, S] tangent-space normals of the skin, (n + 1) / 2, or None.

    Returns:
        The files written; the .obj is the last, so it never names a file that is not there.

    Raises:
        ShapeError: An array has the wrong shape.
        OutputError: A file cannot be written or the unit is unknown.
    """
    if vertices.shape != model.template.shape:
        raise ShapeError(f"vertices must be {tuple(model.template.shape)}, got {tuple(vertices.shape)}")
    quads = quad_corners(model.data)
    if quads is not None:
        corners, uv_corners, triangle = quads
    else:
        corners, uv_corners = model.triangles.cpu().numpy(), model.uv_triangles.cpu().numpy()
        triangle = np.arange(len(corners))
    part = model.data.triangle_parts.cpu().numpy()[triangle]
    normals = vertex_normals(vertices, model.triangles)
    polygons = _Polygons(vertices, normals, model.uv, corners, uv_corners, part)
    pictures = {"": texture_srgb, "_normals": normal_map}
    return _write(path, model, polygons, pictures, units, info or ExportInfo())


def write_dense_obj(
    path: str | Path,
    model: MorphableModel,
    dense: DenseMesh,
    texture_srgb: Tensor | None,
    *,
    units: str = "m",
    info: ExportInfo | None = None,
) -> list[Path]:
    """The same for a refined head with its relief; arguments, result and errors as of `write_obj`."""
    mesh = dense.mesh
    corners, uv_corners = mesh.triangles.numpy(), mesh.uv_triangles.numpy()
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    part = dense.triangle_parts.numpy()
    polygons = _Polygons(mesh.vertices, normals, mesh.uv, corners, uv_corners, part)
    return _write(path, model, polygons, {"": texture_srgb}, units, info or ExportInfo())


def write_coloured_obj(
    path: str | Path,
    vertices: Tensor,
    triangles: Tensor,
    colours_srgb: np.ndarray,
    *,
    units: str = "m",
    info: ExportInfo | None = None,
) -> Path:
    """Writes triangles with a colour behind each vertex, `v x y z r g b`, and no material.

    Args:
        path: The .obj file.
        vertices: [V, 3] metres.
        triangles: [T, 3] int64, counter-clockwise seen from outside.
        colours_srgb: [V, 3] uint8 sRGB.
        units: "m", "cm" or "mm".
        info: Where the face came from, for the comment at the top.

    Returns:
        The path.

    Raises:
        ShapeError: There is not one colour for each vertex.
        OutputError: The file cannot be written or the unit is unknown.
    """
    if vertices.shape != colours_srgb.shape:
        raise ShapeError(f"colours must be {tuple(vertices.shape)}, got {colours_srgb.shape}")
    rows = vertices.detach().cpu().double().numpy() * units_per_metre(units)
    lines = [f"# hiface {__version__}; units {units}; scale from {(info or ExportInfo()).scale_source}"]
    for (x, y, z), (r, g, b) in zip(rows.tolist(), (colours_srgb / 255.0).tolist(), strict=True):
        lines.append(f"v {x:.7g} {y:.7g} {z:.7g} {r:.4f} {g:.4f} {b:.4f}")
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return atomic_write_text(path, "\n".join(lines) + "\n")


@dataclass(frozen=True)
class _Polygons:
    """A mesh of polygons with k corners.

    Attributes:
        vertices: [V, 3] metres.
        normals: [V, 3] unit.
        uv: [U, 2], origin top-left.
        corners: [P, k] vertices of each polygon.
        uv_corners: [P, k] texture coordinates of its corners.
        part: [P] part of the face model.
    """

    vertices: Tensor
    normals: Tensor
    uv: Tensor
    corners: np.ndarray
    uv_corners: np.ndarray
    part: np.ndarray


def _write(
    path: str | Path,
    model: MorphableModel,
    polygons: _Polygons,
    pictures: Mapping[str, Tensor | None],
    units: str,
    info: ExportInfo,
) -> list[Path]:
    """Writes the files; `pictures` are the texture, named "", and "_normals", as far as there are any."""
    path = Path(path)
    scale = units_per_metre(units)
    used = _used_materials(model)
    written, images = [], {}
    for ending, picture in pictures.items():
        if picture is not None:
            images[ending] = f"{path.stem}{ending}.png"
            written.append(atomic_write_bytes(path.with_name(images[ending]), png_bytes(picture)))
    library = _material_library(used, images.get(""), images.get("_normals"))
    written.append(atomic_write_text(path.with_suffix(".mtl"), library))
    lines = _header(model, path.with_suffix(".mtl").name, units, info)
    points = polygons.vertices.detach().cpu().double().numpy() * scale
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in points.tolist()]
    lines += [f"vt {u:.6f} {1.0 - v:.6f}" for u, v in polygons.uv.cpu().tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in polygons.normals.detach().cpu().tolist()]
    lines += _polygon_lines(model, used, polygons)
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


def _material_library(materials: list[Material], image: str | None, normals: str | None) -> str:
    """Programs know normal maps by one of two keys; those that know both prefer `norm`."""
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
        lines += [f"map_Kd {image}"] if image else []
        if normals and material.name == SKIN:
            lines += [f"norm {normals}", f"map_Bump -bm 1 {normals}"]
        lines.append("")
    return "\n".join(lines)


def _polygon_lines(model: MorphableModel, materials: list[Material], polygons: _Polygons) -> list[str]:
    """`usemtl` and polygon lines, material by material; OBJ counts from 1."""
    material_of = material_of_parts(model.data)
    lines = []
    for material in materials:
        lines += [f"g {material.name}", f"usemtl {material.name}"]
        wanted = np.isin(polygons.part, [i for i, m in enumerate(material_of) if m == material])
        corners, uv_corners = ((ids[wanted] + 1).tolist() for ids in (polygons.corners, polygons.uv_corners))
        for ids, uvs in zip(corners, uv_corners, strict=True):
            lines.append("f " + " ".join(f"{i}/{t}/{i}" for i, t in zip(ids, uvs, strict=True)))
    return lines
