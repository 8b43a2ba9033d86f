# SPDX-License-Identifier: Apache-2.0
"""Square crops of photos in numpy, where a few crops at a time must not cost hundreds of small tensors.

Crops are rows of an array [N, 4]: x and y of the centre, side (pixels of the photo) and roll (radians), with
the meaning that `hiface.data.crops.CropFrame` gives them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from hiface.assets import load_json_asset

_FULL = 257  # rows of 255 that fit into 16 bits


@lru_cache(maxsize=1)
def eye_corners() -> list[list[int]]:
    """Corners of the right and the left eye in iBUG order."""
    return load_json_asset("landmarks/ibug68_groups.json")["eye_corners"]


def tight_boxes(points: np.ndarray) -> np.ndarray:
    """Boxes around points [N, L, 2]: [N, 4] x0, y0, x1, y1."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def frames_of_boxes(boxes: np.ndarray, scale: float) -> np.ndarray:
    """Upright crops of faces' boxes.

    Args:
        boxes: [N, 4] x0, y0, x1, y1 pixels.
        scale: Side of a crop over the longer side of its box.

    Returns:
        [N, 4] float32 crops, centred on the boxes.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    frames = np.zeros((len(boxes), 4), np.float32)
    frames[:, :2] = 0.5 * (low + high)
    frames[:, 2] = scale * np.maximum((high - low).max(axis=1), 1.0)
    return frames


def frames_of_points(points: np.ndarray, scale: float, roll: np.ndarray) -> np.ndarray:
    """Crops of faces' points as seen in turned axes: [N, 68, 2] pixels and roll [N] to [N, 4]."""
    c, s = np.cos(roll), np.sin(roll)
    x, y = points[..., 0], points[..., 1]
    turned = np.stack([x * c[:, None] + y * s[:, None], y * c[:, None] - x * s[:, None]], axis=-1)
    frames = frames_of_boxes(tight_boxes(turned), scale)
    u, v = frames[:, 0].copy(), frames[:, 1].copy()
    frames[:, 0], frames[:, 1], frames[:, 3] = c * u - s * v, s * u + c * v, roll
    return frames


def eye_rolls(points: np.ndarray) -> np.ndarray:
    """Roll of the line from the right eye's centre to the left's: [N, L, 2] (68 first) to [N] radians."""
    right, left = eye_corners()
    across = points[:, left].sum(axis=1) - points[:, right].sum(axis=1)
    return np.arctan2(across[:, 1], across[:, 0])


def frame_axes(frames: np.ndarray) -> np.ndarray:
    """[N, 2, 2] columns: the crops' x and y axes in pixels of the photo per crop unit (half a side)."""
    half, roll = 0.5 * frames[:, 2], frames[:, 3]
    axes = np.empty((len(frames), 2, 2), np.float32)
    axes[:, 0, 0] = axes[:, 1, 1] = half * np.cos(roll)
    axes[:, 1, 0] = half * np.sin(roll)
    axes[:, 0, 1] = -axes[:, 1, 0]
    return axes


def to_picture(frames: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Crop coordinates [N, L, 2] of N crops to pixels of the photo."""
    return points @ frame_axes(frames).transpose(0, 2, 1) + frames[:, None, :2]


def read_crops(photo: np.ndarray, frames: np.ndarray, size_px: int) -> np.ndarray:
    """Reads crops from one photo of any size, averaging where it is scaled down.

    Args:
        photo: [H, W, 3] uint8.
        frames: [N, 4] crops, pixels of the photo.
        size_px: Side of the output.

    Returns:
        [N, 3, size_px, size_px] float32, 0..1; the photo's edge is repeated outside it.
    """
    crops = np.empty((len(frames), 3, size_px, size_px), np.float32)
    grid = np.empty((1, size_px, size_px, 2), np.float32)
    ticks = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size_px) - np.float32(1)
    for i, ((x, y, side, _), (to_x, to_y)) in enumerate(
        zip(frames.tolist(), frame_axes(frames).tolist(), strict=True)
    ):
        factor = max(1, int(side / size_px + 0.25))
        reach = abs(to_x[0]) + abs(to_x[1]) + 2 * factor  # half the upright square around it, and a margin
        part, x0, y0 = _shrunk_piece(photo, (x, y), reach, factor)
        sx, sy = 2.0 / (factor * part.shape[1]), 2.0 / (factor * part.shape[0])
        for axis, (u, v, start) in enumerate(((*to_x, x - x0), (*to_y, y - y0))):
            scale = (sx, sy)[axis]
            down = (scale * v) * ticks + (scale * start - 1.0)
            np.add((scale * u) * ticks, down[:, None], out=grid[0, :, :, axis])
        with torch.inference_mode():
            planes = torch.from_numpy(part).permute(2, 0, 1)[None]
            seen = F.grid_sample(planes, torch.from_numpy(grid), padding_mode="border", align_corners=False)
        np.multiply(seen[0].numpy(), np.float32(1 / 255), out=crops[i])
    return crops


def _shrunk_piece(
    photo: np.ndarray, centre: tuple[float, float], reach: float, factor: int
) -> tuple[np.ndarray, int, int]:
    """The piece of a photo within reach of a centre, [h, w, 3] 0..255, shrunk, and where its corner was."""
    low, high = [], []
    for middle, side in zip(centre, (photo.shape[1], photo.shape[0]), strict=True):
        start = min(max(int(middle - reach), 0), side - 1) // factor * factor
        end = -(-(int(middle + reach) + 1) // factor) * factor
        low.append(start)
        high.append(min(max(end, start + factor), side))
    piece = photo[low[1] : high[1], low[0] : high[0]]
    return (piece.astype(np.float32) if factor == 1 else shrunk(piece, factor)), low[0], low[1]


def shrunk(picture: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of pixels: [H, W, 3] uint8 to [ceil(H / factor), ceil(W / factor), 3] float32.

    Squares that the picture's right and lower edge cuts are means of what is left of them. Sums are exact up
    to a factor of 256.
    """
    height, width = picture.shape[:2]
    rows, cols = -(-height // factor), -(-width // factor)
    sums = np.zeros((rows, cols * factor, 3), np.uint16 if factor <= _FULL else np.uint32)
    for k in range(min(factor, height)):
        lines = picture[k::factor]
        sums[: len(lines), :width] += lines
    # A product with stacked identities adds up the columns faster than any sum over an inner axis.
    add = torch.eye(3).repeat(factor, 1)
    total = torch.from_numpy(sums.reshape(rows * cols, 3 * factor).astype(np.float32)) @ add
    tall = np.minimum(factor, height - factor * np.arange(rows))
    wide = np.minimum(factor, width - factor * np.arange(cols))
    share = (1.0 / (tall[:, None] * wide)).astype(np.float32)
    return total.numpy().reshape(rows, cols, 3) * share[..., None]
