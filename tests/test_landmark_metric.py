# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiface.errors import ShapeError
from hiface.evaluation.landmarks import eye_distance, match_boxes, nme, nme51, summarise


def points(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 68, 2, generator=torch.Generator().manual_seed(seed)) * 100


def test_constant_offset_gives_offset_over_norm() -> None:
    truth = points()
    moved = truth + torch.tensor([3.0, 4.0])
    assert torch.allclose(nme(moved, truth, torch.full((3,), 50.0)), torch.full((3,), 0.1), atol=1e-6)


def test_nme51_ignores_the_jaw_and_divides_by_the_outer_eye_corners() -> None:
    truth = points()
    moved = truth.clone()
    moved[:, :17] += 1000.0
    assert nme51(moved, truth).abs().max() == 0
    moved[:, 17:] += torch.tensor([6.0, 8.0])
    assert torch.allclose(nme51(moved, truth), 10.0 / eye_distance(truth), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50.0), st.floats(-500, 500))
def test_nme_does_not_depend_on_scale_and_place(scale: float, shift: float) -> None:
    truth, pred = points(0).double(), points(1).double()
    same = nme51(pred * scale + shift, truth * scale + shift)
    assert torch.allclose(same, nme51(pred, truth), rtol=1e-6)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="equal shapes"):
        nme(points(), points()[:2], torch.ones(3))


def test_each_detection_is_used_once_and_the_best_pair_wins() -> None:
    reference = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [100, 100, 110, 110]], np.float32)
    found = np.array([[1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    assert match_boxes(found, reference).tolist() == [0, -1, -1]
    assert match_boxes(np.zeros((0, 4)), reference).tolist() == [-1, -1, -1]
    assert match_boxes(found, np.zeros((0, 4))).tolist() == []


def test_a_much_smaller_box_in_the_middle_fits_but_one_beside_does_not() -> None:
    reference = np.array([[0, 0, 100, 100]], np.float32)
    assert match_boxes(np.array([[35, 35, 65, 65]], np.float32), reference).tolist() == [0]
    assert match_boxes(np.array([[90, 0, 190, 100]], np.float32), reference).tolist() == [-1]


def test_summary() -> None:
    out = summarise([0.02, 0.04, 0.30])
    assert out == {"mean_percent": 12.0, "median_percent": 4.0, "above_limit_percent": 33.3}
    assert np.isnan(summarise([])["mean_percent"])
