# SPDX-License-Identifier: Apache-2.0
"""Non-rigid ICP with an affine map at each vertex: bends a scan's region onto points of a prediction.

Amberg, Romdhani and Vetter, "Optimal Step Nonrigid ICP Algorithms for Surface Registration", CVPR 2007, with
the weights of REALY (Chai et al., ECCV 2022): in each step the unknown X, [4 N, 3], minimises

    |alpha (M x G) X|^2 + sum_i w_i |X_i^T h_i - target_i|^2 + sum_i k_i |X_i^T h_i - keypoint_i|^2,

with h_i = (v_i, 1) of the vertices as they are now, M the incidence matrix of edges and vertices, and G what
a difference of neighbours' maps costs. All lengths are in the scan's own unit; thresholds depend on it.

What this leaves open (a loose piece of the region without keypoints in the first solve, a piece that is flat)
stays as it is: of all solutions the one nearest to no motion is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.errors import FitError, ShapeError
from hiface.optional import needed


@dataclass(frozen=True)
class Keypoints:
    """Vertices that are pulled to known places.

    Attributes:
        vertex_ids: [K] int64; where one vertex is named twice, the last target counts.
        targets: [K, 3] places in the unit of the scan.
    """

    vertex_ids: Tensor
    targets: Tensor


@dataclass(frozen=True)
class NonrigidConfig:
    """Weights of REALY's bICP.

    Attributes:
        alpha: Stiffness of the first level.
        alpha_decay: It is multiplied by exp(-alpha_decay) from level to level.
        epsilon: A level ends when the Frobenius norm of X's change is at most this; halved at each level.
        levels: Number of levels with data.
        max_steps: Most steps of a level where keypoints are used.
        alpha_keypoints: Stiffness of the first solve, which sees keypoints only.
        stiffness_keypoints: Diagonal of G in it.
        keypoint_weight: Weight of keypoints in it.
        keypoint_weight_later: Their weight later, times exp(-keypoint_decay times the number of solves so
            far).
        keypoint_decay: See there.
        reject_factor: Pairs farther apart than this, times the mean distance, are left out,
        reject_at_least: unless they are nearer than this.
    """

    alpha: float = 50.0
    alpha_decay: float = 0.5
    epsilon: float = 1.0
    levels: int = 3
    max_steps: int = 11
    alpha_keypoints: float = 150.0
    stiffness_keypoints: tuple[float, float, float, float] = (2.0, 2.0, 3.0, 2.0)
    keypoint_weight: float = 50.0
    keypoint_weight_later: float = 5.0
    keypoint_decay: float = 0.9
    reject_factor: float = 2.0
    reject_at_least: float = 1.0


_MAX_STEPS_WITHOUT_KEYPOINTS = 200  # the published loop has no bound
_SAMPLES = 200  # vertices whose data the preconditioner has
_SPREADING = 2  # how often they are moved to the middle of what they stand for
_RIDGE = 1e-8  # that maps stay what they are; stiffness and data have weights of 1 and more
_TOLERANCE, _MOST_ITERATIONS = 1e-4, 2000  # of the residual: REALY's errors change by less than 1e-4


def deform_to_points(
    vertices: Tensor,
    triangles: Tensor,
    targets: Tensor,
    keypoints: Keypoints | None = None,
    config: NonrigidConfig | None = None,
) -> Tensor:
    """Bends a mesh onto a cloud of points.

    Args:
        vertices: [N, 3] the scan's region; each belongs to a triangle.
        triangles: [T, 3] int64.
        targets: [M, 3] points to come near to; the nearest of each vertex is looked for anew in each step.
        keypoints: Known places of some vertices or None.
        config: Weights; REALY's if None.

    Returns:
        [N, 3] moved vertices, float64.

    Raises:
        ShapeError: A vertex belongs to no triangle, so nothing would hold it.
        FitError: The equations could not be solved.
        MissingExtraError: scipy is not installed.
    """
    config = config or NonrigidConfig()
    system = _Stiffness(triangles, vertices.shape[0])
    cloud = targets.detach().cpu().double().numpy()
    tree = needed("scipy.spatial", "non-rigid ICP needs scipy").cKDTree(cloud)
    moved = vertices.detach().cpu().double().numpy().copy()
    X, previous, solves = np.ones((4 * len(moved), 3)), np.zeros((4 * len(moved), 3)), 0
    pull = _Pull.of(keypoints, len(moved))
    if pull is not None:
        stiffness = tuple(config.alpha_keypoints * value for value in config.stiffness_keypoints)
        X = system.solve(moved, stiffness, pull.chosen * config.keypoint_weight**2, pull.targets)
        previous, moved, solves = np.ones_like(X), _apply(moved, X), 1
    for level in range(config.levels):
        alpha = config.alpha * math.exp(-config.alpha_decay * level)
        epsilon = config.epsilon * 0.5**level
        most = _MAX_STEPS_WITHOUT_KEYPOINTS if pull is None else config.max_steps
        for _ in range(most):
            if np.linalg.norm(X - previous) <= epsilon:
                break
            distance, nearest = tree.query(moved)
            near = distance < max(config.reject_factor * distance.mean(), config.reject_at_least)
            weight, places = near.astype(np.float64), cloud[nearest]
            if pull is not None:
                k = config.keypoint_weight_later * math.exp(-config.keypoint_decay * solves)
                total = weight + pull.chosen * k * k
                mixed = weight[:, None] * places + (pull.chosen * k * k)[:, None] * pull.targets
                places = mixed / np.maximum(total, 1e-300)[:, None]
                weight = total
            previous, X = X, system.solve(moved, (alpha,) * 4, weight, places)
            moved, solves = _apply(moved, X), solves + 1
    return torch.from_numpy(moved)


def _apply(points: np.ndarray, X: np.ndarray) -> np.ndarray:
    return (_homogeneous(points)[:, :, None] * X.reshape(-1, 4, 3)).sum(axis=1)


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


@dataclass(frozen=True)
class _Pull:
    """Keypoints as arrays over all vertices: [N] 0 or 1, and [N, 3] places."""

    chosen: np.ndarray
    targets: np.ndarray

    @staticmethod
    def of(keypoints: Keypoints | None, n_vertices: int) -> _Pull | None:
        if keypoints is None:
            return None
        chosen, targets = np.zeros(n_vertices), np.zeros((n_vertices, 3))
        for vertex, target in zip(keypoints.vertex_ids.tolist(), keypoints.targets.tolist(), strict=True):
            chosen[vertex], targets[vertex] = 1.0, target
        return _Pull(chosen, targets)


class _Stiffness:
    """The normal equations of one mesh.

    Few keypoints leave them sparse enough to be factored. With data everywhere they are solved by conjugate
    gradients; the preconditioner has the stiffness in full and the data moved to a few vertices, and is
    factored once for each stiffness.
    """

    def __init__(self, triangles: Tensor, n_vertices: int) -> None:
        self._sparse = needed("scipy.sparse", "non-rigid ICP needs scipy")
        self._qdldl = needed("qdldl", "non-rigid ICP needs qdldl")
        self._n = n_vertices
        t = triangles.detach().cpu().numpy()
        if len(np.unique(t)) != n_vertices:
            raise ShapeError("every vertex of a region must belong to a triangle; leave the others out first")
        edges = np.unique(np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1), axis=0)
        edges = edges[edges[:, 0] != edges[:, 1]]
        ones, row = np.ones(len(edges)), np.arange(len(edges))
        M = self._sparse.coo_matrix(
            (np.r_[ones, -ones], (np.r_[row, row], edges.T.ravel())), shape=(len(edges), n_vertices)
        ).tocsr()
        self._laplacian = (M.T @ M).tocsc()
        self._piece = needed("scipy.sparse.csgraph", "non-rigid ICP needs scipy").connected_components(
            self._laplacian, directed=False
        )[1]
        block = np.arange(n_vertices)[:, None, None] * 4
        self._rows = np.broadcast_to(block + np.arange(4)[None, :, None], (n_vertices, 4, 4)).ravel()
        self._columns = np.broadcast_to(block + np.arange(4)[None, None, :], (n_vertices, 4, 4)).ravel()
        self._smooth: dict[tuple[float, ...], Any] = {}
        self._factor: tuple[tuple[float, ...], Any] | None = None

    def solve(
        self, points: np.ndarray, stiffness: tuple[float, ...], weight: np.ndarray, places: np.ndarray
    ) -> np.ndarray:
        """X [4 N, 3] that moves `points` towards `places` [N, 3], with weights [N] and alpha G's diagonal."""
        h = _homogeneous(points)
        smooth = self._smooth.get(stiffness)
        if smooth is None:
            smooth = self._sparse.kron(self._laplacian, np.diag(np.square(stiffness)), format="csc")
            self._smooth = {stiffness: smooth}
        matrix = smooth + self._data(h, weight)
        right = ((weight[:, None] * h)[:, :, None] * places[:, None, :]).reshape(-1, 3)
        if np.count_nonzero(weight) <= _SAMPLES:
            factor, still = self._factored(matrix), self._still()
            X = still + self._solved(factor, right - matrix @ still)
            X -= self._solved(factor, matrix @ X - right)
        else:
            if self._factor is None or self._factor[0] != stiffness:
                self._factor = (stiffness, self._factored(smooth + self._sampled(h)))
            factor = self._factor[1]
            X = _conjugate_gradients(matrix, right, self._still(), lambda r: self._solved(factor, r))
        if not np.isfinite(X).all():
            raise FitError("bending the scan's region onto the prediction gave numbers that are not finite")
        return X

    def _data(self, h: np.ndarray, weight: np.ndarray) -> Any:
        chosen = np.flatnonzero(weight)
        return self._diagonal_blocks(
            chosen, weight[chosen, None, None] * h[chosen, :, None] * h[chosen, None, :]
        )

    def _diagonal_blocks(self, chosen: np.ndarray, blocks: np.ndarray) -> Any:
        """[4 N, 4 N] with blocks [C, 4, 4] on the diagonal at the places of some vertices [C]."""
        where = (chosen[:, None] * 16 + np.arange(16)).ravel()
        shape = (4 * self._n, 4 * self._n)
        rows, columns = self._rows[where], self._columns[where]
        return self._sparse.coo_matrix((blocks.ravel(), (rows, columns)), shape=shape).tocsc()

    def _sampled(self, h: np.ndarray) -> Any:
        """Data of all vertices, moved to the nearest of a few of their piece that are spread evenly."""
        search = needed("scipy.spatial", "non-rigid ICP needs scipy").cKDTree
        apart = 10.0 * (np.ptp(h[:, :3], axis=0).max() + 1.0)
        places = np.column_stack([h[:, :3], apart * self._piece])
        order = np.random.default_rng(0).permutation(self._n)
        one_of_each = np.unique(self._piece[order], return_index=True)[1]
        centres = places[order[np.union1d(np.arange(min(_SAMPLES, self._n)), one_of_each)]]
        for _ in range(_SPREADING):
            owner = search(centres).query(places)[1]
            count = np.bincount(owner, minlength=len(centres))[:, None]
            total = np.zeros_like(centres)
            np.add.at(total, owner, places)
            centres = np.where(count > 0, total / np.maximum(count, 1), centres)
        chosen = np.unique(search(places).query(centres)[1])
        owner = search(places[chosen]).query(places)[1]
        blocks = np.zeros((len(chosen), 4, 4))
        np.add.at(blocks, owner, h[:, :, None] * h[:, None, :])
        return self._diagonal_blocks(chosen, blocks)

    def _factored(self, matrix: Any) -> Any:
        try:
            ridge = self._sparse.identity(matrix.shape[0], format="csc") * _RIDGE
            return self._qdldl.Solver(self._sparse.triu(matrix + ridge, format="csc"), upper=True)
        except (ValueError, RuntimeError) as error:
            raise FitError(f"the scan's region cannot be bent onto the prediction ({error})") from error

    def _solved(self, factor: Any, right: np.ndarray) -> np.ndarray:
        return np.stack([factor.solve(np.ascontiguousarray(column)) for column in right.T], axis=1)

    def _still(self) -> np.ndarray:
        """X that leaves every vertex where it is."""
        return np.tile(np.eye(4)[:, :3], (self._n, 1))


def _conjugate_gradients(
    matrix: Any, right: np.ndarray, start: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """X of matrix X = right, each column by itself."""
    X, residual = start.copy(), right - matrix @ start
    enough = _TOLERANCE * np.linalg.norm(right, axis=0)
    z = precondition(residual)
    direction, rz = z, (residual * z).sum(axis=0)
    for _ in range(_MOST_ITERATIONS):
        if (np.linalg.norm(residual, axis=0) <= enough).all():
            return X
        product = matrix @ direction
        length = rz / np.maximum((direction * product).sum(axis=0), 1e-300)
        X, residual = X + length * direction, residual - length * product
        z = precondition(residual)
        new = (residual * z).sum(axis=0)
        direction, rz = z + new / np.maximum(rz, 1e-300) * direction, new
    raise FitError(
        "bending the scan's region onto the prediction did not converge; is the region one surface?"
    )
