# SPDX-License-Identifier: Apache-2.0
"""Texture from a photo: its colours without its light where it shows the skin, completed elsewhere.

Everything is done on logarithms of albedo, where light and tone are sums:
photo texels = log photo - log shading; unseen texels take the mirrored photo texel, or else the model's
albedo, plus a smooth correction that carries the photo's tone over the border.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.errors import ShapeError
from hiface.export.delit import (
    BLEND_FINENESS,
    CAST_LIMIT,
    COARSE,
    FLOOR,
    Layer,
    PhotoView,
    delit_layer,
    extend,
    merged,
    skin_map,
)
from hiface.export.eyes import paint_irises
from hiface.export.morphs import check_single
from hiface.morphable import MorphableModel
from hiface.render.pyramid import blur, push_pull, resize, smoothstep
from hiface.render.texels import (
    head_region,
    plain_skin,
    texel_surface,
)
from hiface.types import FaceParams

GREY_LIMIT = 0.35
"""The brightness of completed skin may differ from the tone of the face by this logarithm."""
ALBEDO_BLEND = 0.65
"""Share of the coarse albedo in what is smooth (Jiang et al. 2018 show 0.65 and 0.35)."""


@dataclass(frozen=True)
class TextureBake:
    """A texture in the model's UV layout.

    Attributes:
        image_srgb: [3, S, S] sRGB albedo, 0..1, without gaps.
        seen: [S, S] bool, texels whose colour comes from the photo itself.
    """

    image_srgb: Tensor
    seen: Tensor


def bake_texture(
    model: MorphableModel,
    params: FaceParams,
    image_linear: Tensor,
    *,
    size: int = 1024,
    displacement: Tensor | None = None,
    blend: float = ALBEDO_BLEND,
) -> TextureBake:
    """Bakes the photo's colours into the model's texture.

    Args:
        model: The face model; its skin chart is mirror-symmetric about u = 0.5.
        params: One fitted face, without batch dimensions.
        image_linear: [3, H, W] linear RGB, the upright photo that `params.camera` belongs to.
        size: Side of the texture in texels.
        displacement: [1, D, D] metres, relief whose shading is light and not colour, or None.
        blend: Share beta of the coarse albedo in rho = beta rho_c + (1 - beta) rho_f where the photo shows
            the skin, of what is smooth over half a centimetre; finer marks are those of the photo.

    Returns:
        The texture. Eyes, teeth and the inside of the mouth have the model's colours.

    Raises:
        ShapeError: `params` is a batch or the image has the wrong shape.
    """
    check_single(params)
    if image_linear.dim() != 3 or image_linear.shape[0] != 3:
        raise ShapeError(f"image_linear must be [3, H, W], got {tuple(image_linear.shape)}")
    return bake_views(model, [PhotoView(params, image_linear, displacement)], size=size, blend=blend)


def bake_views(
    model: MorphableModel,
    views: Iterable[PhotoView],
    *,
    size: int = 1024,
    blend: float = ALBEDO_BLEND,
    iris_colour: Tensor | None = None,
) -> TextureBake:
    """Bakes the colours of several photos of a person into one texture.

    Args:
        model: The face model.
        views: At least one photo; all of the same albedo. Taken one after the other.
        size: Side of the texture in texels.
        blend: As for `bake_texture`.
        iris_colour: [3] linear albedo; the model's irises if None.

    Returns:
        The texture.

    Raises:
        ShapeError: There is no photo.
    """
    layers, px_per_m, surface, base = [], [], None, None
    with torch.no_grad():
        for view in views:
            surface = texel_surface(model, view.params, size)
            base = _model_log_albedo(model, view.params, size)
            layers.append(delit_layer(model, view, surface, base))
            px_per_m.append(view.px_per_m)
        if surface is None or base is None:
            raise ShapeError("a texture needs at least one photo")
        skin = skin_map(model, surface)
        photo, tone = merged(layers, px_per_m)
        photo = Layer(photo.log + tone[:, None, None], photo.weight)
        base = base + torch.where(skin, tone[:, None, None], 0.5 * tone.mean())
        photo = _blended(photo, base, blend, resize(plain_skin(model, COARSE)[None], size)[0])
        log = _complete(photo, base, skin)
        albedo = push_pull(log.exp(), surface.covered.to(log.dtype)).clamp(0.0, 1.0)
        if iris_colour is not None:
            albedo = paint_irises(model, albedo, iris_colour)
    return TextureBake(linear_to_srgb(albedo), photo.weight > 0.5)


def bake_photo_texture(
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    *,
    size: int = 1024,
    displacement: Tensor | None = None,
    blend: float = ALBEDO_BLEND,
) -> TextureBake:
    """Like `bake_texture`, for a photo as it was read: [H, W, 3] uint8 sRGB.

    Only the part that shows the head becomes floats, so that a photo of 100 megapixels needs little memory.
    """
    view = photo_view(model, params, image_srgb, displacement)
    return bake_views(model, [view], size=size, blend=blend)


def photo_view(
    model: MorphableModel, params: FaceParams, image_srgb: np.ndarray, displacement: Tensor | None = None
) -> PhotoView:
    """The part of a photo [H, W, 3] uint8 sRGB that shows the head, for `bake_views`."""
    check_single(params)
    region, camera = head_region(model, params, image_srgb)
    return PhotoView(params.replace(camera=camera), srgb_to_linear(region), displacement)


def model_texture(model: MorphableModel, albedo: Tensor, *, size: int = 1024) -> Tensor:
    """The model's own albedo as a texture.

    Args:
        model: The face model.
        albedo: [a] sigma.
        size: Side of the texture in texels.

    Returns:
        [3, S, S] sRGB, 0..1.
    """
    with torch.no_grad():
        return linear_to_srgb(resize(model.albedo_map(albedo), size))


def _model_log_albedo(model: MorphableModel, params: FaceParams, size: int) -> Tensor:
    return resize(model.albedo_map(params.albedo), size).clamp_min(FLOOR).log()


def _blended(photo: Layer, base: Tensor, blend: float, plain: Tensor) -> Layer:
    """Moves what is smooth in the photo's colours to the model's by a share `blend`; skin is `plain`."""
    if blend == 0.0 or not bool((photo.weight > 0.5).any()):
        return photo
    smooth = extend(photo.log - base, photo.weight * plain, plain.shape[-1], smoothing=BLEND_FINENESS)
    return Layer(photo.log - blend * smooth, photo.weight)


def _complete(photo: Layer, base: Tensor, skin: Tensor) -> Tensor:
    """Photo over mirrored photo over model, each corrected smoothly towards the one above it."""
    size = skin.shape[-1]
    coarse = min(COARSE, size)
    reach = resize(blur(resize(photo.weight[None], coarse), coarse // 16), size)[0]
    tone = extend(photo.log - base, photo.weight, size)
    symmetric_reach = torch.maximum(reach, reach.flip(-1))
    fill = base + _limited(tone) * smoothstep(symmetric_reach, 0.0, 0.25) * skin
    mirror = Layer(photo.log.flip(-1), photo.weight.flip(-1) * skin)
    if bool((mirror.weight > 0).any()):
        both = photo.weight * mirror.weight
        step = (
            extend(photo.log - mirror.log, both, size) if float(both.max()) > 0.1 else torch.zeros_like(fill)
        )
        fill = fill + mirror.weight * (mirror.log + step - fill)
    return fill + photo.weight * (photo.log - fill)


def _limited(tone: Tensor) -> Tensor:
    """Keeps a correction of tone small: what is large at the border of the visible area is no skin tone."""
    grey = tone.mean(dim=0, keepdim=True)
    return grey.clamp(-GREY_LIMIT, GREY_LIMIT) + (tone - grey).clamp(-CAST_LIMIT, CAST_LIMIT)
