# SPDX-License-Identifier: Apache-2.0
"""Box filters against pooling, and tables against the curves they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hiface.colour import linear_to_srgb, to_uint8
from hiface.synthetic.backgrounds import plan_background, sample_background
from hiface.synthetic.camera_effects import plain_srgb
from hiface.synthetic.filters import box_blur, box_mean
from hiface.synthetic.noise import noise_image, noise_pool, plan_noise, sample_noise


@pytest.mark.parametrize("width", [1, 3, 7])
def test_boxes(width):
    picture = torch.rand(3, 20, 17, generator=torch.Generator().manual_seed(width))
    padded = F.pad(picture[None], (width // 2,) * 4, mode="replicate")
    assert torch.allclose(box_blur(picture, width), F.avg_pool2d(padded, width, 1)[0], atol=1e-6)
    inside = F.avg_pool2d(picture[None], width, 1, width // 2, count_include_pad=False)[0]
    assert torch.allclose(box_mean(picture, width), inside, atol=1e-6)


def test_plain_srgb_is_the_standard_curve():
    light = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1)) ** 3 * 1.2 - 0.05
    found, expected = plain_srgb(light).int(), to_uint8(linear_to_srgb(light)).int()
    assert (found - expected).abs().max() <= 1 and (found != expected).float().mean() < 0.02


@pytest.mark.parametrize("seed", range(12))
def test_planning_draws_the_numbers_of_a_background(seed):
    painted, planned = np.random.default_rng(seed), np.random.default_rng(seed)
    picture, paint = sample_background(painted, 128), plan_background(planned, 128)
    assert painted.bit_generator.state == planned.bit_generator.state
    assert torch.equal(paint(), picture) and torch.equal(paint(), picture)
    assert picture.shape == (3, 128, 128) and picture.isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_noise(scale):
    first, second, third = (np.random.default_rng(3) for _ in range(3))
    picture = noise_image(first, "cloud", 200, scale)
    assert torch.equal(plan_noise(second, "cloud", 200, scale)(), picture) and picture.shape == (200, 200)
    tile = noise_pool("cloud")[int(third.integers(8))]
    tile = torch.roll(tile, (int(third.integers(256)), int(third.integers(256))), (0, 1)).repeat(2, 2)
    need = max(2, round(200 / scale))
    whole = F.interpolate(tile[None, None, :need, :need], size=(200, 200), mode="bilinear")[0, 0]
    assert torch.allclose(picture, whole, atol=1e-6)


def test_lookup_of_noise_repeats():
    tile = noise_pool("white")[0]
    u, v = torch.tensor([0.1, 1.1, 7.1]), torch.tensor([0.3, 0.3, 5.3])
    assert (sample_noise(tile, u, v) == tile[76, 25]).all()
