# SPDX-License-Identifier: Apache-2.0
"""Physical limits: lids, eyeballs, lips, tongue, shapes that exclude each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hiface
from hiface.render.rasterize import rasterize
from hiface.synthetic import limits
from hiface.synthetic.expressions import add_gaze, sample_expression, sample_gaze
from hiface.synthetic.identity import sample_identity, sample_traits
from hiface.synthetic.limit_tables import face_tables
from hiface.synthetic.limits import exclude, limit_face, limit_identity
from toy import toy_model

MM = 1e-3
MODEL = hiface.load_model("open")
NAMES = MODEL.data.expression_names


def _people(count: int, seed: int) -> torch.Tensor:
    """Identities [count, K] as the generator draws them, before their limits."""
    rng = np.random.default_rng(seed)
    drawn = [sample_identity(sample_traits(rng, *rng.random(2)), rng) for _ in range(count)]
    return torch.from_numpy(np.stack(drawn).astype(np.float32))


def _expressions(count: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        values = sample_expression(NAMES, rng)
        closed = 0.5 * (values["eyeBlinkLeft"] + values["eyeBlinkRight"])
        yaw, pitch = rng.normal(0, 0.3, 2).tolist()
        gaze = sample_gaze(rng, yaw, pitch, closed)
        rows.append(MODEL.expression_vector(add_gaze(values, gaze)))
    return torch.stack(rows)


def _both(stem: str, value: float = 1.0) -> torch.Tensor:
    return MODEL.expression_vector({f"{stem}Left": value, f"{stem}Right": value})


@pytest.fixture(scope="module")
def tables():
    found = face_tables(MODEL)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def people():
    return limit_identity(MODEL, _people(200, 0))


def seen_eye(identity: torch.Tensor, expression: torch.Tensor, side: str, size: int = 96) -> float:
    """Share of a frontal square of 48 mm that shows the eyeball."""
    data = MODEL.data
    vertices = MODEL.shape(identity, expression)
    centre = MODEL.joints(identity)[data.joint_names.index(f"eye_{side}")]
    x, y, z = ((vertices - centre) * (size / 0.048)).unbind(1)
    flat = torch.stack([size / 2 + x, size / 2 - y, 1e3 - z], dim=1).contiguous()
    ids = rasterize(flat, data.triangles, size, size).reshape(-1)
    parts = data.triangle_parts[ids[ids >= 0].long()]
    return float((parts == data.part_names.index(f"eye_{side}")).float().mean())


def test_tables_agree_with_the_model(tables):
    identity, expression = _people(1, 3)[0], _expressions(1, 4)[0]
    vertices = MODEL.shape(identity, expression)
    here = tables.person(identity)
    pairs = MODEL.data.pairs["lip_pairs"]
    lips = here.lips + tables.lips_expression @ expression.numpy()
    assert np.allclose(lips, vertices[pairs[:, 0], 1] - vertices[pairs[:, 1], 1], atol=1e-6)
    data = MODEL.data
    for side, name in enumerate(("left", "right")):
        ids = data.triangles[data.triangle_parts == data.part_names.index(f"eye_{name}")].unique()
        centre = MODEL.joints(identity)[data.joint_names.index(f"eye_{name}")]
        assert np.allclose(here.centres[side], centre, atol=1e-6)
        radius = (vertices[ids] - centre).norm(dim=1).mean()
        assert float(here.radii[side]) == pytest.approx(float(radius), abs=0.1 * MM)
    clearance, _ = here.clearance(torch.zeros(len(NAMES)))
    every = torch.cdist(torch.from_numpy(here.lids[0]), MODEL.shape(identity, torch.zeros(len(NAMES))))
    assert every.min(dim=1).values.max() < 1e-4 and clearance.shape == (2, tables.lids.shape[1])
    assert tables.lid_gap.min() > 4 * MM and 9 * MM < tables.lid_gap.max() < 10 * MM


def test_people_close_their_eyes_and_lids_clear_the_eyeballs(tables, people):
    states = [torch.zeros(len(NAMES)), _both("eyeBlink", 0.5), _both("eyeBlink"), _both("eyeLookDown")]
    for person in people:
        here = tables.person(person)
        for state in states:
            assert here.clearance(state)[0].min() > -0.25 * MM
        assert here.lid_gap(_both("eyeBlink")).max() < 0
    drawn = _people(200, 0)
    gaps = [float(tables.person(p).lid_gap(_both("eyeBlink")).max()) for p in drawn]
    assert max(gaps) > 0  # without limits some cannot


def test_people_change_little(people):
    drawn = _people(200, 0)
    moved = (people - drawn).norm(dim=1)
    assert 0.3 < (moved < 1e-6).float().mean() < 0.9
    assert moved.median() < 1.0 and moved.max() < 6.0 < drawn.norm(dim=1).min()
    assert torch.allclose(limit_identity(MODEL, people[:20]), people[:20], atol=0.2)


def test_no_eyeball_shows_in_a_blink(people):
    blink = _both("eyeBlink")
    for person in people[:40]:
        assert seen_eye(person, torch.zeros(len(NAMES)), "left") > 0.01
        assert seen_eye(person, limit_face(MODEL, person, blink), "left") == 0


def test_faces_stay_within_their_limits(tables, people):
    drawn = _expressions(len(people), 1)
    held = limit_face(MODEL, people, drawn)
    assert held.min() >= 0 and held.max() <= 1
    looks = torch.tensor([name.startswith("eyeLook") for name in NAMES])
    assert torch.equal(held[:, looks], drawn[:, looks])
    crossing = 0
    for person, before, after in zip(people, drawn, held, strict=True):
        here = tables.person(person)
        assert here.clearance(after)[0].min() > -0.25 * MM
        assert here.lips_over(after).min() > -1.8 * MM
        gap = here.lid_gap(after)
        assert gap.min() > -3.3 * MM
        for side in (0, 1):
            if after[tables.blink[side]] >= limits.SHUT:
                assert gap[side].max() < 0
        crossing += int(here.lips_over(before).min() < -1.8 * MM)
    assert crossing > 3
    assert (held - drawn).abs().mean() < 0.01


def test_tongues_pass_over_the_lower_lip(tables, people):
    out = MODEL.expression_vector(
        {"jawOpen": 0.5, "tongueOut": 1.0, "mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}
    )
    low = 0
    for person in people[:40]:
        here, held = tables.person(person), limit_face(MODEL, person, out)
        before, height = here.tongue_height(out), here.tongue_height(held)
        assert height is None or height[0] > -3.2 * MM or held[tables.tongue_out] <= limits.TONGUE_IN
        low += before is not None and before[0] < -3.2 * MM
    assert low > 0


def test_extremes_are_possible_on_anyone(people):
    everything = torch.ones(len(NAMES))
    held = limit_face(MODEL, people[:20], everything)
    by_name = dict(zip(NAMES, held.T, strict=True))
    assert (by_name["jawLeft"] == 0).all() and (
        by_name["eyeWideLeft"] <= 1 - by_name["eyeBlinkLeft"] + 1e-6
    ).all()
    assert torch.isfinite(held).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=52, max_size=52))
def test_exclusion_is_a_projection(values):
    once = exclude(torch.tensor(values), NAMES)
    twice = exclude(once, NAMES)
    assert once.min() >= 0 and once.max() <= 1
    assert torch.allclose(once, twice, atol=1e-6)
    by_name = dict(zip(NAMES, once.tolist(), strict=True))
    assert by_name["mouthClose"] <= by_name["jawOpen"] + 1e-6
    assert min(by_name["jawLeft"], by_name["jawRight"]) == 0
    assert by_name["eyeBlinkLeft"] + by_name["eyeWideLeft"] <= 1 + 1e-6


def test_batches_and_single_faces_agree(people):
    drawn = _expressions(6, 2)
    single = torch.stack([limit_face(MODEL, p, e) for p, e in zip(people[:6], drawn, strict=True)])
    assert torch.equal(limit_face(MODEL, people[:6], drawn), single)
    assert torch.equal(
        limit_face(MODEL, people[:6].reshape(2, 3, -1), drawn.reshape(2, 3, -1)).reshape(6, -1), single
    )


def test_models_without_lids_are_left_alone():
    toy = toy_model()
    identity = torch.randn(toy.data.n_identity)
    assert torch.equal(limit_identity(toy, identity), identity)
    expression = torch.rand(len(toy.data.expression_names))
    held = limit_face(toy, identity, expression)
    assert torch.equal(held, exclude(expression, toy.data.expression_names))


def test_units_of_the_mean_face_keep_off_the_eyeballs(tables):
    here = tables.person(torch.zeros(MODEL.data.n_identity))
    rest = float(here.clearance(torch.zeros(len(NAMES)))[0].min())
    assert rest > 0.2 * MM
    for i, name in enumerate(NAMES):
        for share in (0.5, 1.0):
            unit = torch.zeros(len(NAMES))
            unit[i] = share
            assert here.clearance(unit)[0].min() > rest - 0.05 * MM, name


def test_tongue_of_the_mean_face_passes_over_the_lip(tables):
    here = tables.person(torch.zeros(MODEL.data.n_identity))
    out = here.tongue_height(MODEL.expression_vector({"jawOpen": 0.5, "tongueOut": 1.0}))
    assert out is not None and out[0] > -1.0 * MM
    assert here.tongue_height(MODEL.expression_vector({"jawOpen": 0.5, "tongueOut": 0.3})) is None
