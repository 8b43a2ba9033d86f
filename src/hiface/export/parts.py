# SPDX-License-Identifier: Apache-2.0
"""The model's parts grouped by material, and vertices split where the texture has a seam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hiface.morphable import MorphableModelData

SKIN = "skin"
"""Name of the material that carries the detail."""


@dataclass(frozen=True)
class Material:
    """A surface of the head; all share one texture.

    Attributes:
        name: Name in exported files.
        parts: The model's parts that it covers.
        roughness: glTF roughness, 0..1.
        double_sided: Whether the inside is drawn too.
        colour_linear: Colour where there is no texture.
    """

    name: str
    parts: tuple[str, ...]
    roughness: float = 0.6
    double_sided: bool = False
    colour_linear: tuple[float, float, float] = (0.6, 0.42, 0.35)


MATERIALS = (
    Material(SKIN, ("skin",), double_sided=True),
    Material("eye_left", ("eye_left",), roughness=0.25, colour_linear=(0.8, 0.8, 0.8)),
    Material("eye_right", ("eye_right",), roughness=0.25, colour_linear=(0.8, 0.8, 0.8)),
    Material("teeth", ("teeth_upper", "teeth_lower"), roughness=0.35, colour_linear=(0.75, 0.7, 0.6)),
    Material("tongue", ("tongue",), roughness=0.5, colour_linear=(0.5, 0.2, 0.2)),
    Material(
        "mouth_interior",
        ("mouth_interior", "socket_left", "socket_right"),
        roughness=0.7,
        double_sided=True,
        colour_linear=(0.3, 0.1, 0.1),
    ),
)


@dataclass(frozen=True)
class MaterialPart:
    """Triangles of one material.

    Attributes:
        material: Their material.
        triangle_ids: [t] int64 rows of the model's triangle list.
        vertex_ids: [n] int64 model vertex of each split vertex.
        uv_ids: [n] int64 texture coordinate of each split vertex.
        triangles: [t, 3] int64 into the split vertices.
    """

    material: Material
    triangle_ids: np.ndarray
    vertex_ids: np.ndarray
    uv_ids: np.ndarray
    triangles: np.ndarray


def material_of_parts(data: MorphableModelData) -> list[Material]:
    """Material of each part, in the order of `data.part_names`; unknown parts get one of their own."""
    known = {part: material for material in MATERIALS for part in material.parts}
    return [known.get(name, Material(name, (name,), double_sided=True)) for name in data.part_names]


def split_by_material(data: MorphableModelData) -> list[MaterialPart]:
    """Groups triangles by material and splits vertices at texture seams.

    Args:
        data: The face model.

    Returns:
        One entry per material that has triangles, in the order of `MATERIALS`, unknown parts last.
    """
    materials = material_of_parts(data)
    ordered = [m for m in MATERIALS if m in materials]
    ordered += [m for m in materials if m not in MATERIALS]
    part_of_triangle = data.triangle_parts.cpu().numpy()
    triangles, uv_triangles = data.triangles.cpu().numpy(), data.uv_triangles.cpu().numpy()
    out = []
    for material in ordered:
        ids = np.flatnonzero(np.isin(part_of_triangle, [i for i, m in enumerate(materials) if m == material]))
        if len(ids) == 0:
            continue
        corners = np.stack([triangles[ids].ravel(), uv_triangles[ids].ravel()], axis=1)
        split, inverse = np.unique(corners, axis=0, return_inverse=True)
        out.append(MaterialPart(material, ids, split[:, 0], split[:, 1], inverse.reshape(-1, 3)))
    return out


def quad_corners(data: MorphableModelData) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Quads with texture coordinates, where the model's triangles are halves of quads.

    Args:
        data: The face model; triangles 2q and 2q + 1 are the halves of quad q.

    Returns:
        (quads [Q, 4] vertex ids, uv_quads [Q, 4] texture coordinate ids, triangle [Q] first half of each),
        or None where the model has no quads.
    """
    if data.quads is None or data.triangles.shape[0] != 2 * data.quads.shape[0]:
        return None
    quads = data.quads
    halves = data.triangles.reshape(-1, 1, 6)
    match = halves == quads[:, :, None]
    if not bool(match.any(dim=-1).all()):
        return None
    corner = match.to(torch.uint8).argmax(dim=-1)
    uv_quads = data.uv_triangles.reshape(-1, 6).gather(1, corner)
    first = torch.arange(quads.shape[0]) * 2
    return quads.cpu().numpy(), uv_quads.cpu().numpy(), first.numpy()
