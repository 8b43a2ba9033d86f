# SPDX-License-Identifier: Apache-2.0
"""Texture from a photo: its colours without its light where it shows the skin, completed elsewhere.

Everything is done on logarithms of albedo, where light and tone are sums:
photo texels = log photo - log shading; unseen texels take the mirrored photo texel, or else the model's
albedo, plus a smooth correction that carries the photo's tone over the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.data.colour import linear_to_srgb, srgb_to_linear
from hiface.detail.displacement import cavity_log
from hiface.detail.sd_detail import detail_space, detailed_normals
from hiface.errors import ShapeError
from hiface.export.morphs import check_single
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.pyramid import blur, push_pull, resize, smoothstep
from hiface.render.shade import sh_basis
from hiface.render.texels import (
    PhotoCrop,
    TexelSurface,
    crop_to_head,
    head_region,
    photo_weights,
    plain_skin,
    texel_surface,
)
from hiface.render.texture import sample_texture
from hiface.render.visibility import light_transfer, turned_transfer
from hiface.types import FaceParams

SHADING_RANGE = (0.35, 2.5)
"""Shading is clamped to this range around its median, so that dark light does not amplify noise."""
TONE_LIMIT = 1.2
HIGHLIGHT = 0.3
"""Logarithm above the model's tone at which a texel counts as a highlight and is compressed."""
SKIN_DISTANCE = (2.0, 3.2)
"""Distances from the inner face's colour, in its spreads, between which a texel ceases to be skin."""
CAST_LIMIT = 0.15
"""The light's median colour may differ from grey by this logarithm: photos are white-balanced, and a strong
colour in the fitted light is mostly skin colour."""
CAST_SPREAD = 0.07
"""The light's colour may differ from its median colour by this logarithm."""
BRIGHTEST_SKIN = (0.55, 0.90)
"""Largest believable median and 98th percentile of the strongest channel of skin albedo; a fitted light that
is too dim exceeds them."""
GREY_LIMIT = 0.35
"""The brightness of completed skin may differ from the tone of the face by this logarithm."""
ALBEDO_BLEND = 0.65
"""Share of the coarse albedo in what is smooth (Jiang et al. 2018 show 0.65 and 0.35)."""
BLEND_FINENESS = 64
"""What is smooth: over this part of the texture, half a centimetre or so."""
OWN_SHADOW = (-0.7, 0.2)
"""Logarithm of the light that the head's own shadow leaves; light from nearby skin is not in it."""
_LEAST_LINE = 2e-4
_SMALLEST_SPREAD = (0.16, 0.09, 0.09)
_FEWEST_TEXELS = 50
_FLOOR = 2e-3
_COARSE = 256


@dataclass(frozen=True)
class TextureBake:
    """A texture in the model's UV layout.

    Attributes:
        image_srgb: [3, S, S] sRGB albedo, 0..1, without gaps.
        seen: [S, S] bool, texels whose colour comes from the photo itself.
    """

    image_srgb: Tensor
    seen: Tensor


@dataclass(frozen=True)
class _Layer:
    """Logarithm of albedo [3, S, S] and how far it is to be believed [S, S]."""

    log: Tensor
    weight: Tensor


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
    with torch.no_grad():
        surface = texel_surface(model, params, size)
        base = _model_log_albedo(model, params, size)
        skin = _skin_map(model, surface)
        photo = _photo_layer(model, params, image_linear, surface, skin)
        tone = _tone(photo, base)
        base = base + tone[:, None, None] * torch.where(skin, 1.0, 0.5)
        plain = resize(plain_skin(model, _COARSE)[None], size)[0]
        photo = _tame_highlights(_balance(_only_skin(photo, surface), skin), base, plain)
        if displacement is not None:
            photo = _without_relief(photo, model, params, displacement, skin)
        photo = _blended(photo, base, blend, plain)
        log = _complete(photo, base, skin)
        albedo = push_pull(log.exp(), surface.covered.to(log.dtype)).clamp(0.0, 1.0)
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
    check_single(params)
    region, camera = head_region(model, params, image_srgb)
    seen = params.replace(camera=camera)
    return bake_texture(
        model, seen, srgb_to_linear(region), size=size, displacement=displacement, blend=blend
    )


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
    return resize(model.albedo_map(params.albedo), size).clamp_min(_FLOOR).log()


def _skin_map(model: MorphableModel, surface: TexelSurface) -> Tensor:
    """[S, S] bool; every texel of a model without a part of that name."""
    names = model.data.part_names
    if "skin" not in names:
        return surface.covered
    is_skin = (surface.part == names.index("skin"))[:, None]
    return surface.to_map(is_skin.to(surface.points_cam.dtype))[0] > 0.5


def _photo_layer(
    model: MorphableModel,
    params: FaceParams,
    image_linear: Tensor,
    surface: TexelSurface,
    skin: Tensor,
) -> _Layer:
    """De-lit photo colours of the skin, with weights that fall to zero inside the visible area."""
    verts_cam = model.vertices_cam(params)
    crop = crop_to_head(image_linear, params.camera, verts_cam)
    if crop is None:
        return _Layer(
            image_linear.new_zeros(3, surface.size, surface.size), torch.zeros_like(skin, dtype=torch.float)
        )
    weight = surface.to_map(photo_weights(surface, crop, verts_cam, model.triangles)[:, None])[0]
    weight = torch.where(skin, weight, 0.0)
    radius = max(1, surface.size // 128)
    feathered = torch.minimum(weight, smoothstep(blur(weight[None], radius)[0], 0.35, 0.95))
    shade = _own_shadow(model, params)
    log = surface.to_map(_delit_log(surface, crop, params.light)) - resize(shade, surface.size)
    return _Layer((log + _exposure(log, feathered)).clamp_max(0.0), feathered)


def _own_shadow(model: MorphableModel, params: FaceParams) -> Tensor:
    """[3, s, s] logarithm of what the head's own shadow leaves of the light on each texel."""
    space = detail_space(model, _COARSE)
    verts_cam = model.vertices_cam(params)
    normals = vertex_normals(verts_cam, model.triangles)
    transfer = turned_transfer(light_transfer(model).to(params.light), params.camera.R)
    basis = sh_basis(normals)
    plain = basis @ params.light
    reaching = (basis[:, None] @ (transfer @ params.light))[:, 0]
    least = 0.1 * plain.median().clamp_min(_FLOOR)
    lost = (reaching.clamp_min(least) / plain.clamp_min(least)).log().clamp(*OWN_SHADOW)
    return space.lift(lost)


def _without_relief(
    photo: _Layer, model: MorphableModel, params: FaceParams, displacement: Tensor, skin: Tensor
) -> _Layer:
    """Takes the shading of relief out of the photo's colours, as far as these agree with it.

    Where the photo shows no such line, or a line beside it, dividing by its shading would draw one.
    """
    size, R = displacement.shape[-1], params.camera.R
    shape = model.vertices(params.identity, params.expression, params.pose)

    def shading(relief: Tensor) -> Tensor:
        normals = torch.einsum("ij,jhw->hwi", R, detailed_normals(model, shape, relief))
        return (sh_basis(normals) @ params.light).movedim(-1, 0)

    plain = shading(torch.zeros_like(displacement))
    least = 0.1 * plain[:, resize(skin[None].float(), size)[0] > 0.5].median().clamp_min(_FLOOR)
    line = (shading(displacement).clamp_min(least) / plain.clamp_min(least)).log() + cavity_log(displacement)
    line = resize(line, skin.shape[-1]) * skin
    grey, radius = line.mean(dim=0), max(1, skin.shape[-1] // BLEND_FINENESS)
    seen = photo.log.mean(dim=0) - _extend(photo.log, photo.weight, len(skin), BLEND_FINENESS).mean(dim=0)
    sums = blur(torch.stack([seen * grey, grey * grey]) * photo.weight, radius)
    share = (sums[0] / (sums[1] + _LEAST_LINE)).clamp(0.0, 1.0)
    return _Layer(photo.log - share * line, photo.weight)


def _blended(photo: _Layer, base: Tensor, blend: float, plain: Tensor) -> _Layer:
    """Moves what is smooth in the photo's colours to the model's by a share `blend`; skin is `plain`."""
    if blend == 0.0 or not bool((photo.weight > 0.5).any()):
        return photo
    smooth = _extend(photo.log - base, photo.weight * plain, plain.shape[-1], smoothing=BLEND_FINENESS)
    return _Layer(photo.log - blend * smooth, photo.weight)


def _exposure(log: Tensor, weight: Tensor) -> float:
    """Logarithm, zero or less, that brings albedo into the range of skin."""
    level = log.amax(dim=0)[weight > 0.5]
    if len(level) < _FEWEST_TEXELS:
        return 0.0
    middle, bright = (float(level.kthvalue(max(1, int(q * len(level)))).values) for q in (0.5, 0.98))
    return min(0.0, math.log(BRIGHTEST_SKIN[0]) - middle, math.log(BRIGHTEST_SKIN[1]) - bright)


def _delit_log(surface: TexelSurface, crop: PhotoCrop, light: Tensor) -> Tensor:
    """[N, 3] logarithm of photo / shading at the texels."""
    camera = crop.camera
    uv = camera.cam_to_px(surface.points_cam) / light.new_tensor([camera.width, camera.height])
    colour = sample_texture(crop.image_linear, uv)
    shading = sh_basis(surface.normals_cam) @ light
    facing = (surface.normals_cam * surface.points_cam).sum(dim=1) < 0
    middle = shading[facing].mean(dim=1).median() if bool(facing.any()) else shading.mean()
    if float(middle) < 1e-4:
        return colour.clamp_min(_FLOOR).log()
    grey = shading.mean(dim=1, keepdim=True).clamp(SHADING_RANGE[0] * middle, SHADING_RANGE[1] * middle)
    cast = (shading.clamp_min(0.1 * float(middle)) / grey).log()
    usual = cast[facing].median(dim=0).values.clamp(-CAST_LIMIT, CAST_LIMIT)
    shading = grey * (usual + (cast - usual).clamp(-CAST_SPREAD, CAST_SPREAD)).exp()
    return (colour / shading).clamp_min(_FLOOR).log()


def _tone(photo: _Layer, base: Tensor) -> Tensor:
    """[3] median difference between the photo's and the model's colours."""
    good = photo.weight > 0.5
    if not bool(good.any()):
        return base.new_zeros(3)
    return (photo.log - base)[:, good].median(dim=1).values.clamp(-TONE_LIMIT, TONE_LIMIT)


def _only_skin(photo: _Layer, surface: TexelSurface) -> _Layer:
    """Outside the inner face, drops what has another colour than it: hair, collar, background."""
    inner = surface.to_map(surface.inner_face[:, None])[0]
    sample = (photo.weight * inner) > 0.5
    if int(sample.sum()) < _FEWEST_TEXELS:
        return photo
    r, g, b = photo.log.unbind(0)
    features = torch.stack([(r + g + b) / 3.0, r - g, g - b])
    middle = features[:, sample].median(dim=1).values[:, None]
    spread = 1.5 * (features[:, sample] - middle).abs().median(dim=1).values
    spread = torch.maximum(spread, spread.new_tensor(_SMALLEST_SPREAD))
    distance = ((features - middle[:, None]) / spread[:, None, None]).square().sum(dim=0).sqrt()
    radius = max(1, surface.size // 170)
    alike = 1.0 - smoothstep(blur(distance.clamp_max(8.0)[None], radius)[0], *SKIN_DISTANCE)
    alike = torch.minimum(alike, smoothstep(blur(alike[None], 2 * radius)[0], 0.3, 0.9))
    return _Layer(photo.log, photo.weight * (inner + (1.0 - inner) * alike))


def _balance(photo: _Layer, skin: Tensor) -> _Layer:
    """Takes away the smooth difference of left and right, which is light that the fit did not explain."""
    both = photo.weight * photo.weight.flip(-1) * skin
    if float(both.max()) < 0.1:
        return photo
    step = _extend(photo.log - photo.log.flip(-1), both, skin.shape[-1], smoothing=16)
    return _Layer(photo.log - 0.5 * step, photo.weight)


def _tame_highlights(photo: _Layer, base: Tensor, plain: Tensor) -> _Layer:
    """Compresses what is much brighter than the model on plain skin: reflections, which are no colour.

    Brows of the photo are often beside the model's, or paler.
    """
    excess = ((photo.log - base).mean(dim=0) - HIGHLIGHT).clamp_min(0.0)
    return _Layer(photo.log - 0.75 * excess * plain, photo.weight)


def _complete(photo: _Layer, base: Tensor, skin: Tensor) -> Tensor:
    """Photo over mirrored photo over model, each corrected smoothly towards the one above it."""
    size = skin.shape[-1]
    coarse = min(_COARSE, size)
    reach = resize(blur(resize(photo.weight[None], coarse), coarse // 16), size)[0]
    tone = _extend(photo.log - base, photo.weight, size)
    symmetric_reach = torch.maximum(reach, reach.flip(-1))
    fill = base + _limited(tone) * smoothstep(symmetric_reach, 0.0, 0.25) * skin
    mirror = _Layer(photo.log.flip(-1), photo.weight.flip(-1) * skin)
    if bool((mirror.weight > 0).any()):
        both = photo.weight * mirror.weight
        step = (
            _extend(photo.log - mirror.log, both, size) if float(both.max()) > 0.1 else torch.zeros_like(fill)
        )
        fill = fill + mirror.weight * (mirror.log + step - fill)
    return fill + photo.weight * (photo.log - fill)


def _limited(tone: Tensor) -> Tensor:
    """Keeps a correction of tone small: what is large at the border of the visible area is no skin tone."""
    grey = tone.mean(dim=0, keepdim=True)
    return grey.clamp(-GREY_LIMIT, GREY_LIMIT) + (tone - grey).clamp(-CAST_LIMIT, CAST_LIMIT)


def _extend(values: Tensor, weight: Tensor, size: int, smoothing: int = 64) -> Tensor:
    """`values`, smoothed over 1 / `smoothing` of the map and continued over all of it: [3, S, S]."""
    coarse = min(_COARSE, size)
    weight = weight * weight
    mass = resize(weight[None], coarse)[0]
    mean = resize(torch.where(weight > 0, values, 0.0) * weight, coarse) / mass.clamp_min(1e-6)
    trust = smoothstep(mass, 0.05, 0.5)
    smooth = blur(push_pull(mean, trust), coarse // smoothing)
    return F.interpolate(smooth[None], size=(size, size), mode="bilinear", align_corners=False)[0]
