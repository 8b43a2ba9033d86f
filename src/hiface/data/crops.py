# SPDX-License-Identifier: Apache-2.0
"""Square crops of pictures by a similarity, and points to and from them.

A crop is described by its centre (pixels of the picture), its side (pixels of the picture) and its roll
(radians, the angle by which the crop's x axis is turned clockwise on screen from the picture's x axis). Crop
coordinates run from -1 to 1 across the side, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.data.crop_arrays import eye_corners, read_crops


@dataclass(frozen=True)
class CropFrame:
    """Where crops lie in their pictures.

    Attributes:
        centre_px: [*B, 2] centre, pixels of the picture.
        side_px: [*B] side, pixels of the picture.
        roll: [*B] radians.
    """

    centre_px: Tensor
    side_px: Tensor
    roll: Tensor

    def axes(self) -> Tensor:
        """[*B, 2, 2] columns: crop x and y axis in picture pixels per crop unit (half a side)."""
        c, s = torch.cos(self.roll), torch.sin(self.roll)
        turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
        return turn * (0.5 * self.side_px)[..., None, None]

    def to_picture(self, points: Tensor) -> Tensor:
        """[*B, N, 2] crop coordinates to picture pixels."""
        return points @ self.axes().transpose(-1, -2) + self.centre_px[..., None, :]

    def to_crop(self, points_px: Tensor) -> Tensor:
        """[*B, N, 2] picture pixels to crop coordinates."""
        turn = self.axes()
        square = (0.5 * self.side_px)[..., None, None] ** 2
        return (points_px - self.centre_px[..., None, :]) @ turn / square

    def rows(self) -> np.ndarray:
        """A list of crops as `hiface.data.crop_arrays` holds them: [N, 4] float32 x, y, side, roll."""
        return self.packed().float().numpy()

    def packed(self) -> Tensor:
        """[*B, 4] x, y, side, roll."""
        return torch.cat([self.centre_px, self.side_px[..., None], self.roll[..., None]], dim=-1)

    @staticmethod
    def unpacked(rows: Tensor) -> CropFrame:
        """Crops from rows [*B, 4] of x, y, side, roll."""
        return CropFrame(rows[..., :2], rows[..., 2], rows[..., 3])


def box_of_points(points: Tensor) -> Tensor:
    """Tight boxes: points [*B, N, 2] to [*B, 4] x0, y0, x1, y1."""
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def frame_of_box(box: Tensor, scale: float, roll: Tensor | None = None) -> CropFrame:
    """The crop of a face's box.

    Args:
        box: [*B, 4] x0, y0, x1, y1 pixels, tight around the 68 points.
        scale: Side of the crop over the longer side of the box.
        roll: [*B] radians; 0 if None.

    Returns:
        The crop, centred on the box.
    """
    size = (box[..., 2:] - box[..., :2]).amax(dim=-1).clamp_min(1.0)
    centre = 0.5 * (box[..., :2] + box[..., 2:])
    return CropFrame(centre, scale * size, torch.zeros_like(size) if roll is None else roll)


def frame_of_points(points: Tensor, scale: float, roll: Tensor) -> CropFrame:
    """The crop of a face's points as seen in the turned axes: [*B, 68, 2] pixels and roll [*B]."""
    flat = CropFrame(torch.zeros_like(points[..., 0, :]), torch.full_like(roll, 2.0), roll)
    frame = frame_of_box(box_of_points(flat.to_crop(points)), scale, roll)
    centre = flat.to_picture(frame.centre_px[..., None, :])[..., 0, :]
    return CropFrame(centre, frame.side_px, roll)


def eye_roll(points: Tensor) -> Tensor:
    """Roll of the line from the right eye's centre to the left's, radians: [*B, L, 2] (68 first) to [*B]."""
    right, left = eye_corners()
    across = points[..., left, :].mean(dim=-2) - points[..., right, :].mean(dim=-2)
    return torch.atan2(across[..., 1], across[..., 0])


def sampling_grid(frame: CropFrame, size_px: int, height: int, width: int) -> Tensor:
    """Grid for `grid_sample(..., align_corners=False)` that reads a crop.

    Args:
        frame: B crops.
        size_px: Side of the crop's pixels.
        height: Height of the picture.
        width: Width of the picture.

    Returns:
        [B, size_px, size_px, 2].
    """
    ticks = torch.arange(size_px, dtype=frame.side_px.dtype, device=frame.side_px.device)
    ticks = (ticks + 0.5) * (2 / size_px) - 1
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1).reshape(1, -1, 2)
    px = frame.to_picture(grid.expand(frame.side_px.shape[0], -1, -1))
    scale = px.new_tensor([2.0 / width, 2.0 / height])
    return (px * scale - 1.0).reshape(-1, size_px, size_px, 2)


def crop_photo(image_srgb: Tensor, frame: CropFrame, size_px: int) -> Tensor:
    """Reads crops from one photo of any size, averaging where it is scaled down; see `read_crops`.

    Args:
        image_srgb: [H, W, 3] uint8.
        frame: N crops, pixels of the photo.
        size_px: Side of the output.

    Returns:
        [N, 3, size_px, size_px] float32, 0..1; the photo's edge is repeated outside it.
    """
    return torch.from_numpy(read_crops(image_srgb.numpy(), frame.rows(), size_px))
