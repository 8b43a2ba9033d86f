# SPDX-License-Identifier: Apache-2.0
"""Edge splat: gradients of outlines against supersampled truth, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.render import antialias, rasterize
from hiface.render.antialias import find_cuts, find_cuts_plain, mesh_edges
from hiface.render.kernels import library
from toy import RADII_M, sphere

SUPER = 16


def bumpy_head(size: int, seed: int, rings: int = 24, segments: int = 32) -> tuple[Tensor, Tensor]:
    """Turned head with bumps, in pixels: verts_px_z [V, 3] float64, triangles."""
    verts, triangles, _, _ = sphere(rings, segments)
    verts = verts * torch.tensor(RADII_M, dtype=torch.float64)
    gen = torch.Generator().manual_seed(seed)
    verts = verts * (
        1 + 0.05 * torch.sin(verts @ (60 * torch.randn(3, 1, generator=gen, dtype=torch.float64)))
    )
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=gen, dtype=torch.float64))
    turn = turn * torch.det(turn)
    cam = verts @ turn.T + torch.tensor([0, 0, 0.6], dtype=torch.float64)
    xy = cam[:, :2] / cam[:, 2:] * (2.2 * size) + size / 2
    return torch.cat([xy, cam[:, 2:]], dim=1), triangles


def flat_colours(verts: Tensor, triangles: Tensor, colours: Tensor, size: int, factor: int = 1) -> Tensor:
    """[2, S, S]: a constant colour per triangle and the mask, at `factor` times the resolution,
    box-filtered."""
    scaled = verts * torch.tensor([factor, factor, 1.0], dtype=verts.dtype)
    ids = rasterize(scaled, triangles, size * factor, size * factor).to(torch.int64)
    table = torch.cat([colours, torch.zeros(1, dtype=colours.dtype)])
    image = torch.stack([table[ids], (ids >= 0).to(colours.dtype)])
    return F.avg_pool2d(image[None], factor)[0]


def depth_of(verts: Tensor, triangles: Tensor, size: int) -> Tensor:
    """[1, S, S] mean depth of the triangle that each pixel sees, 0 for none."""
    ids = rasterize(verts, triangles, size, size).to(torch.int64)
    mean = verts.detach()[triangles, 2].mean(dim=1)
    return torch.where(ids >= 0, mean[ids.clamp_min(0)], 0.0)[None]


def smooth_weights(size: int, seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 2, 6, 6, generator=gen, dtype=torch.float64)
    return F.interpolate(coarse, size, mode="bicubic")[0]


def direction_fields(verts: Tensor, count: int, seed: int) -> Tensor:
    """[count, V, 2] smooth motions of the vertices on the screen, about one pixel."""
    gen = torch.Generator().manual_seed(seed)
    frequency = 0.1 * torch.randn(count, 1, 2, generator=gen, dtype=torch.float64)
    phase = 6.28 * torch.rand(count, 1, 2, generator=gen, dtype=torch.float64)
    return torch.sin(verts[None, :, :2] * frequency + phase)


def compare_with_truth(
    verts: Tensor, triangles: Tensor, colours: Tensor, size: int, seed: int
) -> tuple[float, float]:
    """Cosine and length ratio of the gradient along smooth motions against supersampled differences."""
    weights = smooth_weights(size, seed)
    fields = direction_fields(verts, 16, seed + 1)
    leaf = verts.clone().requires_grad_()
    image = flat_colours(verts, triangles, colours, size)
    smoothed = antialias(image, depth_of(verts, triangles, size), leaf, triangles)
    (grad,) = torch.autograd.grad((smoothed * weights).sum(), leaf)
    analytic = (grad[:, :2] * fields).sum(dim=(1, 2))
    numeric = []
    for field in fields:
        step = 0.25 * F.pad(field, (0, 1))
        sides = [flat_colours(verts + s * step, triangles, colours, size, SUPER) for s in (1, -1)]
        numeric.append(((sides[0] - sides[1]) * weights).sum() / 0.5)
    truth = torch.stack(numeric)
    return F.cosine_similarity(analytic, truth, dim=0).item(), (analytic.norm() / truth.norm()).item()


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_outlines_is_that_of_the_supersampled_truth(seed: int) -> None:
    verts, triangles = bumpy_head(48, seed)
    cosine, ratio = compare_with_truth(
        verts, triangles, torch.ones(len(triangles), dtype=torch.float64), 48, seed
    )
    assert cosine >= 0.97
    assert ratio == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seed", range(2))
def test_gradient_of_an_occlusion_inside_the_mask(seed: int) -> None:
    back, triangles = bumpy_head(48, seed)
    front, _ = bumpy_head(48, seed + 10)
    front = torch.cat([24 + 0.45 * (front[:, :2] - 24), front[:, 2:] * 0.6], dim=1)
    verts = torch.cat([back, front])
    both = torch.cat([triangles, triangles + back.shape[0]])
    colours = torch.cat([torch.full((len(triangles),), 0.2), torch.full((len(triangles),), 0.9)]).double()
    cosine, ratio = compare_with_truth(verts, both, colours, 48, seed)
    assert cosine >= 0.97
    assert ratio == pytest.approx(1.0, abs=0.08)


def test_without_it_the_outline_is_rougher() -> None:
    verts, triangles = bumpy_head(64, 4)
    colours = torch.ones(len(triangles), dtype=torch.float64)
    plain = flat_colours(verts, triangles, colours, 64)
    smooth = antialias(plain, depth_of(verts, triangles, 64), verts, triangles)
    truth = flat_colours(verts, triangles, colours, 64, SUPER)
    assert (smooth - truth).abs().sum() < 0.25 * (plain - truth).abs().sum()
    assert smooth.sum() == pytest.approx(truth.sum().item(), rel=2e-3)
    assert smooth.min() >= 0 and smooth.max() <= 1


def test_constant_image_and_interior_stay_as_they_are() -> None:
    verts, triangles = bumpy_head(48, 5)
    depth = depth_of(verts, triangles, 48)
    constant = torch.full((3, 48, 48), 0.4, dtype=torch.float64)
    assert torch.allclose(antialias(constant, depth, verts, triangles), constant)
    noise = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = (depth > 0).double()
    edge = F.max_pool2d(mask, 3, 1, 1) - (1 - F.max_pool2d(1 - mask, 3, 1, 1))
    # Apart from the outline only folds of the bumps may be touched, and those are few.
    changed = (antialias(noise, depth, verts, triangles) - noise).abs().amax(0) > 0
    assert (changed & (edge[0] == 0)).sum() <= 8
    assert changed.sum() > 40


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
def test_any_leading_batch_equals_one_by_one(batch: tuple[int, ...]) -> None:
    count = torch.Size(batch).numel()
    heads = [bumpy_head(32, seed) for seed in range(count)]
    triangles = heads[0][1]
    verts = torch.stack([v for v, _ in heads])
    depth = torch.stack([depth_of(v, triangles, 32) for v, _ in heads])
    image = (depth > 0).double()
    out = antialias(*(x.reshape(*batch, *x.shape[1:]) for x in (image, depth, verts)), triangles)
    assert out.shape == (*batch, 1, 32, 32)
    for k in range(count):
        single = antialias(image[k], depth[k], verts[k], triangles)
        assert torch.allclose(out.reshape(-1, 1, 32, 32)[k], single)


@pytest.mark.parametrize("size", [16, 64])
def test_compiled_search_finds_the_cuts_of_the_plain_one(size: int) -> None:
    if not library.has_library():
        pytest.skip("the compiled kernels are not built here")
    heads = [bumpy_head(size, seed, 40, 60) for seed in range(3)]
    triangles = heads[0][1]
    verts = torch.stack([v for v, _ in heads]).float()
    verts[1, :40] = float("nan")
    verts[2, 50:60, 2] *= -1
    depth = torch.cat([depth_of(v.nan_to_num(0.5), triangles, size) for v in verts])
    x, y, z = (row.contiguous() for row in verts.unbind(-1))
    rows = (x, y, torch.where(z > 0, 1 / z, 0.0))
    nearness = torch.where(depth > 0, 1 / depth, 0.0)
    found = []
    for search in (find_cuts, find_cuts_plain):
        cuts, inside = search(rows, nearness, triangles)
        columns = [getattr(cuts, name) for name in cuts.__dataclass_fields__]
        found.append({tuple(row) for row in torch.stack([c.double() for c in (*columns, inside)]).T.tolist()})
    assert len(found[1]) > 2 * size
    assert len(found[0] ^ found[1]) <= 0.01 * len(found[1])


def test_compiled_search_grows_its_buffers() -> None:
    if not library.has_library():
        pytest.skip("the compiled kernels are not built here")
    # A litter of small triangles: far more outline than a head has.
    gen = torch.Generator().manual_seed(0)
    corner = torch.rand(900, 1, 3, generator=gen) * torch.tensor([14.0, 14.0, 1.0]) + torch.tensor(
        [1.0, 1.0, 0.5]
    )
    verts = (corner + torch.rand(900, 3, 3, generator=gen) * torch.tensor([1.5, 1.5, 0.0])).reshape(1, -1, 3)
    triangles = torch.arange(2700).reshape(-1, 3)
    ids = rasterize(verts, triangles, 16, 16).long()
    nearness = torch.where(ids >= 0, 1 / verts[0, triangles, 2].mean(dim=1)[ids.clamp_min(0)], 0.0)
    rows = (verts[..., 0].contiguous(), verts[..., 1].contiguous(), 1 / verts[..., 2])
    compiled, plain = (
        search(rows, nearness, triangles)[1].shape[0] for search in (find_cuts, find_cuts_plain)
    )
    assert compiled == plain > 8 * 32


def test_edges_of_a_mesh() -> None:
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3], [1, 2, 4]])
    edges = mesh_edges(triangles)
    table = {
        tuple(e): tuple(s) for e, s in zip(edges.vertices.T.tolist(), edges.sides.T.tolist(), strict=True)
    }
    assert len(table) == 7
    assert table[(0, 1)] == (0, 3) and table[(1, 3)] == (1, 3)
    assert table[(1, 2)][1] == 3  # three triangles meet here: always an outline
    closed = sphere(6, 8)[1]
    sides = mesh_edges(closed).sides
    assert (sides < len(closed)).all() and sides.shape[1] == 3 * len(closed) // 2


def test_shapes_are_checked() -> None:
    verts, triangles = bumpy_head(32, 0)
    with pytest.raises(ValueError, match="expected image"):
        antialias(torch.rand(3, 32, 32), torch.rand(1, 16, 16), verts, triangles)
