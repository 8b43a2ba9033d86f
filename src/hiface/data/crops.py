# SPDX-License-Identifier: Apache-2.0
"""Square crops of pictures by a similarity, and points to and from them.

A crop is described by its centre (pixels of the picture), its side (pixels of the picture) and its roll
(radians, the angle by which the crop's x axis is turned clockwise on screen from the picture's x axis). Crop
coordinates run from -1 to 1 across the side, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.assets import load_json_asset


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

    def take(self, ids: Tensor | slice) -> CropFrame:
        """The crops with these numbers, of a list of crops."""
        return CropFrame(self.centre_px[ids], self.side_px[ids], self.roll[ids])


def join_frames(frames: list[CropFrame]) -> CropFrame:
    """Several lists of crops, one after another."""
    return CropFrame(
        torch.cat([f.centre_px for f in frames]),
        torch.cat([f.side_px for f in frames]),
        torch.cat([f.roll for f in frames]),
    )


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


@lru_cache(maxsize=1)
def _eye_corners() -> list[list[int]]:
    """Corners of the right and the left eye in iBUG order."""
    return load_json_asset("landmarks/ibug68_groups.json")["eye_corners"]


def eye_roll(points: Tensor) -> Tensor:
    """Roll of the line from the right eye's centre to the left's, radians: [*B, L, 2] (68 first) to [*B]."""
    right, left = _eye_corners()
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
    """Reads crops from one photo of any size, averaging where it is scaled down.

    Args:
        image_srgb: [H, W, 3] uint8.
        frame: N crops, pixels of the photo.
        size_px: Side of the output.

    Returns:
        [N, 3, size_px, size_px] float32, 0..1; the photo's edge is repeated outside it.
    """
    crops = torch.zeros(frame.side_px.shape[0], 3, size_px, size_px)
    if len(crops) == 0:
        return crops
    parts, maps = [], []
    for side, centre, axes in zip(
        frame.side_px.tolist(), frame.centre_px.tolist(), frame.axes().tolist(), strict=True
    ):
        part, (x0, y0), factor = _shrunk_piece(image_srgb, centre, side, size_px)
        sx, sy = 2.0 / (factor * part.shape[3]), 2.0 / (factor * part.shape[2])
        to_x = [sx * axes[0][0], sx * axes[0][1], sx * (centre[0] - x0) - 1.0]
        to_y = [sy * axes[1][0], sy * axes[1][1], sy * (centre[1] - y0) - 1.0]
        parts.append(part)
        maps.append([to_x, to_y])
    grid = F.affine_grid(torch.tensor(maps), [len(parts), 3, size_px, size_px], align_corners=False)
    for i, part in enumerate(parts):
        crops[i] = F.grid_sample(part, grid[i : i + 1], padding_mode="border", align_corners=False)[0]
    return crops.mul_(1.0 / 255.0)


def _shrunk_piece(
    image: Tensor, centre: list[float], side: float, size_px: int
) -> tuple[Tensor, tuple[int, int], int]:
    """The piece of a photo that a crop needs, [1, 3, h, w] 0..255, its corner (x, y) and how often shrunk."""
    height, width = image.shape[:2]
    factor = max(1, int(side / size_px + 0.25))
    reach = 0.75 * side + 2 * factor  # half the diagonal, and a margin
    x0 = min(max(int(centre[0] - reach), 0), width - 1) // factor * factor
    y0 = min(max(int(centre[1] - reach), 0), height - 1) // factor * factor
    x1 = max(x0 + 1, min(int(centre[0] + reach) + 1, width))
    y1 = max(y0 + 1, min(int(centre[1] + reach) + 1, height))
    part = image[y0:y1, x0:x1].permute(2, 0, 1)[None].float()
    if factor > 1:
        part = F.avg_pool2d(part, factor, ceil_mode=True, count_include_pad=False)
    return part, (x0, y0), factor
