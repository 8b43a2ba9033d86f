# SPDX-License-Identifier: Apache-2.0
"""Reads HIFI3D (Bao et al., ACM TOG 2021) and HIFI3D++ (Chai et al., "REALY", ECCV 2022), full heads as .mat.

Rows are x, y, z of one vertex after the other; the bases are used with coefficients that are N(0, 1), so they
contain their standard deviations; centimetres, +Y up, +Z out of the face.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.readers.matlab import read_mat
from hiface.morphable.readers.parts import Parts, assemble, indices, need, numbered, numbers

KEYS = ("mu_shape", "basis_shape", "tri")
_OTHERS = ("basis_exp", "EVs", "mask_face", "keypoints", "vt_list", "tri_vt")
LICENCE = "HIFI3D and HIFI3D++: research only; for commercial use contact the authors (Tencent AI Lab)"
N_VERTICES = 20481
_UNIT_NORM = 0.02


def read_hifi3dpp(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads HIFI3D++.mat, AI-NExT-Shape.mat or AI-NExT-Shape-NoAug.mat.

    Args:
        path: The file.
        dtype: Of the tensors.

    Returns:
        The model; expression coefficients are in sigma. The landmark set "hifi86" has the file's 86 points,
        the mask "face" its facial mask.

    Raises:
        ModelFormatError: Damaged or of another model.
        MissingExtraError: scipy is not installed.
    """
    path = Path(path)
    content = read_mat(path, (*KEYS, *_OTHERS))
    need(content, KEYS, path, "HIFI3D or HIFI3D++")
    name = path.name
    mean = numbers(np.asarray(content["mu_shape"]).reshape(-1), (None,), f"{name}: mu_shape")
    v = len(mean) // 3
    basis = numbers(content["basis_shape"], (None, 3 * v), f"{name}: basis_shape")
    plus = "EVs" in content
    parts = Parts(
        name="hifi3dpp" if plus else "hifi3d",
        version="2022" if plus else "2021",
        licence=LICENCE,
        unit="cm",
        template=mean.reshape(v, 3),
        triangles=_from_zero(content["tri"], v, f"{name}: tri"),
        identity_basis=_scaled(basis, content.get("EVs"), name).reshape(len(basis), v, 3),
        metadata={"source_file": name, "published_vertices": str(N_VERTICES)},
    )
    if "basis_exp" in content:
        expression = numbers(content["basis_exp"], (None, 3 * v), f"{name}: basis_exp")
        parts.expression_basis = expression.reshape(len(expression), v, 3)
        parts.expression_names = numbered("expression", len(expression))
    if "mask_face" in content:
        mask = numbers(np.asarray(content["mask_face"]).reshape(-1), (v,), f"{name}: mask_face")
        parts.vertex_masks["face"] = mask > 0.5
    if "keypoints" in content:
        points = np.asarray(content["keypoints"]).reshape(-1, 1)
        parts.landmark_vertices["hifi86"] = indices(points, 1, v, f"{name}: keypoints")[:, 0]
    if "vt_list" in content and "tri_vt" in content:
        uv = numbers(content["vt_list"], (None, 2), f"{name}: vt_list")
        layout = _from_zero(content["tri_vt"], len(uv), f"{name}: tri_vt")
        if len(layout) != len(parts.triangles):
            raise ModelFormatError(
                f"{name}: expected {len(parts.triangles)} rows in tri_vt, found {len(layout)}"
            )
        parts.uv, parts.uv_triangles = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1), layout
    return assemble(parts, dtype)


def _from_zero(rows: Any, count: int, what: str) -> np.ndarray:
    """Triangles from 0; a file that counts from 1 is recognised by its largest index."""
    array = np.asarray(rows).astype(np.int64)
    first = 1 if array.size and array.max() == count and array.min() >= 1 else 0
    return indices(array - first, 3, count, what)


def _scaled(basis: np.ndarray, variances: Any, name: str) -> np.ndarray:
    """The basis times standard deviations: as it is, unless its rows all have length 1."""
    lengths = np.linalg.norm(basis, axis=1)
    if variances is None or np.abs(lengths - 1.0).max() > _UNIT_NORM:
        return basis
    values = numbers(np.asarray(variances).reshape(-1), (len(basis),), f"{name}: EVs")
    return basis * np.sqrt(values)[:, None]
