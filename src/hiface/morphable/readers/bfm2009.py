# SPDX-License-Identifier: Apache-2.0
"""Reads the Basel Face Model of 2009 (Paysan et al., AVSS 2009), with the expressions that the field adds.

01_MorphableModel.mat is in micrometres, +Y up, +Z out of the face, its triangles count from 1 and are
clockwise seen from outside. It has no expressions: most users take Exp_Pca.bin of the coarse data of
Juyong/3DFace (FaceWarehouse expressions carried over to this mesh) with std_exp.txt of
Deep3DFaceReconstruction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hiface.errors import ModelFormatError
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

KEYS = ("shapeMU", "shapePC", "shapeEV", "tl")
_COLOURS = ("texMU", "texPC", "texEV")
LICENCE = (
    "Basel Face Model licence of the University of Basel: non-commercial research only, no redistribution"
)
N_VERTICES = 53490
BESIDE = ("Exp_Pca.bin", "std_exp.txt", "BFM_exp_idx.mat")


def read_bfm2009(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads 01_MorphableModel.mat.

    Where Exp_Pca.bin, std_exp.txt and BFM_exp_idx.mat lie beside it, the mesh is cut to the 53,215 vertices
    for which there are expressions (it loses the inner mouth), as Deep3DFaceReconstruction does; the mean
    of the expression file is left out, as there. Otherwise the model has no expressions.

    Args:
        path: The file.
        dtype: Of the tensors.

    Returns:
        The model; expression coefficients are in sigma.

    Raises:
        ModelFormatError: Damaged or of another model.
        MissingExtraError: scipy is not installed.
    """
    path = Path(path)
    content = read_mat(path, (*KEYS, *_COLOURS))
    need(content, KEYS, path, "the Basel Face Model 2009")
    name = path.name
    template = points(content["shapeMU"], f"{name}: shapeMU")
    v = len(template)
    axes = _axes(content["shapePC"], content["shapeEV"], 3 * v, f"{name}: shape")
    parts = Parts(
        name="bfm2009",
        version="2009",
        licence=LICENCE,
        unit="um",
        template=template,
        triangles=indices(content["tl"], 3, v, f"{name}: tl", first=1),
        identity_basis=axes,
        metadata={"source_file": name, "published_vertices": str(N_VERTICES)},
    )
    if all(key in content for key in _COLOURS):
        colours = points(content["texMU"], f"{name}: texMU", v)
        tones = _axes(content["texPC"], content["texEV"], 3 * v, f"{name}: tex")
        parts.vertex_colours = (colours / 255.0, tones / 255.0)
    present = [file for file in BESIDE if (path.parent / file).is_file()]
    if len(present) == len(BESIDE):
        _add_expressions(parts, path.parent)
    elif "Exp_Pca.bin" in present:
        lost = ", ".join(file for file in BESIDE if file not in present)
        raise ModelFormatError(f"{path.parent}: Exp_Pca.bin needs {lost} beside it")
    return assemble(parts, dtype)


def _axes(basis: np.ndarray, sigma: np.ndarray, size: int, what: str) -> np.ndarray:
    """[K, V, 3] axes times their standard deviations; the file calls these EV but they are not squared."""
    array = numbers(basis, (size, None), f"{what}PC")
    deviations = numbers(plain_array(sigma, f"{what}EV").reshape(-1), (array.shape[1],), f"{what}EV")
    return np.ascontiguousarray((array * deviations).T).reshape(array.shape[1], -1, 3)


def _add_expressions(parts: Parts, folder: Path) -> None:
    trim = read_mat(folder / "BFM_exp_idx.mat", ("trimIndex",))
    need(trim, ("trimIndex",), folder / "BFM_exp_idx.mat", "the vertices with expressions")
    kept = indices(trim["trimIndex"], 1, len(parts.template), "trimIndex", first=1)[:, 0]
    axes = _read_exp_pca(folder / "Exp_Pca.bin", len(kept))
    try:
        sigma = np.loadtxt(folder / "std_exp.txt", dtype=np.float64).reshape(-1)
    except (ValueError, OSError) as error:
        raise ModelFormatError(f"std_exp.txt: expected a list of numbers ({error})") from error
    if len(sigma) < len(axes):
        raise ModelFormatError(
            f"std_exp.txt: expected {len(axes)} numbers as in Exp_Pca.bin, found {len(sigma)}"
        )
    sigma = numbers(sigma[: len(axes)], (len(axes),), "std_exp.txt")
    new = np.full(len(parts.template), -1)
    new[kept] = np.arange(len(kept))
    triangles = new[parts.triangles]
    parts.triangles = triangles[(triangles >= 0).all(axis=1)]
    parts.template = parts.template[kept]
    parts.identity_basis = np.ascontiguousarray(parts.identity_basis[:, kept])
    if parts.vertex_colours is not None:
        mean, tones = parts.vertex_colours
        parts.vertex_colours = (mean[kept], np.ascontiguousarray(tones[:, kept]))
    parts.expression_basis = axes * sigma[:, None, None]
    parts.expression_names = numbered("expression", len(axes))
    parts.metadata["published_vertices"] = "53215"


def _read_exp_pca(path: Path, count: int) -> np.ndarray:
    """[E, V, 3] axes of Exp_Pca.bin: int32 E, then float32 mean [3 V] and axes [E, 3 V], little endian."""
    raw = path.read_bytes()
    number = int(np.frombuffer(raw[:4], "<i4")[0]) if len(raw) >= 4 else 0
    expected = 4 + 4 * 3 * count * (1 + number)
    if not 0 < number < 1000 or len(raw) != expected:
        raise ModelFormatError(
            f"{path.name}: expected {expected:,} bytes for {number} expressions of {count:,} vertices, found "
            f"{len(raw):,}; the file is cut short or belongs to another mesh"
        )
    values = np.frombuffer(raw, "<f4", offset=4 + 12 * count)
    return numbers(values.reshape(number, count, 3), (number, count, 3), path.name)
