# SPDX-License-Identifier: Apache-2.0
"""The jitter that is printed is that of trembling points, whether or not the head moves."""

import numpy as np
import pytest
import torch

from hiface.tracking.measures import jitter_px


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("moving", [False, True])
def test_trembling_is_measured_as_on_a_still_face(uneven, moving):
    rng = np.random.default_rng(0)
    times = np.cumsum(np.where(rng.random(300) < 0.3, 2, 1) if uneven else np.ones(300)) / 30
    noise = rng.normal(0, 0.5, (300, 68, 2))
    still = noise[2:] - 2 * noise[1:-1] + noise[:-2]
    expected = np.linalg.norm(still[:, 17:], axis=-1).mean()
    sway = 40 * np.sin(2 * np.pi * 0.5 * times)[:, None, None] if moving else 0.0
    found = jitter_px(torch.from_numpy(200 + sway + noise), times.tolist(), 1024)
    assert found == pytest.approx(expected / 2, rel=0.08)  # in pixels of a picture half as high


def test_swaying_alone_is_none_and_short_tracks_have_no_figure():
    times = np.arange(100) / 30
    sway = np.repeat(200 + 40 * np.sin(3 * times)[:, None, None], 68, 1).repeat(2, 2)
    found = jitter_px(torch.from_numpy(sway), times.tolist(), 512)
    assert found is not None and found < 0.02
    broken = sway.copy()
    broken[::4] = np.nan
    assert jitter_px(torch.from_numpy(broken), times.tolist(), 512) is None
    assert jitter_px(torch.from_numpy(sway[:4]), times[:4].tolist(), 512) is None
