# SPDX-License-Identifier: Apache-2.0
"""What cameras, files and the world do to a picture, on whole batches of float pictures in 0..1."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from hiface.colour import linear_to_srgb
from hiface.synthetic.backgrounds import sample_background


def uniform(gen: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform random numbers."""
    return low + (high - low) * torch.rand(*shape, generator=gen)


def log_uniform(gen: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random numbers whose logarithm is uniform."""
    return torch.exp(uniform(gen, math.log(low), math.log(high), *shape))


def chance(gen: Generator, share: float, count: int) -> Tensor:
    """[count] bool, each true with probability `share`."""
    return torch.rand(count, generator=gen) < share


def procedural_backgrounds(gen: Generator, count: int, size: int) -> Tensor:
    """Smooth blobs, stripes and grain at random scales.

    Args:
        gen: Random numbers.
        count: Number of pictures.
        size: Side, pixels.

    Returns:
        [count, 3, size, size] 0..1.
    """
    base = torch.rand(count, 3, 1, 1, generator=gen)
    out = base.expand(count, 3, size, size).clone()
    for cells in (2, 5, 12, 40):
        strength = torch.rand(count, 1, 1, 1, generator=gen) ** 2 * 0.7
        colour = 0.5 * torch.randn(count, 3, cells, cells, generator=gen)
        grey = torch.randn(count, 1, cells, cells, generator=gen)
        mode = "bilinear" if cells < 40 else "nearest"
        out = out + strength * 0.4 * F.interpolate(colour + grey, size=(size, size), mode=mode)
    ticks = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    angle, freq = uniform(gen, 0, math.pi, count, 1, 1), log_uniform(gen, 2, 60, count, 1, 1)
    wave = torch.sin(freq * (x * torch.cos(angle) + y * torch.sin(angle)))
    hard = torch.where(chance(gen, 0.5, count)[:, None, None], wave.sign(), wave)
    amount = 0.25 * torch.rand(count, 1, 1, generator=gen) * chance(gen, 0.4, count)[:, None, None]
    return (out + (amount * hard)[:, None]).clamp(0, 1)


class BackgroundBank:
    """Procedural backgrounds made once and drawn many times, mirrored, with their channels mixed.

    Args:
        count: Number of backgrounds.
        size: Side, pixels.
        seed: Of the backgrounds.
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        gen, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        parts = [procedural_backgrounds(gen, 1, size) for _ in range(count // 3)]
        parts += [
            linear_to_srgb(sample_background(rng, size).clamp(0, 1))[None] for _ in range(count - len(parts))
        ]
        self._pictures = torch.cat([(255.0 * part).byte() for part in parts])

    def draw(self, gen: Generator, count: int) -> Tensor:
        """[count, 3, size, size] 0..1."""
        return self.draw_bytes(gen, count).float().div_(255.0)

    def draw_bytes(self, gen: Generator, count: int) -> Tensor:
        """[count, 3, size, size] uint8."""
        ids = torch.randint(len(self._pictures), (count,), generator=gen)
        channels = torch.argsort(torch.rand(count, 3, generator=gen), dim=1)
        out = self._pictures[ids[:, None], channels]
        for axis in (-1, -2):
            chosen = chance(gen, 0.5, count)
            out[chosen] = out[chosen].flip(axis)
        return out


def jitter_colour(gen: Generator, images: Tensor, grey_share: float = 0.18) -> Tensor:
    """White balance, saturation, contrast, brightness, grey, gamma; [B, 3, H, W] 0..1, not clamped."""
    n = images.shape[0]
    grey = chance(gen, grey_share, n)[:, None]
    gain = torch.exp(torch.where(grey, 0.0, 0.12) * torch.randn(n, 3, generator=gen))
    saturation = torch.where(grey, 0.0, uniform(gen, 0.5, 1.4, n, 1))[..., None]
    luma = images.new_tensor([0.299, 0.587, 0.114]).expand(3, 3)
    contrast = log_uniform(gen, 0.5, 1.5, n, 1)
    mix = (luma + saturation * (torch.eye(3) - luma)) * (gain * contrast)[..., None]
    mean = images.mean(dim=(2, 3))[..., None]
    shift = (mean.mean(dim=1) * (1 - contrast) + uniform(gen, -0.15, 0.15, n, 1))[..., None]
    out = torch.baddbmm(shift.expand(n, 3, 1), mix, images.flatten(2)).reshape(images.shape)
    chosen = chance(gen, 0.4, n).nonzero()[:, 0]
    out[chosen] = out[chosen].clamp(1e-4, 1.0) ** log_uniform(gen, 0.6, 1.6, len(chosen), 1, 1, 1)
    return out


def blur(gen: Generator, images: Tensor, max_sigma: float = 2.0, share: float = 0.35) -> Tensor:
    """Gaussian blur (sometimes along one axis only, like motion) of some pictures."""
    chosen = chance(gen, share, images.shape[0]).nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    n, reach = len(chosen), 5
    ticks = torch.arange(-reach, reach + 1, dtype=images.dtype)
    sigma = uniform(gen, 0.3, max_sigma, n, 2)
    sigma = torch.where(chance(gen, 0.3, n)[:, None] & (torch.rand(n, 2, generator=gen) < 0.5), 0.15, sigma)
    kernel = torch.exp(-0.5 * (ticks / sigma[..., None]) ** 2)
    kernel = (kernel / kernel.sum(dim=-1, keepdim=True)).repeat_interleave(3, dim=0)
    part = images[chosen].reshape(1, 3 * n, *images.shape[2:])
    part = F.pad(part, (reach, reach, reach, reach), mode="replicate")
    part = F.conv2d(part, kernel[:, 0][:, None, None, :], groups=3 * n)
    part = F.conv2d(part, kernel[:, 1][:, None, :, None], groups=3 * n)
    out = images.clone()
    out[chosen] = part.reshape(n, 3, *images.shape[2:])
    return out


def lose_resolution(gen: Generator, images: Tensor, share: float = 0.25, max_factor: float = 4.0) -> Tensor:
    """Scales some pictures down and up again."""
    out, size = images, images.shape[-1]
    for factor in torch.linspace(1.4, max_factor, 4).tolist():
        chosen = chance(gen, share / 4, images.shape[0]).nonzero()[:, 0]
        if len(chosen):
            small = F.interpolate(
                out[chosen], size=max(8, int(size / factor)), mode="bilinear", antialias=True
            )
            out = out.clone() if out is images else out
            out[chosen] = F.interpolate(small, size=size, mode="bilinear")
    return out


def jpeg_like(gen: Generator, images: Tensor, share: float = 0.3) -> Tensor:
    """Rounds the 8x8 cosine coefficients of some pictures, coarser at high frequencies."""
    chosen = chance(gen, share, images.shape[0]).nonzero()[:, 0]
    size = images.shape[-1] // 8 * 8
    if len(chosen) == 0 or size != images.shape[-1] or images.shape[-2] % 8:
        return images
    k = torch.arange(8, dtype=images.dtype)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5
    basis[0] *= math.sqrt(0.5)
    n, h, w = len(chosen), images.shape[-2] // 8, images.shape[-1] // 8
    blocks = images[chosen].reshape(n, 3, h, 8, w, 8).permute(0, 1, 2, 4, 3, 5)
    steps = log_uniform(gen, 0.02, 0.25, n, 1, 1, 1, 1, 1) * (0.4 + 0.15 * (k[:, None] + k[None]))
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(coefficients / steps) * steps) @ basis
    out = images.clone()
    out[chosen] = blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, 3, h * 8, w * 8)
    return out


def add_noise(gen: Generator, images: Tensor, share: float = 0.5, max_std: float = 0.07) -> Tensor:
    """Sensor noise on some pictures, the same in all channels for half of them."""
    out = images.clone()
    for channels in (1, 3):
        chosen = chance(gen, share / 2, images.shape[0]).nonzero()[:, 0]
        n = len(chosen)
        std = max_std * torch.rand(n, 1, 1, 1, generator=gen) ** 2
        out[chosen] += std * torch.randn(n, channels, *images.shape[2:], generator=gen)
    return out


def degrade(gen: Generator, images: Tensor) -> Tensor:
    """Colour, blur, resolution, noise and compression, in a camera's order; 0..1 in 8-bit steps."""
    out = jitter_colour(gen, images)
    out = lose_resolution(gen, blur(gen, out))
    out = jpeg_like(gen, add_noise(gen, out).clamp(0, 1))
    return torch.round(out.clamp(0, 1) * 255.0) / 255.0


def occlude(gen: Generator, images: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Covers a part of some pictures by a soft-edged ellipse or bar of a plain or mottled colour.

    Args:
        gen: Random numbers.
        images: [B, 3, S, S] 0..1; changed in place.
        share: Share of pictures that get one.

    Returns:
        The pictures, and the opacity [B, 1, S, S] of what covers them.
    """
    opacity = torch.zeros_like(images[:, :1])
    chosen = chance(gen, share, images.shape[0]).nonzero()[:, 0]
    count, size = len(chosen), images.shape[-1]
    if count == 0:
        return images, opacity
    ticks = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    centre = uniform(gen, -0.9, 0.9, count, 2, 1, 1)
    angle = uniform(gen, 0, math.pi, count, 1, 1)
    dx, dy = x - centre[:, 0], y - centre[:, 1]
    u = (dx * torch.cos(angle) + dy * torch.sin(angle)) / log_uniform(gen, 0.08, 0.9, count, 1, 1)
    v = (dy * torch.cos(angle) - dx * torch.sin(angle)) / log_uniform(gen, 0.06, 0.4, count, 1, 1)
    box = chance(gen, 0.4, count)[:, None, None]
    radius = torch.where(box, torch.maximum(u.abs(), v.abs()), (u * u + v * v).sqrt())
    alpha = ((1.0 - radius) * 12.0).clamp(0, 1)[:, None]
    colour = torch.rand(count, 3, 1, 1, generator=gen)
    skin = colour.new_tensor([0.75, 0.55, 0.45])[:, None, None] * log_uniform(gen, 0.4, 1.3, count, 1, 1, 1)
    colour = torch.where(chance(gen, 0.4, count)[:, None, None, None], skin, colour)
    mottle = F.interpolate(torch.randn(count, 3, 6, 6, generator=gen), size=(size, size), mode="bilinear")
    images[chosen] = images[chosen] * (1 - alpha) + (colour + 0.1 * mottle).clamp(0, 1) * alpha
    opacity[chosen] = alpha
    return images, opacity
