"""Hair and beards: every style draws, where it should, the same for the same seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.synthetic import beards, hair_styles, strands
from hiface.synthetic.accessories import sample_hat
from hiface.synthetic.beards import beard_tables, growth, sample_beard
from hiface.synthetic.compose import compose
from hiface.synthetic.effects import parse_effects
from hiface.synthetic.hair_growth import angles, skull_radius, unit
from hiface.synthetic.hair_heads import grow
from hiface.synthetic.hair_paint import paint_hair
from hiface.synthetic.hair_styles import KINDS, hairline, sample_hair
from hiface.synthetic.shots import draw_shot, sitter_of

SIZE = 96
HAIR = 4


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def shot(model):
    """A bare person from in front."""
    effects = parse_effects("plain")
    sitter = sitter_of(model, 33, effects)
    return draw_shot(model, sitter, np.random.default_rng([99, 11]), SIZE, effects)


def style_of(kind, seed=0):
    rng = np.random.default_rng(seed)
    return next(h for h in (sample_hair(rng, womanly=seed % 2 == 1) for _ in range(3000)) if h.kind == kind)


def beard_of(kind, seed=0):
    rng, colour = np.random.default_rng(seed), np.full(3, 0.02, np.float32)
    return next(b for b in (sample_beard(rng, colour, True) for _ in range(3000)) if b.kind == kind)


def drawn(model, shot, **parts):
    person = replace(shot.sitter.person, **parts)
    return compose(model, person, shot.sitter.texture, shot.picture, shot.wardrobe, SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_style_draws_hair_where_it_grows(model, shot, kind):
    style = style_of(kind)
    out, again = drawn(model, shot, hair=style), drawn(model, shot, hair=style)
    assert torch.equal(out.colour, again.colour) and torch.equal(out.label, again.label)
    mask = out.label == HAIR
    assert bool(mask.any()) == (kind != "bald")
    assert bool((out.colour >= 0).all()) and bool(out.colour.isfinite().all())
    if kind == "bald":
        return
    assert bool((out.alpha[mask] > 0).all())
    x0, y0, x1, y1 = out.face_box
    rows, columns = mask.nonzero().unbind(1)
    assert float(rows.float().min()) < y0 + 8 and x0 - 60 < float(columns.float().mean()) < x1 + 60
    # Only a fringe or very long curls ever reach the mouth.
    low, middle = int(min(SIZE - 1, y0 + 0.72 * (y1 - y0))), int((x0 + x1) / 2)
    assert not bool(mask[low : int(y1), middle - 3 : middle + 4].any())


def test_styles_differ_in_what_they_cover(model, shot):
    area = {kind: int((drawn(model, shot, hair=style_of(kind)).label == HAIR).sum()) for kind in KINDS}
    assert area["long"] > 2 * area["crop"] > 2 * area["horseshoe"] > 0
    assert area["afro"] > 1.5 * area["buzz"]


def test_locks_stay_outside_the_skull_and_off_the_face():
    table = np.full((64, 30), 0.1, np.float32)
    for kind in ("crop", "long", "bob", "back", "tail"):
        style = replace(style_of(kind), fringe=(0.0, 0.0), wave=(0.0, 0.05))
        for locks in grow(style, table, np.array([0, -1, 0], np.float32)):
            points = locks.points.reshape(-1, 3)
            radius = np.linalg.norm(points, axis=1)
            direction = unit(points)
            theta, phi = angles(direction)
            above = phi < 2.3
            inside = radius[above] < skull_radius(table, direction)[above] - 1e-4
            assert inside.mean() < (0.05 if kind == "tail" else 1e-6), kind
            on_face = above & (np.abs(theta) < 0.4) & (phi > hairline(style, theta) + 0.5)
            assert not on_face.any() or kind == "crop", kind


def test_fewer_locks_are_some_of_all():
    table, down = np.full((64, 30), 0.1, np.float32), np.array([0, -1, 0], np.float32)
    for kind in ("crop", "afro", "tail"):
        style = style_of(kind)
        every, some = (grow(style, table, down, share)[0] for share in (1.0, 0.5))
        n = len(some.width)
        assert 0.4 < n / len(every.width) < 0.6
        assert np.allclose(some.points, every.points[:n], atol=1e-6) and np.all(some.width > every.width[:n])
        assert np.array_equal(some.luck, every.luck[:n])


def test_locks_on_the_far_side_are_not_missed(model, shot, monkeypatch):
    style = style_of("crop")
    quick = drawn(model, shot, hair=style)
    monkeypatch.setattr(strands, "_FAR_SIDE", 2.0)
    slow = drawn(model, shot, hair=style)
    assert float((quick.label != slow.label).float().mean()) < 0.003


def test_a_hat_hides_hair_above_its_edge(model, shot):
    hidden = compose(
        model,
        replace(shot.sitter.person, hair=style_of("crop")),
        shot.sitter.texture,
        shot.picture,
        replace(shot.wardrobe, hat=hat_of(1.0)),
        SIZE,
    )
    assert int((hidden.label == HAIR).sum()) < int(
        (drawn(model, shot, hair=style_of("crop")).label == HAIR).sum()
    )


def hat_of(front):
    rng = np.random.default_rng(0)
    return replace(next(h for h in (sample_hat(rng) for _ in range(99)) if h.kind == "beanie"), front=front)


def test_shares_of_hair_and_beards():
    rng = np.random.default_rng(0)
    styles = [sample_hair(rng, dark=i % 2 == 0, womanly=i % 3 == 0) for i in range(1500)]
    assert {s.kind for s in styles} == set(KINDS)
    colours = np.stack([s.colour for s in styles])
    # Natural hair is redder than green and greener than blue.
    unnatural = (colours[:, 0] < colours[:, 1] * 0.98) | (colours[:, 1] < colours[:, 2] * 0.98)
    assert unnatural.mean() < 0.03
    assert 0.02 < np.mean([s.recede > 0.2 for s in styles]) < 0.3
    made_up = [s for i, s in enumerate(styles) if i % 3 == 0]
    assert np.mean([s.kind in ("long", "bob", "tail", "bun") for s in made_up]) > 0.5
    black = np.full(3, 0.01, np.float32)
    kinds = [sample_beard(rng, black, True).kind for _ in range(600)]
    assert set(kinds) == set(beards.KINDS) and 0.35 < np.mean([k == "none" for k in kinds]) < 0.6
    assert all(sample_beard(rng, black, False).shade == 0 for _ in range(50))


def test_hairline_has_shape():
    style = replace(style_of("crop"), recede=0.0, peak=0.0)
    theta = np.linspace(-np.pi, np.pi, 181)
    plain = hairline(style, theta)
    assert np.abs(np.diff(plain)).max() < 0.2 and not np.allclose(plain, plain[::-1], atol=0.01)
    temple, front = np.abs(np.abs(theta) - 0.62).argmin(), np.abs(theta).argmin()
    assert hairline(replace(style, recede=0.3), theta)[temple] < plain[temple] - 0.25
    assert hairline(replace(style, peak=0.1), theta)[front] > plain[front] + 0.09


@pytest.mark.parametrize("kind", beards.KINDS)
def test_every_beard_draws(model, shot, kind):
    bare = replace(shot.sitter.person.hair, kind="bald")
    out = drawn(model, shot, hair=bare, beard=beard_of(kind))
    mask = out.label == HAIR
    assert bool(mask.any()) == (kind not in ("none", "shadow", "stubble"))
    if bool(mask.any()):
        _, y0, _, y1 = out.face_box
        rows = mask.nonzero()[:, 0].float()
        assert float(rows.min()) > y0 + 0.2 * (y1 - y0) and float(rows.mean()) > y0 + 0.5 * (y1 - y0)


def test_beards_leave_lips_and_nose_free(model):
    tables = beard_tables(model)
    full, small = beard_of("full"), beard_of("moustache")
    lips = model.landmarks("ibug68", model.data.template)[[62, 66, 51, 57]].numpy()
    lips[2:, 1] += (-0.002, 0.002)
    assert growth(full, tables, lips, np.ones(4)).max() == 0
    nose = model.landmarks("ibug68", model.data.template)[[30]].numpy()
    assert growth(full, tables, nose, np.zeros(1)).max() == 0
    area = [growth(b, tables, tables.places, tables.jaw).mean() for b in (small, beard_of("goatee"), full)]
    assert 0 < area[0] < area[1] < area[2]


def test_paint_stays_where_hair_grows(model):
    texture = torch.full((3, 256, 256), 0.5)
    bald = replace(style_of("bald"), shade=0.0)
    none = replace(beard_of("none"), shade=0.0)
    paint_hair(model, texture, bald, none)
    assert torch.equal(texture, torch.full_like(texture, 0.5))
    paint_hair(model, texture, bald, beard_of("stubble"))
    changed = ((texture - 0.5).abs() > 0.02).any(dim=0).nonzero()[:, 0]
    assert 60 < int(changed.min()) and int(changed.max()) < 216
    scalp = torch.full((3, 256, 256), 0.5)
    paint_hair(model, scalp, style_of("buzz"), none)
    # The middle of the face is bare, the top is not.
    assert torch.equal(scalp[:, 60:140, 100:156], torch.full((3, 80, 56), 0.5))
    assert float((scalp < 0.45).float().mean()) > 0.05


def test_without_the_effect_there_is_no_hair(model):
    for number in range(6):
        person = sitter_of(model, number, parse_effects("all,-hair")).person
        assert person.hair.kind == "bald" and person.hair.shade == 0 and person.beard.kind == "none"
    assert hair_styles.CUTS.keys() == set(KINDS) - {"bald"}
