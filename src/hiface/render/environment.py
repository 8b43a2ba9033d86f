# SPDX-License-Identifier: Apache-2.0
"""Light from surroundings: panoramas and lamps as nine spherical harmonics per colour.

A panorama is an equirectangular picture of everything around the head. Its middle is what the camera looks
at, behind the head; its left and right borders are behind the camera, before the face; its top is above.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.errors import OptionError, ShapeError
from hiface.render.shade import COSINE_LOBE, rotate_light, sh_basis
from hiface.render.visibility import sphere_directions

_N_DIRECTIONS = 512
_LARGEST_PX = 512  # longer panoramas are averaged first: light of nine harmonics is smooth
_AMBIENT = (0.16, 0.16, 0.17)
_LAMPS: dict[str, tuple[tuple[tuple[float, float, float], tuple[float, float, float], float], ...]] = {
    "soft": (((0.2, -0.8, -1.0), (0.8, 0.8, 0.8), 1.0),),
    "front": (((0.0, -0.3, -1.0), (2.2, 2.2, 2.2), 6.0),),
    "left": (((-1.0, -0.3, -0.45), (3.4, 3.3, 3.2), 8.0),),
    "right": (((1.0, -0.3, -0.45), (3.4, 3.3, 3.2), 8.0),),
    "above": (((0.0, -1.0, -0.25), (3.6, 3.5, 3.4), 8.0),),
    "below": (((0.0, 1.0, -0.6), (3.2, 3.2, 3.4), 8.0),),
    "sunset": (((-1.0, -0.1, -0.35), (5.4, 2.9, 1.1), 8.0), ((1.0, -0.6, -0.2), (0.5, 0.8, 1.5), 2.0)),
    "neon": (((-1.0, 0.0, -0.3), (3.6, 0.5, 2.8), 6.0), ((1.0, 0.0, -0.3), (0.2, 1.6, 3.8), 6.0)),
}
"""Direction towards each lamp in camera axes, linear colour, sharpness."""

STUDIO_LIGHTS = tuple(_LAMPS)
"""Names of lights that `studio_light` knows; left and right are those of the picture."""


@cache
def sh_projection() -> Tensor:
    """[9, 512] from radiance in the directions `sphere_directions(512)` to light, cosine lobe included."""
    directions = sphere_directions(_N_DIRECTIONS)
    return sh_basis(directions).T * (COSINE_LOBE[:, None] * (4 * math.pi / len(directions)))


def lamp_light(direction: Tensor, colour: Tensor, sharpness: float) -> Tensor:
    """Light of one lamp with a soft border.

    Args:
        direction: [3] towards the lamp, camera axes (x right, y down, z forward), any length.
        colour: [3] linear radiance in its middle.
        sharpness: Concentration of the lamp: 2 is a window wall, 60 a small lamp.

    Returns:
        [9, 3] spherical harmonics in camera axes.
    """
    towards = F.normalize(direction.to(colour), dim=0)
    around = sphere_directions(_N_DIRECTIONS).to(colour)
    radiance = ((around @ towards - 1.0) * sharpness).exp()[:, None] * colour
    return sh_projection().to(colour) @ radiance


def studio_light(name: str) -> Tensor:
    """A light by its name, [9, 3] in camera axes.

    Raises:
        OptionError: There is no such light.
    """
    if name not in _LAMPS:
        raise OptionError(f"there is no light {name!r}; choose one of {', '.join(STUDIO_LIGHTS)}")
    radiance = torch.tensor(_AMBIENT).expand(_N_DIRECTIONS, 3)
    light = sh_projection() @ radiance
    for direction, colour, sharpness in _LAMPS[name]:
        light = light + lamp_light(torch.tensor(direction), torch.tensor(colour), sharpness)
    return light


def panorama_directions(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of a panorama lie.

    Returns:
        [H, W, 3] unit vectors in camera axes, and [H, 1] the solid angle of a row's pixels; times the width
        they sum to 4 pi.
    """
    edges = torch.linspace(0.0, math.pi, height + 1, dtype=torch.float64)
    polar = 0.5 * (edges[:-1] + edges[1:])[:, None]
    azimuth = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5)[None] * (2 * math.pi)
    flat = polar.sin()
    directions = torch.stack(
        [flat * azimuth.sin(), -polar.cos().expand(height, width), flat * azimuth.cos()], dim=-1
    )
    angle = (edges[:-1].cos() - edges[1:].cos())[:, None] * (2 * math.pi / width)
    return directions.float(), angle.float()


def panorama_light(panorama_linear: Tensor) -> Tensor:
    """Light of a panorama on matte surfaces (Ramamoorthi and Hanrahan 2001).

    Args:
        panorama_linear: [3, H, W] linear radiance, H and W at least 2; it is taken to show everything around,
            whatever its shape.

    Returns:
        [9, 3] spherical harmonics in camera axes, cosine lobe included. Differentiable.

    Raises:
        ShapeError: Not [3, H, W], or smaller.
    """
    if panorama_linear.dim() != 3 or panorama_linear.shape[0] != 3 or min(panorama_linear.shape[1:]) < 2:
        raise ShapeError(f"a panorama must be [3, H, W], got {tuple(panorama_linear.shape)}")
    factor = -(-panorama_linear.shape[-1] // _LARGEST_PX)
    small = F.avg_pool2d(panorama_linear[None], factor, ceil_mode=True, count_include_pad=False)[0]
    directions, angle = (t.to(small) for t in panorama_directions(*small.shape[1:]))
    weighted = (small * angle).flatten(1)
    basis = sh_basis(directions.reshape(-1, 3))
    return COSINE_LOBE.to(small)[:, None] * (basis.T @ weighted.T)


def turned_light(light: Tensor, turn_deg: float) -> Tensor:
    """Light [9, 3] turned about the vertical; at 90 degrees what was behind the head is at the right."""
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    return rotate_light(light, light.new_tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]))
