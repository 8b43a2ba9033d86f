# SPDX-License-Identifier: Apache-2.0
"""Skin colour from melanin and blood: known limits, monotone, close to measured skin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiface.synthetic.skin_colour import reflectance_to_rgb, skin_reflectance, skin_tone_rgb


def lab(rgb):
    matrix = torch.tensor(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    x, y, z = (rgb @ matrix.T / torch.tensor([0.95047, 1.0, 1.08883])).clamp(min=0.0089) ** (1 / 3)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_white_and_grey():
    torch.testing.assert_close(reflectance_to_rgb(torch.ones(31)), torch.ones(3))
    torch.testing.assert_close(reflectance_to_rgb(torch.full((2, 31), 0.5)), torch.full((2, 3), 0.5))


@pytest.mark.parametrize(
    "melanin, blood, lightness, redness, yellowness",
    [(0.05, 0.023, 64.0, 12.0, 16.0), (0.19, 0.023, 39.0, 12.0, 14.0)],
    ids=["light", "dark"],
)
def test_light_and_dark_skin_have_plausible_lab(melanin, blood, lightness, redness, yellowness):
    got = lab(skin_tone_rgb(torch.tensor(melanin), torch.tensor(blood)))
    for value, wanted in zip(got, (lightness, redness, yellowness), strict=True):
        assert abs(float(value) - wanted) < 4


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.4), st.floats(0.004, 0.15))
def test_more_pigment_is_darker(melanin, blood):
    m, b = torch.tensor(melanin, dtype=torch.float64), torch.tensor(blood, dtype=torch.float64)
    here = skin_reflectance(m, b)
    assert (here > 0).all() and (here < 1).all()
    assert (skin_reflectance(m * 1.1, b) < here).all()
    assert (skin_reflectance(m, b * 1.1) < here).all()


def test_blood_has_its_double_dip():
    spectrum = skin_reflectance(torch.tensor(0.02), torch.tensor(0.05), oxygenation=0.95)
    at = {nm: float(spectrum[(nm - 400) // 10]) for nm in (540, 560, 580, 600)}
    assert at[560] > at[540] and at[560] > at[580] and at[600] > 1.2 * at[580]


def test_batches_and_gradients():
    melanin = torch.full((2, 3), 0.06, dtype=torch.float64, requires_grad=True)
    blood = torch.full((2, 3), 0.02, dtype=torch.float64, requires_grad=True)
    assert skin_tone_rgb(melanin, blood).shape == (2, 3, 3)
    assert torch.autograd.gradcheck(skin_tone_rgb, (melanin, blood))
