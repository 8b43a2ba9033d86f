# SPDX-License-Identifier: Apache-2.0
"""Hold-out people are never trained on, subsets are what they say, errors are those computed by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from benchmarks import ablation

import hiface
from hiface.assets import load_json_asset
from hiface.errors import AssetError, ShapeError
from hiface.evaluation.crowds import HARD, PLAIN, held_crowds
from hiface.evaluation.finding import join_finds, match_finds, recall_at
from hiface.evaluation.holdout import (
    LARGE_PX,
    SMALL_PX,
    HeldFaces,
    faces_of_labels,
    head_yaw,
    join_faces,
    read_holdout,
    skin_luminance,
    space_length,
    subsets,
    write_holdout,
)
from hiface.evaluation.holdout_scores import (
    jittered_frames,
    opening_subsets,
    openings,
    point_errors,
    score_openings,
    score_points,
    spread,
)
from hiface.evaluation.landmarks import offset_free_error
from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.datasets import HOLDOUT_SEED, held_out, make_samples, make_spec
from hiface.synthetic.records import sample_arrays
from hiface.synthetic.shards import write_shards
from hiface.training.shards import ShardSet

torch.set_num_threads(1)
NAMES = ("eyeBlinkLeft", "eyeBlinkRight", "eyeLookUpLeft", "jawOpen", "mouthSmileLeft")


def faces(n: int = 2, dense: int = 4) -> HeldFaces:
    """Faces of random points between 50 and 150 px in pictures of 256 px, eye distance 50 px."""
    points = 50 + 100 * torch.rand(n, 68 + dense, 2, generator=torch.Generator().manual_seed(1))
    return HeldFaces(
        points_px=points,
        visible=torch.ones(n, 68 + dense, dtype=torch.bool),
        space_px=torch.full((n,), 50.0),
        flat_px=torch.full((n,), 25.0),
        yaw=torch.zeros(n),
        luminance=torch.full((n,), 0.3),
        expression=torch.zeros(n, len(NAMES)),
        expression_names=NAMES,
        picture_px=torch.full((n,), 256.0),
    )


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    steps = []
    folder = tmp_path_factory.mktemp("held")
    folders = write_holdout(folder, 8, advance=lambda done, total: steps.append((done, total)))
    assert steps[0] == (0, 8) and steps[-1] == (8, 8)
    return folders


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def test_training_never_sees_people_of_the_hold_out_set(held, tmp_path):
    for folder in held:
        assert len(ShardSet((folder,), validation=True)) > 0
        with pytest.raises(AssetError, match="no synthetic pictures"):
            ShardSet((folder,))
    write_shards(tmp_path, 6, make_spec(size=32, seed=HOLDOUT_SEED - 1))
    assert len(ShardSet((tmp_path,))) > 0
    with pytest.raises(AssetError, match=f"trained on.*--seed {HOLDOUT_SEED}"):
        next(iter(read_holdout(tmp_path, NAMES)))
    with pytest.raises(AssetError, match="trained on"):
        next(iter(held_crowds(tmp_path, 1)))


def test_which_person_is_held_out_follows_from_the_data_set(model):
    for seed, expected in ((0, False), (HOLDOUT_SEED - 1, False), (HOLDOUT_SEED, True), (2_999_999, True)):
        for kind in ("images", "pairs"):
            _, (sample, *_rest) = next(make_samples(model, make_spec(kind, 32, seed), [0]))
            assert bool(held_out(np.asarray([sample.person]))[0]) is expected


def test_hold_out_faces_are_those_of_the_generator(held, model):
    names = tuple(model.data.expression_names)
    for folder, size, seed in ((held[0], LARGE_PX, HOLDOUT_SEED), (held[1], SMALL_PX, HOLDOUT_SEED + 1)):
        pictures, read = next(read_holdout(folder, names))
        _, (sample,) = next(make_samples(model, make_spec(size=size, seed=seed), [1]))
        assert np.array_equal(pictures[1], sample.image_srgb.permute(1, 2, 0).numpy())
        assert torch.equal(read.points_px[1, :68], sample.landmarks68_px)
        vertices = model(sample.params.identity, sample.params.expression, sample.params.pose).vertices
        corners = model.landmarks("ibug68", vertices)[[36, 45]]
        length = float((corners[0] - corners[1]).norm())
        depth = float(sample.params.camera.to_cam(corners)[:, 2].mean())
        expected = length * float(sample.params.camera.K[0, 0]) / depth
        assert float(read.space_px[1]) == pytest.approx(expected, rel=0.02)  # lids move the corners a little
    assert SMALL_PX * 0.25 <= float(read.side_px.min()) and float(read.side_px.max()) <= SMALL_PX * 0.76


def test_the_length_in_space_is_that_of_the_picture_from_the_front_and_stays_in_profile():
    K = torch.tensor([[500.0, 0, 128], [0, 500.0, 128], [0, 0, 1]])
    for angle in (0.0, 0.5, 1.2, math.pi / 2):
        half = 0.045 * torch.tensor([math.cos(angle), 0.0, math.sin(angle)])
        ends = torch.stack([half, -half]) + torch.tensor([0.02, -0.01, 0.6])
        px = 500 * ends[:, :2] / ends[:, 2:] + 128
        assert float(space_length(px, ends[:, 2], K)) == pytest.approx(0.09 * 500 / 0.6, rel=1e-5)
        if angle == 0:
            assert float((px[0] - px[1]).norm()) == pytest.approx(75.0, rel=1e-5)


@pytest.mark.parametrize("yaw", [-1.5, -0.4, 0.0, 1.1])
def test_yaw_does_not_depend_on_pitch_and_roll(yaw):
    for pitch, roll in ((0.0, 0.0), (0.5, -0.9), (-0.4, 0.3)):
        T = torch.eye(4)
        T[:3, :3] = torch.from_numpy(head_rotation(yaw, pitch, roll))
        assert float(head_yaw(T)) == pytest.approx(yaw, abs=1e-5)


def test_luminance_is_that_of_the_skin_within_the_box():
    picture, regions = np.zeros((2, 20, 20, 3), np.uint8), np.zeros((2, 20, 20), np.uint8)
    picture[0, 5:10] = 255
    regions[0, 5:10], regions[0, 10:15] = 1, 2
    picture[0, 15:], regions[0, 15:] = 128, 1  # outside the box
    box = torch.tensor([[0.0, 0.0, 20.0, 15.0], [0.0, 0.0, 20.0, 15.0]])
    values = skin_luminance(picture, regions, box)
    assert float(values[0]) == pytest.approx(1.0) and math.isnan(float(values[1]))
    half = skin_luminance(picture[:1], regions[:1], torch.tensor([[0.0, 15.0, 20.0, 20.0]]))
    assert float(half[0]) == pytest.approx(0.2159, abs=1e-3)


def test_subsets_hold_the_faces_that_they_name():
    base = faces(8)
    base.yaw[1] = -1.2
    base.visible[2, :30] = False  # 44 % hidden
    base.visible[0, :55] = False  # 81 %
    base.visible[3, :20] = False  # 29 %
    base.luminance[3], base.luminance[7] = 0.02, math.nan
    base.expression[4] = torch.tensor([0.9, 0.9, 0.0, 1.0, 1.5])
    base.expression[3, 2] = 9.0  # a gaze is no expression
    base.points_px[5, :68] = 0.3 * base.points_px[5, :68]
    base.points_px[6, 40] = torch.tensor([257.0, 100.0])
    base.points_px[7, 70] = -5.0  # no point of the 68
    base.visible[6, :30] = False
    names = {name: torch.nonzero(chosen)[:, 0].tolist() for name, chosen in subsets(base).items()}
    assert names == {
        "all": [*range(8)],
        "profile": [1],
        "occluded": [0, 2, 6],
        "covered": [0, 2],
        "hardly visible": [0],
        "dark": [3],
        "strong expression": [4],
        "low resolution": [5],
        "cut": [6],
    }


def test_errors_are_those_computed_by_hand():
    truth = faces(3)
    truth.visible[1, 17:68] = False
    truth.visible[2, 17:40] = False
    pred = truth.points_px.clone()
    pred[0, 17:68] += torch.tensor([3.0, 4.0])  # 5 px of 50
    pred[0, :17] += 1000.0
    pred[0, 68:] += torch.tensor([0.0, 1.0])
    pred[1, 17:68] += torch.tensor([0.0, 2.0])
    pred[2, 40:68] += torch.tensor([1.0, 0.0])
    errors = point_errors(pred, truth)
    assert errors["inner51"].tolist() == pytest.approx([0.1, 0.04, 0.02 * 28 / 51], abs=1e-5)
    assert errors["inner51_flat"].tolist() == pytest.approx([0.2, 0.08, 0.04 * 28 / 51], abs=1e-5)
    assert errors["inner51_visible"][[0, 2]].tolist() == pytest.approx([0.1, 0.02], abs=1e-5)
    assert math.isnan(float(errors["inner51_visible"][1]))
    assert errors["dense"].tolist() == pytest.approx([0.02, 0, 0], abs=1e-5)
    with pytest.raises(ShapeError, match="expected points"):
        point_errors(pred[:, :68], truth)


def test_faces_that_were_not_found_count_as_such_and_not_in_the_error():
    truth = faces(4)
    pred = truth.points_px.clone()
    pred[:, :, 0] += 1.0
    pred[3] = math.nan
    truth.yaw[2:] = 1.5
    table = score_points(pred, truth)
    assert table["all"]["faces"] == 4 and table["all"]["found"] == 0.75
    assert table["profile"]["found"] == 0.5 and table["profile"]["inner51"]["count"] == 1
    assert table["all"]["inner51"]["mean"] == pytest.approx(2.0, abs=1e-3)
    assert table["dark"]["faces"] == 0 and math.isnan(table["dark"]["inner51"]["mean"])


def test_spread():
    assert spread(torch.tensor([0.01, 0.02, 0.06, math.nan])) == {
        "count": 3,
        "mean": 3.0,
        "standard_error": round(100 * math.sqrt(0.0007) / math.sqrt(3), 3),
        "median": 2.0,
    }


def eyes_and_mouth(right: float, left: float, mouth: float) -> torch.Tensor:
    """[68, 2] points with eyes 20 px wide and gaps as given."""
    points = torch.zeros(68, 2)
    for start, gap, x in ((36, right, 60.0), (42, left, 120.0)):
        points[start : start + 6] = torch.tensor(
            [[x, 80], [x + 7, 80], [x + 13, 80], [x + 20, 80], [x + 13, 80 + gap], [x + 7, 80 + gap]]
        )
    for k, (top, low) in enumerate(((61, 67), (62, 66), (63, 65))):
        points[top], points[low] = torch.tensor([90.0 + k, 150]), torch.tensor([90.0 + k, 150 + mouth])
    return points


def test_openings_and_their_errors_by_hand():
    truth = faces(4, dense=0)
    for i, gaps in enumerate(((8.0, 6.0, 10.0), (1.0, 8.0, 0.0), (8.0, 8.0, 0.0), (4.0, 4.0, 0.0))):
        truth.points_px[i] = eyes_and_mouth(*gaps)
    blink = {name: i for i, name in enumerate(NAMES)}
    truth.expression[0, blink["jawOpen"]] = 0.5
    truth.expression[1, blink["eyeBlinkRight"]], truth.expression[1, blink["eyeBlinkLeft"]] = 0.9, 0.1
    truth.expression[3, [blink["eyeBlinkRight"], blink["eyeBlinkLeft"]]] = 0.8
    assert openings(truth.points_px)[0].tolist() == [8, 6, 10]
    chosen = {name: torch.nonzero(c).tolist() for name, c in opening_subsets(truth).items()}
    assert chosen["winks"] == [[1, 0], [1, 1]] and chosen["open mouths"] == [[0, 2]]
    assert chosen["closed eyes"] == [[1, 0], [3, 0], [3, 1]]
    pred = truth.points_px.clone()
    pred[0] = eyes_and_mouth(8, 6, 7)
    pred[1] = eyes_and_mouth(3, 7, 0)
    table = score_openings(pred, truth)
    mouths = table["open mouths"]
    assert (mouths["count"], mouths["mean"], mouths["median"], mouths["bias"]) == (1, 6.0, 6.0, -6.0)
    assert math.isnan(mouths["standard_error"])
    assert table["winks"]["mean"] == 3.0 and table["winks"]["bias"] == 1.0
    assert table["closed eyes"]["mean"] == pytest.approx(4 / 3, abs=1e-3)
    assert table["all eyes"]["count"] == 8 and table["all mouths"]["count"] == 4


def test_lid_pairs_belong_to_their_eyes():
    groups = load_json_asset("landmarks/ibug68_groups.json")
    right, left = groups["lid_pairs_right_left"]
    assert all(36 <= i <= 41 for pair in right for i in pair) and all(i >= 42 for pair in left for i in pair)


def test_crops_are_jittered_the_same_way_each_time():
    points = faces(6).points_px
    first, again, other = (jittered_frames(points, 1.6, seed) for seed in (0, 0, 1))
    assert torch.equal(first.centre_px, again.centre_px) and torch.equal(first.roll, again.roll)
    assert not torch.equal(first.side_px, other.side_px)
    assert float((first.side_px / other.side_px).log().abs().max()) < 0.16


def test_finds_are_right_false_or_ignored():
    boxes = np.array([[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 210, 10]], np.float32)
    counts = np.array([True, True, False])
    found = np.array(
        [[1, 0, 41, 40], [2, 2, 42, 42], [200, 1, 210, 11], [0, 100, 40, 140]], np.float32
    )  # fmt: skip
    finds = match_finds(found, np.array([0.5, 0.9, 0.8, 0.7]), boxes, counts)
    assert finds.face_score.tolist() == [0.9, -math.inf] and finds.face_px.tolist() == [40, 40]
    assert finds.false_score.tolist() == [0.7, 0.5]  # the second find of a face is false
    nothing = match_finds(np.zeros((0, 4)), np.zeros(0), boxes, counts)
    assert nothing.face_score.tolist() == [-math.inf] * 2 and len(nothing.false_score) == 0
    empty = match_finds(found, np.ones(4), np.zeros((0, 4)), np.zeros(0, bool))
    assert len(empty.face_px) == 0 and len(empty.false_score) == 4


def test_recall_at_a_number_of_false_faces():
    rng = np.random.default_rng(0)
    boxes = np.array([[0, 0, 30, 30], [100, 100, 160, 160]], np.float32)
    parts = []
    for i in range(40):
        found = np.concatenate([boxes[: 1 + i % 2], [[300, 300, 330, 330]]]).astype(np.float32)
        scores = np.concatenate([[0.6] if i % 2 == 0 else [0.6, 0.2 + 0.6 * (i == 1)], [i / 100]])
        parts.append(match_finds(found, scores, boxes, np.array([True, True])))
    rng.shuffle(parts)
    out = recall_at(join_finds(parts), 0.05)
    assert out["pictures"] == 40 and out["faces"] == 80
    assert out["threshold"] == pytest.approx(0.37) and out["false"] == 2
    assert out["recall"] == round(41 / 80, 4)
    assert out["bands"]["24 to 32 px"] == {"faces": 40, "recall": 1.0}
    assert out["bands"]["48 to 96 px"] == {"faces": 40, "recall": 0.025}
    assert recall_at(join_finds(parts), 1.0)["recall"] == round(60 / 80, 4)


def test_crowds_are_of_held_people_and_the_same_each_time(held):
    hard = dataclasses.replace(HARD, size=128, max_face_px=100.0)
    plain = dataclasses.replace(PLAIN, size=128, max_face_px=100.0)
    for config in (plain, hard):
        first, again = (list(held_crowds(held[0], 3, config=config)) for _ in range(2))
        for a, b in zip(first, again, strict=True):
            assert a.image_srgb.shape == (128, 128, 3) and np.array_equal(a.image_srgb, b.image_srgb)
            side = (a.boxes[:, 2:] - a.boxes[:, :2]).max(axis=1, initial=0)
            assert not a.counts[side < 24].any() and a.counts.shape == (len(a.boxes),)
    assert sum(len(c.boxes) for c in held_crowds(held[0], 4, config=plain)) >= 4


def test_the_mean_offset_of_each_point_is_removed():
    offsets = torch.zeros(4, 68, 2)
    offsets[:, :, 0] = torch.linspace(0, 1, 68)
    assert offset_free_error(offsets) == pytest.approx(0.0, abs=1e-6)
    offsets[:2, 17:, 1], offsets[2:, 17:, 1] = 0.03, -0.01
    assert offset_free_error(offsets) == pytest.approx(0.02, abs=1e-6)


def test_labels_can_be_joined(held, model):
    names = tuple(model.data.expression_names)
    parts = [f for folder in held for _, f in read_holdout(folder, names)]
    whole = join_faces(parts)
    assert len(whole.yaw) == 8 and whole.expression_names == names
    _, (sample,) = next(make_samples(model, make_spec(size=SMALL_PX, seed=HOLDOUT_SEED + 1), [0]))
    arrays = {name: value[None] for name, value in sample_arrays(sample).items()}
    again = faces_of_labels(arrays, arrays["image"], arrays["mask"], names)
    assert float(again.space_px[0]) == pytest.approx(float(parts[1].space_px[0]))
    assert torch.equal(again.visible[0], parts[1].visible[0])


def test_an_ablation_of_a_few_steps_goes_on_where_it_was(held, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "write_holdout", lambda *args, **options: held)
    monkeypatch.setattr(ablation, "SMALL", {"stem": 16, "widths": (16, 32, 32, 32), "hidden": 32})
    recipe = ablation.RECIPES["landmarker"]
    assert not isinstance(recipe.task, ablation.Part)
    small = dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, backgrounds=9))
    monkeypatch.setitem(ablation.RECIPES, "landmarker", small)
    out = tmp_path / "ablation.json"
    common = [str(tmp_path / "work"), "--count", "24", "--steps", "4", "--batch-size", "4", "--held", "8"]
    common += ["--out", str(out), "--size", "48", "--parts"]
    ablation.main([*common, "half the people"])
    first = json.loads(out.read_text())
    assert list(first["rows"]) == ["half the people"] and first["settings"]["steps"] == 4
    manifest = next((tmp_path / "work").glob("*/data/*/manifest.json"))
    assert json.loads(manifest.read_text())["count"] == 12
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.safetensors")}
    capsys.readouterr()
    ablation.main([*common, "without camera", "half the people"])
    second = json.loads(out.read_text())
    assert second["rows"]["half the people"] == first["rows"]["half the people"]
    assert set(second["rows"]) == {"half the people", "without camera"}
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items()) and len(before) == 1
    table = capsys.readouterr().out.strip().splitlines()
    assert len(table) == 4 and table[2].startswith("| without camera |") and table[0].count("|") == 12
    without = second["rows"]["without camera"]["held"]["all"]
    assert without["count"] == 8 and 0 < without["mean"] < 500
    assert (
        ablation.recipe_of(ablation.PARTS["without camera"], ablation.Settings(1, 1, 1, 1)).jitter.degraded
        is False
    )
