# SPDX-License-Identifier: Apache-2.0
"""Brings one model's mean shape onto another's: the source's own people first, then smooth bending."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.geometry.bending import Anchors, BendingConfig, bend_onto
from hiface.geometry.oriented import OrientedSurface
from hiface.morphable import MorphableModelData
from hiface.transfer.find_landmarks import find_landmarks
from hiface.transfer.fit_shape import fit_shape

_N_JAW = 17  # outlines, not points of a surface
_MOST_SPREAD_M = 0.004  # of a found point over the views
_FOLLOWED = 8  # skin vertices that carry a vertex of eyes or teeth
_SKIN = "skin"


@dataclass(frozen=True)
class Registration:
    """Where a source's vertices lie on a target.

    Attributes:
        vertices: [Vs, 3] metres, the source's mean shape bent onto the target's, float64.
        anchors: Number of landmark pairs that were used.
    """

    vertices: Tensor
    anchors: int


def register(
    source: MorphableModelData, target: MorphableModelData, config: BendingConfig | None = None
) -> Registration:
    """Bends a model's mean shape onto another model's.

    First the similarity and the source's identity that come nearest, since how people differ says which
    points of two faces correspond where surfaces are smooth; then what is left is bent.

    Landmarks are found on both by the same detector, on both in plain grey if one has no albedo of its own:
    what it errs in is then the same on both. Sets of the same name that both files have count as well.

    Args:
        source: Model to bend.
        target: Model to bend onto.
        config: Weights.

    Returns:
        Registration.

    Raises:
        ModelFormatError: No face is found on one of them, or they do not look alike.
        FitError: The equations could not be solved.
        MissingExtraError: libigl or scipy is not installed.
    """
    rows, weights, goals = _pairs(source, target)
    skin, own_triangles = skin_surface(source)
    surface = OrientedSurface(target.template, target.triangles[skin_surface(target)[1]])
    lookup = torch.full((source.n_vertices,), -1)
    lookup[skin] = torch.arange(len(skin))
    triangles = lookup[source.triangles[own_triangles]]
    position = torch.full((len(source.triangles),), -1)
    position[own_triangles] = torch.arange(len(own_triangles))
    kept = position[rows] >= 0
    anchors = Anchors(position[rows[kept]], weights[kept], goals[kept])
    basis = source.identity_basis[:, skin].double()
    shape = fit_shape(source.template[skin].double(), basis, triangles, surface, anchors)
    anchors = Anchors(
        *(part[shape.near] for part in (anchors.triangle_ids, anchors.barycentric, anchors.goals))
    )
    bent = bend_onto(shape.vertices, triangles, surface, anchors, config)
    moved = source.template.double() + torch.tensordot(shape.identity, source.identity_basis.double(), dims=1)
    return Registration(_followed(shape.similarity.apply(moved), skin, bent), len(anchors.goals))


def skin_surface(data: MorphableModelData) -> tuple[Tensor, Tensor]:
    """The surface that the face lies on.

    Args:
        data: The model.

    Returns:
        Its vertices [S] and its triangles [T'] as indices: those of the part "skin", and of these the
        connected piece with the most vertices (FLAME's eyeballs are pieces of their own).
    """
    chosen = torch.ones(len(data.triangles), dtype=torch.bool)
    if _SKIN in data.part_names:
        chosen = data.triangle_parts == data.part_names.index(_SKIN)
    label = _pieces(data.triangles[chosen], data.n_vertices)
    used = data.triangles[chosen].unique()
    largest = label[used].mode().values
    ids = torch.nonzero(chosen)[:, 0]
    ids = ids[label[data.triangles[ids, 0]] == largest]
    return data.triangles[ids].unique(), ids


def _pieces(triangles: Tensor, n_vertices: int) -> Tensor:
    """[V] number of the connected piece of each vertex, the least index in it."""
    label = torch.arange(n_vertices)
    while True:
        least = label[triangles].amin(1)
        new = label.clone()
        for corner in range(3):
            new.scatter_reduce_(0, triangles[:, corner], least, "amin")
        new = new[new]
        if torch.equal(new, label):
            return label
        label = new


def _pairs(source: MorphableModelData, target: MorphableModelData) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks: triangles [L] and weights [L, 3] on the source, goals [L, 3] on the target."""
    plain = min(len(source.albedo_names), len(target.albedo_names)) == 0
    found = [find_landmarks(data, plain) for data in (source, target)]
    rows, weights, goals = [], [], []
    for name in ("ibug68", "dense"):
        a, b = (f.sets[name] for f in found)
        sure = torch.stack([f.sigma_m[name] for f in found]).amax(0) < _MOST_SPREAD_M
        if name == "ibug68":
            sure[:_N_JAW] = False
        rows.append(a.triangle_ids[sure])
        weights.append(a.barycentric[sure].double())
        goals.append(b.positions(target.template, target.triangles)[sure].double())
    for name in sorted({"ibug68", "now7"} & set(source.landmark_sets) & set(target.landmark_sets)):
        a, b = source.landmark_sets[name], target.landmark_sets[name]
        first = _N_JAW if name == "ibug68" else 0
        rows.append(a.triangle_ids[first:])
        weights.append(a.barycentric[first:].double())
        goals.append(b.positions(target.template, target.triangles)[first:].double())
    return torch.cat(rows), torch.cat(weights), torch.cat(goals)


def _followed(moved: Tensor, skin: Tensor, bent: Tensor) -> Tensor:
    """[V, 3] all vertices; what is not skin goes with the skin near it."""
    result = moved.clone()
    offset = bent - moved[skin]
    result[skin] = bent
    rest = torch.ones(len(moved), dtype=torch.bool)
    rest[skin] = False
    ids = torch.nonzero(rest)[:, 0]
    for part in ids.split(2048):
        distance, nearest = torch.cdist(moved[part], moved[skin]).topk(_FOLLOWED, largest=False)
        weight = 1.0 / (distance + 1e-4)
        weight = weight / weight.sum(1, keepdim=True)
        result[part] += (offset[nearest] * weight[..., None]).sum(1)
    return result
