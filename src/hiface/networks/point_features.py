# SPDX-License-Identifier: Apache-2.0
"""Evidence read at landmarks: a trunk's maps where the points lie, and where they should move.

A global feature vector says roughly where things are; a map read at a point says how far the edge beside it
is. All points share the convolutions, each has its own linear reading of what they found.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiface.networks.layers import ConvNorm


class PointFeatures(nn.Module):
    """Local features of landmarks and their corrections.

    Args:
        widths: Channels of the maps.
        n_points: Number P of landmarks.
        channels: Features read from each map.
        n_own: Features k of each point, beside its correction.
    """

    def __init__(self, widths: Sequence[int], n_points: int, channels: int = 32, n_own: int = 4) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(width, channels, 3) for width in widths)
        n_read = channels * len(widths)
        self.own = nn.Parameter(0.5 * torch.randn(n_points, n_read, 2 + n_own) / n_read**0.5)
        self.bias = nn.Parameter(torch.zeros(n_points, 2 + n_own))
        with torch.no_grad():
            self.own[:, :, :2] *= 0.05

    def forward(self, maps: Sequence[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """Reads maps at points.

        Args:
            maps: [B, C_i, H_i, W_i] for each of the widths.
            points: [B, P, 2] crop coordinates, -1..1.

        Returns:
            Corrections [B, P, 2] in tenths of half the crop's side, and features [B, P k]. Differentiable.
        """
        grid = points[:, :, None].clamp(-1.0, 1.0)
        read = [
            F.grid_sample(lateral(x), grid, align_corners=False, padding_mode="border")[..., 0]
            for lateral, x in zip(self.laterals, maps, strict=True)
        ]
        x = torch.cat(read, dim=1).permute(2, 0, 1)  # P, B, features
        x = torch.baddbmm(self.bias[:, None], x, self.own).transpose(0, 1)
        return x[..., :2], torch.relu(x[..., 2:]).flatten(1)
