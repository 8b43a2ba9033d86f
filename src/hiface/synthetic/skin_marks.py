# SPDX-License-Identifier: Apache-2.0
"""Marks on a person's skin: freckles, moles, blemishes, scars, flush, lipstick, blush, tinted brows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.synthetic.face_paint import paint_tables, surface_places
from hiface.synthetic.noise import noise_pool

_LIPSTICKS = np.array(
    [
        [0.36, 0.020, 0.030],
        [0.20, 0.012, 0.030],
        [0.42, 0.10, 0.12],
        [0.48, 0.19, 0.17],
        [0.30, 0.11, 0.08],
        [0.10, 0.010, 0.020],
    ]
)
_FLUSH = np.array([0.13, 0.12, 0.05])
_STAMP = 4  # half the side of the patch of texels that a spot is painted into


@dataclass(frozen=True)
class SkinMarks:
    """What a skin shows beyond its tone.

    Attributes:
        freckles: Strength and share of the skin that they cover; 0 for none.
        spots: [N, 5] of moles and blemishes: place in 0..1 among the texels of the face, radius in texels and
            factors on red, green and blue.
        scar: Place, direction, length in texels and strength of a scar; strength 0 for none.
        flush: Redness of cheeks, nose and chin, 0..1.
        lipstick: [3] linear colour and its opacity.
        blush: Opacity and height on the cheeks, metres.
        brow_tint: [3] linear colour of the brows and how far they take it.
        sallow: How far the skin leans to yellow or grey, -1..1.
    """

    freckles: tuple[float, float]
    spots: np.ndarray
    scar: tuple[float, float, float, float]
    flush: tuple[float, float, float]
    lipstick: tuple[np.ndarray, float]
    blush: tuple[float, float]
    brow_tint: tuple[np.ndarray, float]
    sallow: float


def sample_marks(rng: np.random.Generator, hair_colour: np.ndarray, age: float, make_up: bool) -> SkinMarks:
    """Draws marks.

    Args:
        rng: Source of randomness.
        hair_colour: [3] linear; brows are like it or darker.
        age: 0..1.
        make_up: Whether the face is painted.

    Returns:
        SkinMarks.
    """
    freckled = rng.random() < 0.12
    moles = int(rng.poisson(1.2 + 2.5 * age))
    blemishes = int(rng.poisson(14 * (1 - age) + 3)) if rng.random() < 0.16 else int(rng.poisson(0.5))
    n = moles + blemishes
    is_mole = (np.arange(n) < moles)[:, None]
    brown = rng.uniform(0.25, 0.75, (n, 1)) * np.array([1.0, 0.85, 0.75])
    red = np.array([1.0, 0.62, 0.62]) ** rng.uniform(0.3, 1.2, (n, 1))
    radius = np.where(is_mole, rng.uniform(0.5, 1.3, (n, 1)), rng.uniform(0.7, 2.2, (n, 1)))
    spots = np.concatenate([rng.random((n, 1)), radius, np.where(is_mole, brown, red)], axis=1)
    lips = _LIPSTICKS[int(rng.integers(len(_LIPSTICKS)))] * np.exp(rng.normal(0, 0.25))
    painted = rng.uniform(0.25, 0.9) * (make_up and rng.random() < 0.75)
    darker = rng.uniform(0.35, 1.0) * hair_colour
    return SkinMarks(
        freckles=(float(rng.uniform(0.15, 0.6) * freckled), float(rng.uniform(0.5, 1.6))),
        spots=spots.astype(np.float32),
        scar=(
            float(rng.random()),
            float(rng.uniform(0, np.pi)),
            float(rng.uniform(4, 16)),
            float(rng.uniform(-0.35, 0.35) * (rng.random() < 0.05)),
        ),
        flush=tuple((np.abs(rng.normal(0, 1, 3)) * _FLUSH * (0.4 + (rng.random() < 0.25))).tolist()),
        lipstick=(np.clip(lips, 0, 0.7).astype(np.float32), float(painted)),
        blush=(float(rng.uniform(0.0, 0.4)) if make_up else 0.0, float(rng.normal(-0.028, 0.006))),
        brow_tint=(darker.astype(np.float32), float(rng.uniform(0.0, 0.55))),
        sallow=float(rng.normal(0, 0.3)),
    )


@dataclass(frozen=True)
class MarkTexels:
    """Where marks may be.

    Attributes:
        face: [N] int64 texels of the face.
        warm: [3, N] closeness to cheeks, nose and chin, 0..1.
        freckles: [N] 0..1.
        height: [N] metres, y on the mean head.
        aside: [N] metres, |x| on the mean head.
    """

    face: Tensor
    warm: Tensor
    freckles: Tensor
    height: Tensor
    aside: Tensor


@cached_per_tensor
def _texels(template: Tensor, model: MorphableModel, side: int) -> MarkTexels:
    texels, places = surface_places(model, side)
    near = (places[:, 1] > -0.125) & (places[:, 1] < 0.085) & (places[:, 2] > -0.06)
    texels, places = texels[near], places[near]
    x, y, z = places[:, 0].abs(), places[:, 1], places[:, 2]

    def bump(cx: float, cy: float, wx: float, wy: float) -> Tensor:
        return torch.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)

    nose = bump(0.0, -0.034, 0.014, 0.016) * (z > 0.025)
    warm = torch.stack([bump(0.043, -0.032, 0.020, 0.020), nose, bump(0.0, -0.10, 0.02, 0.014)])
    freckles = bump(0.028, -0.020, 0.034, 0.024) + 0.35 * bump(0.0, 0.045, 0.05, 0.03)
    return MarkTexels(texels, warm, freckles.clamp(0, 1), y, x)


def _stamp(texture: Tensor, row: int, column: int, cover: Tensor, factor: Tensor) -> None:
    """Multiplies a patch around a texel by `factor` [3] where `cover` [k, k] is 1."""
    half = cover.shape[0] // 2
    side = texture.shape[-1]
    if half <= row < side - half and half <= column < side - half:
        part = texture[:, row - half : row + half + 1, column - half : column + half + 1]
        part *= 1 + cover * (factor[:, None, None] - 1)


def _paint_spots(texture: Tensor, tables: MarkTexels, marks: SkinMarks) -> None:
    side = texture.shape[-1]
    line = torch.arange(-_STAMP, _STAMP + 1).float()
    distance = (line[:, None] ** 2 + line[None] ** 2).sqrt()
    for place, radius, *factor in marks.spots.tolist():
        texel = int(tables.face[int(place * (len(tables.face) - 1))])
        cover = (radius + 0.6 - distance).clamp(0, 1)
        _stamp(texture, texel // side, texel % side, cover, torch.tensor(factor))
    place, angle, length, strength = marks.scar
    if strength != 0:
        texel = int(tables.face[int(place * (len(tables.face) - 1))])
        line = torch.arange(-10, 11).float()
        along = line[None] * np.cos(angle) + line[:, None] * np.sin(angle)
        across = line[:, None] * np.cos(angle) - line[None] * np.sin(angle) + 0.02 * along**2
        cover = (1.0 - across.abs()).clamp(0, 1) * ((length / 2 - along.abs()) / 2).clamp(0, 1)
        factor = torch.tensor([1 + strength, 1 + 0.6 * strength, 1 + 0.6 * strength])
        _stamp(texture, texel // side, texel % side, cover, factor)


def paint_marks(model: MorphableModel, texture: Tensor, marks: SkinMarks, rng: np.random.Generator) -> None:
    """Paints marks into an albedo map, in place.

    Args:
        model: Face model.
        texture: [3, h, w] linear albedo of a person.
        marks: What to paint.
        rng: Source of randomness.
    """
    side = texture.shape[-1]
    tables = _texels(model.data.template, model, side)
    grain, smooth = noise_pool("white")[int(rng.integers(8))], noise_pool("cloud")[int(rng.integers(8))]
    if marks is NO_MARKS or not len(tables.face):
        return
    flat = texture.view(3, -1)
    skin = flat.index_select(1, tables.face)
    texel = tables.face % grain.numel()
    uneven = 1 + 0.3 * smooth.reshape(-1)[texel]
    red = (torch.tensor(marks.flush)[:, None] * tables.warm).sum(dim=0) * uneven
    skin = skin * torch.stack([0.10 * red, -1.1 * red, -0.9 * red]).exp()
    skin = skin * (torch.tensor([0.01, 0.0, -0.12])[:, None] * marks.sallow).exp()
    if marks.freckles[0] > 0:
        dots = ((grain.reshape(-1)[texel] - 2.2 + marks.freckles[1]) * 1.2).clamp(0, 1) * tables.freckles
        skin = skin * (-marks.freckles[0] * dots * torch.tensor([0.55, 0.9, 1.1])[:, None]).exp()
    if marks.blush[0] > 0:
        cheek = torch.exp(
            -(((tables.aside - 0.048) / 0.016) ** 2) - ((tables.height - marks.blush[1]) / 0.014) ** 2
        )
        pink = torch.tensor([0.52, 0.20, 0.18])[:, None] * (skin.mean() / 0.3).clamp(0.3, 1.3)
        skin = torch.lerp(skin, pink, (marks.blush[0] * cheek)[None])
    flat.index_copy_(1, tables.face, skin)
    _paint_spots(texture, tables, marks)
    features = paint_tables(model, side)
    for window, (colour, cover) in ((features.lips, marks.lipstick), (features.brows, marks.brow_tint)):
        if window is not None and cover > 0:
            part = window.cut(texture)
            mask = (window.mask * 1.15 - 0.15).clamp(0, 1) * cover
            if window is features.brows:  # only where the model has drawn hair
                dark = part.mean(dim=0)
                skin_level = torch.quantile(dark, 0.85)
                mask = mask * ((1 - dark / skin_level.clamp_min(1e-3)) * 2.5 - 0.2).clamp(0, 1)
            part.copy_(torch.lerp(part, torch.from_numpy(colour)[:, None, None], mask))


NO_MARKS = SkinMarks(
    (0.0, 1.0),
    np.zeros((0, 5), dtype=np.float32),
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0),
    (np.zeros(3, dtype=np.float32), 0.0),
    (0.0, 0.0),
    (np.zeros(3, dtype=np.float32), 0.0),
    0.0,
)
