# SPDX-License-Identifier: Apache-2.0
"""SD-DeTail (HiFace): displacement from detail codes and the tension t of the expressive face.

D = D_sta + M+(t) D_com + M-(t) D_str
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.detail.displacement import relief_normals
from hiface.detail.tension import tension_maps, vertex_tension
from hiface.errors import ShapeError
from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.uv_space import UvSpace, uv_space

Parts = Literal["none", "static", "dynamic", "both"]


@dataclass(frozen=True)
class DetailMaps:
    """Displacement of one expression and what it is made of.

    Attributes:
        displacement: [*B, 1, S, S] metres, positive outward.
        static: [*B, 1, S, S] metres, the share of the person.
        dynamic: [*B, 1, S, S] metres, the share of the expression.
    """

    displacement: Tensor
    static: Tensor
    dynamic: Tensor


def detail_space(model: MorphableModel, size: int) -> UvSpace:
    """Texels of a model's texture square."""
    data = model.data
    return uv_space(model.uv, model.uv_triangles, model.triangles, data.n_vertices, size)


def expression_masks(
    model: MorphableModel, identity: Tensor, expression: Tensor, basis: DetailBasis
) -> tuple[Tensor, Tensor]:
    """M+ and M- at the basis's texels.

    Args:
        model: Face model.
        identity: [*B, k] sigma.
        expression: [*B, E] 0..1.
        basis: Detail basis of the model.

    Returns:
        Two tensors [*B, P], 0..1. Differentiable.
    """
    neutral = model.shape(identity, torch.zeros_like(expression))
    return masks_of_shapes(model, neutral, model.shape(identity, expression), basis)


def masks_of_shapes(
    model: MorphableModel, neutral: Tensor, shape: Tensor, basis: DetailBasis
) -> tuple[Tensor, Tensor]:
    """M+ and M- [*B, P] at the basis's texels, of vertices [*B, V, 3] at rest and with an expression."""
    tension = vertex_tension(shape, neutral, model.cells, smooth_steps=1)
    plus, minus = tension_maps(tension, detail_space(model, basis.size))
    return basis.gather(plus), basis.gather(minus)


def detail_values(
    basis: DetailBasis, static: Tensor, dynamic: Tensor, masks: tuple[Tensor, Tensor], parts: Parts = "both"
) -> tuple[Tensor, Tensor]:
    """Static and dynamic displacement at the basis's texels.

    Args:
        basis: Detail basis.
        static: [*B, S] static codes.
        dynamic: [*B, C + T] compressed and stretched codes; their numbers are those of the basis.
        masks: M+ and M-, [*B, P].
        parts: What to keep; the rest is 0 (of the static part, its mean too).

    Returns:
        Two tensors [*B, P], metres. Differentiable.

    Raises:
        ShapeError: The number of dynamic codes is not that of the basis.
    """
    n_compressed = basis.compressed.count
    if dynamic.shape[-1] != n_compressed + basis.stretched.count:
        raise ShapeError(
            f"the detail basis has {n_compressed} + {basis.stretched.count} dynamic coefficients, "
            f"got {dynamic.shape[-1]}"
        )
    nothing = static.new_zeros(*static.shape[:-1], len(basis.texels))
    still = basis.static.decode(static) if parts in ("static", "both") else nothing
    if parts not in ("dynamic", "both"):
        return still, nothing
    compressed = basis.compressed.decode(dynamic[..., :n_compressed])
    stretched = basis.stretched.decode(dynamic[..., n_compressed:])
    return still, masks[0] * compressed + masks[1] * stretched


def compose_detail(
    model: MorphableModel,
    basis: DetailBasis,
    neutral: Tensor,
    shape: Tensor,
    static: Tensor,
    dynamic: Tensor,
    parts: Parts = "both",
) -> DetailMaps:
    """Displacement maps of people with an expression.

    Args:
        model: Face model.
        basis: Detail basis of the model.
        neutral: [*B, V, 3] vertices at rest, metres.
        shape: [*B, V, 3] vertices with the expression, metres; rigid motion does not matter.
        static: [*B, S] static codes.
        dynamic: [*B, C + T] dynamic codes.
        parts: What to keep.

    Returns:
        DetailMaps. Differentiable.
    """
    masks = masks_of_shapes(model, neutral, shape, basis)
    still, moving = detail_values(basis, static, dynamic, masks, parts)
    return DetailMaps(basis.scatter(still + moving), basis.scatter(still), basis.scatter(moving))


def detailed_normals(model: MorphableModel, vertices: Tensor, displacement: Tensor) -> Tensor:
    """Normals of the displaced surface over the texture square; the smooth ones where there is no relief.

    Args:
        model: Face model.
        vertices: [*B, V, 3] metres.
        displacement: [*B, 1, S, S] metres.

    Returns:
        [*B, 3, S, S] unit normals in the axes of the vertices. Differentiable.
    """
    space = detail_space(model, displacement.shape[-1])
    normals = vertex_normals(vertices, model.triangles)
    maps = space.lift(torch.cat([vertices, normals], dim=-1))
    position, normal = maps[..., :3, :, :], unit(maps[..., 3:, :, :], -3)
    return relief_normals(position, normal, displacement * _inner_texels(space.triangle_id, space.dtype))


@cached_per_tensor
def _inner_texels(triangle_id: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, S, S] 1 where a texel and its neighbours lie in a chart, else 0: seams have no slope."""
    outside = (triangle_id < 0).to(dtype)
    return 1.0 - torch.nn.functional.max_pool2d(outside[None, None], 3, 1, 1)[0]
