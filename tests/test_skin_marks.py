"""Marks on the skin: each changes what it names and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.synthetic.face_paint import paint_tables, surface_places
from hiface.synthetic.skin_marks import NO_MARKS, paint_marks, sample_marks

SIDE = 256
RED = np.array([0.3, 0.02, 0.03], np.float32)


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def painted(model, **parts):
    texture = torch.full((3, SIDE, SIDE), 0.4)
    paint_marks(model, texture, replace(NO_MARKS, **parts), np.random.default_rng(0))
    return texture


def where_changed(texture):
    return ((texture - 0.4).abs() > 0.004).any(dim=0)


def test_no_marks_change_nothing(model):
    assert torch.allclose(painted(model), torch.full((3, SIDE, SIDE), 0.4), atol=1e-6)


def test_lipstick_is_on_the_lips(model):
    texture = painted(model, lipstick=(RED, 0.8))
    window = paint_tables(model, SIDE).lips
    assert window is not None
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    window.cut(inside).copy_(window.mask > 0)
    changed = where_changed(texture)
    assert bool(changed.any()) and not bool((changed & ~inside).any())
    assert float(texture[1][changed].mean()) < 0.3


def test_flush_reddens_cheeks(model):
    texture = painted(model, flush=(0.4, 0.0, 0.0))
    texels, places = surface_places(model, SIDE)
    flat = texture.reshape(3, -1)
    cheek = texels[((places - torch.tensor([0.043, -0.032, 0.015])).norm(dim=1)) < 0.012]
    brow = texels[places[:, 1] > 0.05]
    assert len(cheek) > 20
    assert (
        float((flat[0] - flat[1])[cheek].mean())
        > 0.05
        > 0.001
        > float((flat[0] - flat[1])[brow].abs().mean())
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"freckles": (0.5, 1.4)},
        {"spots": np.array([[0.4, 1.5, 0.4, 0.3, 0.3], [0.6, 1.0, 0.5, 0.4, 0.3]], np.float32)},
        {"scar": (0.5, 0.3, 12.0, -0.3)},
        {"blush": (0.4, -0.03)},
    ],
)
def test_each_mark_shows_on_a_small_part(model, parts):
    share = float(where_changed(painted(model, **parts)).float().mean())
    assert 0 < share < 0.2


def test_samples_are_seeded_and_sensible():
    brown = np.array([0.06, 0.03, 0.02], np.float32)
    rng = np.random.default_rng(0)
    marks = [sample_marks(rng, brown, i / 400, i % 3 == 0) for i in range(400)]
    again = sample_marks(np.random.default_rng(0), brown, 0.0, True)
    assert np.array_equal(again.spots, marks[0].spots) and again.flush == marks[0].flush
    assert 0.06 < np.mean([m.freckles[0] > 0 for m in marks]) < 0.2
    assert all(m.lipstick[1] == 0 for i, m in enumerate(marks) if i % 3)
    assert np.mean([m.lipstick[1] > 0 for m in marks[::3]]) > 0.5
    assert max(sum(m.flush) for m in marks) < 1.2
