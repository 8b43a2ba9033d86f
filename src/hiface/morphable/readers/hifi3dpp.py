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
from hiface.geometry.obj_files import uv_from_top
from hiface.morphable.data import MorphableModelData
from hiface.morphable.readers.matlab import read_mat
from hiface.morphable.readers.parts import (
    Parts,
    assemble,
    indices,
    need,
    numbered,
    numbers,
    plain_array,
    points,
)

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
        without those outside the triangles, whose numbers are in `metadata["landmarks_left_out.hifi86"]`;
        the mask "face" is its facial mask.

    Raises:
        ModelFormatError: Damaged or of another model.
        MissingExtraError: scipy is not installed.
    """
    path = Path(path)
    content = read_mat(path, (*KEYS, *_OTHERS))
    need(content, KEYS, path, "HIFI3D or HIFI3D++")
    name = path.name
    template = points(content["mu_shape"], f"{name}: mu_shape")
    v = len(template)
    basis = numbers(content["basis_shape"], (None, 3 * v), f"{name}: basis_shape")
    plus = "EVs" in content
    parts = Parts(
        name="hifi3dpp" if plus else "hifi3d",
        version="2022" if plus else "2021",
        licence=LICENCE,
        unit="cm",
        template=template,
        triangles=_from_zero(content["tri"], template, f"{name}: tri"),
        identity_basis=_scaled(basis, content.get("EVs"), name).reshape(len(basis), v, 3),
        metadata={"source_file": name, "published_vertices": str(N_VERTICES)},
    )
    if "basis_exp" in content:
        expression = numbers(content["basis_exp"], (None, 3 * v), f"{name}: basis_exp")
        parts.expression_basis = expression.reshape(len(expression), v, 3)
        parts.expression_names = numbered("expression", len(expression))
    if "mask_face" in content:
        what = f"{name}: mask_face"
        mask = numbers(plain_array(content["mask_face"], what).reshape(-1), (v,), what)
        parts.vertex_masks["face"] = mask > 0.5
    if "keypoints" in content:
        _add_keypoints(parts, indices(content["keypoints"], 1, v, f"{name}: keypoints")[:, 0])
    if "vt_list" in content and "tri_vt" in content:
        uv = numbers(content["vt_list"], (None, 2), f"{name}: vt_list")
        layout = _from_zero(content["tri_vt"], uv, f"{name}: tri_vt")
        if len(layout) != len(parts.triangles):
            raise ModelFormatError(
                f"{name}: expected {len(parts.triangles)} rows in tri_vt, found {len(layout)}"
            )
        parts.uv, parts.uv_triangles = uv_from_top(uv), layout
    return assemble(parts, dtype)


def _from_zero(rows: Any, places: np.ndarray, what: str) -> np.ndarray:
    """Triangles from 0 whatever the file counts from.

    The index 0 tells, and so does one past the last place. Triangles of a part of the mesh may have neither:
    then the count by which their edges are shorter is taken.
    """
    array = plain_array(rows, what)
    real = array.dtype.kind in "iuf" and array.size > 0
    if not real or array.min() <= 0 or array.max() >= len(places):
        return indices(array, 3, len(places), what, first=int(real and array.min() >= 1))
    counted = [indices(array, 3, len(places), what, first) for first in (0, 1)]
    lengths = [np.linalg.norm(places[c] - places[c[:, [1, 2, 0]]], axis=-1).sum() for c in counted]
    return counted[int(lengths[1] <= lengths[0])]


def _add_keypoints(parts: Parts, ids: np.ndarray) -> None:
    """The set "hifi86"; points that no triangle has are left out, since not every file has the whole head."""
    inside = np.isin(ids, parts.triangles)
    if inside.any():
        parts.landmark_vertices["hifi86"] = ids[inside]
    if not inside.all():
        left_out = np.flatnonzero(~inside).tolist()
        parts.metadata["landmarks_left_out.hifi86"] = ", ".join(map(str, left_out))


def _scaled(basis: np.ndarray, variances: Any, name: str) -> np.ndarray:
    """The basis times standard deviations: as it is, unless its rows all have length 1."""
    lengths = np.linalg.norm(basis, axis=1)
    if variances is None or np.abs(lengths - 1.0).max() > _UNIT_NORM:
        return basis
    values = numbers(plain_array(variances, f"{name}: EVs").reshape(-1), (len(basis),), f"{name}: EVs")
    if values.min(initial=0.0) < 0:
        raise ModelFormatError(f"{name}: a variance in EVs is negative; the file is damaged")
    return basis * np.sqrt(values)[:, None]
