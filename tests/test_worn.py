"""Masks, scarves, headwear, glare, and things held in front of a face: drawn, and labelled as they hide."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.synthetic import places
from hiface.synthetic.accessories import sample_glasses, sample_hat
from hiface.synthetic.compose import compose, sample_wardrobe
from hiface.synthetic.effects import dressed_down, parse_effects
from hiface.synthetic.face_masks import sample_face_mask, sample_neck_scarf
from hiface.synthetic.generator import Style, generate_picture
from hiface.synthetic.labels import label_points
from hiface.synthetic.occluders import draw_occluder
from hiface.synthetic.shots import draw_shot, sitter_of

SIZE = 96
ACCESSORY = 5


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def shot(model):
    effects = parse_effects("lamps")
    return draw_shot(model, sitter_of(model, 33, effects), np.random.default_rng([99, 11]), SIZE, effects)


def pick(sample, wanted):
    rng = np.random.default_rng(3)
    return next(thing for thing in (sample(rng) for _ in range(500)) if wanted(thing))


def drawn(model, shot, **worn):
    wardrobe = replace(shot.wardrobe, **worn)
    return compose(model, shot.sitter.person, shot.sitter.texture, shot.picture, wardrobe, SIZE)


@pytest.mark.parametrize("kind", ["surgical", "cloth", "cup", "bandana"])
def test_masks_cover_nose_and_mouth_only(model, shot, kind):
    mask = pick(sample_face_mask, lambda m: m.kind == kind and m.top_m > -0.03)
    out = drawn(model, shot, mask=mask)
    points = label_points(model, shot.picture, out, out.label)
    hidden = [30, 33, 48, 51, 54, 57, 62, 66]
    before = label_points(model, shot.picture, drawn(model, shot), drawn(model, shot).label)
    assert before["visible68"][hidden].float().mean() > 0.6
    assert not points["visible68"][hidden].any()
    eyes = slice(36, 48)
    assert torch.equal(points["visible68"][eyes], before["visible68"][eyes])
    assert torch.equal(points["landmarks68_px"], before["landmarks68_px"])
    x, y = points["landmarks68_px"][66].long().tolist()
    assert int(out.label[y, x]) == ACCESSORY


def test_scarf_covers_the_neck_or_the_chin(model, shot):
    low = replace(sample_neck_scarf(np.random.default_rng(1)), top_m=-0.125)
    small = int((drawn(model, shot, scarf=low).label == ACCESSORY).sum())
    high = drawn(model, shot, scarf=replace(low, top_m=-0.07))
    assert 0 < small < int((high.label == ACCESSORY).sum())
    chin = label_points(model, shot.picture, high, high.label)["visible68"][7:10]
    assert not chin.any()


@pytest.mark.parametrize("kind", ["beanie", "cap", "hat", "helmet", "hood", "scarf"])
def test_headwear_is_labelled(model, shot, kind):
    out = drawn(model, shot, hat=pick(sample_hat, lambda h: h.kind == kind))
    mask = out.label == ACCESSORY
    assert int(mask.sum()) > 60 and bool(out.colour[:, mask].isfinite().all())
    x0, y0, x1, y1 = (int(v) for v in out.face_box)
    assert float(mask[max(y0, 0) : y1, x0:x1].float().mean()) < 0.4


def test_glare_brightens_lenses_and_hides_nothing(model, shot):
    clear = pick(sample_glasses, lambda g: g.tint < 0.1)
    dull, bright = (drawn(model, shot, glasses=replace(clear, glare=g)) for g in (0.0, 0.35))
    assert float(bright.colour.sum()) > float(dull.colour.sum())
    assert torch.equal(bright.label, dull.label)
    dark = drawn(model, shot, glasses=replace(clear, tint=0.9))
    assert int((dark.label == ACCESSORY).sum()) > int((dull.label == ACCESSORY).sum())


def test_shares_of_what_is_worn_and_switches():
    rng = np.random.default_rng(0)
    wardrobes = [sample_wardrobe(rng) for _ in range(2500)]
    assert 0.018 < np.mean([w.mask is not None for w in wardrobes]) < 0.045
    assert 0.04 < np.mean([w.scarf is not None for w in wardrobes]) < 0.10
    veiled = [w for w in wardrobes if w.hat and w.hat.kind == "scarf"]
    assert all(w.scarf and np.array_equal(w.scarf.colour, w.hat.colour) for w in veiled if w.hat)
    assert 0.11 < np.mean([w.hat is not None for w in wardrobes]) < 0.19
    assert {w.hat.kind for w in wardrobes if w.hat} == {"beanie", "cap", "hat", "helmet", "hood", "scarf"}
    for w in wardrobes[:200]:
        assert dressed_down(w, parse_effects("all,-occluders")).mask is None
        assert dressed_down(w, parse_effects("all,-hats")).scarf is None


def test_things_in_front_have_a_mask_and_are_seeded():
    skin, light = torch.tensor([0.45, 0.27, 0.2]), torch.zeros(9, 3)
    light[0] = 2.0
    seen = 0
    for seed in range(24):
        made = [
            draw_occluder(np.random.default_rng(seed), SIZE, (20, 20, 70, 75), skin, light) for _ in (0, 1)
        ]
        (colour, opacity), (same, _) = made
        assert torch.equal(colour, same)
        assert colour.shape == (3, SIZE, SIZE) and 0 <= float(opacity.min()) and float(opacity.max()) <= 1
        assert bool((colour[:, opacity == 0] == 0).all()) and bool(colour.isfinite().all())
        assert bool((colour[:, opacity > 0.5].sum(dim=0) > 0).all())
        seen += int((opacity > 0.5).any())
    assert seen > 20


def test_hands_have_shading_and_creases():
    skin, light = torch.tensor([0.45, 0.27, 0.2]), torch.zeros(9, 3)
    light[0], light[2] = 2.0, -0.8  # from the front
    spreads = []
    for seed in range(12):
        colour, opacity = draw_occluder(np.random.default_rng(seed), 192, (40, 40, 150, 160), skin, light)
        inside = opacity > 0.99
        if int(inside.sum()) > 500:
            grey = colour[:, inside].mean(dim=0)
            spreads.append(float(grey.std() / grey.mean()))
    assert max(spreads) > 0.15


def test_switching_occluders_off_changes_nothing_else(model):
    everything, without = parse_effects("all"), parse_effects("all,-occluders")
    for seed in range(300, 309):
        a = generate_picture(model, seed, Style(64, everything))
        b = generate_picture(model, seed, Style(64, without))
        assert torch.equal(a.landmarks68_px, b.landmarks68_px)
        if torch.equal(a.segmentation, b.segmentation):
            assert torch.equal(a.image_srgb, b.image_srgb)


@pytest.mark.parametrize(
    "place", [places.foliage, places.landscape, places.shelves, places.window, places.crowd]
)
def test_places_are_pictures(place):
    for size in (64, 97):
        made = [place(np.random.default_rng(seed), size) for seed in (1, 1, 2)]
        assert made[0].shape == (3, size, size) and bool(made[0].isfinite().all())
        assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
        assert float(made[0].min()) >= 0 and float(made[0].std()) > 0.003
