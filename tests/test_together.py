# SPDX-License-Identifier: Apache-2.0
"""Several photos of one person, fitted together."""

from __future__ import annotations

import pytest
import torch

from hiface.errors import DifferentPeopleError, FitError
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import ALL_PARTS, fit_face, fit_landmarks, fit_photometric, start_fit
from hiface.fitting.observations import FaceObservation, ImageCrop
from hiface.fitting.priors import Start
from hiface.fitting.same_person import one_person
from hiface.fitting.solver import EnergySum
from hiface.fitting.together import SHARED, evidence, fit_together, shared_start
from hiface.losses.shape_loss import ShapeMetric
from hiface.morphable import load_model
from hiface.render.pipeline import render
from hiface.types import Camera
from test_detail_fit import SIZE, face

EXPRESSIONS = ({"jawOpen": 0.4}, {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}, {})


@pytest.fixture(scope="module")
def model():
    return load_model("open")


def seen(model, number, picture=False):
    """One photo of the person, noisy points, each with its own expression and size in the picture."""
    params = face(model, EXPRESSIONS[number])
    camera = Camera.from_pose(params.camera.R, params.camera.t, 800.0 - 100.0 * number, SIZE, SIZE)
    params = params.replace(camera=camera)
    vertices = model.vertices_cam(params)
    gen = torch.Generator().manual_seed(number)

    def points(name):
        px = camera.cam_to_px(model.landmarks_cam(name, vertices))
        return px + 2.0 * torch.randn(px.shape, generator=gen)

    crop = None
    if picture:
        mesh = model.mesh(model.shape(params.identity, params.expression))
        crop = ImageCrop(render(mesh, camera, model.albedo_map(params.albedo), params.light).image)
    px, dense = points("ibug68"), points("dense")
    focal = float(camera.focal_px)
    return params, FaceObservation(SIZE, SIZE, px, dense_px=dense, focal_px=focal, crop=crop)


def test_three_photos_say_more_than_one(model):
    shots = [seen(model, k) for k in range(3)]
    truth, observations = shots[0][0], [o for _, o in shots]
    metric = ShapeMetric(model)

    def error(params):
        return float(metric.neutral(params.identity, truth.identity))

    alone = sum(error(fit_face(model, o).params) for o in observations) / 3
    results = fit_together(model, observations)
    assert error(results[0].params) < 0.9 * alone
    for (params, _), result in zip(shots, results, strict=True):
        assert torch.equal(result.params.identity, results[0].params.identity)
        assert torch.equal(result.params.albedo, results[0].params.albedo)
        still = float(metric.motion(torch.zeros(52), params.expression))
        assert still == 0 or float(metric.motion(result.params.expression, params.expression)) < 0.8 * still


def test_one_photo_together_is_a_plain_fit(model):
    _, observation = seen(model, 0, picture=True)
    (together,) = fit_together(model, [observation])
    plain = fit_face(model, observation)
    assert torch.equal(together.params.identity, plain.params.identity)
    assert torch.equal(together.params.light, plain.params.light)


def test_elimination_is_the_solution_of_the_whole_system(model):
    """The shared step of two photos, by eliminating what is each photo's own and from one large matrix."""
    config = FitConfig(n_identity=20, samples=500)
    fits = []
    for number in range(2):
        fit = start_fit(model, seen(model, number, picture=True)[1], config, None)
        fit_landmarks(fit)
        fit_photometric(fit)
        fits.append(fit)
    layout = fits[0].layout
    shared = torch.nonzero(layout.mask(*SHARED))[:, 0]
    inside = (fits[0].x[layout["expression"]] > 0.01) & (fits[1].x[layout["expression"]] > 0.01)
    own_mask = layout.mask(*(name for name in ALL_PARTS if name not in SHARED))
    for fit in fits:  # away from the bounds, where elimination is exact
        fit.x[layout["expression"]] = torch.where(inside, fit.x[layout["expression"]], 0.05)
    own = torch.nonzero(own_mask)[:, 0]
    n, m = len(shared), len(own)
    whole, right = torch.zeros(n + 2 * m, n + 2 * m).double(), torch.zeros(n + 2 * m).double()
    information, gradient = torch.zeros(n, n).double(), torch.zeros(n).double()
    for k, fit in enumerate(fits):
        model_k = EnergySum(fit.terms(fit.finest(), True)).linearise(fit.x)
        prior = fit.prior.linearise(fit.x)
        places = torch.cat([torch.arange(n), n + k * m + torch.arange(m)])
        order = torch.cat([shared, own])
        hessian, slope = model_k.hessian[order][:, order].clone(), model_k.gradient[order].clone()
        hessian[:n, :n] -= prior.hessian[shared][:, shared]
        slope[:n] -= prior.gradient[shared]
        whole[places[:, None], places] += hessian
        right[places] -= slope
        said = evidence(fit)
        information += said.information
        gradient += said.gradient
    known = fits[0].prior.hessian[shared][:, shared]
    whole[:n, :n] += known
    step = torch.linalg.solve(whole, right)[:n]
    eliminated = torch.linalg.solve(information + known, -gradient)
    assert torch.allclose(step, eliminated, rtol=1e-3, atol=1e-4 * float(step.abs().max()))


def test_starts_are_shared_and_surer(model):
    params = face(model)
    sigma = torch.ones(model.data.n_identity)
    starts = [Start(params.replace(identity=params.identity + d), sigma, 0.1, 0.4) for d in (-1.0, 0.0, 1.0)]
    free, same = shared_start(starts, 0.0), shared_start(starts, 1.0)
    assert torch.allclose(free[1].params.identity, params.identity, atol=1e-5)
    assert torch.allclose(free[0].identity_sigma, sigma / 3**0.5) and torch.allclose(
        same[0].identity_sigma, sigma
    )
    assert free[2].albedo_sigma == pytest.approx(0.4 / 3**0.5)


def test_nothing_to_fit_is_said(model):
    with pytest.raises(FitError, match="no photo"):
        fit_together(model, [])
    with pytest.raises(FitError, match="as many starts"):
        fit_together(model, [seen(model, 0)[1]], [])


def test_the_same_face_is_chosen_in_each_photo_and_strangers_are_named():
    gen = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, generator=gen)

    def like(x):
        return x + 0.4 * torch.randn(40, generator=gen)

    chosen, _ = one_person([["a1"], ["b", "a2"], ["a3"]], [[like(a)], [like(b), like(a)], [like(a)]])
    assert chosen == ["a1", "a2", "a3"]
    with pytest.raises(DifferentPeopleError, match="photo 2 of 3"):
        one_person([["a"], ["b"], ["a"]], [[like(a)], [like(b)], [like(a)]])
    with pytest.raises(DifferentPeopleError, match="two photos show different people"):
        one_person([["a"], ["b"]], [[like(a)], [like(b)]])
    assert one_person([["b", "a"]], [[like(b), like(a)]]) == (["b"], [None])


def test_likeness_is_measured_and_faces_in_doubt_are_named(caplog):
    def at(degrees):
        angle = torch.tensor(degrees).deg2rad()
        return [5.0 * torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])]

    assert one_person([["a"], ["b"]], [at(0.0), at(50.0)])[1] == pytest.approx([0.643, 0.643], abs=1e-3)
    assert caplog.messages == []
    assert one_person([["a"], ["b"]], [at(0.0), at(60.0)])[1] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert "may show different people" in caplog.messages[0] and "0.50" in caplog.messages[0]
    _, likeness = one_person([["a"], ["b"], ["c"]], [at(0.0), at(10.0), at(66.0)])
    assert likeness == pytest.approx([0.788, 0.921, 0.485], abs=1e-3)  # cosines of 38, 23 and 61 degrees
    assert "of 3 photos" in caplog.messages[1] and caplog.messages[1].count("(") == 1
    assert "3 (0.48)" in caplog.messages[1]
    with pytest.raises(DifferentPeopleError, match=r"likeness 0\.17"):
        one_person([["a"], ["b"]], [at(0.0), at(80.0)])
