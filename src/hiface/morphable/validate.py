# SPDX-License-Identifier: Apache-2.0
"""Checks what a model file says before anything is worked out with it."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.types import LandmarkSet

_TEXTS = ("name", "version", "licence")
_NAMES = ("expression_names", "joint_names", "albedo_names", "part_names")


def validate(data: MorphableModelData) -> None:
    """Checks every part of a model for its type, its range and numbers that are not finite.

    Shapes are checked wherever a `MorphableModelData` is made; this is for what comes from a file. It reads
    all tensors once.

    Args:
        data: The model.

    Raises:
        ModelFormatError: A part is wrong; the message names it.
    """
    for key in _TEXTS:
        _need(data, isinstance(getattr(data, key), str), f"{key} must be a text")
    for key in _NAMES:
        names = getattr(data, key)
        good = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        _need(data, good, f"{key} must be texts")
    metadata = data.metadata
    good = isinstance(metadata, dict) and all(isinstance(x, str) for pair in metadata.items() for x in pair)
    _need(data, good, "metadata must be texts by name")
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            _need(data, bool(value.isfinite().all()), f"{item.name} has entries that are not finite numbers")
    n = data.n_vertices
    for key, rows, count in (
        ("uv_triangles", data.uv_triangles, len(data.uv)),
        ("mirror_vertices", data.mirror_vertices, n),
        ("triangle_parts", data.triangle_parts, len(data.part_names)),
        ("quads", data.quads, n),
    ):
        _need(data, rows is None or _inside(rows, count), f"{key} must be whole numbers in 0..{count - 1}")
    good = data.quads is None or (data.quads.dim() == 2 and data.quads.shape[1] == 4)
    _need(data, good, "quads must have four corners")
    for name, mask in data.vertex_masks.items():
        good = mask.dtype == torch.bool and mask.shape == (n,)
        _need(data, good, f"the mask {name!r} must be a bool for each of {n} vertices")
    for name, pairs in data.pairs.items():
        good = pairs.dim() == 2 and pairs.shape[1] == 2 and _inside(pairs, n)
        _need(data, good, f"the pairs {name!r} must be two vertices each")
    for points in data.landmark_sets.values():
        _check_points(data, points)
    if data.contour is not None:
        _check_points(data, data.contour.points)
        valid = data.contour.valid
        good = valid.dtype == torch.bool and valid.dim() == 2 and valid.numel() == len(data.contour.points)
        _need(data, good, "the contour must have a bool for each of its points")


def _check_points(data: MorphableModelData, points: LandmarkSet) -> None:
    count = len(data.triangles)
    good = points.triangle_ids.dim() == 1 and _inside(points.triangle_ids, count)
    _need(data, good, f"the landmarks {points.name!r} must be on triangles 0..{count - 1}")
    weights = points.barycentric
    good = weights.is_floating_point() and bool(weights.isfinite().all())
    _need(data, good, f"the landmarks {points.name!r} have weights that are not finite numbers")
    mirror = points.mirror
    good = mirror is None or (mirror.shape == (len(points),) and _inside(mirror, len(points)))
    _need(data, good, f"the mirror images of the landmarks {points.name!r} are no points of the set")


def _inside(rows: Tensor, count: int) -> bool:
    if rows.dtype != torch.int64:
        return False
    return not rows.numel() or (int(rows.min()) >= 0 and int(rows.max()) < count)


def _need(data: MorphableModelData, good: bool, told: str) -> None:
    if not good:
        raise ModelFormatError(f"face model {str(data.name)[:80]!r}: {told}; the file is damaged")
