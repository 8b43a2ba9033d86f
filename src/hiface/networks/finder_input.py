# SPDX-License-Identifier: Apache-2.0
"""Pictures as the finder sees them: scaled, on a grey canvas."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

_GREY = 128


def resized(picture: np.ndarray, scale: float) -> np.ndarray:
    """[H, W, 3] uint8 scaled, with antialiasing; sides of at least 1."""
    height, width = picture.shape[:2]
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if size == (height, width):
        return picture
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def finder_canvas(picture: np.ndarray, margin: float, multiple: int) -> tuple[np.ndarray, int]:
    """A picture [h, w, 3] uint8 on a grey canvas for the finder.

    Returns:
        [1, 3, H, W] float32 0..1, sides multiples of `multiple`; width of the margin at the left and the top.
    """
    height, width = picture.shape[:2]
    pad = round(margin * max(height, width) / 2)
    rows, cols = (-(-(side + 2 * pad) // multiple) * multiple for side in (height, width))
    canvas = torch.empty(1, 3, rows, cols)
    if (rows, cols) != (height, width):
        canvas.fill_(_GREY / 255.0)
    inner = canvas[0, :, pad : pad + height, pad : pad + width]
    inner.copy_(torch.from_numpy(picture).permute(2, 0, 1)).mul_(1 / 255)
    return canvas.numpy(), pad
