# SPDX-License-Identifier: Apache-2.0
"""Reads bilinear models: FaceScape (Yang et al., CVPR 2020) and FaceWarehouse (Cao et al., TVCG 2014).

A shape is p = A x_id w x_exp e with a core tensor A. With identity weights w = mean + std * identity
(identity in sigma) and expression weights e = neutral + blendshapes, the product falls into a template, a
linear part for each and one bilinear part, exactly; `MorphableModel.shape` adds the four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.errors import ModelFormatError
from hiface.geometry.obj_files import ObjMesh, uv_from_top
from hiface.morphable.data import MorphableModelData
from hiface.morphable.numpy_files import read_npy, read_npz
from hiface.morphable.readers.obj import read_obj
from hiface.morphable.readers.parts import (
    UNITS_M,
    Parts,
    assemble,
    indices,
    need,
    numbered,
    numbers,
    plain_array,
)

FACESCAPE_KEYS = ("shape_bm_core", "id_mean", "id_var", "fv_indices")
_FACESCAPE_OTHERS = ("texcoords", "ft_indices", "lm_list_v16")
FACESCAPE_LICENCE = "FaceScape licence of Nanjing University: non-commercial research only, no redistribution"
FACEWAREHOUSE_LICENCE = "FaceWarehouse licence of Zhejiang University: non-commercial research only"
SHAPE_FILE = "Tester_*/Blendshape/shape.bs"
MESH_FILES = "Tester_*/*/*.obj"
_FACTORS = "factors_id*.npy"
BESIDE = (_FACTORS, "*.obj")
_LARGEST_BYTES = 12 * 2**30  # a core of 300 identities in float64 has 9.2
_MOST_PEOPLE_AXES = 50
_HEAD_WIDTH_M = (0.08, 0.8)


def read_bilinear(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads a FaceScape or FaceWarehouse model.

    Args:
        path: FaceScape v1.6 (`facescape_bm_v1.6_..._id.npz`), FaceScape v1.0 (`core_847_50_52.npy` with
            `factors_id_847_50_52.npy` and an .obj of the topology beside it), or the FaceWarehouse folder
            with Tester_1/Blendshape/shape.bs ... and one .obj of the topology in a folder of a person.
        dtype: Of the tensors. The core is kept whole; it is the model's largest tensor.

    Returns:
        The model; expressions are blendshapes of 0..1.

    Raises:
        ModelFormatError: Damaged, of another model, or with expressions that have no neutral one.
    """
    path = Path(path)
    if path.is_dir():
        return assemble(_facewarehouse(path), dtype)
    return assemble(_facescape_npz(path) if path.suffix == ".npz" else _facescape_npy(path), dtype)


def split_core(core: np.ndarray, mean: np.ndarray, std: np.ndarray) -> dict[str, np.ndarray]:
    """Template, linear and bilinear parts of a core tensor.

    Args:
        core: [N, E + 1, V, 3]; expression 0 is neutral, the others are whole faces.
        mean: [N] mean identity weights.
        std: [N] their standard deviations.

    Returns:
        The fields of `Parts`: template [V, 3], identity_basis [N, V, 3], expression_basis [E, V, 3] and
        bilinear_basis [N, E, V, 3].
    """
    weights = std.astype(core.dtype)[:, None, None]
    neutral, moved = core[:, 0], core[:, 1:] - core[:, :1]
    centre = mean.astype(core.dtype)
    expression = np.tensordot(centre, moved, 1)
    moved *= weights[:, None]
    return {
        "template": np.tensordot(centre, neutral, 1),
        "identity_basis": neutral * weights,
        "expression_basis": expression,
        "bilinear_basis": moved,
    }


def _facescape_npz(path: Path) -> Parts:
    content = read_npz(path, (*FACESCAPE_KEYS, *_FACESCAPE_OTHERS), _LARGEST_BYTES)
    need(content, FACESCAPE_KEYS, path, "FaceScape's bilinear model v1.6")
    name = path.name
    file_core = numbers(content.pop("shape_bm_core"), (None, None, None), f"{name}: shape_bm_core")
    size, n_expressions, n_identities = file_core.shape
    v = _count(file_core, size, n_expressions, name)
    core = np.ascontiguousarray(file_core.reshape(v, 3, n_expressions, n_identities).transpose(3, 2, 0, 1))
    del file_core  # some gigabytes
    mean = _flat(content["id_mean"], n_identities, f"{name}: id_mean")
    variance = _flat(content["id_var"], n_identities, f"{name}: id_var")
    _check_expressions(core, mean, name)
    parts = _parts("facescape", "1.6", FACESCAPE_LICENCE, core, (mean, np.sqrt(variance.clip(0.0))))
    parts.triangles = indices(content["fv_indices"], 3, v, f"{name}: fv_indices", first=1)
    if "texcoords" in content and "ft_indices" in content:
        uv = numbers(content["texcoords"], (None, 2), f"{name}: texcoords")
        parts.uv_triangles = indices(content["ft_indices"], 3, len(uv), f"{name}: ft_indices", first=1)
        parts.uv = uv_from_top(uv)
    if "lm_list_v16" in content and np.size(content["lm_list_v16"]) == 68:
        points = indices(content["lm_list_v16"], 1, v, f"{name}: lm_list_v16")
        parts.landmark_vertices["ibug68"] = points[:, 0]
    parts.metadata["source_file"] = name
    return parts


def _count(core: np.ndarray, size: int, n_expressions: int, name: str) -> int:
    """Number of vertices of a core with `size` coordinates and so many expressions."""
    if size % 3 or n_expressions < 2 or not core.size:
        raise ModelFormatError(
            f"{name}: expected a core of 3 coordinates for each vertex, a neutral and further expressions, "
            f"found shape {core.shape}"
        )
    return size // 3


def _flat(value: Any, count: int, what: str) -> np.ndarray:
    return numbers(plain_array(value, what).reshape(-1), (count,), what)


def _check_expressions(core: np.ndarray, mean: np.ndarray, name: str) -> None:
    """Every expression of the mean person must be a whole face, not a principal component."""
    people = np.tensordot(mean.astype(core.dtype), core, 1)
    sizes = np.linalg.norm(people.reshape(len(people), -1), axis=1)
    if sizes.min() < 0.5 * sizes[0] or sizes.max() > 2.0 * sizes[0]:
        raise ModelFormatError(
            f"{name}: expected one whole face per expression, found principal components of expressions, "
            "which have no neutral face; use the file whose name ends in _id.npz"
        )


def _facescape_npy(path: Path) -> Parts:
    core = numbers(read_npy(path), (None, None, None), path.name)
    v = _count(core, core.shape[2], core.shape[1], path.name)
    people = _factors(path, core.shape[0])
    spread = (people.mean(axis=0), people.std(axis=0))
    core = core.reshape(*core.shape[:2], v, 3)
    _check_expressions(core, spread[0], path.name)
    mesh = _topology(sorted(path.parent.glob("*.obj")), v, path.parent)
    parts = _parts("facescape", "1.0", FACESCAPE_LICENCE, core, spread)
    parts.metadata["source_file"] = path.name
    return _with_mesh(parts, mesh)


def _factors(path: Path, n_identities: int) -> np.ndarray:
    """[people, N] identity weights: of the file named like the core, else of the first with N columns."""
    own = path.with_name(path.name.replace("core_", "factors_id_"))
    files = [own] if own != path and own.is_file() else sorted(path.parent.glob(_FACTORS))
    found = []
    for file in files:
        people = numbers(read_npy(file), (None, None), file.name)
        if people.shape[1] == n_identities and len(people) > 1:
            return people
        found.append(f"{file.name} of shape {people.shape}")
    raise ModelFormatError(
        f"{path.name}: expected {own.name if own != path else _FACTORS} with {n_identities} columns beside "
        f"it, found {', '.join(found) or 'none'}"
    )


def _facewarehouse(folder: Path) -> Parts:
    """Everyone's 47 shapes; identity is the principal components over people of all their shapes together."""
    files = sorted(folder.glob(SHAPE_FILE), key=lambda file: (len(file.parts[-3]), file))
    if len(files) < 2:
        raise ModelFormatError(f"{folder}: expected {SHAPE_FILE} of at least two people, found {len(files)}")
    people = [_read_shapes(file) for file in files]
    for file, shapes in zip(files, people, strict=True):
        if shapes.shape != people[0].shape:
            raise ModelFormatError(
                f"{file}: expected {people[0].shape[0]} shapes of {people[0].shape[1]} vertices as in "
                f"{files[0]}, found {shapes.shape[0]} of {shapes.shape[1]}"
            )
    everyone = np.stack(people)
    mean = everyone.mean(axis=0)
    flat = (everyone - mean).reshape(len(people), -1)
    gram = flat.astype(np.float64) @ flat.T.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    kept = min(_MOST_PEOPLE_AXES, len(people) - 1)
    axes = (vectors[:, ::-1][:, :kept].T @ flat) / np.sqrt(len(people))
    core = np.concatenate([mean[None], axes.reshape(kept, *mean.shape).astype(mean.dtype)])
    centre, std = np.eye(kept + 1)[0], np.concatenate([[0.0], np.ones(kept)])
    parts = _parts("facewarehouse", "2014", FACEWAREHOUSE_LICENCE, core, (centre, std))
    parts.identity_basis = parts.identity_basis[1:]
    parts.bilinear_basis = None if parts.bilinear_basis is None else parts.bilinear_basis[1:]
    parts.unit = _guess_unit(parts.template)
    parts.metadata |= {
        "source_file": folder.name,
        "published_vertices": "11510",
        "unit_source": "guessed from the size of the mean face",
        "people": str(len(people)),
        "kept_variance": f"{values[::-1][:kept].sum() / max(values.sum(), 1e-300):.4f}",
    }
    return _with_mesh(parts, _topology(sorted(folder.glob(MESH_FILES)), mean.shape[1], folder))


def _read_shapes(path: Path) -> np.ndarray:
    """[47, V, 3] shapes of a shape.bs: int32 counts of shapes, vertices and polygons, then positions."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFormatError(
            f"{path} cannot be read ({error.strerror}); expected a file of shapes"
        ) from error
    shapes, vertices, _ = np.frombuffer(raw[:12], "<i4").tolist() if len(raw) >= 12 else (0, 0, 0)
    expected = 12 + 12 * (shapes + 1) * vertices
    if shapes < 1 or vertices < 3 or len(raw) < expected:
        raise ModelFormatError(
            f"{path}: expected {expected:,} bytes for {shapes} shapes of {vertices} vertices, found "
            f"{len(raw):,}; the file is cut short"
        )
    values = np.frombuffer(raw, "<f4", count=3 * (shapes + 1) * vertices, offset=12)
    return numbers(values.reshape(shapes + 1, vertices, 3), (shapes + 1, vertices, 3), str(path))


def _parts(
    name: str, version: str, licence: str, core: np.ndarray, spread: tuple[np.ndarray, np.ndarray]
) -> Parts:
    fields: dict[str, Any] = split_core(core, *spread)
    return Parts(
        name=name,
        version=version,
        licence=licence,
        unit="mm",
        triangles=np.zeros((0, 3), np.int64),
        expression_names=numbered("expression", core.shape[1] - 1),
        expression_kind="unit",
        **fields,
    )


def _topology(files: list[Path], count: int, folder: Path) -> ObjMesh:
    """The first mesh with that many vertices."""
    for file in files:
        mesh = read_obj(file)
        if len(mesh.vertices) == count:
            return mesh
    raise ModelFormatError(
        f"{folder}: expected an .obj of {count} vertices for the triangles; "
        f"{'none of ' + str(len(files)) + ' has them' if files else 'there is no .obj'}"
    )


def _with_mesh(parts: Parts, mesh: ObjMesh) -> Parts:
    parts.triangles, parts.uv, parts.uv_triangles = mesh.triangles, mesh.uv, mesh.uv_triangles
    parts.quads = mesh.quads
    return parts


def _guess_unit(template: np.ndarray) -> str:
    """The unit in which a face has the width of a face."""
    width = float(np.ptp(template[:, 0]))
    low, high = _HEAD_WIDTH_M
    for unit, metres in UNITS_M.items():
        if low <= width * metres < high:
            return unit
    raise ModelFormatError(f"the mean face is {width:g} wide, which is no face in m, dm, cm, mm or um")
