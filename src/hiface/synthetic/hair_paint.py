# SPDX-License-Identifier: Apache-2.0
"""Hair too short or too close to the skin for locks: scalp, stubble, roots of a beard, tint of the brows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.synthetic.beards import BeardStyle, beard_tables, growth, jaw_map
from hiface.synthetic.face_paint import surface_places
from hiface.synthetic.hair_growth import angles, unit
from hiface.synthetic.hair_styles import HairStyle, hairline
from hiface.synthetic.noise import noise_pool
from hiface.synthetic.shells import CENTRE_M

_SOFT_RAD = 0.035


@dataclass(frozen=True)
class HairTexels:
    """Texels of skin that can bear hair.

    Attributes:
        scalp: [N] int64 texels of the upper and rear head.
        azimuth: [N] radians.
        polar: [N] radians.
        jaw: [M] int64 texels of the lower face.
        places: [M, 3] metres on the mean head.
        share: [M] where the model's albedo knows a beard.
    """

    scalp: Tensor
    azimuth: np.ndarray
    polar: np.ndarray
    jaw: Tensor
    places: np.ndarray
    share: np.ndarray


@cached_per_tensor
def _texels(template: Tensor, model: MorphableModel, side: int) -> HairTexels:
    texels, places = surface_places(model, side)
    points = places.numpy()
    theta, phi = angles(unit(points - np.array(CENTRE_M, dtype=np.float32)))
    limit = np.interp(np.abs(theta), np.radians([0, 60, 80, 180]), np.radians([72, 90, 125, 130]))
    scalp = np.flatnonzero(phi < limit)
    low = np.flatnonzero((points[:, 1] < 0.02) & (points[:, 1] > -0.135) & (points[:, 2] > -0.08))
    share = jaw_map(model, side).reshape(-1)[texels[low]].numpy()
    return HairTexels(texels[scalp], theta[scalp], phi[scalp], texels[low], points[low], share)


def _blend(texture: Tensor, texels: Tensor, colour: np.ndarray, cover: np.ndarray) -> None:
    flat = texture.view(3, -1)
    skin = flat.index_select(1, texels)
    weight = torch.from_numpy(cover.astype(np.float32))[None]
    flat.index_copy_(1, texels, torch.lerp(skin, torch.from_numpy(colour)[:, None], weight))


def paint_hair(model: MorphableModel, texture: Tensor, hair: HairStyle, beard: BeardStyle) -> None:
    """Paints scalp and beard into an albedo map, in place.

    Args:
        model: Face model.
        texture: [3, h, w] linear albedo of a person.
        hair: Hair on the head.
        beard: Facial hair.
    """
    side = texture.shape[-1]
    tables = _texels(model.data.template, model, side)
    grain = noise_pool("white")[hair.seed % 8].reshape(-1).numpy()
    soft = noise_pool("cloud")[beard.seed % 8].reshape(-1).numpy()
    if hair.shade > 0:
        texels = tables.scalp.numpy() % grain.size
        inside = hairline(hair, tables.azimuth) - tables.polar - 0.02
        inside = inside + 0.03 * grain[texels] + 0.015 * soft[texels]
        cover = (inside / (2 * _SOFT_RAD) + 0.4).clip(0, 1) * hair.shade
        if hair.kind == "horseshoe" or hair.crown > 0:
            cover *= _thin(hair, tables)
        _blend(texture, tables.scalp, hair.colour * 0.8, cover * (1 + 0.12 * grain[texels]).clip(0, 1))
    if beard.shade > 0:
        texels = tables.jaw.numpy() % grain.size
        cover = growth(beard, beard_tables(model), tables.places, tables.share) * beard.shade
        cover *= (1 + 0.25 * grain[texels] + beard.bald_spots * 0.4 * soft[texels]).clip(0, 1.25)
        if beard.kind == "shadow":  # dark hair under the skin, bluish
            flat, dark = texture.view(3, -1), torch.tensor([1.5, 1.2, 1.0])[:, None]
            skin = flat.index_select(1, tables.jaw)
            weight = torch.from_numpy(cover.astype(np.float32))
            flat.index_copy_(1, tables.jaw, skin * (-weight * dark).exp())
        else:
            _blend(texture, tables.jaw, beard.colour, cover.clip(0, 0.95))


def _thin(hair: HairStyle, tables: HairTexels) -> np.ndarray:
    """[N] how much hair a thinning crown leaves."""
    if hair.kind == "horseshoe":
        top = np.radians(58) + 0.25 * np.cos(tables.azimuth)
        side = ((np.abs(tables.azimuth) - np.radians(48)) / 0.12).clip(0.05, 1)
        return ((tables.polar - top) / 0.12).clip(0.05, 1) * side
    y, r = np.cos(tables.polar), np.sin(tables.polar)
    away = np.arccos((y * np.cos(0.35) - r * np.cos(tables.azimuth) * np.sin(0.35)).clip(-1, 1))
    return ((away - 0.8 * hair.crown) / (0.4 * hair.crown)).clip(0.15, 1)
