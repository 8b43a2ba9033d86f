# SPDX-License-Identifier: Apache-2.0
"""Pictures with depth as a sensor measures it: structured light or time of flight.

The models follow what is known of such sensors: disparity noise and steps of structured light, and its blind
edges and grazing surfaces (Nguyen, Izadi and Lovell 2012; Handa et al. 2014); noise that grows with distance,
flying pixels at edges and slowly varying bias of time of flight (Sarbolandi, Lefloch and Kolb 2015). The
strengths are rounded, not fitted to one device.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.errors import OptionError
from hiface.morphable import MorphableModel
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style, SyntheticSample, take_picture
from hiface.synthetic.noise import noise_image
from hiface.synthetic.shots import draw_shot, sitter_of
from hiface.synthetic.surface_maps import SURFACE_MAPS

SENSORS = ("structured_light", "time_of_flight")
_BASELINE_M, _SENSOR_FOCAL_PX = 0.075, 580.0
_DISPARITY_STEP_PX, _DISPARITY_NOISE_PX = 1 / 8, 0.06
_NEAREST_M, _FARTHEST_M = 0.25, 6.5
_EDGE_M = 0.02


def surface_slope(depth: Tensor, focal_px: float) -> Tensor:
    """Cosine between the line of sight and the surface, from differences of depth.

    Args:
        depth: [S, S] metres.
        focal_px: Focal length in pixels.

    Returns:
        [S, S] 0 (grazing) to 1 (facing).
    """
    padded = F.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    pixel_m = (depth / focal_px).clamp_min(1e-6)
    return (1 + (dx / pixel_m) ** 2 + (dy / pixel_m) ** 2).rsqrt()


def depth_edges(depth: Tensor) -> Tensor:
    """[S, S] bool, pixels next to a jump of more than 2 cm or to nothing."""
    high = F.max_pool2d(F.pad(depth[None, None], (1,) * 4, mode="replicate"), 3, 1)
    low = -F.max_pool2d(F.pad(-depth[None, None], (1,) * 4, mode="replicate"), 3, 1)
    return (high - low)[0, 0] > _EDGE_M


def _jittered(depth: Tensor, gen: torch.Generator, sigma_px: float) -> Tensor:
    """Depth of a place about `sigma_px` beside each pixel."""
    size = depth.shape[-1]
    line = torch.arange(size)
    shift = (torch.randn(2, size, size, generator=gen) * sigma_px).round().long()
    row = (line[:, None] + shift[0]).clamp(0, size - 1)
    column = (line[None, :] + shift[1]).clamp(0, size - 1)
    return depth[row, column]


def _structured_light(depth: Tensor, cosine: Tensor, gen: torch.Generator) -> Tensor:
    seen = _jittered(depth, gen, 0.45)
    scale = _BASELINE_M * _SENSOR_FOCAL_PX
    disparity = scale / seen.clamp_min(_NEAREST_M)
    disparity = disparity + _DISPARITY_NOISE_PX * torch.randn(depth.shape, generator=gen)
    disparity = (disparity / _DISPARITY_STEP_PX).round() * _DISPARITY_STEP_PX
    lost = torch.rand(depth.shape, generator=gen)
    blind = (depth_edges(depth) & (lost < 0.6)) | (cosine < 0.25 * lost + 0.05) | (lost > 0.998)
    return torch.where((seen > 0) & ~blind, scale / disparity.clamp_min(scale / _FARTHEST_M), 0.0)


def _time_of_flight(depth: Tensor, cosine: Tensor, gen: torch.Generator, bias: Tensor) -> Tensor:
    mixed = F.avg_pool2d(F.pad(depth[None, None], (1,) * 4, mode="replicate"), 3, 1)[0, 0]
    share = torch.rand(depth.shape, generator=gen)
    seen = torch.where(depth_edges(depth) & (share < 0.5), mixed, depth)
    sigma = (0.001 + 0.0012 * seen.square()) / cosine.clamp_min(0.2).sqrt()
    measured = seen + sigma * torch.randn(depth.shape, generator=gen) + 0.0025 * bias
    lost = torch.rand(depth.shape, generator=gen)
    blind = (cosine < 0.12 * lost) | (lost > 0.999) | (depth <= 0)
    return torch.where(blind, 0.0, (measured * 1000).round() / 1000)


def sensor_depth(depth: Tensor, focal_px: float, sensor: str, rng: np.random.Generator) -> Tensor:
    """What a depth sensor would have measured.

    Args:
        depth: [S, S] camera z in metres, 0 for nothing.
        focal_px: Focal length of the picture.
        sensor: One of `SENSORS`.
        rng: Source of randomness.

    Returns:
        [S, S] metres, 0 where nothing was measured.

    Raises:
        OptionError: The sensor is unknown.
    """
    if sensor not in SENSORS:
        raise OptionError(f"unknown depth sensor {sensor!r}; choose {' or '.join(SENSORS)}")
    gen = torch.Generator().manual_seed(int(rng.integers(2**62)))
    cosine = surface_slope(depth, focal_px)
    if sensor == "structured_light":
        out = _structured_light(depth, cosine, gen)
    else:
        out = _time_of_flight(depth, cosine, gen, noise_image(rng, "cloud", depth.shape[-1]))
    return torch.where((out > _NEAREST_M) & (out < _FARTHEST_M), out, 0.0)


def _wall_depth(K: Tensor, size: int, nearest_m: float, rng: np.random.Generator) -> Tensor:
    """[S, S] depth of a wall behind the person, turned a little; a third of rooms have none in reach."""
    if rng.random() < 0.33:
        return torch.zeros(size, size)
    yaw, pitch = rng.normal(0, 0.3), rng.normal(0, 0.1)
    centre = nearest_m + 0.4 + abs(rng.normal(0, 1.0))
    line = torch.arange(size) + 0.5
    x, y = (line - K[0, 2]) / K[0, 0], (line - K[1, 2]) / K[1, 1]
    slant = 1 + math.tan(yaw) * x[None, :] + math.tan(pitch) * y[:, None]
    depth = centre / slant.clamp_min(0.1)
    return torch.where(depth < _FARTHEST_M, depth.clamp_min(nearest_m + 0.3), 0.0)


def generate_rgbd(
    model: MorphableModel, seed: int, style: Style, sensor: str | None = None
) -> SyntheticSample:
    """A picture with clean and measured depth.

    Args:
        model: Face model.
        seed: Seed; pictures `3 n`, `3 n + 1` and `3 n + 2` show the same person.
        style: Size, effects, labels; no masks, and nothing flat is held in front.
        sensor: One of `SENSORS`; drawn if None.

    Returns:
        Sample with the maps "depth" (person and wall) and "sensor_depth", [S, S] metres, 0 for nothing.
    """
    effects = style.effects - {"occluders"}
    inner = replace(style, effects=effects, labels=style.labels | {"maps"})
    sitter = sitter_of(model, seed // PICTURES_PER_PERSON, effects)
    rng = np.random.default_rng([seed, 31])
    shot = draw_shot(model, sitter, rng, style.size, effects)
    own = np.random.default_rng([seed, 43])  # what the camera's effects use up changes nothing in the depth
    sample = take_picture(model, shot, rng, inner, seed).sample
    K = sample.params.camera.K
    person = sample.maps["depth"]
    behind = _wall_depth(K, style.size, float(sample.T_cam_head[2, 3]), own)
    depth = torch.where(person > 0, person, behind)
    chosen = sensor or SENSORS[int(own.integers(len(SENSORS)))]
    measured = sensor_depth(depth, float(K[0, 0]), chosen, own)
    unasked = set() if "maps" in style.labels else {"depth", *SURFACE_MAPS}
    kept = {name: values for name, values in sample.maps.items() if name not in unasked}
    return replace(sample, maps={**kept, "depth": depth, "sensor_depth": measured})
