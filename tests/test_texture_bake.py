# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from hiface.colour import linear_to_srgb, srgb_to_linear, to_uint8
from hiface.errors import ShapeError
from hiface.export.light_gain import light_gain
from hiface.export.texture import bake_photo_texture, bake_texture, model_texture
from hiface.morphable import MorphableModel
from hiface.render import render
from hiface.render.pyramid import push_pull
from hiface.render.shade import SH_C0, SH_C1
from hiface.types import Camera, FaceParams
from toy import toy_model

SIZE = 256


def pattern(size: int = SIZE) -> torch.Tensor:
    """Mirror-symmetric coloured waves over a skin tone, [3, size, size] linear."""
    c = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(c, c, indexing="ij")
    waves = torch.cos(2 * math.pi * 8 * (u - 0.5)) * torch.cos(2 * math.pi * 7 * v)
    tone = torch.tensor([0.5, 0.33, 0.25])[:, None, None]
    return tone * (1.0 + 0.3 * waves * torch.tensor([1.0, 0.8, 0.6])[:, None, None])


def head(yaw: float) -> tuple[MorphableModel, FaceParams]:
    model = toy_model()
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ roma.rotvec_to_rotmat(torch.tensor([0.0, yaw, 0.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.7]), 900.0, 400, 400)
    light = torch.zeros(9, 3)
    light[0] = 0.9 / SH_C0
    light[3] = 0.3 / SH_C1
    light[2] = -0.2 / SH_C1
    light = light * torch.tensor([1.0, 0.9, 0.8])
    zeros = torch.zeros(5, 3)
    return model, FaceParams(torch.randn(8) * 0.3, torch.zeros(52), zeros, torch.zeros(3), light, camera)


def photo_of(model: MorphableModel, params: FaceParams, albedo: torch.Tensor) -> torch.Tensor:
    mesh = model(params.identity, params.expression, params.pose)
    background = torch.tensor([0.05, 0.05, 0.6])[:, None, None]
    return render(mesh, params.camera, albedo, params.light, background=background).image.clamp(0, 1)


@pytest.fixture(scope="module")
def turned():
    torch.manual_seed(0)
    model, params = head(yaw=0.6)
    truth = pattern()
    return (
        model,
        params,
        truth,
        bake_texture(model, params, photo_of(model, params, truth), size=SIZE, blend=0),
    )


def test_seen_part_is_the_true_albedo_without_light(turned):
    _, _, truth, bake = turned
    seen = bake.seen
    assert 0.15 < seen.float().mean() < 0.5
    error = (srgb_to_linear(bake.image_srgb) - truth).abs().mean(dim=0)[seen]
    assert error.mean() < 0.02
    assert error.quantile(0.99) < 0.08


def test_hidden_side_is_filled_from_its_mirror(turned):
    _, _, truth, bake = turned
    seen = bake.seen
    only_mirror = seen.flip(-1) & ~seen
    assert only_mirror.float().mean() > 0.05
    result = srgb_to_linear(bake.image_srgb)
    error = (result - truth).abs().mean(dim=0)[only_mirror]
    plain = torch.tensor([0.5, 0.33, 0.25])[:, None, None]
    assert error.mean() < 0.03
    assert error.mean() < 0.4 * (plain - truth).abs().mean(dim=0)[only_mirror].mean()


def test_unseen_back_has_the_photos_tone_and_no_background_or_black(turned):
    _, _, truth, bake = turned
    seen = bake.seen
    back = ~(seen | seen.flip(-1))
    result = srgb_to_linear(bake.image_srgb)
    mean, expected = result[:, back].mean(dim=1), truth[:, back].mean(dim=1)
    assert torch.allclose(mean, expected, rtol=0.15)
    assert bake.image_srgb.min() > 0.15
    assert (result[2] < result[0]).all()


def test_light_is_needed(turned):
    """Without the light the shading stays in the texture: the test above would notice."""
    model, params, truth, bake = turned
    flat = torch.zeros(9, 3)
    flat[0] = params.light[0]
    wrong = bake_texture(
        model, params.replace(light=flat), photo_of(model, params, truth), size=SIZE, blend=0
    )
    seen = bake.seen & wrong.seen
    good, bad = ((srgb_to_linear(b.image_srgb) - truth).abs().mean(dim=0)[seen].mean() for b in (bake, wrong))
    assert bad > 3 * good


def test_blending_takes_what_is_smooth_from_the_model_and_marks_from_the_photo():
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    spotted = pattern()
    spotted[:, ::16] *= 0.8
    photo = photo_of(model, params, spotted)
    coarse = torch.tensor([0.5, 0.33, 0.25])[:, None, None]
    far, marks = [], []
    for blend in (0.0, 0.65):
        bake = bake_texture(model, params, photo, size=SIZE, blend=blend)
        log = (srgb_to_linear(bake.image_srgb) / coarse).log()
        spots, beside = log[:, 16::16], 0.5 * (log[:, 13:-3:16] + log[:, 19::16])
        seen = bake.seen[16::16]
        marks.append(float((spots - beside)[:, seen].mean()))
        far.append(float(beside[:, seen].std(dim=1).mean()))
    assert far[1] < 0.7 * far[0]
    assert 0.85 < marks[1] / marks[0] < 1.15


def test_frontal_photo_is_seen_on_both_sides():
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    bake = bake_texture(model, params, photo_of(model, params, pattern()), size=SIZE)
    agree = (bake.seen == bake.seen.flip(-1)).float().mean()
    assert agree > 0.98 and bake.seen[SIZE // 2, SIZE // 2]


def test_occluded_surface_is_not_seen():
    """A ball in front of the head belongs to the mesh: the skin behind it must not take its colour."""
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    data = model.data
    n = data.n_vertices
    ball = data.template * 0.3 + torch.tensor([0.0, 0.0, 0.2])
    both = MorphableModel(
        replace(
            data,
            template=torch.cat([data.template, ball]),
            triangles=torch.cat([data.triangles, data.triangles + n]),
            uv=torch.cat([data.uv * torch.tensor([1.0, 0.5]), data.uv * 0.4 + torch.tensor([0.0, 0.55])]),
            uv_triangles=torch.cat([data.uv_triangles, data.uv_triangles + len(data.uv)]),
            identity_basis=torch.cat([data.identity_basis] * 2, dim=1),
            expression_basis=torch.cat([data.expression_basis] * 2, dim=1),
            skin_weights=torch.cat([data.skin_weights] * 2),
            triangle_parts=torch.cat([data.triangle_parts, data.triangle_parts + 1]),
            part_names=("skin", "ball"),
            mirror_vertices=torch.cat([data.mirror_vertices, data.mirror_vertices + n]),
            vertex_masks={},
        )
    )
    params = params.replace(identity=torch.zeros(8))
    bake = bake_texture(both, params, photo_of(both, params, pattern()), size=SIZE)
    assert not bake.seen[SIZE // 4, SIZE // 2]
    assert bake.seen[SIZE // 4 - SIZE // 8, SIZE // 2]
    assert not bake.seen[SIZE // 2 + 8 :].any()


def test_hair_over_the_forehead_is_left_out() -> None:
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    y, z = model.data.template[:, 1], model.data.template[:, 2]
    masks = {"face": z > 0, "forehead": (z > 0) & (y > 0.03), "brows": torch.zeros_like(z, dtype=torch.bool)}
    model = MorphableModel(replace(model.data, vertex_masks=masks))
    truth = pattern()
    hairy = truth.clone()
    top = SIZE // 3
    hairy[:, :top] = torch.tensor([0.06, 0.05, 0.02])[:, None, None]
    bake = bake_texture(model, params, photo_of(model, params, hairy), size=SIZE)
    assert not bake.seen[: top - 8].any() and bake.seen[top + 16 :].any()
    result = srgb_to_linear(bake.image_srgb)[:, 8 : top - 8].mean(dim=(1, 2))
    assert torch.allclose(result, truth.mean(dim=(1, 2)), rtol=0.3)


def test_side_light_that_the_fit_did_not_explain_is_balanced() -> None:
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    truth = pattern()
    photo = photo_of(model, params, truth)
    weaker = params.light.clone()
    weaker[3] *= 0.3
    bake = bake_texture(model, params.replace(light=weaker), photo, size=SIZE)
    left, right = bake.seen.clone(), bake.seen.clone()
    left[:, SIZE // 2 :], right[:, : SIZE // 2] = False, False
    result = srgb_to_linear(bake.image_srgb)
    difference = (result[:, left].mean(dim=1) / result[:, right].mean(dim=1)).log().abs()
    assert difference.max() < 0.05


def test_head_outside_the_photo_gives_the_models_colours():
    torch.manual_seed(0)
    model, params = head(yaw=0.0)
    away = params.camera.T_cam_object.clone()
    away[0, 3] = 5.0
    params = params.replace(camera=Camera(params.camera.K, away, 400, 400))
    bake = bake_texture(model, params, torch.zeros(3, 400, 400), size=SIZE)
    assert not bake.seen.any()
    assert torch.allclose(bake.image_srgb, model_texture(model, params.albedo, size=SIZE), atol=0.005)


def test_noise_and_black_photos_give_no_gaps():
    torch.manual_seed(0)
    model, params = head(yaw=0.2)
    for photo in (torch.zeros(3, 400, 400), torch.ones(3, 400, 400), torch.rand(3, 400, 400)):
        bake = bake_texture(model, params, photo, size=128)
        assert bake.image_srgb.shape == (3, 128, 128) and bake.image_srgb.isfinite().all()
    dark = bake_texture(
        model, params.replace(light=torch.zeros(9, 3)), torch.full((3, 400, 400), 0.3), size=128
    )
    assert dark.image_srgb.min() > 0.15


def test_push_pull_keeps_known_values_and_fills_the_rest():
    torch.manual_seed(0)
    values, weights = torch.rand(2, 37, 50), torch.zeros(37, 50)
    weights[5:9, 10:30] = 1.0
    values[:, weights == 0] = float("nan")
    filled = push_pull(values, weights)
    known = weights > 0
    assert torch.equal(filled[:, known], values[:, known])
    assert filled.isfinite().all()
    low, high = values[:, known].min(dim=1).values, values[:, known].max(dim=1).values
    assert ((filled >= low[:, None, None] - 1e-5) & (filled <= high[:, None, None] + 1e-5)).all()


def test_wrong_shapes_are_refused():
    model, params = head(yaw=0.0)
    with pytest.raises(ShapeError, match=r"\[3, H, W\]"):
        bake_texture(model, params, torch.zeros(400, 400, 3))
    bytes_srgb = np.full((400, 400, 3), 120, np.uint8)
    assert bake_photo_texture(model, params, bytes_srgb, size=64).image_srgb.shape == (3, 64, 64)
    with pytest.raises(ShapeError, match="one face"):
        bake_texture(model, params.replace(identity=torch.zeros(2, 8)), torch.zeros(3, 4, 4))


def test_only_the_head_of_a_large_photo_is_decoded():
    """The same head in a corner of a larger photo gives the same texture."""
    model, params = head(yaw=0.2)
    small = (255 * linear_to_srgb(photo_of(model, params, pattern()))).byte().permute(1, 2, 0).numpy()
    large = np.zeros((1200, 1500, 3), np.uint8)
    large[300:700, 500:900] = small
    K = params.camera.K.clone()
    K[:2, 2] += torch.tensor([500.0, 300.0])
    moved = replace(params, camera=Camera(K, params.camera.T_cam_object, 1500, 1200))
    want = bake_photo_texture(model, params, small, size=64).image_srgb
    got = bake_photo_texture(model, moved, large, size=64).image_srgb
    torch.testing.assert_close(got, want, atol=4e-3, rtol=0)


def test_light_is_made_as_strong_as_the_texture_needs(turned):
    model, params, truth = turned[:3]
    factors = torch.tensor([1.8, 1.2, 0.7])
    photo = photo_of(model, params.replace(light=params.light * factors * 0.5), truth)
    image = to_uint8(linear_to_srgb(photo)).movedim(0, -1).contiguous().numpy()
    gain = light_gain(model, params, image, linear_to_srgb(truth))
    assert torch.allclose(gain, 0.5 * factors, rtol=0.05)
    assert torch.equal(light_gain(model, params, np.zeros_like(image), truth), torch.ones(3))
