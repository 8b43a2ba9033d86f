# SPDX-License-Identifier: Apache-2.0
"""What faces do: the library of mixes, shares, eyes, gaze."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

import hiface
from hiface.assets import load_json_asset
from hiface.synthetic.expressions import (
    Plan,
    add_gaze,
    express,
    limit_expression,
    lips_apart,
    lowered,
    mix_groups,
    mix_names,
    sample_expression,
    sample_gaze,
    sample_plan,
)

NAMES = hiface.load_model("open").data.expression_names
LIBRARY = load_json_asset("open/expression_mixes.json")
MIXES = [mix["name"] for mix in LIBRARY["mixes"]]


def test_library_names_shapes_that_exist():
    assert len(set(MIXES)) == len(MIXES) > 50
    assert sum(LIBRARY["groups"].values()) == pytest.approx(1.0)
    assert sum(LIBRARY["eyes"].values()) == pytest.approx(1.0)
    for mix in LIBRARY["mixes"]:
        assert mix["group"] in LIBRARY["groups"] and mix["weight"] > 0
        for stem, (low, high) in mix["shapes"].items():
            assert 0 <= low <= high <= 1
            assert stem in NAMES or {f"{stem}Left", f"{stem}Right"} <= set(NAMES), stem
    assert mix_groups()[0] == "neutral" and not mix_names("neutral")
    assert len(mix_names("speech")) == 15
    limits = load_json_asset("open/expression_limits.json")
    for kind in ("opposite", "yields", "at_most"):
        assert all({a, b} <= set(NAMES) for a, b, *_ in limits[kind])


@pytest.mark.parametrize("name", MIXES)
def test_every_mix_moves_its_shapes(name):
    mix = next(m for m in LIBRARY["mixes"] if m["name"] == name)
    rng = np.random.default_rng(1)
    drawn = [express(Plan(mix["group"], (name,), "rest"), NAMES, rng) for _ in range(12)]
    assert all(0.0 <= v <= 1.0 for values in drawn for v in values.values())
    for stem, (_, high) in mix["shapes"].items():
        sides = [stem] if stem in NAMES else [f"{stem}Left", f"{stem}Right"]
        most = max(values.get(side, 0.0) for values in drawn for side in sides)
        assert most > 0.25 * high, stem
    if mix.get("one_sided"):
        stem = next(s for s in mix["shapes"] if s not in NAMES)
        uneven = [abs(v.get(f"{stem}Left", 0.0) - v.get(f"{stem}Right", 0.0)) for v in drawn]
        assert np.mean(uneven) > 0.1


def test_shares_of_groups_and_eyes():
    rng = np.random.default_rng(2)
    plans = [sample_plan(rng) for _ in range(8000)]
    for kind, shares in (("group", LIBRARY["groups"]), ("eyes", LIBRARY["eyes"])):
        counted = Counter(getattr(plan, kind) for plan in plans)
        for name, share in shares.items():
            assert counted[name] / len(plans) == pytest.approx(share, abs=0.016), name
    used = Counter(name for plan in plans for name in plan.mixes)
    assert set(used) == set(MIXES)
    assert 0.45 < LIBRARY["groups"]["neutral"] < 0.6
    assert min(LIBRARY["eyes"].values()) >= 0.03


def test_lips_are_mostly_closed_and_lids_mostly_awake():
    rng = np.random.default_rng(3)
    drawn = [sample_expression(NAMES, rng) for _ in range(800)]
    closed = np.mean([v.get("jawOpen", 0) - v.get("mouthClose", 0) < 0.05 for v in drawn])
    smiles = np.mean([v.get("mouthSmileLeft", 0) > 0.4 and lips_apart(v) > 0.3 for v in drawn])
    both = np.array([[v["eyeBlinkLeft"], v["eyeBlinkRight"]] for v in drawn])
    assert closed > 0.55 and 0.08 < smiles < 0.25
    assert 0.02 < np.median(both) < 0.2
    assert (both.min(axis=1) >= 0.85).mean() > 0.03
    assert ((both.max(axis=1) >= 0.85) & (both.min(axis=1) <= 0.41)).mean() > 0.025
    assert ((both >= 0.33) & (both <= 0.78)).all(axis=1).mean() > 0.03
    winks = both[(both.max(axis=1) >= 0.85) & (both.min(axis=1) <= 0.41)]
    assert 0.2 < (winks[:, 0] > winks[:, 1]).mean() < 0.8


def test_same_seed_same_face():
    one, two = (sample_expression(NAMES, np.random.default_rng(5)) for _ in range(2))
    assert one == two != sample_expression(NAMES, np.random.default_rng(6))
    rngs = [np.random.default_rng(7) for _ in range(4)]
    for rng, eyes in zip(rngs, ("rest", "closed", "half_closed", "wink"), strict=True):
        express(Plan("speech", ("viseme_aa",), eyes), NAMES, rng)
    assert len({rng.random() for rng in rngs}) == 1  # the same numbers are drawn whatever the eyes do


def test_limits_by_name():
    out = limit_expression({"jawLeft": 0.7, "jawRight": 0.3, "eyeBlinkLeft": 0.8, "eyeWideLeft": 0.9})
    assert out["jawLeft"] == pytest.approx(0.4) and out["jawRight"] == 0
    assert out["eyeWideLeft"] == pytest.approx(0.2) and out["eyeBlinkLeft"] == 0.8


def test_gaze_is_mostly_at_the_camera_and_reaches_its_limits():
    rng = np.random.default_rng(8)
    gazes = [sample_gaze(rng, 0.2, -0.1, distance_m=0.6) for _ in range(3000)]
    yaw, pitch = np.array([g.yaw for g in gazes]), np.array([g.pitch for g in gazes])
    mean = yaw.mean(axis=1)
    at_camera = (np.abs(mean - 0.2) < 0.12) & (np.abs(pitch + 0.1) < 0.12)
    assert 0.65 < at_camera.mean() < 0.85
    assert np.abs(yaw).max() <= 0.6 + 1e-9 and mean.min() < -0.48 and mean.max() > 0.48
    assert pitch.min() < -0.38 and 0.32 < pitch.max() <= 0.36
    vergence = (yaw[:, 1] - yaw[:, 0]) / 2
    assert (vergence >= -1e-9).all() and np.median(vergence) == pytest.approx(
        math.atan(0.031 / 0.6), rel=0.05
    )
    assert 0.002 < (vergence > 0.125).mean() < 0.025
    away = [sample_gaze(rng, 1.4, 0.0) for _ in range(600)]
    strained = np.mean([np.mean(g.yaw) > 0.5 for g in away])
    assert 0.15 < strained < 0.4  # most people seen from the side look ahead


def test_nobody_looks_up_behind_closed_lids():
    rng = np.random.default_rng(9)
    assert all(sample_gaze(rng, 0.0, 0.3, closed=1.0).pitch <= 0 for _ in range(200))
    gaze = sample_gaze(rng, 0.0, 0.3)
    assert lowered(gaze, 0.0) == gaze
    values = add_gaze({"eyeBlinkLeft": 1.0}, lowered(gaze, 1.0))
    assert "eyeLookUpLeft" not in values
