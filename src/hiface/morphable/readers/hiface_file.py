# SPDX-License-Identifier: Apache-2.0
"""hiface's own file of a converted model: one safetensors file with everything, nothing in it can run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiface.morphable.data import ContourLines, MorphableModelData
from hiface.morphable.tensor_files import FileKind
from hiface.morphable.validate import validate
from hiface.types import LandmarkSet

FILE = FileKind("hiface-face-model", "1", "face-model", "hiface models convert", "convert the original again")
_NAMES = (
    "name",
    "version",
    "licence",
    "expression_names",
    "joint_names",
    "joint_parents",
    "albedo_names",
    "part_names",
    "expression_kind",
)
_GROUPS = ("vertex_masks", "pairs")


def write_model(data: MorphableModelData, path: str | Path) -> Path:
    """Writes a model whole or not at all.

    Args:
        data: The model; its licence goes into the file's metadata.
        path: File to write (.safetensors) or replace.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, Tensor):
            tensors[item.name] = value
    for group in _GROUPS:
        tensors |= {f"{group}.{key}": value for key, value in getattr(data, group).items()}
    for points in data.landmark_sets.values():
        tensors |= _points(f"landmark_sets.{points.name}", points)
    if data.contour is not None:
        tensors |= _points("contour", data.contour.points)
        tensors["contour.valid"] = data.contour.valid
    head = {key: getattr(data, key) for key in _NAMES}
    meta = {
        "licence": data.licence,
        "names": json.dumps(head),
        "metadata": json.dumps(dict(data.metadata)),
    }
    return FILE.write(path, tensors, meta)


def read_model_file(path: str | Path, dtype: torch.dtype | None = None) -> MorphableModelData:
    """Reads a file of `write_model`.

    Args:
        path: The file.
        dtype: Of the floating tensors; that of the file if None.

    Raises:
        ModelFormatError: Damaged, of another kind or of an unknown version.
    """
    path = Path(path)
    tensors, meta = FILE.read(path)
    try:
        data = _data(_in_dtype(tensors, dtype), json.loads(meta["names"]), json.loads(meta["metadata"]))
        validate(data)
        return data
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise FILE.damaged(path, error) from error


def _data(tensors: dict[str, Tensor], head: dict[str, Any], metadata: dict[str, str]) -> MorphableModelData:
    if not isinstance(head, dict):
        raise TypeError("names must be texts by name")
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in head.items()}
    values |= {item.name: tensors[item.name] for item in fields(MorphableModelData) if item.name in tensors}
    for group in _GROUPS:
        values[group] = {
            k.removeprefix(f"{group}."): v for k, v in tensors.items() if k.startswith(f"{group}.")
        }
    ends = [k.removesuffix(".barycentric") for k in tensors if k.endswith(".barycentric")]
    sets = [
        _set(key.removeprefix("landmark_sets."), key, tensors)
        for key in ends
        if key.startswith("landmark_sets.")
    ]
    contour = None
    if "contour.valid" in tensors:
        contour = ContourLines(_set("contour", "contour", tensors), tensors["contour.valid"])
    return MorphableModelData(
        **values, landmark_sets={points.name: points for points in sets}, contour=contour, metadata=metadata
    )


def _points(key: str, points: LandmarkSet) -> dict[str, Tensor]:
    found = {f"{key}.triangle_ids": points.triangle_ids, f"{key}.barycentric": points.barycentric}
    return found if points.mirror is None else found | {f"{key}.mirror": points.mirror}


def _set(name: str, key: str, tensors: dict[str, Tensor]) -> LandmarkSet:
    mirror = tensors.get(f"{key}.mirror")
    return LandmarkSet(name, tensors[f"{key}.triangle_ids"], tensors[f"{key}.barycentric"], mirror)


def _in_dtype(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    if dtype is None:
        return tensors
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
