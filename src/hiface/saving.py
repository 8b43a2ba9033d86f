# SPDX-License-Identifier: Apache-2.0
"""Writes one reconstructed face: a file by its suffix, or a person's whole folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hiface.atomic import atomic_write_bytes
from hiface.detail.sd_detail import Parts
from hiface.errors import OutputError
from hiface.export.clips import Clip, expression_clip
from hiface.export.deca_layout import DecaFace, write_deca_layout
from hiface.export.detail_maps import displacement_png, tangent_normal_map
from hiface.export.glb import write_glb
from hiface.export.glb_mesh import GlbDetail
from hiface.export.json_params import FaceRecord, write_face_json
from hiface.export.morphs import morph_weights
from hiface.export.obj import write_dense_obj, write_obj
from hiface.export.overview import write_overview
from hiface.export.pictures import png_bytes
from hiface.export.ply import vertex_colours, write_ply
from hiface.export.units import ExportInfo
from hiface.export.wrinkles import wrinkles_of

if TYPE_CHECKING:
    from hiface.result import FaceResult

FORMATS = ("glb", "obj", "dense", "ply", "json", "maps", "overview")


@dataclass(frozen=True)
class SaveOptions:
    """How faces are written.

    Attributes:
        units: "m", "cm" or "mm", for .obj and .ply; GLB and JSON are always in metres.
        texture_size: Side of the texture, pixels.
        wrinkles: Refine the skin of GLB files and put what expressions fold into the morph targets, where the
            face has detail; the file grows tenfold.
    """

    units: str = "m"
    texture_size: int = 1024
    wrinkles: bool = False


_DEFAULT = SaveOptions()


def save_face(face: FaceResult, path: Path, options: SaveOptions = _DEFAULT) -> None:
    """Writes a face to one file; the suffix chooses the format.

    Args:
        face: The face.
        path: File ending in .glb, .obj, .ply or .json.
        options: How.

    Raises:
        OutputError: Unknown suffix or unit, or an unwritable place.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(f"cannot write {path.name!r}: use one of {', '.join(_WRITERS)}")
    writer(face, path, options)


def save_person(
    face: FaceResult, folder: Path, formats: Sequence[str], options: SaveOptions = _DEFAULT
) -> None:
    """Writes face.glb, face.obj, face.ply, face.json, overview.png, dense and maps, as `formats` names them.

    "dense" is dense.obj, a fine mesh with the relief in its vertices. Maps are seen.png (white where the
    texture is the photo's) and, of a face with detail, displacement.png, displacement_static.png and
    normals.png.

    Args:
        face: The face.
        folder: Existing folder.
        formats: Subset of `FORMATS`.
        options: How.

    Raises:
        OutputError: The folder cannot be written.
    """
    for name in formats:
        if name == "overview":
            seen = face.with_params(face.fitted)
            maps = face.texture(options.texture_size), seen.displacement() if seen.has_detail else None
            image, points = face.photo.image_srgb, face.landmarks()
            write_overview(folder / "overview.png", face.model, face.fitted, image, points, *maps)
        elif name == "maps":
            _save_maps(face, folder, options.texture_size)
        elif name == "dense":
            _save_dense(face, folder / "dense.obj", options)
        else:
            save_face(face, folder / f"face.{name}", options)


def save_deca(face: FaceResult, out: Path, name: str, options: SaveOptions = _DEFAULT) -> None:
    """Writes OUT/<name>/ and OUT/<name>_vis.jpg with DECA's file names (`hiface.export.deca_layout`).

    Args:
        face: The face.
        out: Existing folder.
        name: Stem of all files.
        options: Units of .obj files and side of the texture.

    Raises:
        OutputError: The folder cannot be written.
        MissingExtraError: SciPy is not installed.
    """
    seen, texture = face.with_params(face.fitted), face.texture(options.texture_size)
    image, relief = face.photo.image_srgb, seen.displacement()
    found = DecaFace(face.model, face.fitted, image, texture, relief, options.units, _info(face))
    write_deca_layout(found, out, name)


def _info(face: FaceResult) -> ExportInfo:
    return ExportInfo(face.scale_source, {"photo": face.photo.path.name} if face.photo.path else {})


def _save_glb(face: FaceResult, path: Path, options: SaveOptions) -> None:
    weights = morph_weights(face.model, face.params.expression, face.params.pose)
    clip = expression_clip(weights.numpy(), face.model.data.expression_names)
    save_animation(face, path, clip, options)


def _save_maps(face: FaceResult, folder: Path, size: int) -> None:
    seen = face.texture_seen(size)[None].float().expand(3, -1, -1)
    atomic_write_bytes(folder / "seen.png", png_bytes(seen))
    if not face.has_detail:
        return
    maps: dict[str, Parts] = {"displacement": "both", "displacement_static": "static"}
    for name, parts in maps.items():
        atomic_write_bytes(folder / f"{name}.png", displacement_png(face.displacement(parts)))
    picture = tangent_normal_map(face.model, face.mesh.vertices, face.displacement())
    atomic_write_bytes(folder / "normals.png", png_bytes(picture))


def _glb_detail(face: FaceResult, wrinkles: bool) -> GlbDetail | None:
    """The person's own relief as a normal map, and what expressions fold, if asked for."""
    if not face.has_detail:
        return None
    rest, p = face.neutral(), face.params
    relief = tangent_normal_map(face.model, rest.mesh.vertices, rest.displacement("static"))
    folds = None
    if wrinkles and face.detail is not None and p.static is not None:
        folds = wrinkles_of(face.model, face.detail, p.identity, p.static)
    return GlbDetail(relief, folds)


def save_animation(face: FaceResult, path: Path, clip: Clip, options: SaveOptions = _DEFAULT) -> None:
    """Writes a face as GLB with one clip.

    Args:
        face: The face.
        path: File ending in .glb.
        clip: What it does.
        options: How.

    Raises:
        OutputError: The place cannot be written.
    """
    texture, detail = face.texture(options.texture_size), _glb_detail(face, options.wrinkles)
    write_glb(path, face.model, face.params, texture, detail=detail, animations=[clip], info=_info(face))


def _save_obj(face: FaceResult, path: Path, options: SaveOptions) -> None:
    write_obj(
        path,
        face.model,
        face.mesh.vertices,
        face.texture(options.texture_size),
        units=options.units,
        info=_info(face),
    )


def _save_dense(face: FaceResult, path: Path, options: SaveOptions) -> None:
    texture, dense = face.texture(options.texture_size), face.dense_mesh()
    write_dense_obj(path, face.model, dense, texture, units=options.units, info=_info(face))


def _save_ply(face: FaceResult, path: Path, options: SaveOptions) -> None:
    colours = vertex_colours(face.model, face.texture(options.texture_size))
    write_ply(path, face.mesh.vertices, face.mesh.triangles, colours, units=options.units, info=_info(face))


def _save_json(face: FaceResult, path: Path, options: SaveOptions) -> None:
    info, evidence = _info(face), face.evidence
    seen = {"left": round(evidence.seen_left, 3), "right": round(evidence.seen_right, 3)}
    record = FaceRecord.of(
        face.params,
        face.model.data,
        landmarks_px={"ibug68": face.landmarks("ibug68")},
        box_px=tuple(face.box.tolist()),
        score=face.score,
        scale_source=info.scale_source,
        provenance={**info.provenance, "seen": seen, "inferred_half": evidence.inferred_half},
    )
    write_face_json(path, record)


_WRITERS: dict[str, Callable[[FaceResult, Path, SaveOptions], None]] = {
    ".glb": _save_glb,
    ".obj": _save_obj,
    ".ply": _save_ply,
    ".json": _save_json,
}
