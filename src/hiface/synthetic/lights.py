# SPDX-License-Identifier: Apache-2.0
"""Light from procedural surroundings, with soft shadows from a table of what each vertex sees.

The surroundings are 96 directions with a colour each. What a vertex receives is the sum over directions of
colour, cosine and the visibility of that direction, measured once on the mean head with the z-buffer; so soft
shadows, ambient occlusion and coloured light come from one small matrix product per picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.normals import vertex_normals
from hiface.render.environment import sh_projection
from hiface.render.kernels import skin as kernels
from hiface.render.kernels.library import has_library
from hiface.render.visibility import N_DIRECTIONS, HeadVisibility, sphere_directions

_WRAP = (0.30, 0.10)  # light that wanders under the skin: red further than green and blue


@dataclass(frozen=True)
class Surroundings:
    """Light from all sides, in camera axes.

    Attributes:
        ambient: [3] linear colour from everywhere.
        gradient: [2, 3] colour added from above and from below.
        lobe_directions: [L, 3] unit vectors towards the lamps, camera axes (y down).
        lobe_colours: [L, 3] linear.
        lobe_sharpness: [L] concentration: about 2 is a window wall, 60 a small lamp.
    """

    ambient: np.ndarray
    gradient: np.ndarray
    lobe_directions: np.ndarray
    lobe_colours: np.ndarray
    lobe_sharpness: np.ndarray

    def radiance(self, directions_cam: Tensor) -> Tensor:
        """Colour [N, 3] of the light that comes from `directions_cam` [N, 3]."""
        directions = directions_cam.numpy()
        up = -directions[:, 1:2]
        colour = self.ambient + np.maximum(up, 0) * self.gradient[0] + np.maximum(-up, 0) * self.gradient[1]
        if self.lobe_colours.any():
            closeness = directions @ self.lobe_directions.T - 1
            colour = colour + np.exp(closeness * self.lobe_sharpness) @ self.lobe_colours
        return torch.from_numpy(colour)

    def scaled(self, factor: float) -> Surroundings:
        """The same light, `factor` times as strong."""
        out = Surroundings(
            self.ambient * np.float32(factor),
            self.gradient * np.float32(factor),
            self.lobe_directions,
            self.lobe_colours * np.float32(factor),
            self.lobe_sharpness,
        )
        out.__dict__["_sh_light"] = self._sh_light * factor  # light is linear
        return out

    def sh_light(self) -> Tensor:
        """[9, 3] spherical-harmonics light in camera axes, cosine lobe included, shadows not."""
        return self._sh_light

    @cached_property
    def around(self) -> tuple[Tensor, Tensor]:
        """Directions of `sphere_directions` [3, 96] and what comes from each, [3, 96] colour times 4 / 96."""
        directions = sphere_directions()
        radiance = self.radiance(directions) * (4.0 / N_DIRECTIONS)
        return directions.T.contiguous(), radiance.T.contiguous()

    @cached_property
    def _sh_light(self) -> Tensor:
        projection = sh_projection()
        return projection @ self.radiance(sphere_directions(projection.shape[1]))


def _tint(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A colour of mean 1 that leans to warm or cold, seldom to any hue."""
    warm = rng.normal(0, strength)
    colour = np.array([1 + warm, 1.0, 1 - warm])
    if rng.random() < 0.05:
        colour = rng.uniform(0.4, 1.6, 3)
    colour = np.clip(colour, 0.15, None)
    return (colour / colour.mean()).astype(np.float32)


def sample_surroundings(rng: np.random.Generator) -> Surroundings:
    """Draws light: ambient, sky and ground, and one to four lamps, the first mostly in front and above.

    Args:
        rng: Source of randomness.

    Returns:
        Light of arbitrary strength; exposure is set afterwards.
    """
    ambient = 0.16 * _tint(rng, 0.10) * np.float32(math.exp(rng.normal(0, 0.6)))
    gradient = np.stack([rng.uniform(0, 0.6) * _tint(rng, 0.10), rng.uniform(0, 0.25) * _tint(rng, 0.15)])
    count = 1 + int(rng.integers(0, 4))
    directions, colours, sharpness = [], [], []
    for i in range(count):
        azimuth = rng.normal(0, 0.8) if i == 0 else rng.uniform(-math.pi, math.pi)
        height = rng.normal(0.5, 0.35) if i == 0 else rng.normal(0.3, 0.5)
        horizontal = math.cos(height)
        directions.append(
            [horizontal * math.sin(azimuth), -math.sin(height), -horizontal * math.cos(azimuth)]
        )
        kappa = math.exp(rng.uniform(math.log(2.0), math.log(40)))
        power = math.exp(rng.normal(0.35 if i == 0 else -0.9, 0.6))
        colours.append(_tint(rng, 0.14) * np.float32(power * (0.5 + 0.35 * kappa)))
        sharpness.append(kappa)
    return Surroundings(
        ambient.astype(np.float32),
        gradient.astype(np.float32),
        np.array(directions, dtype=np.float32),
        np.array(colours, dtype=np.float32),
        np.array(sharpness, dtype=np.float32),
    )


def received_plain(
    normals_cam: Tensor, surroundings: Surroundings, visibility: Tensor | None, R: Tensor
) -> Tensor:
    """`received_light` in plain torch."""
    directions = sphere_directions() @ R.T
    radiance = surroundings.radiance(directions) * (4.0 / N_DIRECTIONS)
    cosine = normals_cam @ directions.T
    rows = []
    for channels, wrap in zip((slice(0, 1), slice(1, 3)), _WRAP, strict=True):
        weight = (cosine + wrap).clamp_min_(0)
        if visibility is not None:
            weight.mul_(visibility)
        rows.append(weight @ (radiance[:, channels] / (1 + wrap)))
    return torch.cat(rows, dim=1).T


def _lamp_weights(surroundings: Surroundings, R: Tensor, lamps: list[int]) -> Tensor:
    """[L, 96] how much each direction counts for a lamp."""
    towards = torch.from_numpy(surroundings.lobe_directions[lamps]) @ R
    weight = ((towards @ sphere_directions().T - 1) * 14.0).exp()
    return weight / weight.sum(dim=1, keepdim=True)


def received_light(
    normals_cam: Tensor, surroundings: Surroundings, visibility: Tensor | None, R: Tensor
) -> Tensor:
    """Light on each vertex, shadows and a little light under the skin included.

    Args:
        normals_cam: [V, 3] unit, camera axes.
        surroundings: Light in camera axes.
        visibility: [V, 96] for the directions of `sphere_directions` in head axes, or None for no shadow.
        R: [3, 3] rotation from the axes of the table to camera axes.

    Returns:
        [3, V] linear; multiply by albedo.
    """
    if not has_library():
        return received_plain(normals_cam, surroundings, visibility, R)
    out = torch.zeros(len(normals_cam), 3)
    shadows = None if visibility is None else kernels.Shadows(visibility, None, 0.0)
    _receive(normals_cam, surroundings, shadows, R, (out, []), None)
    return out.T


def _receive(
    normals_cam: Tensor,
    surroundings: Surroundings,
    shadows: kernels.Shadows | None,
    R: Tensor,
    out: tuple[Tensor, list[int]],
    wanted: Tensor | None,
) -> None:
    directions = sphere_directions() @ R.T
    share = [4.0 / N_DIRECTIONS / (1 + wrap) for wrap in (_WRAP[0], _WRAP[1], _WRAP[1])]
    radiance = surroundings.radiance(directions) * torch.tensor(share)
    light = directions.T.contiguous(), radiance.T.contiguous(), _lamp_weights(surroundings, R, out[1])
    kernels.received(normals_cam, shadows, light, _WRAP, (out[0], 6), wanted)


def put_normals(table: Tensor, verts: Tensor, triangles: Tensor) -> None:
    """Writes unit normals of vertices [V, 3] into columns 3 to 5 of a table [V, C]."""
    if has_library():
        kernels.vertex_normals(verts.contiguous(), triangles, table[:, 3:6])
    else:
        table[:, 3:6] = vertex_normals(verts, triangles)


def light_vertices(
    table: Tensor,
    surroundings: Surroundings,
    seen: tuple[HeadVisibility, float],
    R: Tensor,
    lamps: list[int],
    wanted: Tensor | None = None,
) -> None:
    """Fills in what the vertices of a head receive.

    Args:
        table: [V, C], C >= 6 + L, contiguous: columns 3 to 5 are unit normals in camera axes; the first three
            become the light, those from the seventh on the share of each lamp that is seen.
        surroundings: Light in camera axes.
        seen: Visibility, and how far the jaw is open, 0..1.
        R: [3, 3] rotation from the axes of the table of visibility to camera axes.
        lamps: Numbers of the L lamps.
        wanted: [V] bool, vertices that matter, or None for all.
    """
    visibility, jaw_open = seen
    normals = table[:, 3:6].contiguous()
    if has_library():
        weight = visibility.weight(jaw_open)
        shadows = kernels.Shadows(visibility.closed, visibility.opened if weight > 0 else None, weight)
        _receive(normals, surroundings, shadows, R, (table, lamps), wanted)
        return
    blend = visibility.blend(jaw_open)
    table[:, :3] = received_plain(normals, surroundings, blend, R).T
    if lamps:
        table[:, 6 : 6 + len(lamps)] = blend @ _lamp_weights(surroundings, R, lamps).T


def plain_light(normals_cam: Tensor, surroundings: Surroundings) -> Tensor:
    """Light on vertices of hair, cloth and the like, [V, 3] unit normals to [3, V], without shadows."""
    directions, radiance = surroundings.around
    if not has_library():
        return ((normals_cam @ directions).clamp_min(0) @ radiance.T).T
    out = torch.zeros(len(normals_cam), 3)
    light = directions, radiance, radiance.new_zeros(0, N_DIRECTIONS)
    kernels.received(normals_cam, None, light, (0.0, 0.0), (out, 3))
    return out.T
