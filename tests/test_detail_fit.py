# SPDX-License-Identifier: Apache-2.0
"""Detail codes and shapes found by optimisation, from a start that is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch

from hiface.detail.basis import load_detail_basis
from hiface.detail.displacement import CAVITY, CAVITY_M
from hiface.detail.sd_detail import compose_detail, detail_space, detailed_normals
from hiface.errors import ShapeError
from hiface.fitting.config import FitConfig
from hiface.fitting.detail_codes import DetailFitConfig, fit_detail_codes
from hiface.fitting.fit import align_to_landmarks, fit_face
from hiface.fitting.observations import FaceObservation
from hiface.fitting.prepared import prepare_model
from hiface.fitting.priors import Start, build_prior
from hiface.losses.shape_loss import ShapeMetric
from hiface.morphable import load_model
from hiface.render.pipeline import render
from hiface.render.pyramid import resize
from hiface.render.shade import SH_C0, ambient_light, sh_basis
from hiface.render.visibility import light_transfer, turned_transfer
from hiface.types import Camera, FaceParams

SIZE = 384
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def model():
    return load_model("open")


@pytest.fixture(scope="module")
def basis():
    return load_detail_basis().first(40, 20, 12)


def face(model, expression=None, seed=0):
    gen = torch.Generator().manual_seed(seed)
    light = torch.zeros(9, 3)
    light[0] = 0.7 / SH_C0
    light[1:4] = torch.tensor([-0.45, -0.3, 0.25])[:, None]
    R = roma.rotvec_to_rotmat(torch.tensor([0.05, 0.15, 0.0])) @ FLIP
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.5]), 800.0, SIZE, SIZE)
    return FaceParams(
        0.7 * torch.randn(model.data.n_identity, generator=gen),
        model.expression_vector(expression or {}),
        torch.zeros(model.data.n_joints, 3),
        torch.zeros(len(model.data.albedo_names)),
        light,
        camera,
    )


def lit_texture(model, params, displacement):
    """Albedo under the light that reaches it, in texture space: own shadow, slopes, dark grooves."""
    size = displacement.shape[-1]
    shape = model.shape(params.identity, params.expression)
    R = params.camera.R
    light = turned_transfer(light_transfer(model), R) @ params.light
    here = detail_space(model, size).lift(light.flatten(1)).unflatten(0, (9, 3))
    normals = torch.einsum("ij,jhw->hwi", R, detailed_normals(model, shape, displacement))
    shading = (sh_basis(normals).movedim(-1, 0)[:, None] * here).sum(0)
    groove = torch.tensor(CAVITY)[:, None, None] * ((displacement.clamp_max(0) / CAVITY_M).exp() - 1)
    return resize(model.albedo_map(params.albedo), size) * shading * groove.exp()


def photo(model, basis, params, static, dynamic):
    neutral = model.shape(params.identity, torch.zeros_like(params.expression))
    shape = model.shape(params.identity, params.expression)
    maps = compose_detail(model, basis, neutral, shape, static, dynamic)
    camera = replace(params.camera, K=params.camera.K[None], T_cam_object=params.camera.T_cam_object[None])
    texture = lit_texture(model, params, maps.displacement)[None]
    return render(model.mesh(shape[None]), camera, texture, ambient_light(1.0, texture)[None]).image[0]


def error(basis, codes, truth):
    difference = (basis.static.decode(codes) - basis.static.decode(truth)) * basis.static.weight
    return float(difference.square().mean().sqrt())


def no_dynamic(static, expression):
    return static.new_zeros(len(static), 32)


def test_codes_are_read_from_shading(model, basis):
    params = face(model)
    truth = 1.5 * torch.randn(40, generator=torch.Generator().manual_seed(3))
    image = photo(model, basis, params, truth, torch.zeros(32))
    found = fit_detail_codes(model, basis, no_dynamic, params, image)
    assert error(basis, found, truth) < 0.6 * error(basis, torch.zeros(40), truth)
    again = fit_detail_codes(model, basis, no_dynamic, params, image)
    assert torch.equal(found, again)


def test_a_start_is_kept_where_the_photo_says_nothing(model, basis):
    params = face(model).replace(static=torch.ones(40))
    black = torch.zeros(3, SIZE, SIZE)
    assert torch.equal(fit_detail_codes(model, basis, no_dynamic, params, black), params.static)
    beside = params.camera.K.clone()
    beside[0, 2] += 5000.0
    away = params.replace(camera=replace(params.camera, K=beside))
    assert torch.equal(fit_detail_codes(model, basis, no_dynamic, away, black + 0.5), params.static)


def test_light_from_behind_leaves_finite_codes(model, basis):
    """Most of the face lies in negative shading, as strong directional harmonics make it."""
    light = torch.zeros(9, 3)
    light[0], light[2], light[3] = 0.2 / SH_C0, 0.6, 1.2
    params = face(model).replace(light=light)
    image = photo(model, basis, params, torch.ones(40), torch.zeros(32)).clamp_min(0)
    assert torch.isfinite(fit_detail_codes(model, basis, no_dynamic, params, image)).all()
    with pytest.raises(ShapeError, match="40 static codes"):
        fit_detail_codes(model, basis, no_dynamic, params.replace(static=torch.ones(7)), image)


def test_sure_codes_move_less(model, basis):
    params = face(model)
    truth = 1.5 * torch.randn(40, generator=torch.Generator().manual_seed(4))
    image = photo(model, basis, params, truth, torch.zeros(32))
    free = fit_detail_codes(model, basis, no_dynamic, params, image)
    sure = fit_detail_codes(model, basis, no_dynamic, params, image, DetailFitConfig(sigma=0.05))
    assert float(sure.norm()) < 0.5 * float(free.norm())


def test_wrinkles_of_the_expression_tell_of_the_person(model, basis):
    """Codes that show only where skin is compressed are found through the dynamic codes."""
    params = face(model, {"browInnerUp": 1.0, "mouthSmileLeft": 1.0, "mouthSmileRight": 1.0})
    gen = torch.Generator().manual_seed(5)
    mix = torch.randn(40, 32, generator=gen) / 3.0
    still = replace(basis, static=replace(basis.static, rows=0.0 * basis.static.rows))

    def dynamic(static, expression):
        return static @ mix

    truth = torch.randn(40, generator=gen)
    image = photo(model, still, params, truth, (truth @ mix))
    found = fit_detail_codes(model, still, dynamic, params, image)
    wrong = (found - truth) @ mix
    assert float(wrong.norm()) < 0.8 * float((truth @ mix).norm())
    at_rest = params.replace(expression=torch.zeros_like(params.expression))
    image = photo(model, still, at_rest, truth, (truth @ mix))
    nothing = fit_detail_codes(model, still, dynamic, at_rest, image)
    assert float(nothing.norm()) < 0.2 * float(found.norm())


def test_believing_in_the_mean_face_is_to_believe_nothing(model):
    config = FitConfig(n_identity=20)
    layout = prepare_model(model, config).layout
    names, n = model.data.expression_names, model.data.n_identity
    mean = face(model).replace(identity=torch.zeros(n), expression=torch.zeros(52))
    plain = build_prior(layout, names, config, True)
    believed = build_prior(layout, names, config, True, Start(mean, torch.ones(n), 1e6, 1.0))
    assert torch.allclose(plain.hessian, believed.hessian) and torch.equal(plain.gradient, believed.gradient)
    surer = build_prior(layout, names, config, True, Start(mean, torch.full((n,), 0.5), 1e6, 1.0))
    where = layout["identity"]
    assert torch.allclose(surer.hessian[where, where], 4 * plain.hessian[where, where])


def test_a_believed_start_helps_and_is_helped(model):
    params = face(model, {"jawOpen": 0.4}, seed=6)
    camera, vertices = params.camera, model.vertices_cam(params)
    gen = torch.Generator().manual_seed(7)

    def seen(name):
        px = camera.cam_to_px(model.landmarks_cam(name, vertices))
        return px + 1.5 * torch.randn(px.shape, generator=gen)

    observation = FaceObservation(SIZE, SIZE, seen("ibug68"), dense_px=seen("dense"), focal_px=800.0)
    sigma = torch.full((model.data.n_identity,), 0.5)
    guess = params.identity + sigma * torch.randn(len(sigma), generator=gen)
    believed = Start(params.replace(identity=guess, static=torch.ones(3)), sigma, 0.3, 1.0)
    metric = ShapeMetric(model)
    alone = fit_face(model, observation).params
    both = fit_face(model, observation, believed=believed).params
    first, plain, helped = (
        float(metric.neutral(identity, params.identity))
        for identity in (guess, alone.identity, both.identity)
    )
    assert helped < 0.8 * first and helped < 0.8 * plain
    assert both.static is believed.params.static
    assert torch.equal(both.identity[120:], guess[120:])


def test_alignment_moves_the_face_and_not_who_it_is(model):
    params = face(model, {"jawOpen": 0.5, "mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}, seed=8)
    points = params.camera.cam_to_px(model.landmarks_cam("ibug68", model.vertices_cam(params)))
    dense = params.camera.cam_to_px(model.landmarks_cam("dense", model.vertices_cam(params)))
    observation = FaceObservation(SIZE, SIZE, points, dense_px=dense, focal_px=800.0)
    at_rest = params.replace(expression=torch.zeros(52), static=torch.ones(3))
    aligned = align_to_landmarks(
        model, observation, Start(at_rest, torch.ones(model.data.n_identity), 0.5, 1.0)
    )
    metric = ShapeMetric(model)
    wrong, before = (
        float(metric.motion(e, params.expression)) for e in (aligned.expression, torch.zeros(52))
    )
    assert wrong < 0.15 * before
    error = aligned.camera.cam_to_px(model.landmarks_cam("ibug68", model.vertices_cam(aligned))) - points
    assert float(error.norm(dim=-1).mean()) < 1.0
    for name in ("identity", "albedo", "light", "static"):
        assert torch.equal(getattr(aligned, name), getattr(at_rest, name))
    sure = align_to_landmarks(
        model, observation, Start(at_rest, torch.ones(model.data.n_identity), 0.01, 1.0)
    )
    assert float(sure.expression.abs().max()) < 0.1
