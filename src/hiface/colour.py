# SPDX-License-Identifier: Apache-2.0
"""sRGB and linear colour (IEC 61966-2-1), the one copy of it."""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear red, green and blue (Rec. 709)


def srgb_to_linear(colour_srgb: Tensor) -> Tensor:
    """Decodes sRGB values in 0..1 to linear values in 0..1, any shape."""
    low = colour_srgb / 12.92
    high = ((colour_srgb.clamp_min(0.0) + 0.055) / 1.055) ** 2.4
    return torch.where(colour_srgb <= 0.04045, low, high)


def linear_to_srgb(colour_linear: Tensor) -> Tensor:
    """Encodes linear values as sRGB, any shape; values outside 0..1 are clamped."""
    colour = colour_linear.clamp(0.0, 1.0)
    low = colour * 12.92
    high = 1.055 * colour.clamp_min(1e-8) ** (1 / 2.4) - 0.055
    return torch.where(colour <= 0.0031308, low, high)


def to_uint8(colour_srgb: Tensor) -> Tensor:
    """Rounds sRGB values in 0..1 to uint8 0..255."""
    return (colour_srgb.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)
