# SPDX-License-Identifier: Apache-2.0
"""Compiled passes that turn label maps into the whole numbers that files hold.

`hiface.synthetic.pixels` holds the plain versions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hiface.render.kernels.library import loaded_library

SRGB_OCTAVES, SRGB_BINS = 13, 128


def _address(values: np.ndarray) -> int:
    assert values.flags.c_contiguous
    return values.ctypes.data


def srgb_pixels(linear: np.ndarray, steps: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Linear colour as sRGB levels.

    Args:
        linear: [3, H, W] float32.
        steps: [256] float32, the linear value from which each level but 0 is reached; the last is infinite.
        first: [`SRGB_OCTAVES` * `SRGB_BINS`] uint8, the level at 2^-13 (1 + i / 128) and so on to 1.

    Returns:
        [H, W, 3] uint8.
    """
    assert linear.dtype == steps.dtype == np.float32 and first.dtype == np.uint8
    assert len(steps) == 256 and len(first) == SRGB_OCTAVES * SRGB_BINS
    linear = np.ascontiguousarray(linear)
    out = np.empty((*linear.shape[1:], 3), dtype=np.uint8)
    sizes = out.size // 3, _address(steps), _address(first)
    loaded_library().hiface_srgb_pixels(_address(linear), *sizes, _address(out))
    return out


def normal_pixels(normals: np.ndarray) -> np.ndarray:
    """[3, H, W] float32 unit normals as [H, W, 3] uint8, (n + 1) / 2 of 255; 0 for nothing."""
    assert normals.dtype == np.float32
    normals = np.ascontiguousarray(normals)
    out = np.empty((*normals.shape[1:], 3), dtype=np.uint8)
    loaded_library().hiface_normal_pixels(_address(normals), out.size // 3, _address(out))
    return out


def step_pixels(lengths: np.ndarray, step: float, zero: float) -> np.ndarray:
    """Float32 lengths in whole steps as uint16, any shape, cut at the ends.

    Args:
        lengths: In the unit of `step`.
        step: Length of a step.
        zero: What 0 becomes, plus a half for rounding.
    """
    assert lengths.dtype == np.float32
    lengths = np.ascontiguousarray(lengths)
    out = np.empty(lengths.shape, dtype=np.uint16)
    loaded_library().hiface_step_pixels(_address(lengths), out.size, step, zero, _address(out))
    return out


def look_up(table: Tensor, picture_linear: Tensor, scale: float, brightest: float) -> Tensor:
    """`hiface.synthetic.pixels.look_up`; the last entry of the table is `scale` sqrt(`brightest`)."""
    assert table.is_contiguous() and table.element_size() in (1, 4) and picture_linear.dtype == torch.float32
    assert round(scale * brightest**0.5) < len(table)
    picture_linear = picture_linear.contiguous()
    out = torch.empty(picture_linear.shape, dtype=table.dtype)
    numbers = table.element_size(), scale, brightest
    picture = picture_linear.data_ptr(), picture_linear.numel()
    loaded_library().hiface_look_up(table.data_ptr(), *numbers, *picture, out.data_ptr())
    return out
