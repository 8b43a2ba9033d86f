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
_LARGEST_BYTES = 2**30
_READ = (
    *(
        f"{part}/{key}"
        for part in ("shape", "color", "expression")
        for key in (
            "model/mean",
            "model/pcaBasis",
            "model/pcaVariance",
            "version/majorVersion",
            "version/minorVersion",
        )
    ),
    "shape/representer/cells",
    _LANDMARKS,
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
    template = points(content["shape/model/mean"], f"{name}: shape mean")
    v = len(template)
    cells = plain_array(content["shape/representer/cells"], f"{name}: cells")
    cells = cells.T if cells.ndim == 2 and cells.shape[0] == 3 else cells
    parts = Parts(
        name="bfm2019" if "2019" in path.stem else "bfm2017",
        version="2019" if "2019" in path.stem else "2017",
        licence=LICENCE,
        unit="mm",
        template=template,
        triangles=indices(cells, 3, v, f"{name}: cells"),
        identity_basis=_axes(content, "shape", 3 * v, name),
        metadata={"source_file": name, "published_vertices": str(VERTICES.get(path.stem, ""))},
    )
    if "color/model/mean" in content:
        colours = points(content["color/model/mean"], f"{name}: colour mean", v)
        scale = 255.0 if colours.max() > 2.0 else 1.0
        parts.vertex_colours = (colours / scale, _axes(content, "color", 3 * v, name) / scale)
    if "expression/model/mean" in content:
        axes = _axes(content, "expression", 3 * v, name)
        moved = points(content["expression/model/mean"], f"{name}: expression mean", v)
        parts.expression_basis = np.concatenate([moved[None], axes])
        parts.expression_names = ("expressionMean", *numbered("expression", len(axes)))
    if _LANDMARKS in content:
        _add_landmarks(parts, content[_LANDMARKS])
    return assemble(parts, dtype)


def _axes(content: dict[str, Any], part: str, size: int, name: str) -> np.ndarray:
    """[K, V, 3] axes times standard deviations; before version 0.9 statismo stored the product."""
    need(
        content, (f"{part}/model/pcaBasis", f"{part}/model/pcaVariance"), Path(name), "a statismo face model"
    )
    basis = numbers(content[f"{part}/model/pcaBasis"], (size, None), f"{name}: {part} basis")
    what = f"{name}: {part} variance"
    variance = numbers(
        plain_array(content[f"{part}/model/pcaVariance"], what).reshape(-1), (basis.shape[1],), what
    )
    if variance.min(initial=0.0) < 0:
        raise ModelFormatError(f"{name}: a {part} variance is negative; the file is damaged")
    versions = []
    for key, usual in ((f"{part}/version/majorVersion", 0), (f"{part}/version/minorVersion", 9)):
        what = f"{name}: {key}"
        number = numbers(plain_array(content.get(key, usual), what).reshape(-1), (None,), what)
        if len(number) != 1:
            raise ModelFormatError(f"{what}: expected one number, found {len(number)}; the file is damaged")
        versions.append(number[0])
    scaled = basis if tuple(versions) < (0, 9) else basis * np.sqrt(variance)
    return np.ascontiguousarray(scaled.T).reshape(basis.shape[1], -1, 3)


def _text(raw: Any) -> str:
    """A text that is stored as one, as an array of one, or as the numbers of its bytes."""
    array = np.asarray(raw)
    if array.dtype.kind in "SOU":
        raw = array.ravel()[0]
    else:
        raw = array.tobytes()
    return (raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")).strip("\0")


def _add_landmarks(parts: Parts, raw: Any) -> None:
    """Landmarks that cannot be read are noted in the metadata: the model is whole without them."""
    try:
        content = json.loads(_text(raw))
        rows = (
            content.items() if isinstance(content, dict) else [(r["id"], r["coordinates"]) for r in content]
        )
        points = {str(key): [float(c) for c in place] for key, place in rows}
        places = np.array(list(points.values()), dtype=np.float64).reshape(len(points), 3)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        parts.metadata["landmarks_left_out.bfm"] = f"they cannot be read ({str(error)[:80]})"
        return
    ids, apart = nearest_vertices(places, parts.template)
    found = {key: int(i) for key, i, far in zip(points, ids, apart, strict=True) if far <= _MOST_MM}
    if not found:
        return
    parts.landmark_vertices["bfm"] = np.array(list(found.values()))
    parts.metadata["landmark_names.bfm"] = json.dumps(list(found))
    if all(key in found for key in _NOW7):
        parts.landmark_vertices["now7"] = np.array([found[key] for key in _NOW7])


def _read(path: Path) -> dict[str, Any]:
    """The data of the format by their paths; nothing else of the file, and nothing of another file."""
    h5py = needed("h5py", ".h5 files need h5py")
    content: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            for key in _READ:
                item = _linked(file, key, path.name, h5py)
                if not isinstance(item, h5py.Dataset):
                    continue
                if item.external or item.is_virtual:
                    raise ModelFormatError(f"{path.name}: {key} lies in another file; refused")
                if item.nbytes > _LARGEST_BYTES:
                    raise ModelFormatError(
                        f"{path.name}: {key} has {item.nbytes:,} bytes, more than any part of a face model"
                    )
                content[key] = item[()]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise ModelFormatError(
            f"{path.name}: expected a whole HDF5 file, found a damaged or cut one ({str(error)[:120]}); "
            "download it again"
        ) from error
    return content


def _linked(file: Any, key: str, name: str, h5py: Any) -> Any:
    """What lies at a path of the file itself, or None; a link could lead into another file."""
    item = file
    for word in key.split("/"):
        links = item.id.links if isinstance(item, h5py.Group) else None
        if links is None or not links.exists(word.encode()):
            return None
        if links.get_info(word.encode()).type != h5py.h5l.TYPE_HARD:  # before anything opens the other file
            raise ModelFormatError(f"{name}: {key} is a link; expected the data themselves")
        item = item[word]
    return item
