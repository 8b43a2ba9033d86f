# SPDX-License-Identifier: Apache-2.0
"""Where skin is compressed or stretched, and the displacement that static and dynamic detail make of it.

The tension of a vertex is one minus the mean of the ratios of its edges' lengths to those of the neutral mesh
(HiFace, "eq. 9"; the idea is Raman et al., WACV 2023): 0.2 where edges are a fifth shorter, -0.2 where they
are a fifth longer. Edges that keep their lengths count too: skin that shortens by a fifth in one direction
only has a tension of about 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor
from hiface.render.uv_space import UvSpace

GAIN = 5.0
"""Masks per tension: skin compressed by a fifth in all directions shows its compressed detail in full."""

_TINY_M = 1e-9


@dataclass(frozen=True)
class Ring:
    """Edges of a mesh.

    Attributes:
        edges: [E, 2] int64 vertices of each edge.
        mean: [V, E] mean over the edges at a vertex; rows of vertices without edges are empty.
        neighbours: [V, V] mean over a vertex and its neighbours.
    """

    edges: Tensor
    mean: ConstantMatrix
    neighbours: ConstantMatrix


@cached_per_tensor
def _ring(cells: Tensor, n_verts: int, dtype: torch.dtype) -> Ring:
    pairs = torch.stack([cells, cells.roll(-1, 1)], dim=-1).reshape(-1, 2)
    edges = pairs.sort(dim=1).values.unique(dim=0)
    count = torch.bincount(edges.reshape(-1), minlength=n_verts).to(dtype)
    number = torch.arange(len(edges), device=cells.device)
    ends = torch.cat([edges[:, 0], edges[:, 1]])
    others = torch.cat([edges[:, 1], edges[:, 0]])
    mean = ConstantMatrix(ends, number.repeat(2), 1 / count[ends], (n_verts, len(edges)))
    own = torch.arange(n_verts, device=cells.device)
    weights = torch.cat([1 / (count[ends] + 1), 1 / (count + 1)])
    neighbours = ConstantMatrix(torch.cat([ends, own]), torch.cat([others, own]), weights, (n_verts, n_verts))
    return Ring(edges, mean, neighbours)


def _lengths(verts: Tensor, edges: Tensor) -> Tensor:
    step = verts.index_select(-2, edges[:, 0]) - verts.index_select(-2, edges[:, 1])
    return step.square().sum(dim=-1).clamp_min(_TINY_M**2).sqrt()


def _columns(matrix: ConstantMatrix, values: Tensor) -> Tensor:
    """Product of a matrix [M, N] with values [*B, N], as [*B, M]."""
    flat = values.reshape(-1, values.shape[-1])
    return matrix.apply(flat.t().contiguous()).t().reshape(*values.shape[:-1], matrix.shape[0])


def vertex_tension(verts: Tensor, neutral: Tensor, cells: Tensor, smooth_steps: int = 0) -> Tensor:
    """How far the edges at each vertex are shorter than in the neutral mesh.

    t_i = 1 - (1 / K) sum_k |e_k| / |e'_k| over the K edges at vertex i (HiFace, "eq. 9"; e' is neutral).

    Args:
        verts: [*B, V, 3] deformed vertices, metres, any space: rigid motion does not matter.
        neutral: [*B, V, 3] or [V, 3] the same mesh at rest.
        cells: [F, 3] triangles or [F, 4] quads, int64; with quads their diagonals do not count. Pass the same
            tensor object every time: what is made from it is remembered.
        smooth_steps: How often the result is averaged over each vertex and its neighbours.

    Returns:
        [*B, V], below 1: positive where compressed, negative where stretched, 0 at vertices without edges.
        Differentiable.

    Raises:
        ShapeError: A shape is wrong.
    """
    if verts.dim() < 2 or verts.shape[-1] != 3 or neutral.shape[-2:] != verts.shape[-2:] or cells.dim() != 2:
        raise ShapeError(
            "expected verts [*B, V, 3], neutral of as many vertices and cells [F, n], "
            f"got {tuple(verts.shape)}, {tuple(neutral.shape)} and {tuple(cells.shape)}"
        )
    ring = _ring(cells, verts.shape[-2], verts.dtype)
    ratio = _lengths(verts, ring.edges) / _lengths(neutral, ring.edges)
    tension = _columns(ring.mean, 1 - ratio)
    for _ in range(smooth_steps):
        tension = _columns(ring.neighbours, tension)
    return tension


def tension_masks(tension: Tensor, gain: float = GAIN) -> tuple[Tensor, Tensor]:
    """Weights of the compressed and of the stretched detail, M+ = clip(g t, 0, 1) and M- = clip(-g t, 0, 1).

    Args:
        tension: Any shape.
        gain: g; real expressions have |t| of 0.05 to 0.3.

    Returns:
        Two tensors of the same shape in 0..1; at most one of them is not zero.
    """
    scaled = gain * tension
    return scaled.clamp(0, 1), (-scaled).clamp(0, 1)


def tension_maps(tension: Tensor, space: UvSpace, gain: float = GAIN) -> tuple[Tensor, Tensor]:
    """The masks over the texture square.

    Args:
        tension: [*B, V] in the dtype of `space`.
        space: Where texels lie on the mesh (`hiface.render.uv_space.uv_space`).
        gain: As in `tension_masks`.

    Returns:
        M+ and M-, [*B, 1, size, size] each, 0..1. Differentiable.
    """
    return tension_masks(space.lift(tension[..., None]), gain)


def combine_detail(
    static: Tensor, compressed: Tensor, stretched: Tensor, masks: tuple[Tensor, Tensor]
) -> Tensor:
    """Displacement of one expression, D = D_sta + M+ D_com + M- D_str (HiFace).

    Args:
        static: [*B, 1, S, S] metres, at rest.
        compressed: [*B, 1, S, S] metres, added where skin is compressed.
        stretched: [*B, 1, S, S] metres, added where skin is stretched.
        masks: M+ and M- from `tension_maps`.

    Returns:
        [*B, 1, S, S] metres, positive outward.
    """
    return torch.addcmul(torch.addcmul(static, masks[0], compressed), masks[1], stretched)
