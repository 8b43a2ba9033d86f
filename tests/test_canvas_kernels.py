# SPDX-License-Identifier: Apache-2.0
"""The compiled passes that draw synthetic people do what their plain versions do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import hiface
from hiface.geometry.normals import vertex_normals
from hiface.render.interpolate import interpolate_plain
from hiface.render.kernels import canvas as compiled_canvas
from hiface.render.kernels import skin as compiled_skin
from hiface.render.kernels.body import PATTERNS
from hiface.render.kernels.library import has_library
from hiface.render.rasterize import fragments, rasterize
from hiface.render.visibility import N_DIRECTIONS, HeadVisibility
from hiface.synthetic import body, lights, scene, skin
from hiface.synthetic.effects import ALL_EFFECTS, PLAIN
from hiface.synthetic.generator import Style, generate_picture
from hiface.synthetic.head import head_tables
from hiface.synthetic.relief import relief_maps
from toy import sphere

pytestmark = pytest.mark.skipif(not has_library(), reason="the compiled kernels were not built")

SIZE = 96
K = torch.tensor([[150.0, 0.0, 47.0], [0.0, 150.0, 49.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def ball(at: tuple[float, float, float], radius: float = 0.2) -> tuple[Tensor, Tensor]:
    verts, triangles = sphere(24, 16)[:2]
    return (verts * radius + torch.tensor(at)).float(), triangles


def both_fronts(verts: Tensor, triangles: Tensor, depth: Tensor) -> tuple[scene.Front, scene.Front]:
    found = compiled_canvas.front(verts, triangles, K, depth, SIZE)
    plain = scene.front_plain(verts, triangles, K, depth, SIZE)
    assert found is not None and plain is not None
    return scene.Front(*found), plain


@pytest.mark.parametrize("at", [(0.0, 0.0, 1.0), (0.25, -0.2, 0.9), (0.05, 0.02, 0.3)])
def test_fragments_in_front(at):
    gen = torch.Generator().manual_seed(1)
    depth = torch.rand(SIZE * SIZE, generator=gen) * 0.4 + 0.7
    verts, triangles = ball(at)
    found, plain = both_fronts(verts, triangles, depth)
    # The window shifts coordinates, so a pixel centre on an edge may fall to the other triangle.
    common = np.intersect1d(found.pixel.numpy(), plain.pixel.numpy())
    assert len(common) >= 0.99 * max(len(found.pixel), len(plain.pixel)) > 100
    both = [np.isin(front.pixel, common).nonzero()[0] for front in (found, plain)]
    mine, theirs = found.chosen(torch.from_numpy(both[0])), plain.chosen(torch.from_numpy(both[1]))
    same = mine.triangle == theirs.triangle
    assert same.float().mean() > 0.99
    assert torch.allclose(mine.place[:, same], theirs.place[:, same], atol=2e-4)
    assert (found.place[3] < depth[found.pixel]).all() and (found.pixel.diff() > 0).all()


def test_nothing_in_front():
    verts, triangles = ball((0.0, 0.0, 1.0))
    assert compiled_canvas.front(verts, triangles, K, torch.zeros(SIZE * SIZE), SIZE) is None
    beside, behind = verts + torch.tensor([5.0, 0.0, 0.0]), verts - torch.tensor([0.0, 0.0, 3.0])
    for moved in (beside, behind):
        assert compiled_canvas.front(moved, triangles, K, torch.full((SIZE * SIZE,), 1e3), SIZE) is None


def test_window_holds_the_mesh():
    verts, _ = ball((0.1, -0.05, 1.0))
    flat, (left, top, width, height) = compiled_canvas.project(verts, K, SIZE)
    px = verts @ K.T
    px = px[:, :2] / px[:, 2:]
    assert torch.allclose(flat[:, :2] + torch.tensor([left, top]), px, atol=1e-4)
    inside = px.clamp(0, SIZE)
    assert left <= inside[:, 0].min() and inside[:, 0].max() <= left + width <= SIZE
    assert top <= inside[:, 1].min() and inside[:, 1].max() <= top + height <= SIZE
    assert width * height < SIZE * SIZE / 2


def test_rows():
    verts, triangles = ball((0.0, 0.0, 1.0))
    found, _ = both_fronts(verts, triangles, torch.full((SIZE * SIZE,), 1e3))
    gen = torch.Generator().manual_seed(2)
    attributes = torch.rand(len(verts), 5, generator=gen)
    corners = torch.rand(len(triangles), 3, 2, generator=gen)
    for table in (corners, None):
        rows = compiled_canvas.rows_at(attributes, table, triangles, found.triangle, found.place)
        assert torch.allclose(rows, scene.rows_plain(attributes, table, triangles, found), atol=1e-5)
    z = compiled_canvas.rows_at(verts[:, 2:], None, triangles, found.triangle, found.place)
    assert torch.allclose(z[0], found.place[3], atol=1e-5)


@pytest.mark.parametrize("with_keep", [False, True])
@pytest.mark.parametrize("label", [4, "each"])
def test_put_and_resolve(with_keep, label, monkeypatch):
    gen = torch.Generator().manual_seed(3)
    n = 700
    pixel = torch.randperm(SIZE * SIZE, generator=gen)[:n].sort().values
    drawn = scene.Drawn(pixel, pixel, torch.rand(n, generator=gen) + 0.5, torch.zeros(0, n), SIZE)
    colour = torch.rand(n, 3, generator=gen).T
    labels = torch.randint(0, 7, (n,), generator=gen).to(torch.uint8) if label == "each" else label
    keep = torch.rand(n, generator=gen) < 0.4 if with_keep else None
    fast, slow = scene.Canvas(SIZE), scene.Canvas(SIZE)
    fast.put(drawn, colour, labels, keep)
    slow.put_plain(drawn, colour, labels, keep)
    for name in ("colour", "depth", "label"):
        assert torch.equal(getattr(fast, name), getattr(slow, name)), name
    mean = torch.cat([part.reshape(-1, SIZE // 2, SIZE // 2) for part in fast.resolve(2)[:2]])
    assert torch.allclose(mean, slow.mean_plain(2), atol=1e-6) and mean[3].max() > 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_seen_vertices_and_their_neighbours(dtype):
    verts, triangles = ball((0.0, 0.0, 1.0))
    ids = torch.tensor([[-1, 5, 5], [90, -1, 400]], dtype=dtype)
    seen = scene.seen_vertices(ids, triangles, len(verts))
    assert torch.equal(seen, scene.seen_plain(ids, triangles, len(verts)))
    assert set(seen.nonzero().reshape(-1).tolist()) == set(triangles[[5, 90, 400]].reshape(-1).tolist())
    around = scene.with_neighbours(seen, triangles)
    assert torch.equal(around, scene.neighbours_plain(seen, triangles))
    assert (around | ~seen).all() and 2 * int(seen.sum()) < int(around.sum()) < len(verts) / 2
    assert not scene.seen_vertices(torch.full((4,), -1, dtype=dtype), triangles, len(verts)).any()


def test_vertex_normals_and_relief():
    verts, triangles = ball((0.1, 0.2, 0.3))
    table = torch.full((len(verts), 8), -7.0)
    compiled_skin.vertex_normals(verts, triangles, table[:, 3:6])
    assert torch.allclose(table[:, 3:6], vertex_normals(verts, triangles), atol=1e-5)
    assert (table[:, :3] == -7).all() and (table[:, 6:] == -7).all()
    height = torch.randn(32, 32, generator=torch.Generator().manual_seed(4)) * 1e-3
    texels = compiled_skin.relief_texels(height)
    assert torch.allclose(texels[..., :3].permute(2, 0, 1), relief_maps(height), atol=1e-6)
    assert (texels[..., 3] == 0).all()


def test_plain_interpolation_without_attributes():
    verts, triangles = ball((0.0, 0.0, 1.0))
    px = torch.cat([(verts @ K.T)[:, :2] / verts[:, 2:], verts[:, 2:]], dim=1)
    frags = fragments(rasterize(px, triangles, SIZE, SIZE)[None])
    nothing, corners = px.new_zeros(1, len(px), 0), px.new_zeros(len(triangles), 3, 0)
    rows = interpolate_plain(px[None], nothing, corners, triangles, frags)
    assert rows.shape == (1, len(frags.pixel)) and (rows > 0.7).all()


def surroundings(seed: int) -> lights.Surroundings:
    return lights.sample_surroundings(np.random.default_rng(seed))


@pytest.mark.parametrize("jaw_open", [0.0, 0.3, 1.0])
def test_light_on_vertices(jaw_open, monkeypatch):
    gen = torch.Generator().manual_seed(5)
    n = 50
    seen = HeadVisibility(*torch.rand(2, n, N_DIRECTIONS, generator=gen))
    R = torch.linalg.qr(torch.randn(3, 3, generator=gen)).Q
    table = torch.zeros(n, 12)
    table[:, 3:6] = torch.nn.functional.normalize(torch.randn(n, 3, generator=gen), dim=1)
    other, light = table.clone(), surroundings(5)
    lamps = list(range(len(light.lobe_colours)))
    wanted = torch.arange(n) % 3 > 0
    lights.light_vertices(table, light, (seen, jaw_open), R, lamps, wanted)
    assert (table[~wanted, :3] == 0).all()
    monkeypatch.setattr(lights, "has_library", lambda: False)
    lights.light_vertices(other, light, (seen, jaw_open), R, lamps)
    assert torch.allclose(table[wanted], other[wanted], rtol=1e-4, atol=1e-5)
    normals = table[:, 3:6].contiguous()
    plain = lights.plain_light(normals, light)
    monkeypatch.undo()
    assert torch.allclose(lights.plain_light(normals, light), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_lamps", [0, 1, 4])
@pytest.mark.parametrize("rough", [False, True])
def test_shading_of_skin(model, n_lamps, rough):
    """Every kind of triangle, on random vertex values."""
    mesh, gen = head_tables(model).mesh, torch.Generator().manual_seed(6)
    light, rng = surroundings(6), np.random.default_rng(6)
    light = dataclasses.replace(
        light,
        lobe_directions=np.tile(light.lobe_directions[:1], (n_lamps, 1))
        + rng.normal(0, 0.3, (n_lamps, 3)).astype(np.float32),
        lobe_colours=rng.uniform(0.2, 2, (n_lamps, 3)).astype(np.float32),
        lobe_sharpness=rng.uniform(2, 40, n_lamps).astype(np.float32),
    )
    height = -2e-3 * torch.rand(64, 64, generator=gen) + 5e-4 if rough else None
    texture = torch.rand(3, 64, 64, generator=gen)
    look = skin.Look(texture, height, light, 0.7, torch.tensor([1.1, 1.0, 0.8]), K)
    attributes = torch.rand(model.data.n_vertices, compiled_skin.padded_columns(n_lamps), generator=gen)
    attributes[:, 3:6] -= torch.tensor([0.5, 0.5, 1.5])
    attributes[:, 6 + n_lamps : 12 + n_lamps] = (attributes[:, 6 + n_lamps : 12 + n_lamps] - 0.5) * 0.02
    n = 3000
    pixel = torch.randperm(SIZE * SIZE, generator=gen)[:n].sort().values
    triangle = torch.randint(0, len(mesh.triangles), (n,), generator=gen)
    weights = torch.rand(3, n, generator=gen)
    place = torch.cat([weights / weights.sum(dim=0), torch.rand(1, n, generator=gen) + 0.5])
    front = scene.Front(pixel, triangle, place)
    canvas = scene.Canvas(SIZE)
    assert skin.is_compiled(look)
    eyes = skin.draw_skin(canvas, front, attributes, mesh, look)
    rows = scene.rows_plain(attributes, mesh.corners, mesh.triangles, front)
    drawn = scene.Drawn(pixel, triangle, front.place[3], rows, SIZE)
    expected, found = skin.shade_plain(drawn, look, mesh), canvas.colour[:, pixel]
    assert torch.allclose(found, expected, rtol=2e-3, atol=2e-4)
    assert (found - expected).abs().mean() < 1e-5
    assert torch.equal(canvas.label[pixel], mesh.label[triangle])
    assert torch.equal(canvas.depth[pixel], front.place[3])
    assert eyes is not None and torch.equal(eyes.pixel, pixel[mesh.kind[triangle] == skin.EYE])
    assert (mesh.kind[triangle] == skin.TOOTH).sum() > 20


@pytest.mark.parametrize("pattern", PATTERNS)
def test_shading_of_clothes(pattern, monkeypatch):
    rng = np.random.default_rng(7)
    clothes = dataclasses.replace(body.sample_clothes(rng), pattern=pattern, neckline=(-0.15, 0.08), seed=21)
    verts = body.body_vertices(clothes, 1.0)
    cam = verts * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, -0.25, 0.9])
    look = torch.tensor([0.5, 0.3, 0.2]), surroundings(7)
    fast, slow = scene.Canvas(SIZE), scene.Canvas(SIZE)
    body.draw_body(fast, clothes, verts, cam, K, look)
    monkeypatch.setattr(body, "has_library", lambda: False)
    body.draw_body(slow, clothes, verts, cam, K, look)
    assert torch.equal(fast.label, slow.label) and set(fast.label.tolist()) == {0, 1, 6}
    assert torch.equal(fast.depth, slow.depth)
    different = (fast.colour - slow.colour).abs().amax(dim=0) > 1e-5
    assert different.float().mean() < 1e-3  # rounding at an edge of the pattern


@pytest.mark.parametrize("effects", [PLAIN, ALL_EFFECTS])
def test_whole_pictures(model, effects, monkeypatch):
    style = Style(96, effects, frozenset({"basic", "maps"}))
    fast = [generate_picture(model, seed, style) for seed in (3, 10)]
    for module in (scene, lights, skin, body):
        monkeypatch.setattr(module, "has_library", lambda: False)
    for sample in fast:
        plain = generate_picture(model, sample.seed, style)
        difference = (sample.image_srgb.float() - plain.image_srgb.float()).abs()
        assert difference.mean() < 0.1 and plain.image_srgb.float().std() > 5
        assert (sample.segmentation != plain.segmentation).float().mean() < 1e-3
        for name, values in sample.maps.items():
            assert (values - plain.maps[name]).abs().mean() < 1e-4, name
