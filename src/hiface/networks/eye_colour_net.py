# SPDX-License-Identifier: Apache-2.0
"""The network behind `hiface.networks.eye_colour`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class EyeColourConfig:
    """Sizes.

    Attributes:
        side_px: Side of the crops.
        scale: Side of an eye's crop over the eye's width.
        widths: Channels at strides 2, 4, 8.
        hidden: Width of the fully connected layer.
    """

    side_px: int = 40
    scale: float = 1.5
    widths: tuple[int, int, int] = (12, 24, 40)
    hidden: int = 48


class EyeColourNet(nn.Module):
    """Crops of both eyes and of the face to the logarithm of the irises' albedo, as a normal distribution.

    Buffers: `population` [2, 3], mean and standard deviation of all people, from which the network starts.
    """

    population: Tensor
    head: nn.Sequential

    def __init__(self, config: EyeColourConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        last = 3
        for width in config.widths:
            layers += [
                nn.Conv2d(last, width, 3, 2, 1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1),
                nn.ReLU(),
            ]
            last = width
        self.eye = nn.Sequential(*layers)
        cells = (config.side_px // 8) ** 2
        self.place = nn.Linear(cells, 4)
        self.mix = nn.Linear(4 * last, config.hidden)
        self.head = nn.Sequential(
            nn.Linear(2 * config.hidden + 6, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 6)
        )
        self.register_buffer("population", torch.tensor([[-3.0] * 3, [1.0] * 3]))

    def forward(self, crops_srgb: Tensor) -> tuple[Tensor, Tensor]:
        """Reads faces.

        Args:
            crops_srgb: [B, 3, 3, S, S] from `eye_crops`, 0..1.

        Returns:
            [B, 3] mean of the logarithm of linear albedo, and [B, 3] logarithm of its standard deviation.
        """
        batch = crops_srgb.shape[0]
        maps = self.eye(crops_srgb[:, :2].flatten(0, 1) * 2.0 - 1.0)
        features = F.relu(self.mix(self.place(maps.flatten(2)).flatten(1))).unflatten(0, (batch, 2))
        face = crops_srgb[:, 2].flatten(2)
        context = torch.cat([face.mean(-1), face.std(-1)], dim=1)
        pooled = torch.cat([features.mean(1), features.amax(1), context], dim=1)
        shift, spread = self.head(pooled).split(3, dim=1)
        mean, sigma = self.population
        return mean + sigma * shift, sigma.log() + spread.clamp(-4.0, 1.0)
