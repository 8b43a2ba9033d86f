# SPDX-License-Identifier: Apache-2.0
"""Neck opening, shoulders and clothes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hiface.render.kernels.body import BodyLook, shade_body
from hiface.render.kernels.library import has_library
from hiface.synthetic.lights import Surroundings, plain_light, put_normals
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.scene import Canvas, Drawn, rows_at
from hiface.synthetic.shells import TRUNK_RINGS, ring_triangles

LABEL_BODY = 6
_LABEL_SKIN = 1
_CENTRE_Z_M = 0.09
_COLUMNS = 48

_ANGLE = np.arange(_COLUMNS) / _COLUMNS * 2 * math.pi
_OUTLINE = np.stack([np.sign(along) * np.abs(along) ** 0.85 for along in (np.sin(_ANGLE), np.cos(_ANGLE))])


@dataclass(frozen=True)
class Clothes:
    """What someone wears. Metres, linear colours.

    Attributes:
        colours: [2, 3] of the cloth and of its pattern or shirt.
        pattern: "plain", "stripes", "checks", "noise" or "jacket".
        pattern_scale: Size of the pattern.
        neckline: Height of the opening at the sides and additional depth in front.
        collar: How far the first rings stand up.
        width: Factor on the shoulders.
        seed: Seed of the folds.
    """

    colours: np.ndarray
    pattern: str
    pattern_scale: float
    neckline: tuple[float, float]
    collar: float
    width: float
    seed: int


def sample_clothes(rng: np.random.Generator) -> Clothes:
    """Draws clothes."""
    grey = rng.random() < 0.45
    colours = np.exp(rng.uniform(math.log(0.012), math.log(0.7), (2, 1))) * np.ones((2, 3))
    if not grey:
        colours = colours * np.exp(rng.normal(0, 0.45, (2, 3)))
    pattern = str(
        rng.choice(["plain", "stripes", "checks", "noise", "jacket"], p=[0.42, 0.12, 0.08, 0.14, 0.24])
    )
    open_neck = rng.random() < 0.45
    return Clothes(
        np.clip(colours, 0.008, 0.8).astype(np.float32),
        pattern,
        float(rng.uniform(0.008, 0.05)),
        (float(rng.uniform(-0.165, -0.14)), float(rng.uniform(0.01, 0.12))) if open_neck else (-0.10, 0.0),
        0.0 if open_neck else float(rng.uniform(0.0, 0.022)),
        float(rng.uniform(0.82, 1.12)),
        int(rng.integers(2**31)),
    )


def body_vertices(clothes: Clothes, neck_scale: float) -> Tensor:
    """[48 * rings, 3] vertices in object space, metres; the neck `neck_scale` times as wide as usual."""
    rng = np.random.default_rng(clothes.seed)
    rings = TRUNK_RINGS.copy()
    blend = np.clip((np.arange(len(rings)) - 1) / 3, 0, 1)
    rings[:, 1] *= (1 - blend) * neck_scale + blend * clothes.width
    rings[:, 2] *= (1 - blend) * neck_scale + blend
    rings[0, 0] += clothes.collar
    x, z = _OUTLINE
    folds = rng.normal(0, 0.012, (_COLUMNS, len(rings))) * np.clip(blend, 0.1, 1)
    swell = 1 + folds
    px = x[:, None] * rings[None, :, 1] * swell
    pz = z[:, None] * rings[None, :, 2] * swell + rings[None, :, 3]
    py = np.broadcast_to(rings[None, :, 0], px.shape) - 0.02 * np.maximum(z, 0)[:, None] * (1 - blend)
    return torch.from_numpy(np.stack([px, py, pz], axis=-1).reshape(-1, 3).astype(np.float32))


@cache
def _creases(which: int) -> Tensor:
    """[256, 256] factors of the folds of cloth."""
    return (0.12 * noise_pool("cloud")[which]).exp()


def look_of(clothes: Clothes, skin_colour: Tensor) -> BodyLook:
    """Clothes as numbers; `skin_colour` is [3] linear."""
    main, second = torch.from_numpy(clothes.colours)
    which = clothes.seed % 8
    tie = main * 0.6 + 0.4 * torch.tensor([0.25, 0.05, 0.12]).roll(clothes.seed % 3)
    colours = torch.stack([main, second, 0.62 + 0.1 * second, tie, skin_colour])
    return BodyLook(
        _creases(which),
        noise_pool("pink")[which],
        clothes.pattern,
        bool(clothes.seed % 2),
        colours,
        clothes.pattern_scale,
        clothes.neckline,
        _CENTRE_Z_M,
        (_LABEL_SKIN, LABEL_BODY),
    )


def _cloth(look: BodyLook, x: Tensor, y: Tensor, front: Tensor) -> Tensor:
    """[3, P] cloth colour at body coordinates."""
    main, second, shirt_colour, tie_colour, _ = look.colours[:, :, None]
    scale = look.scale
    if look.pattern == "stripes":
        mix = ((y / scale).frac().abs() > 0.5).float()
    elif look.pattern == "checks":
        mix = 0.5 * ((y / scale).frac().abs() > 0.5).float() + 0.5 * ((x / scale).frac().abs() > 0.5).float()
    elif look.pattern == "noise":
        mix = (sample_noise(look.noise, x / (scale * 12), y / (scale * 12)) > 0.4).float()
    elif look.pattern == "jacket":
        shirt = (x.abs() < 0.012 + 0.30 * (y + 0.33).clamp(0, 0.14)) & (front > 0)
        tie = (x.abs() < 0.014 + 0.05 * (-0.15 - y).clamp(0, 0.3)) & shirt & look.has_tie
        return torch.where(tie, tie_colour, torch.where(shirt, shirt_colour, main))
    else:
        mix = torch.zeros_like(x)
    return main + (second - main) * mix


def shade_plain(rows: Tensor, look: BodyLook) -> tuple[Tensor, Tensor]:
    """Colour and label of fragments in plain torch.

    Args:
        rows: [6 or more, P] light and place on the body, metres.
        look: Clothes.

    Returns:
        [3, P] linear and [P] uint8.
    """
    x, y, z = rows[3:6].unbind(0)
    z = z + look.centre_z
    colour = _cloth(look, x, y, z) * sample_noise(look.creases, x * 3 + z, y * 3)
    side, depth = look.neckline
    steep = (1 - (x.abs() / 0.10)).clamp(0, 1) * (z > 0)
    bare = y > side - depth * steep
    colour = torch.where(bare, look.colours[4][:, None], colour)
    return colour * rows[:3], torch.where(bare, *look.labels).to(torch.uint8)


def draw_body(
    canvas: Canvas,
    clothes: Clothes,
    verts_object: Tensor,
    verts_cam: Tensor,
    K: Tensor,
    look: tuple[Tensor, Surroundings],
) -> None:
    """Draws shoulders and clothes.

    Args:
        canvas: With the head on it.
        clothes: What is worn.
        verts_object: [N, 3] from `body_vertices`.
        verts_cam: The same in camera space.
        K: [3, 3] intrinsics in sub-pixels.
        look: [3] skin colour (linear) and the light in camera axes.
    """
    triangles = ring_triangles(_COLUMNS, len(TRUNK_RINGS))
    skin_colour, lights = look
    front = canvas.front(verts_cam, triangles, K)
    if front is None:
        return
    attributes = torch.zeros(len(verts_cam), 8)
    put_normals(attributes, verts_cam, triangles)
    light = plain_light(attributes[:, 3:6], lights)
    under_chin = 1.0 - 0.4 * ((verts_object[:, 1] + 0.21) / 0.08).clamp(0, 1)
    attributes[:, :3], attributes[:, 3:6] = (light * under_chin).T, verts_object
    body = look_of(clothes, skin_colour)
    if has_library():
        target = canvas.colour, canvas.depth, canvas.label
        shade_body(target, (front.pixel, front.triangle, front.place), attributes, triangles, body)
        return
    rows = rows_at(attributes, None, triangles, front)
    drawn = Drawn(front.pixel, front.triangle, front.place[3], rows, canvas.size)
    canvas.put(drawn, *shade_plain(rows, body))
