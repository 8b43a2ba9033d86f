# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from fake_shards import layout, write_shards, write_tar_shard
from hiface.errors import AssetError, FitError, HifaceError, OutputError
from hiface.networks.finder import FinderConfig
from hiface.networks.landmarker import LandmarkerConfig
from hiface.training.augment import BackgroundBank, degrade, jpeg_like, occlude
from hiface.training.collages import CollageConfig, make_collages
from hiface.training.finder_task import FinderRecipe, FinderTask, assign
from hiface.training.landmark_batches import CropJitter, make_batch
from hiface.training.landmark_task import LandmarkRecipe, LandmarkTask, opening_error, opening_pairs
from hiface.training.loop import LoopConfig, TrainState, learning_rate, read_checkpoint, train
from hiface.training.recipes import data_folders, main_train
from hiface.training.shards import VALIDATION_EVERY, ShardSet

torch.set_num_threads(1)

SMALL = LandmarkerConfig(crop_px=64, stem=8, widths=(8, 12, 16, 16), hidden=32)
FINDER = FinderConfig(stem=8, widths=(8, 12, 16), blocks=(1, 1, 1), neck=12)
LANDMARK_RECIPE = LandmarkRecipe(batch_size=8, network=SMALL, backgrounds=9, jitter=CropJitter(negatives=0.1))
FINDER_RECIPE = FinderRecipe(
    batch_size=4, network=FINDER, backgrounds=9, collage=CollageConfig(size=96, max_face_px=80)
)
LOOP = LoopConfig(steps=6, warmup=2, checkpoint_every=3, log_every=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


def landmark_task(data: Path) -> LandmarkTask:
    return LandmarkTask(LANDMARK_RECIPE, (data,), layout()[1])


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["landmarker", "finder"])
def test_killed_and_resumed_ends_with_the_weights_of_an_unbroken_run(
    kind: str, data: Path, tmp_path: Path
) -> None:
    def task() -> LandmarkTask | FinderTask:
        return landmark_task(data) if kind == "landmarker" else FinderTask(FINDER_RECIPE, (data,))

    whole = train(task(), LOOP, tmp_path / "whole")
    broken = task()
    original = broken.batch

    def fail_at_five(step: int):
        if step == 4:
            raise Killed
        return original(step)

    broken.batch = fail_at_five  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Killed):
        train(broken, LOOP, tmp_path / "broken")
    assert read_checkpoint(tmp_path / "broken" / "checkpoint.pt")["step"] == 3
    resumed = train(task(), LOOP, tmp_path / "broken", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "broken")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps[0] == steps[1] == [2, 3, 4, 6, 6]


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    loop = dataclasses.replace(LOOP, steps=1, checkpoint_every=1)
    train(landmark_task(data), loop, tmp_path)
    with pytest.raises(OutputError, match="--resume"):
        train(landmark_task(data), loop, tmp_path)


@pytest.mark.parametrize("kind", ["landmarker", "finder"])
def test_thirty_steps_on_one_batch_lower_the_loss(kind: str, data: Path) -> None:
    task = landmark_task(data) if kind == "landmarker" else FinderTask(FINDER_RECIPE, (data,))
    batch = task.batch(0)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss, _numbers = task.loss(task.network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3 * abs(losses[0])


def test_mixed_precision_answers_in_float32_and_keeps_float32_weights(data: Path) -> None:
    task, batch = landmark_task(data), landmark_task(data).batch(0)
    mixed = TrainState(task.network, dataclasses.replace(LOOP, mixed_on=("cpu",)), "cpu")
    plain = TrainState(landmark_task(data).network, LOOP, "cpu")
    assert plain.forward is plain.network and mixed.forward is not mixed.network
    crops = batch.crops.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        rough, exact = mixed.forward(crops)[0], plain.forward(crops)[0]
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert torch.allclose(rough, exact, atol=0.02)
    mixed.update(task, batch)
    assert {p.dtype for p in mixed.network.parameters()} == {torch.float32}


def test_not_finite_loss_stops_the_run(data: Path, tmp_path: Path) -> None:
    task = landmark_task(data)
    task.network.hidden[1].weight.data[:] = float("nan")  # pyright: ignore
    with pytest.raises(FitError, match="the loss is not finite at step 0"):
        train(task, LOOP, tmp_path)


def test_not_finite_batch_leaves_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    """A loss that is finite, with a gradient that is not: the batch is named, the weights stay."""
    task = landmark_task(data)
    make, loss = task.batch, task.loss
    wrong = make(3)

    def loss_of(network, batch):
        value, terms = loss(network, batch)
        if torch.equal(batch.crops, wrong.crops):
            value = value + (0.0 * next(network.parameters()).sum()).sqrt()
        return value, terms

    task.loss = loss_of  # pyright: ignore
    loop = dataclasses.replace(LOOP, steps=6, checkpoint_every=2)
    with pytest.raises(FitError, match=r"gradient is not finite at step 3 \(batch 3\)"):
        train(task, loop, tmp_path)
    saved = read_checkpoint(tmp_path / "checkpoint.pt")
    assert saved["step"] == 2
    assert all(bool(torch.isfinite(v).all()) for v in saved["network"].values() if v.is_floating_point())


def test_wrong_and_damaged_checkpoints_are_named(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(landmark_task(data), LOOP, run)
    with pytest.raises(AssetError, match="not of this network"):
        train(FinderTask(FINDER_RECIPE, (data,)), LOOP, run, resume=True)
    path = run / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(AssetError, match="cannot be read as a checkpoint"):
        train(landmark_task(data), LOOP, run, resume=True)
    for options, error in (({}, "already holds"), ({"resume": True, "device": "sofa"}, "sofa")):
        with pytest.raises(HifaceError, match=error):
            main_train("finder", tmp_path / "nothing", run, **options)


def test_openings_count_beside_positions() -> None:
    pairs = opening_pairs()
    assert pairs.shape[0] == 2 and sorted(pairs[:, :2].T.tolist()) == [[37, 41], [38, 40]]
    assert [62, 66] in pairs.T.tolist() and pairs.max() < 68
    truth, weights = torch.rand(3, 68, 2), torch.ones(3, 68)
    shifted = truth + torch.tensor([0.3, -0.2])
    assert opening_error(shifted, truth, weights, pairs) < 2e-4
    closed = truth.clone()
    closed[:, 66] = closed[:, 62]
    gap = (truth[:, 66] - truth[:, 62]).norm(dim=-1).mean() / pairs.shape[1]
    assert torch.allclose(opening_error(closed, truth, weights, pairs), gap, atol=2e-4)
    weights[:, 66] = 0.0
    assert opening_error(closed, truth, weights, pairs) < 2e-4


def test_learning_rate_rises_stays_and_falls() -> None:
    config = LoopConfig(steps=100, warmup=10, flat=0.5, learning_rate=1.0, floor=0.01)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[50] == 1.0
    assert all(a >= b for a, b in pairwise(rates[50:])) and abs(rates[100] - 0.01) < 1e-9


def test_folders_of_several_sizes_are_drawn_by_their_shares(tmp_path: Path) -> None:
    write_shards(tmp_path / "small", count=90, size=48)
    write_shards(tmp_path / "large", count=30, size=64, seed=1)
    data, rng = ShardSet(data_folders(tmp_path)), np.random.default_rng(0)
    sizes = [data.draw(rng, 3, segmentation=False).images.shape[-1] for _ in range(400)]
    assert set(sizes) == {48, 64} and 0.65 < np.mean(np.array(sizes) == 48) < 0.85
    task = LandmarkTask(LANDMARK_RECIPE, data_folders(tmp_path), layout()[1])
    assert {task.batch(i).crops.shape for i in range(6)} == {(8, 3, 64, 64)}


def test_batches_are_the_same_for_the_same_step_and_have_honest_targets(data: Path) -> None:
    task = landmark_task(data)
    a, b, c = task.batch(5), task.batch(5), task.batch(6)
    assert torch.equal(a.crops, b.crops) and not torch.equal(a.crops, c.crops)
    assert a.crops.min() >= 0 and a.crops.max() <= 1
    assert ((a.weights > 0).any(dim=1) == (a.presence > 0.5)).all()
    big = make_batch(torch.Generator().manual_seed(0), task.data.take(np.zeros(400, np.int64)), task.config,
                     task.mirror, CropJitter(negatives=0.1, other_background=0.0))  # fmt: skip
    assert 0.02 < float((big.presence < 0.5).float().mean()) < 0.25
    there = big.presence > 0.5
    assert (big.weights[there & (big.visible.any(dim=1))].amax(dim=1) == 1).all()
    assert (big.weights[big.visible & there[:, None]] == 1).all()
    assert (big.weights[~big.visible] < 1).all() and 0.1 < float(big.visible[there].float().mean()) < 1


def test_points_follow_the_picture_through_jitter_and_mirror(data: Path) -> None:
    """The fake eyes are dark discs: wherever the iris points are, the crop is dark."""
    task = landmark_task(data)
    plain = CropJitter(
        upright=0.0, negatives=0.0, cut=0.0, other_background=0.0, occluded=0.0, degraded=False
    )
    batch = make_batch(
        torch.Generator().manual_seed(1), task.data.take(np.arange(40)), task.config, task.mirror, plain
    )
    grid = batch.points[:, -2:][:, None]
    at_eyes = torch.nn.functional.grid_sample(batch.crops, grid, align_corners=False).mean(dim=1)
    assert at_eyes.max() < 0.2
    assert (batch.points[:, -2, 0] < batch.points[:, -1, 0]).float().mean() > 0.95  # mirrored back in order


def test_collage_boxes_hold_faces(data: Path) -> None:
    task = FinderTask(FINDER_RECIPE, (data,))
    config = CollageConfig(size=96, max_face_px=60, empty=0.1, whole=0.2, margin=0.3)
    batch = make_collages(np.random.default_rng(0), task.data, 24, config, task.backgrounds)
    assert batch.images.shape == (24, 3, 96, 96)
    real = batch.boxes[batch.kind > 0]
    assert len(real) > 15 and ((real[:, 2:] - real[:, :2]) > 4).all()
    centre = 0.5 * (real[:, :2] + real[:, 2:])
    assert ((centre > -20) & (centre < 116)).all()
    assert (batch.kind.amax(dim=1) <= 0).any()


def test_a_face_behind_a_hand_is_neither_face_nor_background(data: Path, monkeypatch) -> None:
    task = FinderTask(FINDER_RECIPE, (data,))
    take = task.data.take

    def hidden(ids: np.ndarray, segmentation: bool = True):
        samples = take(ids, segmentation)
        return dataclasses.replace(samples, visible=torch.zeros_like(samples.visible))

    monkeypatch.setattr(task.data, "take", hidden)
    for whole in (0.0, 1.0):
        config = CollageConfig(size=96, max_face_px=60, empty=0.0, whole=whole, margin=0.0, faceless=0.0)
        batch = make_collages(np.random.default_rng(0), task.data, 8, config, task.backgrounds)
        assert (batch.kind <= 0).all() and (batch.kind < 0).any()


def test_assignment_gives_each_face_a_place_of_its_level(data: Path) -> None:
    from hiface.networks.finder import place_grid

    like = torch.zeros(())
    centres = torch.cat([place_grid(96 // s, 96 // s, s, like) for s in (8, 16, 32)])
    level = torch.repeat_interleave(torch.arange(3), torch.tensor([144, 36, 9]))
    boxes = torch.tensor([[[10.0, 10, 26, 26], [20, 20, 90, 90], [0, 0, 30, 30]]])
    owner, ignored = assign(centres, level, boxes, torch.tensor([[1.0, 1, -1]]), FINDER_RECIPE)
    assert set(level[owner[0] == 0].tolist()) == {0} and set(level[owner[0] == 1].tolist()) == {1}
    assert not (owner == 2).any() and ignored.any() and not ignored[owner >= 0].any()
    large = torch.tensor([[[2.0, 2, 94, 94]]])
    owner, ignored = assign(centres, level, large, torch.ones(1, 1), FINDER_RECIPE)
    assert (owner[0] == 0).any() and set(level[ignored[0]].tolist()) == {1}


def test_degradation_stays_in_range_and_changes_the_picture() -> None:
    gen = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, 64, 64, generator=gen)
    out = degrade(gen, images)
    assert (
        out.shape == images.shape and out.min() >= 0 and out.max() <= 1 and (out - images).abs().mean() > 0.02
    )
    smooth = torch.full((4, 3, 64, 64), 0.5)
    assert (jpeg_like(gen, smooth, 1.0) - smooth).abs().max() < 0.15
    covered, opacity = occlude(gen, smooth.clone(), 1.0)
    assert torch.equal((covered != smooth).any(dim=1), (opacity[:, 0] > 0) & (covered != smooth).any(dim=1))
    assert BackgroundBank(6, 16, 0).draw(gen, 5).shape == (5, 3, 16, 16)


def test_validation_persons_are_never_trained_on(data: Path) -> None:
    training, held = ShardSet((data,)), ShardSet((data,), validation=True)
    assert len(training) + len(held) == 60 and len(held) == 3


def test_turned_heads_are_drawn_oftener(tmp_path: Path) -> None:
    write_shards(tmp_path, count=60, turned=20)
    rng, shares = np.random.default_rng(0), []
    for more in (0.0, 4.0):
        drawn = ShardSet((tmp_path,), more_turned=more).draw(rng, 4000, segmentation=False)
        shares.append(float((drawn.R_cam_head[:, 0, 2] > 0.9).float().mean()))
    training = [i for i in range(60) if i % VALIDATION_EVERY]
    n, all_of = sum(i >= 40 for i in training), len(training)
    assert shares[0] == pytest.approx(n / all_of, abs=0.03)
    assert shares[1] == pytest.approx(5 * n / (5 * n + all_of - n), abs=0.03)


def test_bad_data_and_recipes_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(HifaceError, match="unknown recipe"):
        main_train("finer", tmp_path, tmp_path / "out")
    with pytest.raises(AssetError, match="hiface synth"):
        data_folders(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    with pytest.raises(AssetError, match="make the data again"):
        ShardSet((tmp_path,))
    manifest.write_text('{"shards": []}')
    with pytest.raises(AssetError, match="no synthetic pictures"):
        ShardSet((tmp_path,))
    blank = np.zeros((1, 8, 8), np.uint8)
    arrays = {"image": np.zeros((1, 8, 8, 3), np.uint8), "alpha": blank, "mask": blank, "person": np.zeros(1)}
    entry = write_tar_shard(tmp_path / "shard-000000.tar", arrays)
    manifest.write_text(json.dumps({"shards": [entry]}))
    with pytest.raises(AssetError, match="has no"):
        ShardSet((tmp_path,))


def test_the_finder_recipe_runs_from_data_to_weights(data: Path, tmp_path: Path, monkeypatch) -> None:
    from hiface.networks.weights import weights_notes
    from hiface.training import recipes

    small = recipes.Recipe(FINDER_RECIPE, dataclasses.replace(LOOP, steps=2))
    monkeypatch.setitem(recipes.RECIPES, "finder", small)
    path = main_train("finder", data, tmp_path / "run")
    notes = weights_notes(path)
    assert notes["recipe"] == "finder" and notes["steps"] == "2" and "recall_at_0.4" in notes["scores"]
    again = main_train("finder", data, tmp_path / "second", start=path)
    assert again.exists()
    from_run = main_train("finder", data, tmp_path / "third", start=tmp_path / "run" / "checkpoint.pt")
    assert from_run.exists()
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(AssetError, match="no checkpoint"):
        main_train("finder", data, tmp_path / "fourth", start=tmp_path / "other.pt")


def test_training_writes_an_onnx_file_with_the_same_numbers(data: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("onnx")
    from hiface.networks.runtime import OnnxRunner, TorchRunner
    from hiface.networks.weights import load_finder
    from hiface.training import recipes

    small = recipes.Recipe(FINDER_RECIPE, dataclasses.replace(LOOP, steps=1))
    monkeypatch.setitem(recipes.RECIPES, "finder", small)
    path = main_train("finder", data, tmp_path / "run")
    onnx = OnnxRunner(path.with_suffix(".onnx"), 1)
    rival = TorchRunner(load_finder(path))
    batch = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)
    for a, b in zip(onnx(batch), rival(batch), strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 0.02
    assert onnx.metadata["recipe"] == "finder" and onnx.metadata["config"] == rival.metadata["config"]


def test_weights_are_written_without_onnx(data: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    from hiface.training import recipes

    small = recipes.Recipe(FINDER_RECIPE, dataclasses.replace(LOOP, steps=1))
    monkeypatch.setitem(recipes.RECIPES, "finder", small)
    monkeypatch.setitem(sys.modules, "onnx", None)
    path = main_train("finder", data, tmp_path / "run")
    assert path.exists() and not path.with_suffix(".onnx").exists()
    assert "hiface[train]" in caplog.text


def test_curves_can_be_watched(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(landmark_task(data), LOOP, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"loss", "steps_per_s", "validation/nme51_percent"} <= set(tags)
    assert [e.step for e in events.Scalars("loss")] == [2, 4, 6]
