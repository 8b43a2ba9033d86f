# SPDX-License-Identifier: Apache-2.0
"""Reads ICT-FaceKit's light model (Li et al., "Learning formation of physically-based face attributes").

A folder of .obj meshes of one topology: the generic face, one mesh per identity axis at one sigma, one per
expression at 1; centimetres, +Y up, +Z out of the face. MIT licence.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from hiface.assets import load_json_asset
from hiface.errors import ModelFormatError
from hiface.geometry.obj_files import ObjMesh
from hiface.morphable.data import MorphableModelData
from hiface.morphable.readers.obj import read_obj, read_obj_vertices
from hiface.morphable.readers.parts import Parts, assemble

NEUTRAL = "generic_neutral_mesh.obj"
_LANDMARKS = "vertex_indices.json"
BESIDE = ("*.obj", _LANDMARKS)
LICENCE = "MIT (ICT-FaceKit, USC Institute for Creative Technologies)"
N_VERTICES = 26719
_N_POLYGONS = 26384
# First polygon of each part, as published in the project's README.
_PARTS = (
    ("skin", 0),
    ("mouth_interior", 11144),
    ("socket_left", 13226),
    ("socket_right", 13630),
    ("gums_and_tongue", 14034),
    ("teeth", 17006),
    ("eye_left", 21496),
    ("eye_right", 23094),
    ("eye_surroundings", 24692),
    ("lashes", 25304),
)
_SPLIT = ("browInnerUp", "cheekPuff")  # one shape of ARKit, a left and a right one here


def read_ict(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads the folder FaceXModel.

    The expressions are ARKit's 52 in alphabetical order: browInnerUp and cheekPuff are the sums of their
    halves, a shape that the folder lacks (tongueOut) is zero and listed in `metadata["missing_expressions"]`.

    Args:
        path: FaceXModel, the folder that holds it, or its generic_neutral_mesh.obj.
        dtype: Of the tensors.

    Returns:
        The model, with the set "ibug68" where vertex_indices.json has it.

    Raises:
        ModelFormatError: Files are missing, damaged or of other topology.
    """
    folder = _folder(Path(path))
    neutral = read_obj(folder / NEUTRAL)
    shapes = {file.stem: file for file in sorted(folder.glob("*.obj")) if file.name != NEUTRAL}
    identity = [shapes[stem] for stem in shapes if stem.startswith("identity")]
    if not identity:
        raise ModelFormatError(f"{folder}: expected identity000.obj and more beside {NEUTRAL}, found none")
    expressions, missing = _expressions(shapes, neutral)
    parts = Parts(
        name="ict",
        version="light",
        licence=LICENCE,
        unit="cm",
        template=neutral.vertices,
        triangles=neutral.triangles,
        identity_basis=np.stack([_offset(file, neutral) for file in identity]),
        expression_basis=expressions,
        expression_names=tuple(load_json_asset("expressions/arkit52.json")["names"]),
        expression_kind="unit",
        uv=neutral.uv,
        uv_triangles=neutral.uv_triangles,
        quads=neutral.quads,
        metadata={
            "source_file": folder.name,
            "published_vertices": str(N_VERTICES),
            "missing_expressions": ", ".join(missing),
        },
    )
    if len(neutral.vertices) == N_VERTICES and int(neutral.polygon_of_triangle.max()) + 1 == _N_POLYGONS:
        starts = np.array([start for _, start in _PARTS])
        parts.triangle_parts = np.searchsorted(starts, neutral.polygon_of_triangle, side="right") - 1
        parts.part_names = tuple(name for name, _ in _PARTS)
    landmarks = _landmarks(folder / _LANDMARKS)
    if landmarks is not None:
        parts.landmark_vertices["ibug68"] = landmarks
    return assemble(parts, dtype)


def _folder(path: Path) -> Path:
    for folder in (path, path / "FaceXModel", path.parent):
        if (folder / NEUTRAL).is_file() and (folder != path.parent or path.name == NEUTRAL):
            return folder
    raise ModelFormatError(f"{path}: expected ICT-FaceKit's folder FaceXModel with {NEUTRAL}")


def _offset(path: Path, neutral: ObjMesh) -> np.ndarray:
    vertices = read_obj_vertices(path)
    if vertices.shape != neutral.vertices.shape:
        raise ModelFormatError(
            f"{path.name}: expected {len(neutral.vertices)} vertices as in {NEUTRAL}, found {len(vertices)}"
        )
    return vertices - neutral.vertices


def _expressions(shapes: dict[str, Path], neutral: ObjMesh) -> tuple[np.ndarray, list[str]]:
    """[52, V, 3] offsets, and the names that have no mesh."""
    names = load_json_asset("expressions/arkit52.json")["names"]
    basis = np.zeros((len(names), *neutral.vertices.shape))
    missing = []
    for i, name in enumerate(names):
        stem = name.removesuffix("Left").removesuffix("Right")
        sides = {"Left": (f"{stem}_L",), "Right": (f"{stem}_R",)}
        wanted = sides.get(name.removeprefix(stem), (name,))
        if name in _SPLIT:
            wanted = (f"{name}_L", f"{name}_R")
        # jawLeft and mouthLeft are directions, not sides, and keep their names.
        found = [stem for stem in wanted if stem in shapes] or [stem for stem in (name,) if stem in shapes]
        if not found:
            missing.append(name)
        for stem in found:
            basis[i] += _offset(shapes[stem], neutral)
    if len(missing) == len(names):
        raise ModelFormatError(f"expected expressions such as jawOpen.obj beside {NEUTRAL}, found none")
    return basis, missing


def _landmarks(path: Path) -> np.ndarray | None:
    """Vertices of the 68 points, or None where the folder does not say."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ids = np.array([int(i) for i in content["idx_to_landmark_verts"]], dtype=np.int64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ModelFormatError(
            f"{path.name}: expected idx_to_landmark_verts ({error}); the file is damaged"
        ) from error
    if ids.shape != (68,):
        raise ModelFormatError(f"{path.name}: expected 68 landmarks, found {len(ids)}")
    return ids
