# SPDX-License-Identifier: Apache-2.0
"""Light on displaced skin: normals tilted by the slope of a displacement map, and darker grooves.

The slope of a height h over a surface P(u, v) with unit normal n is h_u a + h_v b, where a and b lie in the
tangent plane with a . P_u = b . P_v = 1 and a . P_v = b . P_u = 0; the displaced surface's normal is n minus
the slope, normalised: the first order of `hiface.detail.displacement.displaced_normals`, at fragments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.detail.displacement import CAVITY, CAVITY_M
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.render.shade import SH_C0, SH_C1, SH_C2, SH_C3, SH_C4
from hiface.synthetic.vectors import unit_columns

UNDER_SKIN = (0.70, 0.92, 1.0)  # light under the skin softens grooves, most in red
STEEPEST = 1.2


@cached_per_tensor
def _tangents(template: Tensor, model: MorphableModel) -> ConstantMatrix:
    """[2 V, V] derivatives of the positions along u (first V rows) and v at the vertices."""
    data = model.data
    chosen = data.triangle_parts == data.part_names.index("skin")
    triangles, corners = data.triangles[chosen], data.uv[data.uv_triangles[chosen]].double()
    (u1, v1), (u2, v2) = (corners[:, 1] - corners[:, 0]).unbind(1), (corners[:, 2] - corners[:, 0]).unbind(1)
    area = u1 * v2 - u2 * v1
    # Weighted by area, so the determinant of each triangle cancels up to its sign.
    total = torch.zeros(len(template), dtype=torch.float64)
    total.index_add_(0, triangles.reshape(-1), area.abs().repeat_interleave(3))
    total = total.clamp_min(1e-12)
    along_u = torch.stack([v1 - v2, v2, -v1], dim=1) * area.sign()[:, None]
    along_v = torch.stack([u2 - u1, -u2, u1], dim=1) * area.sign()[:, None]
    rows = triangles[:, :, None].expand(-1, 3, 3).reshape(-1)
    columns = triangles[:, None, :].expand(-1, 3, 3).reshape(-1)
    values = [
        (w[:, None, :] / total[triangles][:, :, None]).reshape(-1).to(template.dtype)
        for w in (along_u, along_v)
    ]
    n = len(template)
    return ConstantMatrix(torch.cat([rows, rows + n]), columns.repeat(2), torch.cat(values), (2 * n, n))


def slope_axes(model: MorphableModel, verts: Tensor, normals: Tensor) -> Tensor:
    """The vectors a and b at the vertices.

    Args:
        model: Face model.
        verts: [V, 3] metres, any space.
        normals: [V, 3] unit normals in the same space.

    Returns:
        [V, 6] a and b, 1 / metres: times slopes per unit of u and v they give a dimensionless vector. Zero
        away from the skin.
    """
    along = _tangents(model.data.template, model).apply(verts.contiguous()).reshape(2, -1, 3)
    a, b = torch.linalg.cross(along[1], normals), torch.linalg.cross(normals, along[0])
    volume = (along[0] * a).sum(dim=1, keepdim=True)
    safe = volume.abs() > 1e-9
    return torch.cat([a, b], dim=1) * torch.where(safe, 1 / torch.where(safe, volume, 1.0), 0.0)


def relief_maps(displacement: Tensor) -> Tensor:
    """What shading needs of a displacement map.

    Args:
        displacement: [S, S] metres.

    Returns:
        [3, S, S] slopes h_u and h_v per unit of u and v, and depth below the smooth skin, metres.
    """
    side = displacement.shape[-1]
    slopes = torch.zeros(3, side, side)
    slopes[0, :, 1:-1] = (displacement[:, 2:] - displacement[:, :-2]) * (0.5 * side)
    slopes[1, 1:-1] = (displacement[2:] - displacement[:-2]) * (0.5 * side)
    slopes[2] = (-displacement).clamp_min(0)
    return slopes


@dataclass(frozen=True)
class Relief:
    """Displaced skin at fragments.

    Attributes:
        normals: [3, P] unit normals of the displaced surface.
        shift: [3, P] light that is added to what the smooth surface receives, before shadows.
        cavity: [3, P] factors on the albedo, 1 outside grooves.
    """

    normals: Tensor
    shift: Tensor
    cavity: Tensor


@cache
def _forms() -> Tensor:
    """[16, 9] from coefficients of the nine basis functions to a 4 x 4 symmetric matrix."""
    M = torch.zeros(4, 4, 9)
    M[3, 3, 0], M[3, 3, 6] = SH_C0, -SH_C3
    M[2, 2, 6] = 3 * SH_C3
    M[0, 0, 8], M[1, 1, 8] = SH_C4, -SH_C4
    for i, j, weight, k in ((1, 3, SH_C1, 1), (2, 3, SH_C1, 2), (0, 3, SH_C1, 3), (0, 1, SH_C2, 4)):
        M[i, j, k] = M[j, i, k] = 0.5 * weight
    for i, j, k in ((1, 2, 5), (0, 2, 7)):
        M[i, j, k] = M[j, i, k] = 0.5 * SH_C2
    return M.reshape(16, 9)


def light_quadratic(sh_light: Tensor) -> Tensor:
    """Shading by three bands as a quadratic form: [3, 4, 4] symmetric M with E(n) = (n, 1) M (n, 1).

    Args:
        sh_light: [9, 3], as `hiface.render.shade.sh_basis` orders it.
    """
    return (_forms().to(sh_light) @ sh_light).reshape(4, 4, 3).permute(2, 0, 1).contiguous()


def shadow_share(received: Tensor, normals: Tensor, quadratic: Tensor) -> Tensor:
    """How much of the light that a smooth surface would get without shadows reaches each vertex.

    Args:
        received: [3, V] light with shadows.
        normals: [V, 3] unit normals.
        quadratic: [3, 4, 4] light without shadows.

    Returns:
        [V] 0..1.2, mean of the channels.
    """
    n = torch.cat([normals, torch.ones_like(normals[:, :1])], dim=1)
    plain = ((n @ quadratic) * n).sum(dim=-1)
    return (received.sum(dim=0) / plain.sum(dim=0).clamp_min(1e-3)).clamp(0, 1.2)


def relief_at(maps: Tensor, grid: Tensor, normals: Tensor, axes: Tensor, quadratic: Tensor) -> Relief:
    """Displaced skin at fragments.

    Args:
        maps: [3, S, S] from `relief_maps`.
        grid: [2, P] texture coordinates, -1..1.
        normals: [3, P] smooth unit normals.
        axes: [6, P] from `slope_axes`.
        quadratic: [3, 4, 4] light from `light_quadratic`, in the axes of the normals.

    Returns:
        Relief.
    """
    at = grid.T[None, None]
    h_u, h_v, deep = F.grid_sample(maps[None], at, padding_mode="border", align_corners=False)[
        0, :, 0
    ].unbind(0)
    slope = h_u * axes[:3] + h_v * axes[3:]
    steep = slope.square().sum(dim=0).sqrt()
    slope = slope * (STEEPEST / (STEEPEST + steep))  # no tilt beyond what grooves of skin have
    tilted = unit_columns(normals - slope)
    # E(a) - E(b) = (a - b) M (a + b) for a symmetric form.
    total = torch.cat([tilted + normals, torch.full_like(tilted[:1], 2.0)])
    change = torch.einsum("cij,jp->cip", quadratic[:, :3], total)
    shift = (change * (tilted - normals)).sum(dim=1) * torch.tensor(UNDER_SKIN)[:, None]
    cavity = torch.exp(torch.tensor(CAVITY)[:, None] * ((deep * (-1 / CAVITY_M)).exp() - 1))
    return Relief(tilted, shift, cavity)
