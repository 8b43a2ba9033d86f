"""Losses and training of the HiFace network on pictures of the generator."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hiface
from hiface.cli.main import main
from hiface.detail.basis import load_detail_basis
from hiface.errors import AssetError, HifaceError, ShapeError
from hiface.geometry.procrustes import procrustes
from hiface.losses.detail_loss import composed_error, state_error
from hiface.losses.distillation_loss import distillation
from hiface.losses.regularisation_loss import coefficient_prior, grey_light
from hiface.losses.shape_loss import ShapeMetric, face_weights, quadratic
from hiface.networks.hiface import PRESETS, HifaceOutput
from hiface.synthetic.people import sample_person
from hiface.training.hiface_task import HifaceRecipe, HifaceTask, face_side, split_codes, supervised_losses
from hiface.training.recipes import main_train


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def people(model):
    rows = [sample_person(model, np.random.default_rng([i, 4])).identity for i in range(6)]
    return torch.stack(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    with pytest.raises(SystemExit) as done:
        main(["synth", "--count", "84", "--size", "128", "--labels", "codes", "-o", str(folder)])
    assert done.value.code == 0
    return folder


@pytest.fixture(scope="module")
def task(data):
    return HifaceTask(HifaceRecipe(batch_size=6, held=8, backgrounds=6, composed_of=2), (data,))


def test_expressive_distance_is_that_of_the_vertices(model, people):
    metric, weights = ShapeMetric(model), face_weights(model)
    gen = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 52, generator=gen), torch.rand(3, 52, generator=gen)
    difference = model.shape(people[:3], a) - model.shape(people[3:], b)
    wanted = 1e6 * (difference.square().sum(-1) * weights).sum(-1)
    assert torch.allclose(metric.expressive(people[:3], a, people[3:], b), wanted, rtol=1e-3)


def test_neutral_distance_is_that_after_rigid_alignment(model, people):
    metric, weights = ShapeMetric(model), face_weights(model)
    none = torch.zeros(3, 52)
    shape, truth = model.shape(people[:3], none), model.shape(people[3:], none)
    aligned = procrustes(shape, truth, weights).apply(shape)
    wanted = 1e6 * ((aligned - truth).square().sum(-1) * weights).sum(-1)
    assert torch.allclose(metric.neutral(people[:3], people[3:]), wanted, rtol=0.03)


def test_a_form_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="expected 4"):
        quadratic(torch.zeros(2, 3), torch.eye(4))


def test_state_error_is_the_error_of_the_map_over_that_of_the_mean():
    part = load_detail_basis().static
    gen = torch.Generator().manual_seed(0)
    codes, truth = torch.randn(2, 4, 300, generator=gen)
    total = (part.decode(codes) - part.decode(truth)).square().sum(-1)
    assert torch.allclose(state_error(part, codes, truth), total / part.variances.sum(), rtol=0.1)
    assert float(state_error(part, truth, truth).max()) == 0


def test_composed_error_is_the_mean_absolute_error_in_micrometres():
    basis = load_detail_basis().first(4, 3, 2)
    gen = torch.Generator().manual_seed(0)
    static, dynamic = torch.randn(2, 4, generator=gen), torch.randn(2, 5, generator=gen)
    masks = torch.rand(2, len(basis.texels), generator=gen), torch.rand(2, len(basis.texels), generator=gen)
    none = torch.zeros_like(masks[0])
    assert float(composed_error(basis, static, dynamic, masks, static, dynamic, masks).max()) == 0
    wanted = 1e6 * (masks[0] * basis.compressed.decode(dynamic[:, :3])
                    + masks[1] * basis.stretched.decode(dynamic[:, 3:])).abs().mean(-1)  # fmt: skip
    error = composed_error(basis, static, dynamic, masks, static, dynamic, (none, none))
    assert torch.allclose(error, wanted, rtol=1e-4)


def test_regularisers():
    assert float(coefficient_prior(torch.full((1, 5), 2.0))) == 4
    assert float(grey_light(torch.ones(1, 9, 3))) == 0
    coloured = torch.zeros(1, 9, 3)
    coloured[..., 0] = 3.0
    assert float(grey_light(coloured)) == pytest.approx((4 + 1 + 1) / 3)


def test_truths_make_every_loss_vanish(task):
    batch = task.batch(0)
    static, dynamic = split_codes(batch.codes, task.side.basis, load_detail_basis().counts)
    R = batch.rotation
    out = HifaceOutput(
        batch.identity,
        batch.expression,
        torch.cat([R[:, :, 0], R[:, :, 1]], dim=1),
        batch.place,
        batch.albedo,
        batch.light.flatten(1),
        static,
        dynamic,
    )
    terms = supervised_losses(task.side, out, batch, 2)
    terms.pop("prior")
    assert {name: float(v) < 2e-3 for name, v in terms.items()} == dict.fromkeys(terms, True)
    again = distillation(task.side.metric, task.side.basis, out, out)
    assert all(float(v.abs().max()) < 1e-6 for v in again.values())


def test_every_prediction_has_a_gradient(task):
    batch = task.batch(1)
    loss, terms = task.loss(task.network.train(), batch)
    assert set(terms) == set(vars(task.recipe.weights))
    task.network.zero_grad()
    loss.backward()
    without = [n for n, p in task.network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # Blocks that start as the identity pass nothing to what lies inside them.
    assert all(".second." in n or ".first." in n for n in without), without


def test_a_few_steps_on_one_batch_bring_the_loss_down(data):
    task = HifaceTask(HifaceRecipe(batch_size=6, held=8, backgrounds=6, composed_of=2), (data,))
    batch = task.batch(0)
    network = task.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    values = []
    for _ in range(25):
        loss, _ = task.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss))
    assert np.mean(values[-3:]) < 0.6 * values[0]


def test_batches_do_not_depend_on_what_was_drawn_before(task):
    again = task.batch(3)
    task.batch(4)
    assert torch.equal(task.batch(3).crops, again.crops)
    assert torch.equal(task.batch(3).seen_points, again.seen_points)


def test_pictures_without_codes_are_refused(tmp_path):
    with pytest.raises(SystemExit):
        main(["synth", "--count", "3", "--size", "64", "-o", str(tmp_path / "plain")])
    with pytest.raises(AssetError, match="--labels codes"):
        HifaceTask(HifaceRecipe(), (tmp_path / "plain",))


def test_a_network_for_another_model_is_refused(model):
    from dataclasses import replace

    with pytest.raises(AssetError, match="coefficients"):
        face_side(model, replace(PRESETS["small"], n_identity=80))


def test_training_writes_weights_that_say_how_they_came_to_be(data, tmp_path, monkeypatch):
    from dataclasses import replace

    from hiface.networks.weights import load_hiface, weights_notes
    from hiface.training import recipes

    small = HifaceRecipe(batch_size=4, held=4, backgrounds=6, composed_of=1)
    monkeypatch.setitem(recipes.RECIPES, "hiface", replace(recipes.RECIPES["hiface"], task=small))
    path = main_train("hiface", data, tmp_path / "run", steps=2)
    assert isinstance(path, Path) and load_hiface(path).config == PRESETS["small"]
    notes = weights_notes(path)
    assert "neutral_over_mean" in notes["scores"] and notes["recipe"] == "hiface"
    with pytest.raises(HifaceError, match="preset"):
        main_train("hiface", data, tmp_path / "other", steps=2, preset="huge")
    with pytest.raises(HifaceError, match="preset"):
        main_train("finder", data, tmp_path / "other", steps=2, preset="small")
