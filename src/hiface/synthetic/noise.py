# SPDX-License-Identifier: Apache-2.0
"""Pools of tileable noise from which every picture takes rolled, scaled pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE = 256


def spectral_noise(
    rng: np.random.Generator, power: float, stretch: float = 1.0, side: int = _SIDE
) -> np.ndarray:
    """Tileable Gaussian noise whose amplitude falls as 1 / frequency^power.

    Args:
        rng: Source of randomness.
        power: 0 is white, 1 pink, 2 smooth clouds.
        stretch: Features are this many times longer along the rows (vertically) than across.
        side: Side in texels.

    Returns:
        [side, side] float32, mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(side)[:, None] * side * stretch
    fx = np.fft.rfftfreq(side)[None, :] * side
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / radius**power
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(side, side))
    return (field / field.std()).astype(np.float32)


@cache
def noise_pool(kind: str) -> Tensor:
    """Eight tileable noise pictures.

    Args:
        kind: "white", "pink", "cloud", "strand" (thin, long along v) or "curl" (short strands).

    Returns:
        [8, 256, 256] float32, mean 0, standard deviation 1.
    """
    power, stretch = {
        "white": (0.0, 1.0),
        "pink": (1.0, 1.0),
        "cloud": (1.8, 1.0),
        "strand": (0.75, 24.0),
        "curl": (0.9, 2.5),
    }[kind]
    rng = np.random.default_rng(sum(map(ord, kind)))
    return torch.from_numpy(np.stack([spectral_noise(rng, power, stretch) for _ in range(8)]))


def plan_noise(rng: np.random.Generator, kind: str, side: int, scale: float = 1.0) -> Callable[[], Tensor]:
    """Draws the numbers of `noise_image`; the function that is returned makes the picture."""
    which, shift = int(rng.integers(8)), (int(rng.integers(_SIDE)), int(rng.integers(_SIDE)))

    def make() -> Tensor:
        need = max(2, round(side / scale))
        tile = _rolled(noise_pool(kind)[which], shift, min(need, _SIDE))
        if need > _SIDE:
            repeat = -(-need // _SIDE)
            tile = tile.repeat(repeat, repeat)[:need, :need]
        if need == side:
            return tile
        return F.interpolate(tile[None, None], size=(side, side), mode="bilinear", align_corners=False)[0, 0]

    return make


def _rolled(tile: Tensor, shift: tuple[int, int], need: int) -> Tensor:
    """The first `need` rows and columns of a tile [256, 256] that is rolled down and to the right."""
    rows, columns = (torch.arange(need).sub_(s).remainder_(_SIDE) for s in shift)
    return tile.index_select(0, rows).index_select(1, columns)


def noise_image(rng: np.random.Generator, kind: str, side: int, scale: float = 1.0) -> Tensor:
    """A random piece of pooled noise.

    Args:
        rng: Source of randomness.
        kind: As in `noise_pool`.
        side: Side of the result in pixels.
        scale: How many times the pooled picture is enlarged.

    Returns:
        [side, side].
    """
    return plan_noise(rng, kind, side, scale)()


def sample_noise(tile: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Looks up tileable noise, nearest texel.

    Args:
        tile: [256, 256].
        u: [P] horizontal coordinate; one tile is 1.
        v: [P] vertical coordinate.

    Returns:
        [P].
    """
    column = (u * _SIDE).to(torch.int32).bitwise_and_(_SIDE - 1)  # the remainder, since the side is 2^8
    row = (v * _SIDE).to(torch.int32).bitwise_and_(_SIDE - 1)
    return tile.reshape(-1).index_select(0, row.mul_(_SIDE).add_(column))
