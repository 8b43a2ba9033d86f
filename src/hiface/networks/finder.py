# SPDX-License-Identifier: Apache-2.0
"""Face finder: a small anchor-free detector, fully convolutional, one shared head on strides 8, 16 and 32.

The stem has stride 4 and nothing else runs at that resolution, where most of the time would be spent.

Boxes as in FCOS (Tian et al. 2019); the score is trained towards the root of the IoU of the box that the same
place predicts (quality focal loss, Li et al. 2020), so no centre-ness branch is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiface.networks.layers import ConvNorm, halving_stage

MAX_LOG_SIDE = 4.0  # exp(4) = 55 strides: 1747 px at stride 32


@dataclass(frozen=True)
class FinderConfig:
    """Sizes of the finder.

    Attributes:
        stem: Channels at stride 4.
        stem_kernel: Side of the stem's kernel.
        widths: Channels at strides 8, 16, 32.
        blocks: Residual blocks at strides 8, 16, 32, after the convolution that halves the resolution.
        neck: Channels of the pyramid and the head.
        head_convs: 3x3 convolutions of the head.
        strides: Pixels between neighbouring places of each level.
    """

    stem: int = 32
    stem_kernel: int = 5
    widths: tuple[int, int, int] = (32, 64, 96)
    blocks: tuple[int, int, int] = (1, 1, 2)
    neck: int = 32
    head_convs: int = 1
    strides: tuple[int, int, int] = (8, 16, 32)


class Finder(nn.Module):
    """Maps pictures to score and box-side maps."""

    def __init__(self, config: FinderConfig) -> None:
        super().__init__()
        self.config = config
        w, b = config.widths, config.blocks
        self.stem = ConvNorm(3, config.stem, config.stem_kernel, 4)
        self.stage8 = halving_stage(config.stem, w[0], b[0])
        self.stage16 = halving_stage(w[0], w[1], b[1])
        self.stage32 = halving_stage(w[1], w[2], b[2])
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.neck, 1) for c in w)
        self.head = nn.Sequential(*(ConvNorm(config.neck, config.neck) for _ in range(config.head_convs)))
        self.out = nn.Conv2d(config.neck, 5, 3, padding=1)
        self.log_scale = nn.Parameter(torch.zeros(3))
        nn.init.normal_(self.out.weight, std=0.01)
        bias = torch.full((5,), 0.7)  # exp(0.7) = 2 strides to each side
        bias[0] = -math.log((1 - 0.02) / 0.02)
        self.out.bias = nn.Parameter(bias)

    def forward(self, images_srgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and box sides of every place.

        Args:
            images_srgb: [B, 3, H, W] sRGB, 0..1; H and W multiples of 32.

        Returns:
            For strides 8, 16 and 32: [B, 5, H / s, W / s], channel 0 the logit of the score, channels 1..4
            the logarithm of the distance from the place to the left, top, right and bottom of the box, in
            strides.
        """
        x8 = self.stage8(self.stem(images_srgb * 4.0 - 2.0))
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        p32 = self.lateral[2](x32)
        p16 = self.lateral[1](x16) + F.interpolate(p32, scale_factor=2.0, mode="nearest")
        p8 = self.lateral[0](x8) + F.interpolate(p16, scale_factor=2.0, mode="nearest")
        maps = []
        for i, level in enumerate((p8, p16, p32)):
            raw = self.out(self.head(torch.relu(level)))
            sides = (raw[:, 1:] + self.log_scale[i]).clamp(-MAX_LOG_SIDE, MAX_LOG_SIDE)
            maps.append(torch.cat([raw[:, :1], sides], dim=1))
        return maps[0], maps[1], maps[2]


def build_finder(config: FinderConfig | None = None) -> Finder:
    """A finder with random weights (`config` defaults to the shipped sizes)."""
    return Finder(config or FinderConfig())


def place_grid(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """Pixel positions of the places of one level.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        stride: Pixels per place.
        like: Gives device and dtype.

    Returns:
        [height * width, 2] x and y in pixels, row by row.
    """
    ys = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * stride
    xs = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * stride
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).reshape(-1, 2)


def decode_level(level: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Logits and boxes of one level.

    Args:
        level: [B, 5, h, w] output of the finder.
        stride: Pixels per place.

    Returns:
        Logits [B, h * w] and boxes [B, h * w, 4] as x0, y0, x1, y1 pixels of the network's input.
    """
    flat = level.flatten(2)
    centre = place_grid(level.shape[-2], level.shape[-1], stride, level)
    sides = flat[:, 1:].exp().transpose(1, 2) * stride
    return flat[:, 0], torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], dim=-1)


def decode(levels: tuple[Tensor, ...], strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits [B, A] and boxes [B, A, 4] of all levels, stride 8 first."""
    parts = [decode_level(level, stride) for level, stride in zip(levels, strides, strict=True)]
    return torch.cat([p[0] for p in parts], dim=1), torch.cat([p[1] for p in parts], dim=1)
