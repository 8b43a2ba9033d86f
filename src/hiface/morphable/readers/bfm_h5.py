# SPDX-License-Identifier: Apache-2.0
"""Reads the Basel Face Models of 2017 and 2019 (Gerig et al., "Morphable Face Models", FG 2018).

The .h5 files are in the statismo format: a mean, an orthonormal basis and variances each for shape, colour
and expression; millimetres, +Y up, +Z out of the face; named landmarks as points of the mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.readers.parts import Parts, assemble, indices, need, numbered, numbers
from hiface.morphable.readers.surface import nearest_vertices
from hiface.optional import needed

LICENCE = (
    "Basel Face Model licence of the University of Basel: non-commercial research only, no redistribution"
)
KEYS = ("shape/model/mean", "shape/model/pcaBasis", "shape/model/pcaVariance", "shape/representer/cells")
_LANDMARKS = "metadata/landmarks/json"
_NOW7 = (
    "right.eye.corner_outer",
    "right.eye.corner_inner",
    "left.eye.corner_inner",
    "left.eye.corner_outer",
    "center.nose.attachement_to_philtrum",
    "right.lips.corner",
    "left.lips.corner",
)
_MOST_MM = 10.0  # a landmark further from the mesh is not on it
VERTICES = {
    "model2017-1_bfm_nomouth": 53149,
    "model2017-1_face12_nomouth": 28588,
    "model2019_bfm": 47439,
    "model2019_face12": 27657,
    "model2019_fullHead": 58203,
}


def read_bfm_h5(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads a statismo file of the Basel Face Model.

    The expression model has a mean of its own, several millimetres large. The neutral face is the one without
    it, so it becomes the first expression, "expressionMean", at 1 in the published model.

    Args:
        path: model2017-1_bfm_nomouth.h5, model2017-1_face12_nomouth.h5, model2019_*.h5.
        dtype: Of the tensors.

    Returns:
        The model; the other expression coefficients are in sigma. The landmark set "bfm" has the file's
        points, named in `metadata["landmark_names.bfm"]`; "now7" is added where the file has its seven.

    Raises:
        ModelFormatError: Damaged or of another model.
        MissingExtraError: h5py is not installed.
    """
    path = Path(path)
    content = _read(path)
    need(content, KEYS, path, "a statismo face model")
    name = path.name
    mean = numbers(content["shape/model/mean"].reshape(-1), (None,), f"{name}: shape mean")
    v = len(mean) // 3
    cells = np.asarray(content["shape/representer/cells"])
    cells = cells.T if cells.ndim == 2 and cells.shape[0] == 3 else cells
    parts = Parts(
        name="bfm2019" if "2019" in path.stem else "bfm2017",
        version="2019" if "2019" in path.stem else "2017",
        licence=LICENCE,
        unit="mm",
        template=mean.reshape(v, 3),
        triangles=indices(cells, 3, v, f"{name}: cells"),
        identity_basis=_axes(content, "shape", 3 * v, name),
        metadata={"source_file": name, "published_vertices": str(VERTICES.get(path.stem, ""))},
    )
    if "color/model/mean" in content:
        colours = numbers(content["color/model/mean"].reshape(-1, 3), (v, 3), f"{name}: colour mean")
        scale = 255.0 if colours.max() > 2.0 else 1.0
        parts.vertex_colours = (colours / scale, _axes(content, "color", 3 * v, name) / scale)
    if "expression/model/mean" in content:
        axes = _axes(content, "expression", 3 * v, name)
        moved = numbers(
            content["expression/model/mean"].reshape(1, -1, 3), (1, v, 3), f"{name}: expression mean"
        )
        parts.expression_basis = np.concatenate([moved, axes])
        parts.expression_names = ("expressionMean", *numbered("expression", len(axes)))
    if _LANDMARKS in content:
        _add_landmarks(parts, content[_LANDMARKS], name)
    return assemble(parts, dtype)


def _axes(content: dict[str, Any], part: str, size: int, name: str) -> np.ndarray:
    """[K, V, 3] axes times standard deviations; before version 0.9 statismo stored the product."""
    need(
        content, (f"{part}/model/pcaBasis", f"{part}/model/pcaVariance"), Path(name), "a statismo face model"
    )
    basis = numbers(content[f"{part}/model/pcaBasis"], (size, None), f"{name}: {part} basis")
    variance = numbers(
        content[f"{part}/model/pcaVariance"].reshape(-1), (basis.shape[1],), f"{name}: {part} variance"
    )
    if variance.min() < 0:
        raise ModelFormatError(f"{name}: a {part} variance is negative; the file is damaged")
    versions = [
        np.ravel(content.get(f"{part}/version/{key}Version", v))[0] for key, v in (("major", 0), ("minor", 9))
    ]
    scaled = basis if tuple(int(v) for v in versions) < (0, 9) else basis * np.sqrt(variance)
    return np.ascontiguousarray(scaled.T).reshape(basis.shape[1], -1, 3)


def _add_landmarks(parts: Parts, raw: Any, name: str) -> None:
    text = raw.tobytes().decode("utf-8", "replace") if isinstance(raw, np.ndarray) else raw
    try:
        content = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
        rows = (
            content.items() if isinstance(content, dict) else [(r["id"], r["coordinates"]) for r in content]
        )
        points = {str(key): [float(c) for c in place] for key, place in rows}
        places = np.array(list(points.values()), dtype=np.float64).reshape(len(points), 3)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(f"{name}: the landmarks are damaged ({error})") from error
    ids, apart = nearest_vertices(places, parts.template)
    found = {key: int(i) for key, i, far in zip(points, ids, apart, strict=True) if far <= _MOST_MM}
    if not found:
        return
    parts.landmark_vertices["bfm"] = np.array(list(found.values()))
    parts.metadata["landmark_names.bfm"] = json.dumps(list(found))
    if all(key in found for key in _NOW7):
        parts.landmark_vertices["now7"] = np.array([found[key] for key in _NOW7])


def _read(path: Path) -> dict[str, Any]:
    """All data of the file by their paths."""
    h5py = needed("h5py", ".h5 files need h5py")
    content: dict[str, Any] = {}

    def keep(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and key.split("/")[0] in (
            "shape",
            "color",
            "expression",
            "metadata",
        ):
            content[key] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ModelFormatError(
            f"{path.name}: expected a whole HDF5 file, found a damaged or cut one ({str(error)[:120]}); "
            "download it again"
        ) from error
    return content
