# SPDX-License-Identifier: Apache-2.0
"""Displacement maps in texture space, and the normals of the displaced surface.

A displacement map moves each texel of the surface along its smooth normal. The normal of the displaced
surface follows from differences between neighbouring texels, an order of magnitude faster than from the
triangles of a dense mesh and equal to it to a fraction of a degree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiface.errors import ShapeError
from hiface.geometry.normals import unit

CAVITY_M = 0.0004
CAVITY = (0.16, 0.24, 0.26)
"""Grooves are darker than their slopes alone: the deepest lose this much red, green and blue (logarithm),
those `CAVITY_M` deep nearly two thirds of it."""
_LEAST_AREA = 0.05  # of a texel's parallelogram over that of its sides; thinner ones carry no slope


class _Difference(torch.autograd.Function):
    """Difference of the two neighbours along a dimension; at the ends, of the neighbour and the value."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        n = values.shape[dim]
        out = torch.empty_like(values)
        torch.sub(values.narrow(dim, 2, n - 2), values.narrow(dim, 0, n - 2), out=out.narrow(dim, 1, n - 2))
        torch.sub(values.narrow(dim, 1, 1), values.narrow(dim, 0, 1), out=out.narrow(dim, 0, 1))
        torch.sub(values.narrow(dim, n - 1, 1), values.narrow(dim, n - 2, 1), out=out.narrow(dim, n - 1, 1))
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _DifferenceTransposed.apply(grad_outputs[0], ctx.dim), None


class _DifferenceTransposed(torch.autograd.Function):
    """The transposed linear map of `_Difference`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        n = grad.shape[dim]
        out = torch.empty_like(grad)
        torch.sub(grad.narrow(dim, 0, n - 2), grad.narrow(dim, 2, n - 2), out=out.narrow(dim, 1, n - 2))
        first, second = grad.narrow(dim, 0, 1), grad.narrow(dim, 1, 1)
        torch.neg(first + second, out=out.narrow(dim, 0, 1))
        last, before_last = grad.narrow(dim, n - 1, 1), grad.narrow(dim, n - 2, 1)
        torch.add(before_last, last, out=out.narrow(dim, n - 1, 1))
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _Difference.apply(grad_outputs[0], ctx.dim), None


def _cross(a: tuple[Tensor, ...], b: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """A x b written into `out` [3, ...]; a and b are triples of components."""
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        torch.mul(a[i], b[j], out=out[k]).addcmul_(a[j], b[i], value=-1.0)
    return out


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


class _UnitCross(torch.autograd.Function):
    """Unit vector along dv x du, turned to the side of `outward`; all [3, ...], components first."""

    @staticmethod
    def forward(ctx: Any, du: Tensor, dv: Tensor, outward: Tensor) -> Tensor:
        normal = _cross(dv.unbind(0), du.unbind(0), torch.empty_like(du))
        scale = _dot(normal, normal).clamp_min_(1e-30).rsqrt_()
        scale *= _dot(normal, outward).sign_()
        normal *= scale
        ctx.save_for_backward(du, dv, normal, scale)
        return normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        du, dv, normal, scale = ctx.saved_tensors
        grad = grad_outputs[0]
        grad = torch.addcmul(grad, normal, _dot(grad, normal), value=-1.0).mul_(scale)
        grad_u = _cross(grad.unbind(0), dv.unbind(0), torch.empty_like(du))
        return grad_u, _cross(du.unbind(0), grad.unbind(0), torch.empty_like(dv)), None


def cavity_log(displacement: Tensor) -> Tensor:
    """Logarithm of the light that grooves lose to their own walls.

    Args:
        displacement: [*B, 1, H, W] metres.

    Returns:
        [*B, 3, H, W], 0 or less; added to the logarithm of the shading by the normals. Differentiable.
    """
    lost = displacement.new_tensor(CAVITY)[:, None, None]
    return lost * ((displacement.clamp_max(0) / CAVITY_M).exp() - 1)


def displace(position_map: Tensor, normal_map: Tensor, displacement: Tensor) -> Tensor:
    """Moves the surface along its normals.

    Args:
        position_map: [*B, 3, H, W] metres.
        normal_map: [*B, 3, H, W] unit normals.
        displacement: [*B, 1, H, W] metres, positive outward.

    Returns:
        [*B, 3, H, W] metres.
    """
    return torch.addcmul(position_map, normal_map, displacement)


def normals_of_positions(position_map: Tensor, outward: Tensor) -> Tensor:
    """Normals of a surface given as a map of positions, by central differences.

    Args:
        position_map: [*B, 3, H, W] metres; must continue smoothly for a texel beyond the charts
            (`UvSpace.lift`).
        outward: [*B, 3, H, W] vectors that say which side is out; a chart may be mirrored, so the order of
            the axes does not.

    Returns:
        [*B, 3, H, W] unit normals in the axes of the positions, zero where the map is constant.
        Differentiable to `position_map`, once.

    Raises:
        ShapeError: The maps are not [*B, 3, H, W] with at least 2 x 2 texels.
    """
    if position_map.dim() < 3 or position_map.shape[-3] != 3 or min(position_map.shape[-2:]) < 2:
        raise ShapeError(
            f"position_map must be [*B, 3, H, W] with H, W >= 2, got {tuple(position_map.shape)}"
        )
    rows = position_map.movedim(-3, 0)
    normals = _UnitCross.apply(_difference(rows, -1), _difference(rows, -2), outward.detach().movedim(-3, 0))
    return normals.movedim(0, -3)  # pyright: ignore[reportOptionalMemberAccess]


def displaced_normals(position_map: Tensor, normal_map: Tensor, displacement: Tensor) -> Tensor:
    """Normals of the displaced surface.

    Args:
        position_map: [*B, 3, H, W] smooth surface, metres.
        normal_map: [*B, 3, H, W] its unit normals.
        displacement: [*B, 1, H, W] metres, positive outward.

    Returns:
        [*B, 3, H, W] unit normals in the axes of the inputs, outward. Differentiable, once, to the maps
        (which side is out is a constant).
    """
    return normals_of_positions(displace(position_map, normal_map, displacement), normal_map)


def relief_slopes(position_map: Tensor, normal_map: Tensor) -> tuple[Tensor, Tensor]:
    """How differences of a displacement along the map's axes bend the smooth normals.

    The surface gradient of d is per_u d_u + per_v d_v, where d_u and d_v are the differences of d's two
    neighbours along u and v.

    Args:
        position_map: [*B, 3, H, W] smooth surface, metres.
        normal_map: [*B, 3, H, W] its unit normals, outward.

    Returns:
        per_u and per_v, [*B, 3, H, W] per metre, tangential; 0 where a texel is too thin to carry a slope.
        Differentiable.
    """
    rows, n = position_map.movedim(-3, 0), normal_map.movedim(-3, 0)
    along_u, along_v = _difference(rows, -1), _difference(rows, -2)
    cross_v, cross_u = torch.empty_like(rows), torch.empty_like(rows)
    if rows.requires_grad or n.requires_grad:
        cross_v, cross_u = torch.linalg.cross(along_v, n, dim=0), torch.linalg.cross(n, along_u, dim=0)
    else:
        _cross(along_v.unbind(0), n.unbind(0), cross_v)
        _cross(n.unbind(0), along_u.unbind(0), cross_u)
    area = _dot(along_u, cross_v)  # (along_u x along_v) . n, of either sign
    with torch.no_grad():
        square = _dot(along_u, along_u) * _dot(along_v, along_v)
        usable = area.square() > _LEAST_AREA**2 * square + 1e-30
    inverse = torch.where(usable, 1.0 / torch.where(usable, area, 1.0), 0.0)
    return (cross_v * inverse).movedim(0, -3), (cross_u * inverse).movedim(0, -3)


def relief_normals(position_map: Tensor, normal_map: Tensor, displacement: Tensor) -> Tensor:
    """Smooth normals bent by the slopes of a displacement, to shade relief on a coarse mesh.

    `displaced_normals` gives the normals of the displaced surface itself, facets of the mesh included; here
    the smooth normals stay where there is no relief, n' = n - grad_s d with the surface gradient of d (Blinn,
    SIGGRAPH 1978). The two agree on a smooth surface as far as the displacement is small against its radius.

    Args:
        position_map: [*B, 3, H, W] smooth surface, metres.
        normal_map: [*B, 3, H, W] its unit normals, outward.
        displacement: [*B, 1, H, W] metres, positive outward.

    Returns:
        [*B, 3, H, W] unit normals in the axes of the inputs. Differentiable.
    """
    per_u, per_v = relief_slopes(position_map, normal_map)
    differences = _difference(displacement, -1), _difference(displacement, -2)
    return bend_normals(normal_map, (per_u, per_v), differences, -3)


def bend_normals(
    normals: Tensor, slopes: tuple[Tensor, Tensor], differences: tuple[Tensor, Tensor], dim: int
) -> Tensor:
    """Unit normals of a surface with relief, n - grad_s d made unit.

    Args:
        normals: Smooth unit normals, x, y and z along `dim`.
        slopes: per_u and per_v of `relief_slopes`, in the same layout.
        differences: d_u and d_v of the displacement, metres, of length 1 along `dim`.
        dim: Where the components lie.

    Returns:
        The shape of `normals`. Differentiable.
    """
    return unit(normals - (slopes[0] * differences[0] + slopes[1] * differences[1]), dim)


def _difference(values: Tensor, dim: int) -> Tensor:
    return _Difference.apply(values, dim)  # pyright: ignore[reportReturnType]
