# SPDX-License-Identifier: Apache-2.0
"""Finds what earlier commands have written: GLB files, and what lies beside each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiface.errors import MeshFileError
from hiface.export.glb_container import unpack_glb

FACE_FILE = "face.glb"
_UNREADABLE = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"}


@dataclass(frozen=True)
class ResultFiles:
    """One person's files.

    Attributes:
        glb: The animatable head.
        face_json: Coefficients, camera and light, or None.
        photo: The photo that the head was made from, where it is still found, or None.
        normals: Normal map of static and dynamic detail in the photo's expression, or None.
        static: Displacement map of the static detail, or None.
    """

    glb: Path
    face_json: Path | None = None
    photo: Path | None = None
    normals: Path | None = None
    static: Path | None = None

    @property
    def title(self) -> str:
        """Name of the photo and the person, or of the file alone."""
        if self.glb.name != FACE_FILE:
            return self.glb.stem
        folder = self.glb.absolute().parent
        return f"{folder.parent.name} {folder.name}" if folder.name.startswith("person") else folder.name


def find_results(path: str | Path) -> list[ResultFiles]:
    """The people of a result folder, in the order of their folders' names.

    Args:
        path: A .glb file, the folder of a person or of a photo, or the output folder of a command.

    Returns:
        One entry per person, at least one.

    Raises:
        MeshFileError: The path is not there, or holds no GLB file.
    """
    path = Path(path)
    if path.is_file():
        return [_beside(path)]
    if not path.is_dir():
        raise MeshFileError(f"{path} does not exist; name a .glb file or the output folder of a command")
    for pattern in (FACE_FILE, f"*/{FACE_FILE}", f"*/*/{FACE_FILE}", "*.glb"):
        found = sorted(path.glob(pattern))
        if found:
            return [_beside(glb) for glb in found]
    raise MeshFileError(
        f"there is no {FACE_FILE} in {path}; make one: hiface reconstruct PHOTO -o {path} --format glb,json"
    )


def read_glb_document(content: bytes, name: str) -> dict[str, Any]:
    """The JSON part of a GLB file that can be shown without other files.

    Args:
        content: The file.
        name: How messages call it.

    Returns:
        The document; it has `asset.extras`, empty where the file has none.

    Raises:
        MeshFileError: Not binary glTF 2.0, damaged, without meshes, or in need of other files or decoders.
    """
    try:
        document = unpack_glb(content).document
    except MeshFileError as error:
        raise MeshFileError(f"{name}: {error}") from error
    try:
        document.setdefault("asset", {}).setdefault("extras", {})
        meshes = document.get("meshes")
        required = set(document.get("extensionsRequired", [])) & _UNREADABLE
        parts = [*document.get("buffers", []), *document.get("images", [])]
        scenes, shown = document.get("scenes", []), document.get("scene", 0)
        uris = [part["uri"] for part in parts if not part.get("uri", "data:").startswith("data:")]
    except (AttributeError, TypeError) as error:
        raise MeshFileError(f"{name} is no glTF document ({error}); export it again") from error
    if not meshes:
        raise MeshFileError(f"{name} holds no mesh; export the head with it")
    if not isinstance(shown, int) or not 0 <= shown < len(scenes):
        raise MeshFileError(f"{name} has no scene that says what is shown; export it with one")
    if required:
        raise MeshFileError(f"{name} is compressed ({', '.join(sorted(required))}); export it without that")
    if uris:
        raise MeshFileError(f"{name} needs other files ({uris[0]}); export it with everything in one file")
    return document


def _beside(glb: Path) -> ResultFiles:
    def there(name: str) -> Path | None:
        path = glb.parent / name
        return path if path.is_file() else None

    if glb.name != FACE_FILE:
        return ResultFiles(glb)
    record = there("face.json")
    maps = there("normals.png"), there("displacement_static.png")
    return ResultFiles(glb, record, _photo_of(glb.parent, record), *maps)


def _photo_of(person: Path, record: Path | None) -> Path | None:
    """The photo by the name in face.json: where the run found it, else in or above the folder."""
    name = json_object(record).get("provenance", {}).get("photo") if record else None
    if not isinstance(name, str) or not name:
        return None
    folders = [person, *list(person.absolute().parents)[:3], Path()]
    for path in [*_photos_of_runs(person.parent), *(folder / name for folder in folders)]:
        if path.name == name and path.is_file():
            return path
    return None


def _photos_of_runs(folder: Path) -> Iterator[Path]:
    """Photos that the run's own files name, those of this folder only."""
    yield from _paths([json_object(folder / "photo.json")])
    rows = json_object(folder.parent / "person.json").get("photos")
    rows = rows if isinstance(rows, list) else []
    own = [r for r in rows if isinstance(r, dict) and Path(str(r.get("detail"))).name == folder.name]
    yield from _paths(own)


def _paths(rows: list[dict[str, Any]]) -> Iterator[Path]:
    return (Path(row["photo"]) for row in rows if isinstance(row.get("photo"), str))


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
