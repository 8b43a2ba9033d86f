# SPDX-License-Identifier: Apache-2.0
"""Label maps in one compiled pass: the same as in plain torch; points found in one go; light used twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.render.kernels.library import has_library
from hiface.render.rasterize import fragments
from hiface.synthetic import surface_maps as maps
from hiface.synthetic.compose import compose
from hiface.synthetic.effects import ALL_EFFECTS, PLAIN
from hiface.synthetic.head import head_tables
from hiface.synthetic.points import points_of
from hiface.synthetic.shots import draw_shot, sitter_of
from hiface.synthetic.skin import texels

SIZE = 72


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module", params=[(0, 2, PLAIN), (4, 1, ALL_EFFECTS), (9, 2, ALL_EFFECTS)])
def drawn(model, request):
    seed, subpixels, effects = request.param
    sitter = sitter_of(model, seed, effects)
    shot = draw_shot(model, sitter, np.random.default_rng(seed), SIZE, effects)
    made = compose(model, sitter.person, sitter.texture, shot.picture, shot.wardrobe, SIZE, subpixels)
    segmentation = made.label.clone()
    segmentation[40:50, 20:40] = 5  # something held in front
    return shot, made, segmentation


@pytest.mark.skipif(not has_library(), reason="the compiled kernels were not built")
def test_one_pass_does_what_plain_torch_does(model, drawn):
    shot, made, segmentation = drawn
    verts, ids = maps._seen_triangles(model, shot.picture, made.verts_cam)
    rows, mesh = maps._lit_rows(model, shot.picture, made, ids), head_tables(model).mesh
    layers, texture = maps._layers(made, segmentation), shot.sitter.texture
    found = maps.label_maps((verts, mesh.triangles, mesh.corners), rows, ids, texels(texture), layers)
    plain = maps.maps_plain(verts, rows, mesh, fragments(ids[None]), texture, layers)
    for mine, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)
    depth, values = found
    seen = maps.head_shown(made, segmentation)
    assert int(seen.sum()) > 100 and not values[:, ~seen].any()
    assert (depth[40:50, 20:40] == 0)[made.label[40:50, 20:40] != 5].all()
    assert bool((depth[segmentation == 6] > 0).all())  # clothes have depth, and no normals


def test_light_of_the_picture_is_light_of_the_labels(model, drawn):
    shot, made, segmentation = drawn
    reused = maps.surface_maps(model, shot.picture, made, segmentation, shot.sitter.texture)
    unlit = replace(made, head=replace(made.head, rows=None, lit=torch.zeros_like(made.head.lit)))
    anew = maps.surface_maps(model, shot.picture, unlit, segmentation, shot.sitter.texture)
    assert float(reused["shading"].max()) > 0.05
    for name in ("depth", *maps.SURFACE_MAPS):
        torch.testing.assert_close(reused[name], anew[name], atol=1e-6, rtol=0)


def test_nothing_is_labelled_where_no_head_is(model, drawn):
    shot, made, segmentation = drawn
    nobody = torch.zeros_like(segmentation)
    found = maps.surface_maps(model, shot.picture, made, nobody, shot.sitter.texture)
    assert all(not values.any() for values in found.values())


def test_points_in_one_go(model, drawn):
    _, made, _ = drawn
    points = points_of(model, made.verts_cam)
    assert torch.equal(points.ibug68, model.landmarks("ibug68", made.verts_cam))
    assert torch.equal(points.dense, model.landmarks("dense", made.verts_cam))
    assert points.iris is not None and torch.equal(points.iris, model.landmarks("iris", made.verts_cam))
    torch.testing.assert_close(points.outline68(model), model.landmarks_cam("ibug68", made.verts_cam))
    px = made.camera.cam_to_px(points.ibug68)
    torch.testing.assert_close(torch.tensor(made.face_box), torch.cat([px.amin(0), px.amax(0)]))
