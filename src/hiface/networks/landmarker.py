# SPDX-License-Identifier: Apache-2.0
"""Landmark network: a face crop to 68 + dense + iris points, their uncertainty and visibility, and pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiface.errors import ShapeError
from hiface.networks.layers import ConvNorm, residual_stage

LOG_SIGMA_RANGE = (-6.0, 1.0)


@dataclass(frozen=True)
class LandmarkerConfig:
    """Sizes of the landmark network.

    Attributes:
        crop_px: Side of the square input, pixels.
        crop_scale: Side of the crop over the longer side of the face's box (tight around the 68 points).
        stem: Channels at stride 2.
        widths: Channels at strides 4, 8, 16, 32.
        blocks: Residual blocks at strides 4, 8, 16, 32.
        hidden: Width of the fully connected layer.
        n_dense: Number of dense points.
        n_iris: Number of iris points.
    """

    crop_px: int = 112
    crop_scale: float = 1.6
    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 80, 144, 208)
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    hidden: int = 256
    n_dense: int = 320
    n_iris: int = 10

    @property
    def n_points(self) -> int:
        """Number of points of all sets."""
        return 68 + self.n_dense + self.n_iris


class LandmarkOutput(NamedTuple):
    """What the landmark network says of B crops.

    Attributes:
        points: [B, L, 2] in units of half the crop's side from its centre (-1..1 inside the crop), order 68,
            dense, iris.
        log_sigma: [B, L] logarithm of the standard deviation per axis, same unit.
        rotation6d: [B, 6] first two columns of the rotation from object to crop camera, not yet orthonormal.
        presence: [B] logit that the crop holds a face, well placed.
        visible: [B, L] logit that a point can be seen: inside the picture, nothing in front of it.
    """

    points: Tensor
    log_sigma: Tensor
    rotation6d: Tensor
    presence: Tensor
    visible: Tensor


class Landmarker(nn.Module):
    """Crop to points, in the manner of a plain residual CNN with a flattened last map."""

    def __init__(self, config: LandmarkerConfig) -> None:
        super().__init__()
        self.config = config
        w, b = config.widths, config.blocks
        self.stem = ConvNorm(3, config.stem, 5, 2)
        widths = (config.stem, *w)
        self.stages = nn.Sequential(*(residual_stage(widths[i], widths[i + 1], b[i]) for i in range(4)))
        side = -(-config.crop_px // 32)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(w[3] * side * side, config.hidden), nn.ReLU())
        n = config.n_points
        self.points = nn.Linear(config.hidden, 2 * n)
        self.log_sigma = nn.Linear(config.hidden, n)
        self.visible = nn.Linear(config.hidden, n)
        self.pose = nn.Linear(config.hidden, 7)
        self.mirror: Tensor
        self.register_buffer("mirror", torch.arange(n))
        starts = {self.points: 0.0, self.log_sigma: -2.0, self.visible: 1.0, self.pose: 0.0}
        for layer, bias in starts.items():
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, bias)
        with torch.no_grad():
            # A frontal head: its left is the picture's right, its up is -y, it looks along -z.
            self.pose.bias[:6] = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0, 0.0])

    def set_layout(self, mean_points: Tensor, mirror: Tensor) -> None:
        """Starts the points at a mean layout and stores which point is whose mirror image.

        Args:
            mean_points: [L, 2] in half crop sides.
            mirror: [L] int64, its own inverse.

        Raises:
            ShapeError: A wrong number of points, or `mirror` is not an involution.
        """
        if mean_points.shape != (self.config.n_points, 2):
            raise ShapeError(
                f"mean_points must be {(self.config.n_points, 2)}, got {tuple(mean_points.shape)}"
            )
        if not torch.equal(mirror[mirror], torch.arange(self.config.n_points)):
            raise ShapeError(
                "mirror must hold, for each point, the index of its mirror image, and be its own inverse"
            )
        with torch.no_grad():
            self.points.bias.copy_(mean_points.reshape(-1))
        self.mirror.copy_(mirror)

    def forward(self, crops_srgb: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Points, log sigma, rotation, presence and visibility; see `LandmarkOutput` for shapes and units.

        Args:
            crops_srgb: [B, 3, S, S] sRGB, 0..1; each crop is standardised here.
        """
        x = self.stages(self.stem(standardise(crops_srgb)))
        x = self.hidden(x)
        pose = self.pose(x)
        log_sigma = self.log_sigma(x).clamp(*LOG_SIGMA_RANGE)
        return self.points(x).unflatten(1, (-1, 2)), log_sigma, pose[:, :6], pose[:, 6], self.visible(x)


def build_landmarker(config: LandmarkerConfig | None = None) -> Landmarker:
    """A landmark network with random weights (`config` defaults to the shipped sizes)."""
    return Landmarker(config or LandmarkerConfig())


def standardise(crops: Tensor) -> Tensor:
    """Subtracts the mean and divides by the standard deviation of each crop, over all pixels and channels.

    Args:
        crops: [B, C, H, W], any range.

    Returns:
        Same shape; a flat crop becomes zero.
    """
    centred = crops - crops.mean(dim=(1, 2, 3), keepdim=True)
    std = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centred / (std + 0.01)
