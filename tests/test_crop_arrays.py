# SPDX-License-Identifier: Apache-2.0
"""The numpy crops say the same as the tensors' and as a plain reading of the whole photo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hiface.data import crop_arrays, crops
from hiface.data.crops import CropFrame, sampling_grid


def some_points(count: int) -> torch.Tensor:
    gen = torch.Generator().manual_seed(count)
    return 40 * torch.randn(count, 68, 2, generator=gen) + torch.tensor([200.0, 150.0])


def test_frames_are_those_of_the_tensors() -> None:
    points = some_points(5)
    rolls = crops.eye_roll(points)
    assert np.allclose(crop_arrays.eye_rolls(points.numpy()), rolls.numpy(), atol=1e-5)
    frame = crops.frame_of_points(points, 1.6, rolls)
    rows = crop_arrays.frames_of_points(points.numpy(), 1.6, rolls.numpy())
    assert rows.dtype == np.float32 and np.allclose(rows, frame.rows(), atol=1e-3)
    boxes = crops.box_of_points(points)
    assert np.array_equal(crop_arrays.tight_boxes(points.numpy()), boxes.numpy())
    upright = crop_arrays.frames_of_boxes(boxes.numpy(), 1.6)
    assert np.allclose(upright, crops.frame_of_box(boxes, 1.6).rows(), atol=1e-4)
    inside = torch.randn(5, 9, 2, generator=torch.Generator().manual_seed(1))
    assert np.allclose(crop_arrays.to_picture(rows, inside.numpy()), frame.to_picture(inside), atol=1e-3)
    assert np.allclose(crop_arrays.frame_axes(rows), frame.axes().numpy(), atol=1e-4)


def test_no_faces_give_no_crops() -> None:
    none = crop_arrays.frames_of_points(np.zeros((0, 68, 2), np.float32), 1.6, np.zeros(0, np.float32))
    assert none.shape == (0, 4)
    assert crop_arrays.read_crops(np.zeros((9, 9, 3), np.uint8), none, 8).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(12, 9, 3), (13, 11, 3), (2, 40, 5), (7, 1, 2), (300, 600, 290)]
)
def test_shrinking_is_a_mean_of_squares(height: int, width: int, factor: int) -> None:
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    plain = F.avg_pool2d(planes, factor, ceil_mode=True, count_include_pad=False)[0].permute(1, 2, 0)
    assert np.allclose(crop_arrays.shrunk(picture, factor), plain.numpy(), atol=1e-3)


def plain_crop(photo: torch.Tensor, frame: CropFrame, size_px: int) -> torch.Tensor:
    """Shrinks the whole photo and samples it with a grid."""
    factor = max(1, int(float(frame.side_px) / size_px + 0.25))
    planes = photo.permute(2, 0, 1)[None].float()
    small = F.avg_pool2d(planes, factor, ceil_mode=True, count_include_pad=False)
    height, width = factor * small.shape[2], factor * small.shape[3]
    grid = sampling_grid(frame, size_px, height, width)
    return F.grid_sample(small, grid, padding_mode="border", align_corners=False) / 255


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-40, 260), st.floats(-40, 190), st.floats(3, 700), st.floats(-3.2, 3.2), st.integers(0, 10**6)
)
def test_crops_are_those_of_the_whole_photo(x: float, y: float, side: float, roll: float, seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    photo = torch.randint(0, 256, (151, 222, 3), generator=gen, dtype=torch.uint8)
    frame = CropFrame(torch.tensor([[x, y]]), torch.tensor([side]), torch.tensor([roll]))
    read = crop_arrays.read_crops(photo.numpy(), frame.rows(), 24)
    assert read.dtype == np.float32 and read.shape == (1, 3, 24, 24)
    assert np.abs(read - plain_crop(photo, frame, 24).numpy()).max() < 2e-3
    assert torch.equal(crops.crop_photo(photo, frame, 24), torch.from_numpy(read))


def test_crops_do_not_depend_on_their_neighbours() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    photo.flags.writeable = False
    rows = np.array([[60, 70, 50, 0.2], [100, 70, 180, 0.0], [10, 140, 90, -1.0]], np.float32)
    together = crop_arrays.read_crops(photo, rows, 32)
    for i in range(3):
        assert np.array_equal(crop_arrays.read_crops(photo, rows[i : i + 1], 32)[0], together[i])
