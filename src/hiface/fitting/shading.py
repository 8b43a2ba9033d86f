# SPDX-License-Identifier: Apache-2.0
"""Normals and spherical-harmonics shading of samples with their derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.fitting.samples import SurfaceSamples
from hiface.render.shade import SH_C1, SH_C2, SH_C3, SH_C4


def sh_basis_jacobian(normals: Tensor) -> Tensor:
    """Derivative of `hiface.render.shade.sh_basis` to the (free, not unit) components of the normal.

    Args:
        normals: [S, 3].

    Returns:
        [S, 9, 3].
    """
    x, y, z = normals.unbind(-1)
    result = normals.new_zeros(normals.shape[0], 9, 3)
    result[:, 1, 1] = result[:, 2, 2] = result[:, 3, 0] = SH_C1
    result[:, 4, 0], result[:, 4, 1] = SH_C2 * y, SH_C2 * x
    result[:, 5, 1], result[:, 5, 2] = SH_C2 * z, SH_C2 * y
    result[:, 6, 2] = 6 * SH_C3 * z
    result[:, 7, 0], result[:, 7, 2] = SH_C2 * z, SH_C2 * x
    result[:, 8, 0], result[:, 8, 1] = 2 * SH_C4 * x, -2 * SH_C4 * y
    return result


def _unit(values: Tensor) -> tuple[Tensor, Tensor]:
    length = values.norm(dim=-1, keepdim=True).clamp_min(1e-20)
    return values / length, length


def _unit_jacobian(unit: Tensor, length: Tensor, jacobian: Tensor) -> Tensor:
    """Derivative [N, 3, P] of v / |v| from that of v."""
    along = (unit[:, :, None] * jacobian).sum(1, keepdim=True)
    return (jacobian - unit[:, :, None] * along) / length[..., None]


def sample_normals(samples: SurfaceSamples, vertices: Tensor) -> Tensor:
    """Unit normals [S, 3] of the samples, interpolated from area-weighted vertex normals.

    Args:
        samples: S samples.
        vertices: [U, 3] positions of `samples.vertices`, metres, any right-handed space.
    """
    a, b, c = vertices[samples.triangles].unbind(1)
    at_vertex, _ = _unit(samples.to_vertex.apply(torch.linalg.cross(b - a, c - a)))
    return _unit(samples.to_sample.apply(at_vertex))[0]


def sample_normals_jacobian(
    samples: SurfaceSamples, vertices: Tensor, jacobian: Tensor
) -> tuple[Tensor, Tensor]:
    """Normals of the samples and their derivative.

    Args:
        samples: S samples.
        vertices: [U, 3] metres.
        jacobian: [U, 3, P] derivative of the vertices.

    Returns:
        Unit normals [S, 3] and their derivative [S, 3, P].
    """
    n_parameters = jacobian.shape[-1]
    a, b, c = vertices[samples.triangles].unbind(1)
    first, second = b - a, c - a
    ia, ib, ic = samples.triangles.unbind(1)
    da = jacobian[ia]
    d_area = _cross_rows(first, jacobian[ic] - da) - _cross_rows(second, jacobian[ib] - da)
    summed, length = _unit(samples.to_vertex.apply(torch.linalg.cross(first, second)))
    d_summed = samples.to_vertex.apply(d_area.flatten(1)).unflatten(1, (3, n_parameters))
    d_vertex = _unit_jacobian(summed, length, d_summed)
    normals, length = _unit(samples.to_sample.apply(summed))
    d_sample = samples.to_sample.apply(d_vertex.flatten(1)).unflatten(1, (3, n_parameters))
    return normals, _unit_jacobian(normals, length, d_sample)


def _cross_rows(v: Tensor, rows: Tensor) -> Tensor:
    """V x rows for v [N, 3] and rows [N, 3, P]."""
    x, y, z = (v[:, i : i + 1] for i in range(3))
    a, b, c = rows.unbind(1)
    return torch.stack([y * c - z * b, z * a - x * c, x * b - y * a], dim=1)
