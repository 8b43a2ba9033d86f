# SPDX-License-Identifier: Apache-2.0
"""What eos fits with: this library's face model in eos's types, or eos's own files.

eos (Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework", VISAPP 2016) works in
millimetres, counts landmarks and edges from 1, and reads correspondences from text files.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.errors import MissingExtraError, ModelFormatError
from hiface.methods.shared import ibug68_keypoints, model_keypoints
from hiface.morphable import MorphableModel, MorphableModelData
from hiface.types import LandmarkSet

MM_PER_M = 1000.0
SHARE_FILES = {
    "model": "sfm_shape_3448.bin",
    "blendshapes": "expression_blendshapes_3448.bin",
    "landmarks": "ibug_to_sfm.txt",
    "edges": "sfm_3448_edge_topology.json",
    "contours": "sfm_model_contours.json",
}
"""Names of eos's own files in the folder `share` of its source."""
_CHIN, _N_JAW = 8, 17
_EXPRESSION_SIGMA = 0.25  # of expressions of 0..1 about 0
_N_EXPRESSION = 40


@dataclass(frozen=True)
class EosModel:
    """Arguments of `eos.fitting.fit_shape_and_pose` that do not depend on the photo.

    Attributes:
        model: eos MorphableModel with expressions, millimetres.
        n_vertices: Leading vertices that belong to the mesh.
        mapper: From "1".."68" to vertices.
        edges: Which triangles and vertices lie at each edge.
        contour_landmarks: Points of the right and left jaw.
        model_contour: Vertices of the right and left jaw line.
        triangles: [T, 3] int64.
        keypoints: Keypoint sets on the topology.
        topology: Name of the topology.
    """

    model: Any
    n_vertices: int
    mapper: Any
    edges: Any
    contour_landmarks: Any
    model_contour: Any
    triangles: Tensor
    keypoints: dict[str, LandmarkSet]
    topology: str


def import_eos() -> Any:
    """The module eos.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import eos
    except ImportError as error:
        raise MissingExtraError(
            "the method eos needs the package eos-py; type: pip install eos-py"
        ) from error
    return eos


def read_share(folder: Path) -> EosModel:
    """Eos's own model and correspondences.

    Args:
        folder: Folder with the files of `SHARE_FILES`. A model that has expressions of its own needs no
            blendshapes.

    Returns:
        EosModel.

    Raises:
        MissingExtraError: eos is not installed.
        ModelFormatError: A file is missing or damaged.
    """
    eos = import_eos()
    paths = {kind: folder / name for kind, name in SHARE_FILES.items()}
    missing = [path.name for kind, path in paths.items() if not path.is_file() and kind != "blendshapes"]
    if missing:
        raise ModelFormatError(
            f"{folder} lacks {', '.join(missing)}; name the folder share of the source of eos, with the model"
        )
    try:
        model = eos.morphablemodel.load_model(str(paths["model"]))
        if not model.has_separate_expression_model():
            if not paths["blendshapes"].is_file():
                raise ModelFormatError(
                    f"{folder} lacks {paths['blendshapes'].name}, and the model has no expressions of its own"
                )
            expressions = eos.morphablemodel.load_blendshapes(str(paths["blendshapes"]))
            model = _with_expressions(eos, model.get_shape_model(), expressions)
        mapper = eos.core.LandmarkMapper(str(paths["landmarks"]))
        triangles = torch.tensor(model.get_shape_model().get_triangle_list(), dtype=torch.int64)
        ids = {int(name) - 1: int(vertex) for name, vertex in mapper.get_mappings().items()}
        return EosModel(
            model=model,
            n_vertices=model.get_shape_model().get_data_dimension() // 3,
            mapper=mapper,
            edges=eos.morphablemodel.load_edge_topology(str(paths["edges"])),
            contour_landmarks=eos.fitting.ContourLandmarks.load(str(paths["landmarks"])),
            model_contour=eos.fitting.ModelContour.load(str(paths["contours"])),
            triangles=triangles,
            keypoints=ibug68_keypoints(ids, triangles),
            topology=paths["model"].stem,
        )
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ModelFormatError(
            f"{folder} holds files that eos cannot read ({error}); copy them again from the source of eos"
        ) from error


def convert_model(model: MorphableModel) -> EosModel:
    """A face model of this library in eos's types, so that eos is compared on equal terms.

    Identity is the same normal distribution on an orthonormal basis, in millimetres. Expressions become
    principal components of independent expressions with a standard deviation of 0.25: eos's other choice,
    least squares on non-negative blendshapes without a prior, is meant for its six and gives weights up to 20
    on 52. The 68 landmarks follow the mesh's vertices as vertices of their own, so that they lie where the
    model has them. The outline of a turned head is looked for on the face, not on ears, hair and neck.

    Raises:
        MissingExtraError: eos is not installed.
        ModelFormatError: The model has no landmarks "ibug68" or no vertex mask "face".
    """
    eos = import_eos()
    data = model.data
    if (
        "ibug68" not in data.landmark_sets
        or "face" not in data.vertex_masks
        or data.bilinear_basis is not None
    ):
        raise ModelFormatError(
            f"eos can use linear face models with landmarks 'ibug68' and a vertex mask 'face'; {data.name!r} "
            "is not one, take the model 'open'"
        )
    sigma = _EXPRESSION_SIGMA if data.expression_kind == "unit" else 1.0
    mean = _with_landmarks(data, data.template).flatten()
    identity = _pca(eos, mean, _with_landmarks(data, data.identity_basis), data.triangles)
    moves = sigma * _with_landmarks(data, data.expression_basis)
    expression = _pca(eos, torch.zeros_like(mean), moves, data.triangles, _N_EXPRESSION)
    mapper, contour_landmarks, model_contour = _correspondences(eos, data)
    edges = eos.morphablemodel.EdgeTopology(*edge_table(data.triangles, data.vertex_masks["face"]))
    return EosModel(
        model=_with_expressions(eos, identity, expression),
        n_vertices=data.n_vertices,
        mapper=mapper,
        edges=edges,
        contour_landmarks=contour_landmarks,
        model_contour=model_contour,
        triangles=data.triangles,
        keypoints=model_keypoints(model),
        topology=model.name,
    )


def orthonormal(basis: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Principal components of sum_k c_k basis_k with c ~ N(0, I).

    Args:
        basis: [K, V, 3], any unit.
        count: Leading components to keep; all that are there if None.

    Returns:
        Orthonormal columns [3 V, N] and variances [N], the largest first.
    """
    rows = basis.flatten(1)
    variance, turn = torch.linalg.eigh(rows @ rows.T)
    order = variance.argsort(descending=True)[:count]
    order = order[variance[order] > 1e-9 * variance.max()]
    variance = variance[order]
    return rows.T @ turn[:, order] / variance.sqrt(), variance


def edge_table(triangles: Tensor, mask: Tensor) -> tuple[list[list[int]], list[list[int]]]:
    """Inner edges whose two ends are in a mask, counted from 1 as eos does.

    Args:
        triangles: [T, 3] int64.
        mask: [V] bool.

    Returns:
        For each edge its two triangles, and its two vertices.
    """
    ends = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(dim=1).values
    edges, index, count = ends.unique(dim=0, return_inverse=True, return_counts=True)
    by_edge = index.argsort(stable=True)
    first = count.cumsum(0) - count
    inner = (count == 2) & mask[edges].all(dim=1)
    owners = torch.stack([by_edge[first[inner]], by_edge[first[inner] + 1]], dim=1) // 3
    return (owners + 1).tolist(), (edges[inner] + 1).tolist()


def _pca(eos: Any, mean: Tensor, basis: Tensor, triangles: Tensor, count: int | None = None) -> Any:
    columns, variance = orthonormal(basis, count)
    arrays = (np.asfortranarray(part.float().numpy()) for part in (mean, columns, variance))
    return eos.morphablemodel.PcaModel(*arrays, triangles.tolist())


def _with_expressions(eos: Any, shape: Any, expressions: Any) -> Any:
    return eos.morphablemodel.MorphableModel(shape, expressions, eos.morphablemodel.PcaModel())


def _with_landmarks(data: MorphableModelData, places: Tensor) -> Tensor:
    """[*B, V, 3] metres to [*B, V + 68, 3] millimetres, the iBUG points after the vertices."""
    points = data.landmark_sets["ibug68"].positions(places.double(), data.triangles)
    return MM_PER_M * torch.cat([places.double(), points], dim=-2)


def _correspondences(eos: Any, data: MorphableModelData) -> tuple[Any, Any, Any]:
    """Landmark mapper, jaw landmarks and jaw line; eos has readers of files for them and nothing else."""
    ids = range(data.n_vertices, data.n_vertices + 68)
    right, left = range(_CHIN), range(_CHIN + 1, _N_JAW)
    fixed = [_CHIN, *range(_N_JAW, len(ids))]
    names = {side: ", ".join(f'"{k + 1}"' for k in jaw) for side, jaw in (("right", right), ("left", left))}
    lines = ["[landmark_mappings]", *(f"{k + 1} = {ids[k]}" for k in fixed), "[contour_landmarks]"]
    lines += [f"{side} = [ {jaw} ]" for side, jaw in names.items()]
    contour = {f"{s}_contour": [ids[k] for k in jaw] for s, jaw in (("right", right), ("left", left))}
    with tempfile.TemporaryDirectory() as folder:
        mapping, outline = Path(folder) / "landmarks.txt", Path(folder) / "contours.json"
        mapping.write_text("\n".join(lines) + "\n", encoding="utf-8")
        outline.write_text(json.dumps({"model_contour": contour}), encoding="utf-8")
        return (
            eos.core.LandmarkMapper(str(mapping)),
            eos.fitting.ContourLandmarks.load(str(mapping)),
            eos.fitting.ModelContour.load(str(outline)),
        )
