# SPDX-License-Identifier: Apache-2.0
"""What cameras and file formats do to a picture; nothing here moves a pixel, so labels stay exact."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hiface.colour import LUMINANCE, linear_to_srgb, to_uint8
from hiface.synthetic.backgrounds import smooth
from hiface.synthetic.pixels import look_up

_STEPS = 4095
_BRIGHTEST = 9.0  # beyond it every tone curve is at its end
_PLAIN_STEPS = 32767


@cache
def _plain_table() -> Tensor:
    return to_uint8(linear_to_srgb((torch.arange(_PLAIN_STEPS + 1) / _PLAIN_STEPS) ** 2))


def _curve(shoulder: float, contrast: float, brightness: float) -> Tensor:
    """Tone curve to sRGB 0..1 as a table over the square root of linear light up to `_BRIGHTEST`.

    Exact to a fifth of a grey level.
    """
    steps = round(_STEPS * math.sqrt(_BRIGHTEST))
    linear = (torch.arange(steps + 1) / _STEPS) ** 2
    over = (linear - shoulder).clamp_min(0)
    soft = linear.clamp_max(shoulder) + (1 - shoulder) * (1 - (-over / (1 - shoulder)).exp())
    return ((linear_to_srgb(soft) - 0.45) * contrast + 0.45 + brightness).clamp(0, 1)


def _motion_blur(picture: Tensor, rng: np.random.Generator) -> Tensor:
    length = int(rng.integers(3, 8))
    angle = rng.uniform(0, math.pi)
    kernel = torch.zeros(7, 7)
    for t in np.linspace(-(length - 1) / 2, (length - 1) / 2, 2 * length):
        column, row = round(3 + t * math.cos(angle)), round(3 + t * math.sin(angle))
        if 0 <= column < 7 and 0 <= row < 7:
            kernel[row, column] += 1
    kernel = (kernel / kernel.sum()).expand(3, 1, 7, 7)
    return F.conv2d(F.pad(picture[None], (3,) * 4, mode="replicate"), kernel, groups=3)[0]


def _low_resolution(picture: Tensor, rng: np.random.Generator) -> Tensor:
    size = picture.shape[-1]
    small = int(size * rng.uniform(0.22, 0.6))
    shrunk = F.interpolate(picture[None], size=(small, small), mode="area")
    mode = "bilinear" if rng.random() < 0.6 else "bicubic"
    return F.interpolate(shrunk, size=(size, size), mode=mode, align_corners=False)[0].clamp_min(0)


@dataclass(frozen=True)
class Lens:
    """What the optics do, drawn before the picture, because soft pictures need no supersampling.

    Attributes:
        kind: "sharp", "defocus", "motion" or "low" (resolution).
        sigma_px: Blur of "defocus".
    """

    kind: str
    sigma_px: float

    @property
    def is_soft(self) -> bool:
        """Whether steps of a pixel are blurred away."""
        return self.kind in ("motion", "low") or (self.kind == "defocus" and self.sigma_px > 0.7)


def sample_lens(rng: np.random.Generator) -> Lens:
    """Draws blur of focus, motion or too few pixels; 58 % of pictures have none."""
    kind = str(rng.choice(["defocus", "motion", "low", "sharp"], p=[0.22, 0.06, 0.14, 0.58]))
    return Lens(kind, float(rng.uniform(0.5, 1.4)))


def _through_lens(picture: Tensor, lens: Lens, rng: np.random.Generator) -> Tensor:
    """Blur in linear light."""
    if lens.kind == "defocus":
        return smooth(picture, lens.sigma_px)
    if lens.kind == "motion":
        return _motion_blur(picture, rng)
    return _low_resolution(picture, rng) if lens.kind == "low" else picture


def _sensor(picture: Tensor, rng: np.random.Generator, frame: int) -> Tensor:
    """White balance, vignette and noise, in linear light; only the noise changes with the frame."""
    balance = torch.from_numpy(np.exp(rng.normal(0, 0.07, 3)).astype(np.float32))
    picture = picture * balance[:, None, None]
    if rng.random() < 0.2:
        line = torch.linspace(-1, 1, picture.shape[-1])
        picture = picture * (1 - rng.uniform(0.1, 0.4) * (line[:, None] ** 2 + line[None, :] ** 2) / 2)
    if rng.random() < 0.6:
        level = math.exp(rng.uniform(math.log(0.002), math.log(0.035)))
        # Seeded from the caller's generator, so that the same seed makes the same picture.
        gen = torch.Generator().manual_seed(int(rng.integers(2**62)) + frame)
        noise = torch.randn(picture.shape, generator=gen)
        if rng.random() < 0.3:
            noise = smooth(noise, 0.6) * 2
        picture = picture + noise * level * (0.15 + picture.clamp(0, 1)).sqrt()
    return picture


def _develop(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Tone curve to sRGB 0..1: soft highlights, contrast, saturation, sometimes grey or sepia."""
    shoulder = rng.uniform(0.6, 0.95)
    contrast, brightness = math.exp(rng.normal(0, 0.13)), rng.normal(0, 0.02)
    srgb = look_up(_curve(shoulder, contrast, brightness), picture, _BRIGHTEST)
    luma = (LUMINANCE[0] * srgb[0]).add_(srgb[1], alpha=LUMINANCE[1]).add_(srgb[2], alpha=LUMINANCE[2])[None]
    kind = rng.random()
    saturation = 0.0 if kind < 0.10 else math.exp(rng.normal(0, 0.2))
    srgb = torch.lerp(luma.expand_as(srgb), srgb, saturation).clamp_(0, 1)
    if kind < 0.025:
        srgb = (srgb * torch.tensor([1.08, 0.95, 0.75])[:, None, None]).clamp(0, 1)
    return srgb


def _jpeg(picture: Tensor, quality: int) -> Tensor:
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).contiguous()


def apply_effects(
    picture_linear: Tensor, rng: np.random.Generator, lens: Lens | None = None, frame: int = 0
) -> Tensor:
    """Turns rendered light into a photo.

    Args:
        picture_linear: [3, S, S] linear, not clamped.
        rng: Source of randomness.
        lens: From `sample_lens`; drawn here if None.
        frame: Number of the frame in a clip: one camera, but new noise in every frame.

    Returns:
        [3, S, S] uint8 sRGB.
    """
    through = _through_lens(picture_linear, lens or sample_lens(rng), rng)
    picture = _develop(_sensor(through, rng, frame).clamp_min(0), rng)
    out = to_uint8(picture)
    if rng.random() < 0.55:
        out = _jpeg(out, int(rng.integers(30, 96)))
    return out


def plain_srgb(picture_linear: Tensor) -> Tensor:
    """[3, S, S] linear to uint8 sRGB without any effect; one pixel in a hundred is rounded the other way."""
    return look_up(_plain_table(), picture_linear)
