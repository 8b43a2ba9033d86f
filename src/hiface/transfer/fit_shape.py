# SPDX-License-Identifier: Apache-2.0
"""The person of a linear model who comes nearest to a surface: similarity and identity by turns."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from hiface.errors import ModelFormatError
from hiface.geometry.bending import Anchors
from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.geometry.procrustes import Similarity, procrustes

_OFF_M = 0.015  # anchors that the similarity leaves further apart are wrong
_ANCHOR_M = (0.002, 0.008)  # standard deviation of anchors, in the first and the last round
_ACROSS_M = (0.001, 0.0002)  # of distances to the tangent plane of a place, each independent vertex
_INDEPENDENT = (400.0, 1000.0)  # how many of the vertices count as such
_ROUNDS = 25
_COSINE = 0.6
_FAR_M = 0.02
_FEWEST = 20
_LOG_SCALE = 0.01  # of the scale about that of the mean faces; the identity has the size of people
_PRIOR = 4.0  # weight of N(0, 1) on identity
_POSE = 7  # turn, shift and scale


@dataclass(frozen=True)
class ShapeFit:
    """What `fit_shape` found.

    Attributes:
        similarity: From the model's space to the surface's.
        identity: [K] sigma.
        vertices: [V, 3] metres, the person in the surface's space, float64.
        near: [A] bool, anchors that agree with it.
    """

    similarity: Similarity
    identity: Tensor
    vertices: Tensor
    near: Tensor


def fit_shape(
    template: Tensor, basis: Tensor, triangles: Tensor, surface: OrientedSurface, anchors: Anchors
) -> ShapeFit:
    """Fits similarity and identity to anchors and to the places nearest on a surface.

    Args:
        template: [V, 3] metres, float64.
        basis: [K, V, 3] times standard deviations.
        triangles: [T, 3] int64.
        surface: The surface.
        anchors: Landmarks on `triangles` with their goals on the surface.

    Returns:
        ShapeFit.

    Raises:
        ModelFormatError: The landmarks do not lie alike.
    """
    corners = triangles[anchors.triangle_ids]
    goals = anchors.goals.double()
    on_basis = _at(basis, corners, anchors)
    identity, near = template.new_zeros(len(basis)), torch.ones(len(goals), dtype=torch.bool)
    similarity = procrustes(_at(template, corners, anchors), goals, with_scale=True)
    first, moved = similarity, similarity.apply(template)
    for step in range(_ROUNDS):
        shape = template + torch.tensordot(identity, basis, dims=1)
        moved, marks = similarity.apply(shape), similarity.apply(_at(shape, corners, anchors))
        near = (marks - goals).norm(dim=-1) < _OFF_M
        if int(near.sum()) < _FEWEST:
            raise ModelFormatError(
                "the landmarks of the two models do not lie alike; is one of them in another unit or turned "
                "(hiface models info)?"
            )
        late = step / (_ROUNDS - 1)
        anchor, plane, count = (a * (b / a) ** late for a, b in (_ANCHOR_M, _ACROSS_M, _INDEPENDENT))
        found = surface.find(moved, normals_of(moved, triangles))
        good = (found.cosines > _COSINE) & (found.distances < _FAR_M) & ~found.on_border
        share = min(1.0, count / max(float(good.sum()), 1.0)) * (step > 0)
        height = ((found.points - moved) * found.normals).sum(-1)[good]
        robust = share / (plane**2 + height.square())
        on_plane = (_rows(moved[good], basis[:, good], similarity) * found.normals[good][..., None]).sum(1)
        on_marks = _rows(marks[near], on_basis[:, near], similarity).flatten(0, 1)
        off = (goals - marks)[near].flatten()
        matrix = on_plane.T @ (robust[:, None] * on_plane) + on_marks.T @ on_marks / anchor**2
        right = on_plane.T @ (robust * height) + on_marks.T @ off / anchor**2
        matrix.diagonal()[_POSE:] += _PRIOR
        right[_POSE:] -= _PRIOR * identity
        matrix[_POSE - 1, _POSE - 1] += _LOG_SCALE**-2
        right[_POSE - 1] -= float((similarity.scale / first.scale).log()) / _LOG_SCALE**2
        change = torch.linalg.solve(matrix, right)
        identity = identity + change[_POSE:]
        similarity = _moved(similarity, change)
    shape = template + torch.tensordot(identity, basis, dims=1)
    return ShapeFit(similarity, identity, similarity.apply(shape), near)


def _rows(points: Tensor, basis: Tensor, similarity: Similarity) -> Tensor:
    """Derivative [N, 3, 7 + K] of points [N, 3] to turn, shift, log scale (about the origin) and identity."""
    x, y, z = points.unbind(-1)
    zero = torch.zeros_like(x)
    turn = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], dim=-1).unflatten(-1, (3, 3))
    shift = torch.eye(3, dtype=points.dtype).expand(len(points), 3, 3)
    linear = similarity.scale * similarity.R
    return torch.cat([turn, shift, points[..., None], torch.einsum("ij,knj->nik", linear, basis)], dim=-1)


def _moved(similarity: Similarity, change: Tensor) -> Similarity:
    """The similarity followed by the small one of the first seven numbers."""
    R, scale = roma.rotvec_to_rotmat(change[:3]), change[6].exp()
    t = scale * (R @ similarity.t) + change[3:6]
    return Similarity(R @ similarity.R, t, scale * similarity.scale)


def _at(values: Tensor, corners: Tensor, anchors: Anchors) -> Tensor:
    """Values of vertices [*B, V, 3] at the anchors, [*B, A, 3]."""
    return (values[..., corners, :] * anchors.barycentric.double()[..., None]).sum(-2)
