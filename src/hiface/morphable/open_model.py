# SPDX-License-Identifier: Apache-2.0
"""Reader of the open face model that ships with hiface."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from hiface.assets import list_assets, load_json_asset, load_tensors_asset
from hiface.errors import ModelFormatError
from hiface.morphable.data import ContourLines, MorphableModelData
from hiface.types import LandmarkSet

_MASK_PREFIX = "mask."


def read_open_model() -> MorphableModelData:
    """Reads the packaged open model.

    Returns:
        Float32 tensors on the CPU.

    Raises:
        AssetError: A file is missing or damaged.
        ModelFormatError: The files do not belong together.
    """
    tensors, meta = load_tensors_asset("open/model.safetensors")
    albedo, albedo_meta = load_tensors_asset("open/albedo.safetensors")
    template = tensors["template"].float()
    scale = albedo["basis_scale"].float()[:, None, None, None]
    return MorphableModelData(
        name=meta["name"],
        version=meta["version"],
        licence=meta["licence"],
        template=template,
        triangles=tensors["triangles"].long(),
        uv=tensors["uv"].float(),
        uv_triangles=tensors["uv_triangles"].long(),
        identity_basis=tensors["identity_basis"].float(),
        identity_std=tensors["identity_std"].float(),
        expression_basis=_expression_basis(tensors, len(json.loads(meta["expression_names"]))),
        expression_names=tuple(json.loads(meta["expression_names"])),
        joint_names=tuple(json.loads(meta["joint_names"])),
        joint_parents=tuple(json.loads(meta["joint_parents"])),
        joints_template=tensors["joints_template"].float(),
        joints_identity_basis=tensors["joints_identity_basis"].float(),
        skin_weights=tensors["skin_weights"].float(),
        albedo_mean=albedo["mean"].float(),
        albedo_basis=albedo["basis_q"].float() * scale,
        albedo_names=tuple(json.loads(albedo_meta["names"])),
        triangle_parts=tensors["triangle_parts"].long(),
        part_names=tuple(json.loads(meta["part_names"])),
        mirror_vertices=tensors["mirror_vertices"].long(),
        vertex_masks={
            key.removeprefix(_MASK_PREFIX): value.bool()
            for key, value in tensors.items()
            if key.startswith(_MASK_PREFIX)
        },
        landmark_sets=_read_landmark_sets(template.shape[0]),
        contour=_read_contour(template.shape[0]),
        pairs={name: _read_pairs(name) for name in ("eyelid_pairs", "lip_pairs")},
        quads=tensors["quads"].long() if "quads" in tensors else None,
        metadata=meta,
    )


def _expression_basis(tensors: dict[str, Tensor], count: int) -> Tensor:
    """[E, V, 3] from the vertices that move, the others being left out of the file."""
    basis = torch.zeros(count, len(tensors["template"]), 3)
    basis.view(-1, 3)[tensors["expression_moved"].long()] = tensors["expression_offsets"].float()
    return basis


def _check_vertices(content: dict, name: str, n_vertices: int) -> None:
    if content["n_vertices"] != n_vertices:
        raise ModelFormatError(
            f"landmark file {name!r} belongs to a mesh of {content['n_vertices']} vertices, "
            f"the model has {n_vertices}; reinstall hiface"
        )


def _to_set(content: dict) -> LandmarkSet:
    mirror = torch.tensor(content["mirror"]) if content.get("mirror") else None
    return LandmarkSet(
        name=content["name"],
        triangle_ids=torch.tensor(content["triangle_ids"]),
        barycentric=torch.tensor(content["barycentric"], dtype=torch.float32),
        mirror=mirror,
    )


def _read_landmark_sets(n_vertices: int) -> dict[str, LandmarkSet]:
    sets = {}
    for name in list_assets("open/landmarks", ".json"):
        content = load_json_asset(name)
        if "triangle_ids" not in content:
            continue
        _check_vertices(content, name, n_vertices)
        sets[content["name"]] = _to_set(content)
    return sets


def _read_contour(n_vertices: int) -> ContourLines:
    """The file lists, per line, its candidates; lines are padded to the longest with their last candidate."""
    content = load_json_asset("open/landmarks/contour.json")
    _check_vertices(content, "contour", n_vertices)
    lines = content["lines"]
    longest = max(len(line["triangle_ids"]) for line in lines)
    ids, weights, valid = [], [], []
    for line in lines:
        pad = longest - len(line["triangle_ids"])
        ids += line["triangle_ids"] + [line["triangle_ids"][-1]] * pad
        weights += line["barycentric"] + [line["barycentric"][-1]] * pad
        valid.append([True] * (longest - pad) + [False] * pad)
    points = LandmarkSet("contour", torch.tensor(ids), torch.tensor(weights, dtype=torch.float32))
    return ContourLines(points, torch.tensor(valid))


def _read_pairs(name: str) -> Tensor:
    return torch.tensor(load_json_asset(f"open/landmarks/{name}.json")["pairs"], dtype=torch.int64)
