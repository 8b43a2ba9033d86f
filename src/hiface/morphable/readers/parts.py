# SPDX-License-Identifier: Apache-2.0
"""From what a file holds, in its own unit, to a model in metres: the part that all readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.file_values import as_array
from hiface.morphable.readers.bake import MAP_SIZE, SKIN_LINEAR, Baker, linear_albedo
from hiface.morphable.readers.surface import (
    cylindrical_uv,
    mirror_vertices,
    points_at_vertices,
    winds_inwards,
)
from hiface.morphable.validate import validate
from hiface.types import LandmarkSet

UNITS_M = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "um": 1e-6}


@dataclass
class Parts:
    """What a reader found, in numpy, in the file's unit but already in hiface's axes.

    Attributes:
        name: Model name, such as "flame".
        version: Version, such as "2020".
        licence: Licence of the model's data in a sentence.
        unit: Key of `UNITS_M`.
        template: [V, 3].
        triangles: [T, 3] from 0, either winding.
        identity_basis: [K, V, 3] times the standard deviations.
        expression_basis: [E, V, 3], or None.
        expression_names: E names.
        expression_kind: As in `MorphableModelData`.
        bilinear_basis: [K, E, V, 3] or None.
        joint_names: J names.
        joint_parents: J parents.
        joint_regressor: [J, V] from vertices to joints, or None for joints at the origin.
        skin_weights: [V, J], or None for one joint.
        pose_correctives: [9 (J - 1), V, 3] or None.
        uv: [U, 2] origin top-left, or None for a cylinder.
        uv_triangles: [T, 3] or None.
        vertex_colours: [V, 3] mean sRGB in 0..1, and [A, V, 3] times the standard deviations; or None.
        texture: [3, S, S] linear mean and [A, 3, S, S]; or None.
        quads: [Q, 4] or None.
        landmark_vertices: Name to [L] vertices.
        landmark_points: Name to triangles [L] and weights [L, 3].
        vertex_masks: Name to bool [V].
        triangle_parts: [T] index into `part_names`, or None for one part.
        part_names: Names of parts.
        metadata: Further facts.
    """

    name: str
    version: str
    licence: str
    unit: str
    template: np.ndarray
    triangles: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray | None = None
    expression_names: tuple[str, ...] = ()
    expression_kind: Literal["unit", "sigma"] = "sigma"
    bilinear_basis: np.ndarray | None = None
    joint_names: tuple[str, ...] = ("head",)
    joint_parents: tuple[int, ...] = (-1,)
    joint_regressor: np.ndarray | None = None
    skin_weights: np.ndarray | None = None
    pose_correctives: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv_triangles: np.ndarray | None = None
    vertex_colours: tuple[np.ndarray, np.ndarray] | None = None
    texture: tuple[np.ndarray, np.ndarray] | None = None
    quads: np.ndarray | None = None
    landmark_vertices: dict[str, np.ndarray] = field(default_factory=dict)
    landmark_points: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    vertex_masks: dict[str, np.ndarray] = field(default_factory=dict)
    triangle_parts: np.ndarray | None = None
    part_names: tuple[str, ...] = ("skin",)
    metadata: dict[str, str] = field(default_factory=dict)


def numbered(stem: str, count: int) -> tuple[str, ...]:
    """Names of coefficients without names: stem000, stem001 ..."""
    return tuple(f"{stem}{i:03d}" for i in range(count))


def need(content: Mapping[str, Any], keys: tuple[str, ...], path: Path, kind: str) -> None:
    """Checks that a file has the parts of its format.

    Raises:
        ModelFormatError: Some are missing; the message lists them and what is there.
    """
    missing = [key for key in keys if key not in content]
    if missing:
        there = ", ".join(sorted(str(key) for key in content if not str(key).startswith("__")))[:200]
        raise ModelFormatError(
            f"{path.name}: expected {kind} with {', '.join(keys)}; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing (found {there or 'nothing'})"
        )


def numbers(value: Any, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    """An array of a given shape in float64 (float32 stays as it is).

    Args:
        value: Array, flat list or `SparseMatrix`.
        shape: Sizes; None for any.
        what: What the error calls it, with the file's name.

    Raises:
        ModelFormatError: It has another shape, or entries that are not finite numbers.
    """
    array = plain_array(value, what)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "biuf":
        wanted = " x ".join("any" if n is None else str(n) for n in shape)
        raise ModelFormatError(f"{what}: expected numbers of shape {wanted}, got {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelFormatError(f"{what} has entries that are not finite numbers; the file is damaged")
    if array.dtype.newbyteorder("=") == np.float32:
        return array.astype(np.float32, copy=False)
    return array.astype(np.float64)


def plain_array(value: Any, what: str) -> np.ndarray:
    """The array that a file holds, of any type.

    Args:
        value: Array, number, text, flat list or `SparseMatrix`.
        what: What the error calls it, with the file's name.

    Raises:
        ModelFormatError: It is something else.
    """
    try:
        return as_array(value)
    except ModelFormatError as error:
        raise ModelFormatError(f"{what}: {error}") from error


def points(value: Any, what: str, count: int | None = None) -> np.ndarray:
    """Positions or colours [V, 3] that a file has one vertex after the other, x y z x y z ..., in any shape.

    Args:
        value: 3 V numbers.
        what: What the error calls it, with the file's name.
        count: V, or None for any.

    Raises:
        ModelFormatError: There is another number of them, or they are not finite.
    """
    flat = numbers(plain_array(value, what).reshape(-1), (None,), what)
    if not flat.size or flat.size % 3 or count not in (None, flat.size // 3):
        wanted = "3 for each vertex" if count is None else f"{3 * count}, 3 for each of {count} vertices"
        raise ModelFormatError(f"{what}: expected {wanted}, found {flat.size} numbers")
    return flat.reshape(-1, 3)


def indices(value: Any, width: int, count: int, what: str, first: int = 0) -> np.ndarray:
    """Index rows [N, width] int64 in 0..count - 1.

    Args:
        value: Rows of whole numbers, of any numeric type.
        width: Indices per row; 1 takes an array of any shape, an index a row.
        count: Number of what they point at.
        what: What the error calls them, with the file's name.
        first: What the file counts from.

    Raises:
        ModelFormatError: Another shape, no whole numbers, or an index outside the mesh.
    """
    array = plain_array(value, what)
    array = array.reshape(-1, 1) if width == 1 else array
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "iuf" or not len(array):
        raise ModelFormatError(f"{what}: expected rows of {width} indices, got {array.dtype} {array.shape}")
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if (whole != array).any():
        raise ModelFormatError(f"{what}: expected whole numbers, found fractions; the file is damaged")
    rows = whole - first
    if rows.min() < 0 or rows.max() >= count:
        raise ModelFormatError(
            f"{what} point at {int(rows.min())}..{int(rows.max())}, the mesh has {count} (0..{count - 1}); "
            "the parts of the file belong to different meshes"
        )
    return rows


def assemble(parts: Parts, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Makes the model: metres, triangles counter-clockwise from outside, UV, albedo, mirror images.

    Args:
        parts: What the reader found. Its arrays may be changed.
        dtype: Of the tensors.

    Returns:
        Tensors on the CPU.

    Raises:
        ModelFormatError: The parts do not belong together.
    """
    scale = UNITS_M[parts.unit]
    v = len(parts.template)
    parts.triangles = indices(parts.triangles, 3, v, f"{parts.name}: triangles")
    if parts.uv is None or parts.uv_triangles is None:
        parts.uv, parts.uv_triangles = cylindrical_uv(parts.template, parts.triangles)
    turned = winds_inwards(parts.template, parts.triangles)
    uv_triangles = parts.uv_triangles[:, [0, 2, 1]] if turned else parts.uv_triangles
    if turned:
        parts.triangles = parts.triangles[:, [0, 2, 1]]
    albedo_mean, albedo_basis = _albedo(parts, parts.uv, uv_triangles)
    expression = parts.expression_basis if parts.expression_basis is not None else np.zeros((0, v, 3))
    regressor = parts.joint_regressor
    j = len(parts.joint_names)
    joints = {} if regressor is None else {key: _regress(regressor, basis) for key, basis in _moving(parts)}

    def metres(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype) * scale

    identity = metres(parts.identity_basis)
    template = metres(parts.template)
    moved = joints.get("expression")
    data = MorphableModelData(
        name=parts.name,
        version=parts.version,
        licence=parts.licence,
        template=template,
        triangles=torch.from_numpy(parts.triangles.copy()),
        uv=torch.from_numpy(parts.uv).to(dtype),
        uv_triangles=torch.from_numpy(uv_triangles.astype(np.int64)),
        identity_basis=identity,
        identity_std=identity.flatten(1).square().mean(dim=1).sqrt(),
        expression_basis=metres(expression),
        expression_names=parts.expression_names,
        joint_names=parts.joint_names,
        joint_parents=parts.joint_parents,
        joints_template=metres(joints.get("template", np.zeros((j, 3)))),
        joints_identity_basis=metres(joints.get("identity", np.zeros((len(identity), j, 3)))),
        skin_weights=torch.from_numpy(
            np.ones((v, 1)) if parts.skin_weights is None else parts.skin_weights
        ).to(dtype),
        albedo_mean=torch.from_numpy(albedo_mean).to(dtype),
        albedo_basis=torch.from_numpy(albedo_basis).to(dtype),
        albedo_names=numbered("albedo", len(albedo_basis)),
        triangle_parts=torch.from_numpy(
            np.zeros(len(parts.triangles), np.int64) if parts.triangle_parts is None else parts.triangle_parts
        ),
        part_names=parts.part_names,
        mirror_vertices=torch.from_numpy(mirror_vertices(template.double().numpy())),
        vertex_masks={name: torch.from_numpy(mask) for name, mask in parts.vertex_masks.items()},
        landmark_sets=_landmarks(parts, turned, dtype),
        quads=_quads(parts, turned),
        metadata={"unit_of_file": parts.unit, "turned_triangles": str(turned), **parts.metadata},
        expression_kind=parts.expression_kind,
        pose_correctives=None if parts.pose_correctives is None else metres(parts.pose_correctives),
        joints_expression_basis=None if moved is None or not moved.any() else metres(moved),
        bilinear_basis=None if parts.bilinear_basis is None else metres(parts.bilinear_basis),
    )
    validate(data)
    return data


def _quads(parts: Parts, turned: bool) -> Tensor | None:
    if parts.quads is None:
        return None
    return torch.from_numpy(parts.quads[:, ::-1].copy() if turned else parts.quads)


def _moving(parts: Parts) -> list[tuple[str, np.ndarray]]:
    found = [("template", parts.template), ("identity", parts.identity_basis)]
    if parts.expression_basis is not None:
        found.append(("expression", parts.expression_basis))
    return found


def _regress(regressor: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Joints [..., J, 3] of vertices [..., V, 3]."""
    return np.einsum("jv,...vc->...jc", regressor, values)


def _albedo(parts: Parts, uv: np.ndarray, uv_triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if parts.texture is not None:
        return parts.texture
    if parts.vertex_colours is None:
        flat = np.broadcast_to(np.array(SKIN_LINEAR, np.float32)[:, None, None], (3, MAP_SIZE, MAP_SIZE))
        return flat.copy(), np.zeros((0, 3, MAP_SIZE, MAP_SIZE), np.float32)
    mean, basis = linear_albedo(*parts.vertex_colours)
    baker = Baker(parts.triangles, uv, uv_triangles)
    maps = np.empty((len(basis), 3, MAP_SIZE, MAP_SIZE), np.float32)
    for i, axis in enumerate(basis):
        maps[i] = baker.paint(axis)
    return baker.paint(mean), maps


def _landmarks(parts: Parts, turned: bool, dtype: torch.dtype) -> dict[str, LandmarkSet]:
    """Sets on the triangles as they are after turning."""
    sets = {}
    for name, (triangle_ids, weights) in parts.landmark_points.items():
        what = f"{parts.name}: triangles of the landmarks {name!r}"
        rows = indices(triangle_ids, 1, len(parts.triangles), what)[:, 0]
        weights = numbers(weights, (len(rows), 3), f"{parts.name}: weights of the landmarks {name!r}")
        sets[name] = (rows, weights[:, [0, 2, 1]] if turned else weights)
    for name, ids in parts.landmark_vertices.items():
        sets[name] = points_at_vertices(
            np.asarray(ids), parts.triangles, f"{parts.name}: the landmarks {name!r}"
        )
    return {
        name: LandmarkSet(name, torch.from_numpy(rows.copy()), torch.from_numpy(weights.copy()).to(dtype))
        for name, (rows, weights) in sets.items()
    }
