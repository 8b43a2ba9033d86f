# SPDX-License-Identifier: Apache-2.0
"""Smooth normals, maps in texture space, and normals of displaced surfaces."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from hiface.detail.displacement import displace, displaced_normals, normals_of_positions
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.render.uv_space import uv_space
from toy import RADII_M, sphere


def head(rings: int = 30, segments: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    verts, triangles, uv, uv_triangles = sphere(rings, segments)
    return verts * torch.tensor(RADII_M, dtype=torch.float64), triangles, uv, uv_triangles


def angle_deg(a: Tensor, b: Tensor, dim: int) -> Tensor:
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b, dim=dim).norm(dim=dim), (a * b).sum(dim=dim)))


def test_vertex_normals_of_an_ellipsoid_point_outward() -> None:
    verts, triangles, _, _ = head(60, 80)
    normals = vertex_normals(verts, triangles)
    exact = torch.nn.functional.normalize(verts / torch.tensor(RADII_M, dtype=torch.float64).square(), dim=1)
    assert angle_deg(normals, exact, 1).max() < 2.0
    assert torch.allclose(normals.norm(dim=1), torch.ones((), dtype=torch.float64))


def test_vertex_normals_equal_a_plain_sum_over_triangles() -> None:
    verts, triangles, _, _ = head(8, 10)
    a, b, c = verts[triangles].unbind(1)
    area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(verts)
    for corner in range(3):
        total.index_add_(0, triangles[:, corner], area)
    assert torch.allclose(vertex_normals(verts, triangles), torch.nn.functional.normalize(total, dim=1))


def test_vertex_normals_have_exact_first_and_second_derivatives() -> None:
    verts, triangles, _, _ = head(4, 5)
    leaf = verts.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, triangles), (leaf,), eps=1e-7, atol=1e-4)
    assert torch.autograd.gradgradcheck(
        lambda v: vertex_normals(v * 0.05, triangles), ((leaf / 0.05).detach().requires_grad_(),), atol=1e-4
    )


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
def test_vertex_normals_take_any_batch_and_unused_vertices(batch: tuple[int, ...]) -> None:
    verts, triangles, _, _ = head(6, 8)
    verts = torch.cat([verts, torch.zeros(1, 3, dtype=torch.float64)])
    normals = vertex_normals(verts.expand(*batch, *verts.shape), triangles)
    assert normals.shape == (*batch, *verts.shape)
    assert normals[..., -1, :].abs().max() == 0
    assert torch.allclose(normals.reshape(-1, *verts.shape)[-1], vertex_normals(verts, triangles))


def test_results_are_remembered_per_tensor_and_forgotten() -> None:
    calls = []

    @cached_per_tensor
    def double(tensor: Tensor, factor: int = 2) -> Tensor:
        calls.append(factor)
        return tensor * factor

    a = torch.ones(3)
    assert double(a) is double(a) and len(calls) == 1
    assert double(a, 3).sum() == 9 and len(calls) == 2
    a.add_(1)
    assert double(a).sum() == 12 and len(calls) == 3
    del a
    gc.collect()
    with torch.inference_mode():
        frozen = double(torch.ones(3))
    assert not frozen.is_inference()


def test_constant_matrix_and_its_transpose() -> None:
    gen = torch.Generator().manual_seed(0)
    rows, columns = torch.randint(0, 5, (20,), generator=gen), torch.randint(0, 7, (20,), generator=gen)
    values = torch.randn(20, generator=gen, dtype=torch.float64)
    dense = torch.zeros(5, 7, dtype=torch.float64).index_put_((rows, columns), values, accumulate=True)
    matrix = ConstantMatrix(rows, columns, values, (5, 7))
    x = torch.randn(7, 3, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(matrix.apply(x), dense @ x)
    assert torch.allclose(matrix.T.apply(x[:5]), dense.T @ x[:5]) and matrix.T.shape == (7, 5)
    assert torch.autograd.gradcheck(matrix.apply, (x,)) and torch.autograd.gradgradcheck(matrix.apply, (x,))


def test_lifted_positions_lie_on_the_mesh() -> None:
    verts, triangles, uv, uv_triangles = head()
    space = uv_space(uv, uv_triangles, triangles, verts.shape[0], 64)
    assert space.mask.double().mean() > 0.9
    positions = space.lift(verts)
    inside = space.mask
    on_surface = (positions / torch.tensor(RADII_M, dtype=torch.float64)[:, None, None]).norm(dim=0)[inside]
    assert (on_surface - 1).abs().max() < 0.02
    # Row 0 is the top of the map: v = 0 is the crown of this head; u grows towards +X in front.
    assert positions[1, 8, 32] > 0 > positions[1, 56, 32] and positions[0, 32, 40] > positions[0, 32, 24]
    assert torch.equal(space.lift(verts.expand(2, 1, -1, -1)), positions.expand(2, 1, -1, -1, -1))
    assert uv_space(uv, uv_triangles, triangles, verts.shape[0], 64) is space
    with pytest.raises(ValueError, match="vertices"):
        space.lift(verts[:-1])


def bump_m(points: Tensor) -> Tensor:
    return 8e-4 * torch.sin(300 * points[..., 0]) * torch.cos(250 * points[..., 1] + 200 * points[..., 2])


def test_displaced_normals_are_those_of_the_dense_mesh() -> None:
    verts, triangles, uv, uv_triangles = head(60, 80)
    size = 192
    space = uv_space(uv, uv_triangles, triangles, verts.shape[0], size)
    positions, smooth = space.lift(verts), space.lift(vertex_normals(verts, triangles))
    displacement = bump_m(positions.movedim(0, -1))[None]
    normals = displaced_normals(positions, smooth, displacement)
    index = torch.arange(size * size).reshape(size, size)
    a, b, c, d = (q.reshape(-1) for q in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    dense_triangles = torch.cat([torch.stack([a, c, d], 1), torch.stack([a, d, b], 1)])
    dense = displace(positions, smooth, displacement).permute(1, 2, 0).reshape(-1, 3)
    expected = vertex_normals(dense, dense_triangles).reshape(size, size, 3).permute(2, 0, 1)
    inner = slice(8, -8)
    error = angle_deg(normals, expected, 0)[inner, inner]
    effect = angle_deg(normals, normals_of_positions(positions, smooth), 0)[inner, inner]
    assert error.median() < 0.3 and error.quantile(0.99) < 2.5
    assert effect.median() > 5.0


def test_mirrored_charts_still_point_outward() -> None:
    verts, triangles, uv, uv_triangles = head()
    mirrored = torch.stack([1 - uv[:, 0], uv[:, 1]], dim=1)
    space = uv_space(mirrored, uv_triangles, triangles, verts.shape[0], 64)
    positions, smooth = space.lift(verts), space.lift(vertex_normals(verts, triangles))
    normals = normals_of_positions(positions, smooth)
    assert ((normals * smooth).sum(0)[8:-8, 8:-8] > 0.9).all()


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
def test_displacement_gradients_and_batches(batch: tuple[int, ...]) -> None:
    gen = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="xy")).double()
    positions = torch.cat([grid, torch.zeros(1, 5, 4, dtype=torch.float64)]) + 0.1 * random(*batch, 3, 5, 4)
    normals = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)[:, None, None] + 0.1 * random(
        *batch, 3, 5, 4
    )
    displacement = 0.1 * random(*batch, 1, 5, 4)
    assert displaced_normals(positions, normals, displacement).shape == (*batch, 3, 5, 4)
    inputs = (positions.requires_grad_(), normals, displacement.requires_grad_())
    assert torch.autograd.gradcheck(displaced_normals, inputs)


def test_small_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="position_map"):
        normals_of_positions(torch.zeros(3, 1, 5), torch.zeros(3, 1, 5))
