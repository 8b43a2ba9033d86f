"""Losses and training of the HiFace network on pictures of the generator."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hiface
from hiface.cli.main import main
from hiface.detail.basis import load_detail_basis
from hiface.errors import AssetError, OptionError, ShapeError
from hiface.geometry.procrustes import procrustes
from hiface.losses.detail_loss import composed_error, state_error
from hiface.losses.distillation_loss import distillation
from hiface.losses.regularisation_loss import coefficient_prior, grey_light
from hiface.losses.shape_loss import ShapeMetric, face_weights, quadratic
from hiface.networks.hiface import PRESETS
from hiface.synthetic.people import sample_person
from hiface.training.hiface_losses import face_side, photo_losses, supervised_losses, true_output
from hiface.training.hiface_task import HifaceRecipe, HifaceTask
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


def descend(network, loss_of, steps, rate):
    """Losses of a few optimiser steps."""
    optimizer, values = torch.optim.AdamW(network.parameters(), lr=rate), []
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    return values


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
    out = true_output(batch, task.side.basis)
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
    learnt = [(n, p) for n, p in task.network.named_parameters() if p.requires_grad]
    without = [n for n, p in learnt if p.grad is None or not p.grad.abs().max() > 0]
    # Blocks that start as the identity, or silent, pass nothing to what lies inside them.
    silent = [n for n in without if n.startswith(("relief.", "colours."))]
    assert "relief.last.weight" not in silent
    assert all(".second." in n or ".first." in n for n in set(without) - set(silent)), without


def test_the_last_layers_are_refitted_in_closed_form(data):
    """Afterwards no other last layers would have less squared error on the crops, penalty included."""
    recipe = HifaceRecipe(batch_size=6, held=8, backgrounds=6, start_with=64, finish_with=192)
    task = HifaceTask(recipe, (data,))
    network = task.network.eval()
    crops = list(task._crops(192, recipe.seed + 1))

    def error():
        with torch.inference_mode():
            return sum(float((network(b.crops, b.seen_points)[0] - b.identity).square().sum()) for b in crops)

    before = error()
    task.finish(network)
    assert error() < before
    truth = torch.cat([b.identity for b in crops])
    assert error() < float((truth - truth.mean(dim=0)).square().sum())


def test_a_few_steps_on_one_batch_bring_the_loss_down(data):
    task = HifaceTask(HifaceRecipe(batch_size=6, held=8, backgrounds=6, composed_of=2), (data,))
    batch = task.batch(0)
    network = task.network.train()
    values = descend(network, lambda: task.loss(network, batch)[0], 35, 1e-3)
    assert np.mean(values[-3:]) < 0.6 * values[0]


def test_the_sheet_shows_pictures_reconstructions_and_relief(task):
    sheet = np.asarray(task.contact_sheet(task.network.eval()))
    assert sheet.shape == (4 * 224, 8 * 224, 3) and sheet.std() > 20


def test_batches_do_not_depend_on_what_was_drawn_before(task):
    again = task.batch(3)
    task.batch(4)
    assert torch.equal(task.batch(3).crops, again.crops)
    assert torch.equal(task.batch(3).seen_points, again.seen_points)


def test_pictures_without_codes_are_refused_alone(data, tmp_path):
    with pytest.raises(SystemExit):
        main(["synth", "--count", "84", "--size", "64", "-o", str(tmp_path / "plain")])
    with pytest.raises(AssetError, match="--labels codes"):
        HifaceTask(HifaceRecipe(), (tmp_path / "plain",))
    # Beside pictures with codes they teach all but detail.
    recipe = HifaceRecipe(batch_size=32, held=8, backgrounds=6, composed_of=2, start_with=64)
    task = HifaceTask(recipe, (data, tmp_path / "plain"))
    batches = [task.batch(step) for step in range(6)]
    known = [bool(torch.isfinite(b.codes).all()) for b in batches]
    assert True in known and False in known  # a batch has pictures of one size
    loss, terms = task.loss(task.network.train(), batches[known.index(False)])
    assert float(terms["static"]) == 0 < float(terms["neutral"])
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in task.network.parameters() if p.grad is not None)


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
    reader = hiface.Reconstructor("hiface", weights=path).network
    assert reader is not None and reader.identity_sigma.shape == (150,)
    assert 0.3 < float(reader.identity_sigma.mean()) < 3 and len(set(reader.identity_sigma.tolist())) > 9
    with pytest.raises(OptionError, match="preset"):
        main_train("hiface", data, tmp_path / "other", choices=recipes.HifaceChoices("huge"))
    with pytest.raises(OptionError, match="preset"):
        main_train("finder", data, tmp_path / "other", choices=recipes.HifaceChoices("small"))


def test_killed_and_resumed_ends_with_the_weights_of_an_unbroken_run(data, tmp_path):
    """Dropout included."""
    from hiface.training.loop import LoopConfig, train

    recipe = HifaceRecipe(batch_size=4, held=4, backgrounds=6, composed_of=1, start_with=64)
    loop = LoopConfig(steps=4, warmup=1, checkpoint_every=2)
    assert recipe.network.dynamic_dropout > 0
    whole = train(HifaceTask(recipe, (data,)), loop, tmp_path / "whole")
    broken = HifaceTask(recipe, (data,))
    batch = broken.batch

    def killed_at_three(step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(step)

    broken.batch = killed_at_three
    with pytest.raises(KeyboardInterrupt):
        train(broken, loop, tmp_path / "broken")
    torch.manual_seed(99)
    resumed = train(HifaceTask(recipe, (data,)), loop, tmp_path / "broken", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Synthetic pictures with their labels hidden, one without a face and one that cannot be read."""
    from PIL import Image

    from hiface.synthetic.generator import Style, generate_picture

    folder = tmp_path_factory.mktemp("photos")
    model = hiface.load_model("open")
    for seed in range(0, 24, 3):
        sample = generate_picture(model, seed, Style(256, effects=frozenset({"hair", "skin", "wrinkles"})))
        Image.fromarray(sample.image_srgb.permute(1, 2, 0).numpy()).save(folder / f"{seed}.png")
    Image.new("RGB", (200, 200), (90, 120, 150)).save(folder / "sky.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_a_rendered_truth_looks_like_its_own_picture(data):
    """The whole chain of L_self: camera of the crop, albedo, light, detail. Pictures without extras."""
    from hiface.losses.self_loss import draw_self, identity_loss, landmark_agreement, photometric
    from hiface.training.hiface_batches import STILL

    task = HifaceTask(HifaceRecipe(batch_size=6, held=8, backgrounds=6, jitter=STILL), (data,))
    batch, side = task.batch(0), task.side
    out = true_output(batch, side.basis)
    drawn = draw_self(side.model, side.basis, out, batch.frame, batch.K, 96)
    small = torch.nn.functional.interpolate(batch.crops, size=(96, 96), mode="area")
    own = photometric(drawn, small)
    others = photometric(drawn, small.roll(1, 0))
    assert float(own.median()) < 0.06 and float((own < others).float().mean()) > 0.6
    px = drawn.params.camera.project(side.landmarks(batch.identity, batch.expression))
    truth = torch.cat([batch.frame.to_crop(px), torch.zeros(6, px.shape[1], 1)], dim=-1)
    weights = torch.ones(6, px.shape[1])
    weights[:, :17] = 0
    error = (batch.frame.to_crop(px)[:, 17:] - batch.points[:, 17 : px.shape[1]]).norm(dim=-1)
    assert float(error.median()) < 0.01  # the model's points are where the picture's are
    assert float(landmark_agreement(batch.frame.to_crop(px), truth, weights).max()) < 1e-3

    def embed(crops):
        return torch.nn.functional.normalize(crops.flatten(1), dim=1)

    loss = identity_loss(drawn, small, embed)
    assert loss.shape == (6,) and float(loss.min()) >= -1e-5 and float(loss.max()) < 0.5


def test_photos_teach_by_their_look_and_by_a_teacher(data, photos, tmp_path):
    from hiface.networks.weights import save_weights

    recipe = HifaceRecipe(batch_size=4, held=4, backgrounds=6, composed_of=1)
    teacher = HifaceTask(recipe, (data,)).network
    save_weights(teacher, tmp_path / "teacher.safetensors", {})

    def embed(crops):
        return torch.nn.functional.normalize(crops.mean(dim=(2, 3)), dim=1)

    task = HifaceTask(recipe, (data,), photos, tmp_path / "teacher.safetensors", embed)
    assert 4 <= len(task.photos) <= 8
    batch = task.batch(0)
    assert batch.photo_crops.shape == (8, 3, 224, 224)
    network = task.network.train()
    _, terms = task.loss(network, batch)
    named = {k.removeprefix("photo_") for k in terms if k.startswith("photo_")}
    assert named == set(vars(recipe.photo_weights)) - {"of", "render_px"}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    start, _ = task.loss(network, batch)

    def photo_loss():
        found = photo_losses(task.side, network, batch, 96, (task.teacher, embed))
        return sum(getattr(recipe.photo_weights, k) * v for k, v in found.items())

    seen = descend(network, photo_loss, 12, 5e-4)
    assert torch.isfinite(start) and min(seen[-3:]) < 0.8 * seen[0]


def test_folders_without_a_usable_face_are_refused(photos, tmp_path):
    from PIL import Image

    from hiface.training.photo_crops import PhotoCrops

    with pytest.raises(AssetError, match="no pictures"):
        PhotoCrops(tmp_path, 200)
    Image.new("RGB", (200, 200), (90, 120, 150)).save(tmp_path / "sky.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(AssetError, match="shows a face"):
        PhotoCrops(tmp_path, 200)


def test_a_teacher_of_another_preset_is_refused(data, tmp_path):
    from dataclasses import replace

    from hiface.networks.hiface import build_hiface
    from hiface.networks.weights import save_weights

    other = build_hiface(replace(PRESETS["small"], adain="moments"))
    save_weights(other, tmp_path / "other.safetensors", {})
    with pytest.raises(AssetError, match="another preset"):
        HifaceTask(HifaceRecipe(), (data,), teacher=tmp_path / "other.safetensors")


def test_contrastive_loss_is_least_when_people_are_apart():
    from hiface.losses.contrastive import supervised_contrastive

    persons = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    mixed = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert float(supervised_contrastive(apart, persons)) < 1e-6
    assert float(supervised_contrastive(mixed, persons)) > 5
    # By hand: two partners at cosine 0, one stranger at cosine 0, temperature 1: -log(1 / 2).
    right = torch.eye(3)
    value = supervised_contrastive(right, torch.tensor([0, 0, 1]), 1.0)
    assert float(value) == pytest.approx(np.log(2))
    with pytest.raises(ShapeError, match="one person"):
        supervised_contrastive(right, torch.tensor([0, 1, 2]))


def test_the_recogniser_learns_who_is_who_and_serves_the_identity_loss(data, photos, tmp_path):
    from dataclasses import replace

    from hiface.networks.recogniser import at_own_size
    from hiface.networks.weights import load_recogniser
    from hiface.training import recipes
    from hiface.training.recogniser_task import RecogniserRecipe, RecogniserTask

    recipe = RecogniserRecipe(persons=8, backgrounds=6)
    task = RecogniserTask(recipe, (data,))
    batch = task.batch(0)
    assert batch.crops.shape == (16, 3, 112, 112)
    assert torch.equal(batch.persons[::2], batch.persons[1::2]) and len(batch.persons.unique()) == 8
    network = task.network.train()
    losses = descend(network, lambda: task.loss(network, batch)[0], 15, 1e-3)
    assert losses[-1] < 0.7 * losses[0]
    known = recipes.RECIPES["recogniser"]
    changed = replace(known, task=recipe)
    try:
        recipes.RECIPES["recogniser"] = changed
        path = main_train("recogniser", data, tmp_path / "run", steps=1)
    finally:
        recipes.RECIPES["recogniser"] = known
    embed = at_own_size(load_recogniser(path))
    crops = torch.rand(2, 3, 96, 96, requires_grad=True)
    embed(crops).sum().backward()
    assert crops.grad is not None and float(crops.grad.abs().max()) > 0
    with pytest.raises(OptionError, match="synthetic pictures only"):
        main_train("recogniser", data, tmp_path / "x", choices=recipes.HifaceChoices(photos=photos))


def test_teachers_and_recognisers_need_photos(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as failed:
        main(
            ["train", "hiface", "--data", str(data), "-o", str(tmp_path / "r"), "--teacher", "a.safetensors"]
        )
    assert failed.value.code == 1 and "--photos" in capsys.readouterr().err
