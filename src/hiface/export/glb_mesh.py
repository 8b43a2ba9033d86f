# SPDX-License-Identifier: Apache-2.0
"""Arrays of a head in a glTF file: a primitive per material with 52 morph targets, wrinkles if asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from hiface.export.detail_maps import gltf_tangents
from hiface.export.gltf_builder import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GltfBuilder
from hiface.export.morphs import exported_deltas, neutral_vertices, normal_deltas
from hiface.export.parts import SKIN, MaterialPart
from hiface.export.wrinkles import DETAIL_STEPS, Wrinkles
from hiface.geometry.subdivide import subdivide
from hiface.morphable import MorphableModel
from hiface.types import FaceParams

SMALLEST_DELTA_M = 1e-6
SMALLEST_DENSE_DELTA_M = 5e-6
SMALLEST_NORMAL_DELTA = 1e-3


@dataclass(frozen=True)
class HeadArrays:
    """Arrays of the whole mesh, lengths in file units.

    Attributes:
        vertices: [V, 3].
        normals: [V, 3] unit.
        deltas: [M, V, 3].
        normal_deltas: [M, V, 3].
        keep: [M, V] bool, displacements worth storing.
        uv: [U, 2].
        tangents: [U, 4], or None without a normal map.
        skin_weights: [V, J].
    """

    vertices: np.ndarray
    normals: np.ndarray
    deltas: np.ndarray
    normal_deltas: np.ndarray
    keep: np.ndarray
    uv: np.ndarray
    tangents: np.ndarray | None
    skin_weights: np.ndarray


@dataclass(frozen=True)
class GlbDetail:
    """Detail of a person in a file.

    Attributes:
        normal_map: [3, S, S] tangent-space normals of the skin as (n + 1) / 2
            (`hiface.export.detail_maps.tangent_normal_map`): relief that does not change.
        wrinkles: What expressions fold, put into the morph targets of a finer skin; None leaves it out.
    """

    normal_map: Tensor
    wrinkles: Wrinkles | None = None


def head_arrays(model: MorphableModel, params: FaceParams, scale: float, with_tangents: bool) -> HeadArrays:
    """Arrays of one person's head at rest; `scale` is file units per metre."""
    neutral = neutral_vertices(model, params)
    deltas = exported_deltas(model, params)
    normals, changes = normal_deltas(neutral, deltas, model.triangles)
    return HeadArrays(
        vertices=numbers(neutral) * scale,
        normals=_unit(numbers(normals)),
        deltas=numbers(deltas) * scale,
        normal_deltas=numbers(changes),
        keep=numbers(deltas.norm(dim=-1)) >= SMALLEST_DELTA_M,
        uv=numbers(model.uv),
        tangents=numbers(gltf_tangents(model, neutral)) if with_tangents else None,
        skin_weights=numbers(model.skin_weights),
    )


def numbers(values: Tensor) -> np.ndarray:
    """A tensor as float64 array."""
    return values.detach().cpu().double().numpy()


def _unit(normals: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 1e-6, normals / np.maximum(length, 1e-6), [0.0, 0.0, 1.0])


def primitives(
    builder: GltfBuilder,
    geometry: HeadArrays,
    parts: Sequence[MaterialPart],
    detail: GlbDetail | None,
    scale: float,
) -> list[dict[str, Any]]:
    """One for each material."""
    out = []
    for number, part in enumerate(parts):
        surface = _surface(geometry, part)
        if detail is not None and detail.wrinkles is not None and part.material.name == SKIN:
            surface = _wrinkled(surface, detail.wrinkles, scale)
        out.append(_primitive(builder, surface, number))
    return out


@dataclass(frozen=True)
class _Surface:
    """Arrays of one material's n vertices; names as in `HeadArrays`.

    Attributes:
        triangles: [t, 3].
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    tangents: np.ndarray | None
    skin_weights: np.ndarray
    deltas: np.ndarray
    normal_deltas: np.ndarray
    keep: np.ndarray
    triangles: np.ndarray


def _surface(geometry: HeadArrays, part: MaterialPart) -> _Surface:
    ids, g = part.vertex_ids, geometry
    with_tangents = g.tangents is not None and part.material.name == SKIN
    return _Surface(
        vertices=g.vertices[ids],
        normals=g.normals[ids],
        uv=g.uv[part.uv_ids],
        tangents=g.tangents[part.uv_ids] if with_tangents and g.tangents is not None else None,
        skin_weights=g.skin_weights[ids],
        deltas=g.deltas[:, ids],
        normal_deltas=g.normal_deltas[:, ids],
        keep=g.keep[:, ids],
        triangles=part.triangles,
    )


def _wrinkled(surface: _Surface, wrinkles: Wrinkles, scale: float) -> _Surface:
    """Finer triangles whose targets carry wrinkles; the surface at rest stays where it is."""
    s = surface
    for _ in range(DETAIL_STEPS):
        finer = subdivide(s.triangles, len(s.vertices))
        tangents = None if s.tangents is None else finer.middles(s.tangents)
        if tangents is not None:
            tangents[:, :3], tangents[:, 3] = _unit(tangents[:, :3]), np.where(tangents[:, 3] < 0, -1.0, 1.0)
        s = _Surface(
            vertices=finer.middles(s.vertices),
            normals=_unit(finer.middles(s.normals)),
            uv=finer.middles(s.uv),
            tangents=tangents,
            skin_weights=finer.middles(s.skin_weights),
            deltas=np.stack([finer.middles(d) for d in s.deltas]),
            normal_deltas=np.stack([finer.middles(d) for d in s.normal_deltas]),
            keep=s.keep,
            triangles=finer.triangles,
        )
    for i, (delta, change) in enumerate(zip(s.deltas, s.normal_deltas, strict=True)):
        moved, bent = wrinkles.at(s.uv, _unit(s.normals + change), i)
        delta += moved * scale
        change += bent
    keep = np.linalg.norm(s.deltas, axis=-1) >= SMALLEST_DENSE_DELTA_M * scale
    return replace(s, keep=keep)


def _primitive(builder: GltfBuilder, surface: _Surface, material: int) -> dict[str, Any]:
    index_type = np.uint16 if len(surface.vertices) <= 0xFFFF else np.uint32
    joints, weights = _joints_and_weights(surface.skin_weights)
    attributes = {
        "POSITION": builder.accessor(surface.vertices, ARRAY_BUFFER, bounds=True),
        "NORMAL": builder.accessor(surface.normals, ARRAY_BUFFER),
        "TEXCOORD_0": builder.accessor(surface.uv, ARRAY_BUFFER),
        "JOINTS_0": builder.accessor(joints, ARRAY_BUFFER),
        "WEIGHTS_0": builder.accessor(weights, ARRAY_BUFFER),
    }
    if surface.tangents is not None:
        attributes["TANGENT"] = builder.accessor(surface.tangents, ARRAY_BUFFER)
    targets = []
    for delta, change, keep in zip(surface.deltas, surface.normal_deltas, surface.keep, strict=True):
        turned = np.linalg.norm(change, axis=-1) >= SMALLEST_NORMAL_DELTA
        targets.append(
            {
                "POSITION": builder.sparse(delta, keep, bounds=True),
                "NORMAL": builder.sparse(change, turned),
            }
        )
    return {
        "attributes": attributes,
        "indices": builder.accessor(surface.triangles.ravel().astype(index_type), ELEMENT_ARRAY_BUFFER),
        "material": material,
        "mode": 4,
        "targets": targets,
    }


def _joints_and_weights(skin_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest joints of each vertex [n, 4] uint8 and their float32 weights, which sum to 1."""
    width = min(4, skin_weights.shape[1])
    strongest = np.argsort(-skin_weights, axis=1, kind="stable")[:, :width]
    kept = np.take_along_axis(skin_weights, strongest, axis=1)
    kept = np.where(kept < 1e-4, 0.0, kept)
    kept = (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    kept[:, 0] = np.float32(1.0) - kept[:, 1:].sum(axis=1, dtype=np.float32)
    strongest = np.where(kept > 0, strongest, 0)
    missing = ((0, 0), (0, 4 - width))
    return np.pad(strongest, missing).astype(np.uint8), np.pad(kept, missing)
