# SPDX-License-Identifier: Apache-2.0
"""Meshes that any other program has written for the same photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.data import Photo
from hiface.errors import MeshFileError, MissingPredictionError, TopologyError
from hiface.evaluation.method import Prediction
from hiface.evaluation.protocols.base import file_called
from hiface.evaluation.protocols.now import LANDMARK_SUFFIXES, UNIT_MM, read_landmarks
from hiface.geometry.closest import barycentric_of, closest_points_reference
from hiface.geometry.mesh_files import MESH_SUFFIXES, PlainMesh, read_mesh
from hiface.types import LandmarkSet

_NEUTRAL = ".neutral"
_OFF_SURFACE = 0.05  # of the mesh's diagonal


class FolderMethod:
    """Reads a mesh for each photo from a folder.

    For the photo sub/NAME.jpg these files are looked for under the folder, with as many of the photo's own
    folders as are there (sub/NAME.obj before NAME.obj):

    - NAME.obj or NAME.ply: the shape with the photo's expression, +Y up, +Z out of the face;
    - NAME.neutral.obj or .ply: the same person at rest, of the same topology, if there is such a thing;
    - NAME.npy or NAME.txt: [7, 3] points on the mesh (eye corners, nose, mouth corners), if known;
    - NAME.json: {"landmarks68": 68 pairs of pixels, "unit": "m", "cm" or "mm"}, both if known. Only a unit
      makes sizes count as metric.

    Args:
        folder: The folder.
        template: A mesh whose triangles all meshes share, or None. Keypoint sets of its topology may lie
            beside it in a .json file of its name: {"ibug68": {"triangle_ids": [L], "barycentric": [L, 3]}}.
    """

    licence = "that of the program that wrote the meshes"

    always_again = True  # its meshes may have changed since they were last read

    def __init__(self, folder: Path, template: Path | None = None) -> None:
        self.name = f"folder:{folder}"
        self.description = "meshes of another program"
        self._folder, self._template_file = folder, template
        self._template: PlainMesh | None = None
        self._keypoints: dict[str, LandmarkSet] = {}
        self._taken: dict[Path, Path] = {}

    def load(self) -> None:
        """Reads the template.

        Raises:
            MeshFileError: There is no such folder, or the template cannot be read.
        """
        if not self._folder.is_dir():
            raise MeshFileError(f"{self._folder} is not a folder of meshes; check the path")
        if self._template_file is not None and self._template is None:
            self._template = read_mesh(self._template_file)
            self._keypoints = _read_keypoints(self._template_file.with_suffix(".json"), self._template)

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """The mesh of one photo.

        Raises:
            MissingPredictionError: There is no file for it.
            MeshFileError: The photo has no file name, a file is damaged, or two photos share a mesh.
            TopologyError: A mesh has other triangles than the template or than its face at rest.
        """
        self.load()
        if photo.path is None:
            raise MeshFileError("meshes of a folder are found by the photo's file name; read it from a file")
        path = self._mesh_of(photo.path)
        mesh = read_mesh(path)
        if self._template is not None:
            check_same_triangles(mesh, self._template, path, str(self._template_file))
        at_rest = _first_mesh(path.with_suffix(""), _NEUTRAL)
        neutral = None if at_rest is None else read_mesh(at_rest)
        if neutral is not None and at_rest is not None:
            check_same_triangles(neutral, mesh, at_rest, path.name)
        notes = _read_notes(path.with_suffix(".json"))
        points, unit = notes.get("landmarks68"), notes.get("unit")
        factor = UNIT_MM[unit] / 1e3 if unit else 1.0
        points_px = None if points is None else torch.tensor(points, dtype=torch.float32)
        whole = torch.tensor([0.0, 0.0, photo.width, photo.height])
        box = whole if points_px is None else torch.cat([points_px.amin(0), points_px.amax(0)])
        return [
            Prediction(
                box=box,
                landmarks68_px=points_px,
                vertices=mesh.vertices * factor,
                neutral_vertices=None if neutral is None else neutral.vertices * factor,
                triangles=mesh.triangles,
                keypoints=self._keypoints | _seven(path, mesh),
                topology="" if self._template_file is None else self._template_file.stem,
                metric=unit is not None,
            )
        ]

    def _mesh_of(self, photo: Path) -> Path:
        """The mesh in the deepest of the photo's folders that is there.

        Raises:
            MissingPredictionError: There is none.
            MeshFileError: Another photo has taken it.
        """
        parts = photo.parts[1:] if photo.is_absolute() else photo.parts
        parts = tuple(part for part in parts if part != "..")
        for first in range(len(parts)):
            found = _first_mesh((self._folder / Path(*parts[first:])).with_suffix(""))
            if found is not None:
                owner = self._taken.setdefault(found, photo)
                if owner != photo:
                    raise MeshFileError(
                        f"{found} is the mesh of two photos, {owner} and {photo}; keep the folders of photos "
                        f"under {self._folder} too"
                    )
                return found
        stem = photo.with_suffix("").name
        raise MissingPredictionError(
            f"{self._folder} has no mesh of {photo.name}: neither {stem}.obj nor {stem}.ply, nor one in "
            f"folders like the photo's ({Path(*parts[-2:]).with_suffix('.obj')})"
        )


def check_same_triangles(mesh: PlainMesh, template: PlainMesh, path: Path, template_name: str) -> None:
    """Compares vertex counts and triangles one by one, since keypoints are numbered by triangles.

    Raises:
        TopologyError: They differ; says what was expected.
    """
    want, got = len(template.vertices), len(mesh.vertices)
    if got != want:
        raise TopologyError(f"{path} has {got} vertices, {template_name} has {want}; name the right template")
    if mesh.triangles.shape != template.triangles.shape:
        raise TopologyError(
            f"{path} has {len(mesh.triangles)} triangles, {template_name} has {len(template.triangles)}; "
            "name the right template"
        )
    differ = (mesh.triangles != template.triangles).any(dim=1)
    if bool(differ.any()):
        row = int(differ.int().argmax())
        raise TopologyError(
            f"{path} has the corners {mesh.triangles[row].tolist()} in triangle {row}, where "
            f"{template_name} has {template.triangles[row].tolist()}; write both in the order of "
            "the template"
        )


def _first_mesh(stem: Path, ending: str = "") -> Path | None:
    return file_called(stem.with_name(stem.name + ending), MESH_SUFFIXES)


def _seven(path: Path, mesh: PlainMesh) -> dict[str, LandmarkSet]:
    """The seven points beside a mesh as points of its surface."""
    file = file_called(path.with_suffix(""), LANDMARK_SUFFIXES)
    if file is None:
        return {}
    points = read_landmarks(file)
    near = closest_points_reference(points, mesh.vertices, mesh.triangles)
    size = (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()
    if float(near.distances.max()) > _OFF_SURFACE * float(size):
        raise MeshFileError(
            f"{file} has points that are not on {path.name}; expected its unit and axes, in the order right "
            "outer and inner eye corner, left inner and outer, base of the nose, right and left mouth corner"
        )
    weights = barycentric_of(near.points, mesh.vertices[mesh.triangles[near.triangle_ids]])
    return {"now7": LandmarkSet("now7", near.triangle_ids, weights)}


def _read_notes(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    points, unit = content.get("landmarks68"), content.get("unit")
    if unit is not None and unit not in UNIT_MM:
        raise MeshFileError(f"{path} has the unit {unit!r}; expected one of {', '.join(UNIT_MM)}")
    if points is not None:
        try:
            array = np.array(points, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.shape != (68, 2) or not np.isfinite(array).all():
            raise MeshFileError(
                f"{path} must have landmarks68 as 68 pairs of pixels, got shape {array.shape}"
            )
    return content


def _read_keypoints(path: Path, template: PlainMesh) -> dict[str, LandmarkSet]:
    found = {}
    for name, content in _read_json(path).items():
        try:
            ids = torch.tensor(content["triangle_ids"], dtype=torch.int64)
            weights: Tensor = torch.tensor(content["barycentric"], dtype=torch.float64)
            found[name] = LandmarkSet(name, ids, weights)
        except (KeyError, TypeError, ValueError) as error:
            raise MeshFileError(
                f"{path}: the keypoints {name!r} need triangle_ids [L] and barycentric [L, 3] ({error})"
            ) from error
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= len(template.triangles)):
            raise MeshFileError(
                f"{path}: the keypoints {name!r} point past the {len(template.triangles)} triangles"
            )
    return found


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeshFileError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise MeshFileError(f"{path} must hold an object, got {type(content).__name__}")
    return content
