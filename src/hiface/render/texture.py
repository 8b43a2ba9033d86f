# SPDX-License-Identifier: Apache-2.0
"""Bilinear texture lookup; UV origin top-left, texel centres at (i + 0.5) / size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.render.rasterize import Fragments


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear lookup of points.

    Args:
        texture: [*B, C, h, w]; outside 0..1 the border is repeated.
        uv: [*B, N, 2] or [N, 2], origin top-left.

    Returns:
        [*B, N, C]; differentiable to both.
    """
    batch, channels = texture.shape[:-3], texture.shape[-3]
    flat = texture.reshape(-1, *texture.shape[-3:])
    grid = (uv * 2.0 - 1.0).expand(*batch, *uv.shape[-2:]).reshape(flat.shape[0], 1, -1, 2)
    out = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.reshape(*batch, channels, -1).transpose(-1, -2)


class _Pad(torch.autograd.Function):
    """[C, P] fragments to [B, longest, C], zero where an image has fewer; the inverse of `_Unpad`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(len(counts), max(counts), rows.shape[0])
        for target, source, count in zip(padded, rows.split(counts, dim=1), counts, strict=True):
            target[:count] = source.t()
        return padded

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _Unpad.apply(grad_outputs[0].transpose(1, 2), ctx.counts), None


class _Unpad(torch.autograd.Function):
    """[B, C, longest] to [C, P]."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        return torch.cat([rows[:, :count] for rows, count in zip(padded, counts, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _Pad.apply(grad_outputs[0], ctx.counts).transpose(1, 2), None  # pyright: ignore


def sample_fragments(texture: Tensor, grid: Tensor, frags: Fragments) -> Tensor:
    """Bilinear lookup at the fragments of a batch, one `grid_sample` for all images, padded to the longest.

    Args:
        texture: [B, C, h, w].
        grid: [2, P] horizontal and vertical coordinates in -1..1 over the texture, from the top left: 2 uv -
            1.
        frags: From `fragments`.

    Returns:
        [C, P]; differentiable to `texture` and `grid`.
    """
    n_images, channels = texture.shape[:2]
    if grid.shape[1] == 0:
        return grid.sum() + texture.sum() * texture.new_zeros(channels, 0)
    padded: Tensor = _Pad.apply(grid, frags.counts).unsqueeze(1)  # pyright: ignore
    out = F.grid_sample(texture, padded, mode="bilinear", padding_mode="border", align_corners=False)
    return _Unpad.apply(out.reshape(n_images, channels, -1), frags.counts)  # pyright: ignore[reportReturnType]
