# SPDX-License-Identifier: Apache-2.0
"""Bends one whole mesh smoothly onto another surface, from stiff to soft.

In each step the moved vertices X minimise

    stiffness (membrane |M (X - X0)|^2 + |L (X - X0)|^2)
        + sum_i w_i |x_i - place_i|^2 + anchor |B X - goals|^2,

with M the differences along edges, L the Laplacian of the mesh's graph, X0 the mesh at the start, places
where the shortest way meets the tangent plane of the nearest place (`OrientedSurface`), and B the anchors'
barycentric weights. Deformations that are affine over an even mesh cost only the membrane. It serves to
register whole models; REALY's own procedure is `nonrigid.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.errors import FitError
from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.optional import needed


@dataclass(frozen=True)
class Anchors:
    """Points of the mesh whose goals are known.

    Attributes:
        triangle_ids: [A] int64 triangle that each lies on.
        barycentric: [A, 3] weights of its corners.
        goals: [A, 3] metres.
    """

    triangle_ids: Tensor
    barycentric: Tensor
    goals: Tensor


@dataclass(frozen=True)
class BendingConfig:
    """Weights; lengths are metres.

    Attributes:
        stiffness: First and last stiffness; they fall by the same factor from step to step.
        membrane: Weight of differences along edges within the stiffness.
        anchor: First and last weight of an anchor; a vertex with a place has 1.
        steps: Number of steps.
        least_cosine: Places whose normals are further apart are not used.
        reject_factor: Pairs further apart than this, times the median distance, are not used,
        reject_at_least: unless they are nearer than this.
    """

    stiffness: tuple[float, float] = (1000.0, 5.0)
    membrane: float = 0.05
    anchor: tuple[float, float] = (1.0, 0.001)
    steps: int = 16
    least_cosine: float = 0.5
    reject_factor: float = 4.0
    reject_at_least: float = 0.004


def bend_onto(
    vertices: Tensor,
    triangles: Tensor,
    surface: OrientedSurface,
    anchors: Anchors,
    config: BendingConfig | None = None,
) -> Tensor:
    """Bends a mesh onto a surface.

    Args:
        vertices: [V, 3] metres; each belongs to a triangle.
        triangles: [T, 3] int64.
        surface: Where to.
        anchors: Points with known goals; at least four, not in one plane.
        config: Weights.

    Returns:
        [V, 3] moved vertices, float64.

    Raises:
        FitError: The equations could not be solved.
        MissingExtraError: scipy is not installed.
    """
    config = config or BendingConfig()
    start = vertices.detach().cpu().double()
    smooth, pull = _smoothness(triangles, len(start), config.membrane), _rows(anchors, triangles, len(start))
    goals = anchors.goals.detach().cpu().double().numpy()
    moved = start
    for step in range(config.steps):
        share = step / max(config.steps - 1, 1)
        stiffness, anchor = (a * (b / a) ** share for a, b in (config.stiffness, config.anchor))
        weight, places = _data(moved, triangles, surface, config)
        matrix = stiffness * smooth + _sparse().diags(weight) + anchor * (pull.T @ pull)
        right = stiffness * (smooth @ start.numpy()) + weight[:, None] * places + anchor * (pull.T @ goals)
        moved = torch.from_numpy(_solve(matrix, right))
    return moved


def _data(
    moved: Tensor, triangles: Tensor, surface: OrientedSurface, config: BendingConfig
) -> tuple[np.ndarray, np.ndarray]:
    found = surface.find(moved, normals_of(moved, triangles))
    facing = found.cosines > config.least_cosine
    typical = float(found.distances[facing].median()) if bool(facing.any()) else 0.0
    limit = max(config.reject_factor * typical, config.reject_at_least)
    good = facing & (found.distances < limit) & ~found.on_border
    height = ((found.points - moved) * found.normals).sum(-1, keepdim=True)
    return good.double().numpy(), (moved + height * found.normals).numpy()


def _smoothness(triangles: Tensor, n_vertices: int, membrane: float) -> Any:
    sparse, t = _sparse(), triangles.detach().cpu().numpy()
    edges = np.unique(np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1), axis=0)
    ones, row = np.ones(len(edges)), np.arange(len(edges))
    entries = (np.r_[ones, -ones], (np.r_[row, row], edges.T.ravel()))
    M = sparse.coo_matrix(entries, shape=(len(edges), n_vertices)).tocsr()
    squared = (M.T @ M).tocsr()
    mean = sparse.diags(1.0 / np.maximum(squared.diagonal(), 1.0)) @ squared
    return (membrane * squared + mean.T @ mean).tocsc()


def _rows(anchors: Anchors, triangles: Tensor, n_vertices: int) -> Any:
    """[A, V] barycentric weights of the anchors."""
    corners = triangles.detach().cpu()[anchors.triangle_ids].numpy()
    rows = np.repeat(np.arange(len(corners)), 3)
    values = anchors.barycentric.detach().cpu().double().numpy().ravel()
    shape = (len(corners), n_vertices)
    return _sparse().coo_matrix((values, (rows, corners.ravel())), shape=shape).tocsr()


def _solve(matrix: Any, right: np.ndarray) -> np.ndarray:
    try:
        found = import_module("scipy.sparse.linalg").splu(matrix.tocsc()).solve(right)
    except RuntimeError as error:
        raise FitError(f"one mesh cannot be bent onto the other ({error}); are they heads?") from error
    if not np.isfinite(found).all():
        raise FitError("bending one mesh onto the other gave numbers that are not finite; are they heads?")
    return found


def _sparse() -> Any:
    return needed("scipy.sparse", "bending meshes needs scipy")
