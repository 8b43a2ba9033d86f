# SPDX-License-Identifier: Apache-2.0
"""Whole numbers and PNG files; the compiled passes do what their plain versions do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiface.render.kernels.library import has_library
from hiface.synthetic import pixels

needs_library = pytest.mark.skipif(not has_library(), reason="the compiled kernels were not built")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_files_open_again(dtype):
    rng = np.random.default_rng(1)
    values = rng.integers(0, np.iinfo(dtype).max, (37, 23), endpoint=True).astype(dtype)
    assert np.array_equal(pixels.png_pixels(pixels.png_bytes(values)), values)
    turned = values.T  # rows that do not follow each other in memory
    assert np.array_equal(pixels.png_pixels(pixels.png_bytes(turned)), turned)


@needs_library
def test_srgb_levels():
    ends = np.array([0, -1, 1, 2, 1e-9, 1 - 2**-24, 0.0031308], dtype=np.float32)
    values = np.concatenate([np.random.default_rng(2).random(300_000).astype(np.float32) ** 3, ends])
    values = np.resize(values, (3, 1, 100_003))
    found, plain = pixels.srgb_pixels(values), pixels.srgb_pixels_plain(values)
    # A step may begin one float earlier, as a power is not rounded the same everywhere.
    assert (found != plain).mean() < 1e-5 and np.abs(found.astype(int) - plain).max() <= 1
    assert found.min() == 0 and found.max() == 255
    _, first = pixels._srgb_steps()
    assert np.diff(first.astype(int)).max() == 1  # so that one comparison is enough


@needs_library
def test_normals_and_steps():
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(3, 60, 50)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=0)
    normals[:, :9] = 0
    found = pixels.normal_pixels(normals)
    assert np.array_equal(found, pixels.normal_pixels_plain(normals)) and not found[:9].any()
    lengths = (rng.random((60, 50)) * 9 - 0.5).astype(np.float32)
    for step, zero, values in ((1e-4, 0.0, lengths), (1e-7, 32768.0, lengths * np.float32(1e-2))):
        steps = pixels.step_pixels(values, step, zero)
        assert np.array_equal(steps, pixels.step_pixels_plain(values, step, zero))
        assert steps.min() == 0 and steps.max() == 65535


@needs_library
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_tone_curves(dtype):
    gen = torch.Generator().manual_seed(4)
    picture_linear = torch.rand(3, 21, 23, generator=gen).permute(0, 2, 1) * 12 - 1
    table = (torch.rand(600, generator=gen) * 255).to(dtype)
    for brightest in (1.0, 9.0):
        plain = pixels.look_up_plain(table, picture_linear, 599 / brightest**0.5, brightest)
        assert torch.equal(pixels.look_up(table, picture_linear, brightest), plain)
