# SPDX-License-Identifier: Apache-2.0
"""Reads FLAME 2020 and 2023 (Li et al., "Learning a model of facial shape and expression", ACM TOG 2017).

The file is a pickled dictionary; positions are in metres, +Y up, +Z out of the face. Equation 1 of the paper:
the template plus identity, expression and pose correctives, then linear blend skinning about joints that are
regressed from the template with identity and expression.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.errors import ModelFormatError
from hiface.geometry.obj_files import uv_from_top
from hiface.morphable.data import MorphableModelData
from hiface.morphable.numpy_files import read_npy, read_npz
from hiface.morphable.readers.bake import MAP_SIZE, linear_albedo, shrink
from hiface.morphable.readers.obj import read_obj
from hiface.morphable.readers.parts import Parts, assemble, indices, need, numbered, numbers, points
from hiface.morphable.safe_pickle import load

KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
LICENCE = (
    "FLAME model licence of the Max Planck Society: research only, no commercial use; "
    "'FLAME 2023 Open' has its own terms (see the page it came from)"
)
N_IDENTITY = 300
N_EXPRESSION = 100
N_VERTICES = 5023
_JOINTS = {
    5: ("global", "neck", "jaw", "eye_left", "eye_right"),
    4: ("global", "neck", "eye_left", "eye_right"),
}
_TEMPLATES = ("head_template.obj", "head_template_mesh.obj", "FLAME_template.obj")
_TEXTURE, _LANDMARKS, _MASKS = "FLAME_texture.npz", "landmark_embedding.npy", "FLAME_masks.pkl"
BESIDE = (_TEXTURE, _LANDMARKS, _MASKS, *_TEMPLATES)


def read_flame(
    path: str | Path, template_obj: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> MorphableModelData:
    """Reads FLAME, with what lies beside it: landmarks, texture space, UV layout, vertex masks.

    Beside the model it looks for `landmark_embedding.npy` (gives the set "ibug68"), `FLAME_texture.npz`
    (albedo and UV), `head_template.obj`, `head_template_mesh.obj` or `FLAME_template.obj` (UV) and
    `FLAME_masks.pkl` (vertex masks).

    Args:
        path: generic_model.pkl, flame2023.pkl, flame2023_no_jaw.pkl or flame2023_Open.pkl.
        template_obj: Mesh of the same topology whose UV layout is taken.
        dtype: Of the tensors.

    Returns:
        The model; expression coefficients are in sigma.

    Raises:
        ModelFormatError: Cut short, damaged, of another model or version, or refused.
    """
    path = Path(path)
    content = load(path)
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path.name}: expected a pickled dictionary, found {type(content).__name__}")
    need(content, KEYS, path, "FLAME")
    parts = _parts(content, path)
    folder = path.parent
    if template_obj is not None:
        _take_layout(parts, Path(template_obj))
    if (folder / _TEXTURE).is_file():
        _take_texture(parts, folder / _TEXTURE)
    if parts.uv is None:
        for name in _TEMPLATES:
            if (folder / name).is_file():
                _take_layout(parts, folder / name)
                break
    if (folder / _LANDMARKS).is_file():
        parts.landmark_points["ibug68"] = _embedding(folder / _LANDMARKS, len(parts.triangles))
    if (folder / _MASKS).is_file():
        parts.vertex_masks = _masks(folder / _MASKS, len(parts.template))
    return assemble(parts, dtype)


def _parts(content: dict[str, Any], path: Path) -> Parts:
    name = path.name
    template = numbers(content["v_template"], (None, 3), f"{name}: v_template")
    v = len(template)
    parents = _parents(content["kintree_table"], name)
    j = len(parents)
    if j not in _JOINTS:
        raise ModelFormatError(
            f"{name}: expected FLAME's 5 joints (4 without a jaw), found {j}; "
            f"{'this is a body model such as SMPL' if j > 5 else 'this is another model'}"
        )
    shape = numbers(content["shapedirs"], (v, 3, None), f"{name}: shapedirs")
    if shape.shape[2] != N_IDENTITY + N_EXPRESSION:
        raise ModelFormatError(
            f"{name}: expected shapedirs with {N_IDENTITY} identity and {N_EXPRESSION} expression "
            f"directions, found {shape.shape[2]}; FLAME 2020 or 2023 is needed"
        )
    basis = np.moveaxis(shape, 2, 0)
    pose = numbers(content["posedirs"], (v, 3, 9 * (j - 1)), f"{name}: posedirs")
    weights = numbers(content["weights"], (v, j), f"{name}: weights")
    if abs(weights.sum(axis=1) - 1).max() > 1e-3:
        raise ModelFormatError(f"{name}: the skinning weights of a vertex do not add up to 1")
    return Parts(
        name="flame",
        version=_version(path.stem.lower()),
        licence=LICENCE,
        unit="m",
        template=template,
        triangles=indices(content["f"], 3, v, f"{name}: triangles"),
        identity_basis=basis[:N_IDENTITY],
        expression_basis=basis[N_IDENTITY:],
        expression_names=numbered("expression", N_EXPRESSION),
        joint_names=_JOINTS[j],
        joint_parents=parents,
        joint_regressor=numbers(content["J_regressor"], (j, v), f"{name}: J_regressor"),
        skin_weights=weights,
        pose_correctives=np.moveaxis(pose, 2, 0),
        metadata={"source_file": name, "published_vertices": str(N_VERTICES)},
    )


def _version(stem: str) -> str:
    """By the name alone: the files do not say."""
    if "2023" not in stem:
        return "2020"
    return "2023 Open" if "open" in stem else "2023"


def _parents(table: Any, name: str) -> tuple[int, ...]:
    rows = numbers(table, (2, None), f"{name}: kintree_table")
    parents = tuple(int(p) if p < rows.shape[1] else -1 for p in rows[0].tolist())
    if any(p >= i or p < -1 for i, p in enumerate(parents)):
        raise ModelFormatError(f"{name}: a joint of kintree_table comes before its parent")
    return parents


def _embedding(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The 68 points: as the file has them, else the contour of a frontal face (yaw 0) and the other 51."""
    content = read_npy(path)
    if not isinstance(content, dict):
        raise ModelFormatError(
            f"{path.name}: expected a dictionary of landmarks, found {type(content).__name__}"
        )

    def part(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The first n points of a kind, triangles and weights; the contour has a row of n for each yaw."""
        keys = (f"{kind}_lmk_faces_idx", f"{kind}_lmk_bary_coords")
        need(content, keys, path, "landmarks")
        what = [f"{path.name}: {key} of the landmarks 'ibug68'" for key in keys]
        ids = indices(content[keys[0]], 1, count, what[0])[:, 0]
        weights = points(content[keys[1]], what[1], len(ids))
        if len(ids) != n and (kind != "dynamic" or len(ids) % n):
            raise ModelFormatError(f"{what[0]}: expected {n} points, found {len(ids)}")
        return ids[:n], weights[:n]

    if "full_lmk_faces_idx" in content:
        return part("full", 68)
    contour, others = part("dynamic", 17), part("static", 51)
    return np.concatenate([contour[0], others[0]]), np.concatenate([contour[1], others[1]])


def _take_layout(parts: Parts, path: Path) -> None:
    mesh = read_obj(path)
    if mesh.uv is None or not np.array_equal(mesh.triangles, parts.triangles):
        found = f"{len(mesh.triangles)} triangles{'' if mesh.uv is not None else ' without any'}"
        raise ModelFormatError(
            f"{path.name}: expected texture coordinates on FLAME's {len(parts.triangles)} triangles in the "
            f"same order, found {found}"
        )
    parts.uv, parts.uv_triangles = mesh.uv, mesh.uv_triangles


def _take_texture(parts: Parts, path: Path) -> None:
    """Texture space: pictures of 0..255 in the order blue, green, red, rows from the top."""
    content = read_npz(path, ("mean", "tex_dir", "vt", "ft"))
    need(content, ("mean", "tex_dir", "vt", "ft"), path, "FLAME's texture space")
    mean = numbers(content["mean"], (None, None, 3), f"{path.name}: mean")
    side = mean.shape[0]
    axes = numbers(content["tex_dir"], (side, side, 3, None), f"{path.name}: tex_dir")
    small = shrink(mean)[..., ::-1].reshape(-1, 3) / 255.0
    basis = np.stack([shrink(axes[..., a])[..., ::-1].reshape(-1, 3) / 255.0 for a in range(axes.shape[3])])
    linear_mean, linear_basis = linear_albedo(small, basis)
    uv = numbers(content["vt"], (None, 2), f"{path.name}: vt")
    layout = indices(content["ft"], 3, len(uv), f"{path.name}: ft")
    if len(layout) != len(parts.triangles):
        raise ModelFormatError(
            f"{path.name}: expected a UV layout of {len(parts.triangles)} triangles, found {len(layout)}"
        )
    parts.uv = uv_from_top(uv)
    parts.uv_triangles = layout
    maps = linear_basis.transpose(0, 2, 1).reshape(-1, 3, MAP_SIZE, MAP_SIZE)
    parts.texture = (linear_mean.T.reshape(3, MAP_SIZE, MAP_SIZE).copy(), np.ascontiguousarray(maps))


def _masks(path: Path, count: int) -> dict[str, np.ndarray]:
    content = load(path)
    if not isinstance(content, dict):
        raise ModelFormatError(
            f"{path.name}: expected a dictionary of regions, found {type(content).__name__}"
        )
    masks = {}
    for name, ids in content.items():
        rows = indices(ids, 1, count, f"{path.name}: vertices of {name!r}")
        masks[str(name)] = np.isin(np.arange(count), rows)
    return masks
