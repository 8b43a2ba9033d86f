# SPDX-License-Identifier: Apache-2.0
"""A photo's colours without its light, over the texture square; everything on logarithms of albedo.

    rho_f = C_I / E(n'),   E: the light of the fit through the head's own shadow, n': the normals with relief

(Jiang et al. 2018). What no matte light explains is taken away: highlights, what is not skin, side light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.detail.displacement import cavity_log
from hiface.detail.sd_detail import detail_space, detailed_normals
from hiface.export.folds import unfolded
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.pyramid import blur, push_pull, resize, smoothstep
from hiface.render.shade import sh_basis
from hiface.render.texels import (
    PhotoCrop,
    TexelSurface,
    crop_to_head,
    photo_weights,
    plain_skin,
)
from hiface.render.texture import sample_texture
from hiface.render.uv_space import uv_space
from hiface.render.visibility import reaching_light
from hiface.types import FaceParams

SHADING_RANGE = (0.35, 2.5)
"""Shading is clamped to this range around its median, so that dark light does not amplify noise."""
TONE_LIMIT = 1.2
HIGHLIGHT = 0.3
"""Logarithm above the model's tone at which a texel counts as a highlight and is compressed."""
TOO_BRIGHT = (0.15, 0.5)
"""Logarithms beyond `HIGHLIGHT` between which a texel ceases to be believed."""
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
BLEND_FINENESS = 64
"""What is smooth: over this part of the texture, half a centimetre or so."""
OWN_SHADOW = (-0.7, 0.2)
"""Logarithm of the light that the head's own shadow leaves; light from nearby skin is not in it."""
_LEAST_LINE = 2e-4
SHARPNESS = 4
"""Power of a view's weight where several photos show a texel."""
_SMALLEST_SPREAD = (0.16, 0.09, 0.09)
_FEWEST_TEXELS = 50
FLOOR = 2e-3
COARSE = 256


@dataclass(frozen=True)
class PhotoView:
    """A photo of a face that a texture is read from.

    Attributes:
        params: The fitted face, without batch dimensions.
        image_linear: [3, H, W] linear RGB, the photo of `params.camera`.
        displacement: [1, D, D] metres, relief whose shading is light and not colour, or None.
    """

    params: FaceParams
    image_linear: Tensor
    displacement: Tensor | None = None

    @property
    def px_per_m(self) -> float:
        """Resolution at the face, pixels per metre."""
        camera = self.params.camera
        return float(camera.focal_px / camera.t[2].clamp_min(1e-3))


@dataclass(frozen=True)
class Layer:
    """Logarithm of albedo [3, S, S] and how far it is to be believed [S, S]."""

    log: Tensor
    weight: Tensor


def delit_layer(
    model: MorphableModel, view: PhotoView, surface: TexelSurface, base: Tensor
) -> tuple[Layer, Tensor]:
    """A photo's de-lit colours.

    Args:
        model: Face model.
        view: The photo.
        surface: From `texel_surface` of `view.params`.
        base: [3, S, S] logarithm of the coarse albedo.

    Returns:
        The layer brought to the tone of `base`, and the tone that was taken away, [3].
    """
    skin = skin_map(model, surface)
    photo = _photo_layer(model, view.params, view.image_linear, surface, skin)
    tone = _tone(photo, base)
    photo = Layer(photo.log - tone[:, None, None], photo.weight)
    plain = resize(plain_skin(model, COARSE)[None], surface.size)[0]
    photo = _tame_highlights(_balance(_only_skin(photo, surface), skin), base, plain)
    if view.displacement is not None:
        photo = _without_relief(photo, model, view.params, view.displacement, skin)
    return photo, tone


def merged(layers: list[tuple[Layer, Tensor]], px_per_m: list[float]) -> tuple[Layer, Tensor]:
    """One layer of several photos of a person, and their mean tone; the best view of a texel counts most.

    Args:
        layers: From `delit_layer`.
        px_per_m: Resolution of each photo at the face, pixels per metre.
    """
    if len(layers) == 1:
        return layers[0]
    fineness = [px / max(px_per_m) for px in px_per_m]
    strength = [(fine * layer.weight) ** SHARPNESS for fine, (layer, _) in zip(fineness, layers, strict=True)]
    total = torch.stack(strength).sum(0).clamp_min(1e-8)
    log = torch.stack([layer.log * s for (layer, _), s in zip(layers, strength, strict=True)]).sum(0) / total
    mass = torch.stack([layer.weight.sum() for layer, _ in layers]).clamp_min(1e-6)
    tone = (torch.stack([t for _, t in layers]) * mass[:, None]).sum(0) / mass.sum()
    return Layer(log, torch.stack([layer.weight for layer, _ in layers]).amax(0)), tone


def _photo_layer(
    model: MorphableModel,
    params: FaceParams,
    image_linear: Tensor,
    surface: TexelSurface,
    skin: Tensor,
) -> Layer:
    """De-lit photo colours of the skin, with weights that fall to zero inside the visible area."""
    verts_cam = model.vertices_cam(params)
    crop = crop_to_head(image_linear, params.camera, verts_cam)
    if crop is None:
        return Layer(
            image_linear.new_zeros(3, surface.size, surface.size), torch.zeros_like(skin, dtype=torch.float)
        )
    weight = surface.to_map(photo_weights(surface, crop, verts_cam, model.triangles)[:, None])[0]
    space = uv_space(model.uv, model.uv_triangles, model.triangles, model.data.n_vertices, surface.size)
    weight = weight * space.lift(unfolded(model, params)[:, None].to(model.uv))[0]
    weight = torch.where(skin, weight, 0.0)
    radius = max(1, surface.size // 128)
    feathered = torch.minimum(weight, smoothstep(blur(weight[None], radius)[0], 0.35, 0.95))
    shade = _own_shadow(model, params)
    log = surface.to_map(_delit_log(surface, crop, params.light)) - resize(shade, surface.size)
    return Layer((log + _exposure(log, feathered)).clamp_max(0.0), feathered)


def _own_shadow(model: MorphableModel, params: FaceParams) -> Tensor:
    """[3, s, s] logarithm of what the head's own shadow leaves of the light on each texel."""
    space = detail_space(model, COARSE)
    verts_cam = model.vertices_cam(params)
    normals = vertex_normals(verts_cam, model.triangles)
    basis, light = sh_basis(normals), reaching_light(model, params.light, params.camera.R)
    plain = basis @ params.light
    reaching = (basis[:, None] @ light)[:, 0]
    least = 0.1 * plain.median().clamp_min(FLOOR)
    lost = (reaching.clamp_min(least) / plain.clamp_min(least)).log().clamp(*OWN_SHADOW)
    return space.lift(lost)


def _without_relief(
    photo: Layer, model: MorphableModel, params: FaceParams, displacement: Tensor, skin: Tensor
) -> Layer:
    """Takes the shading of relief out of the photo's colours, as far as these agree with it.

    Where the photo shows no such line, or a line beside it, dividing by its shading would draw one.
    """
    size, R = displacement.shape[-1], params.camera.R
    shape = model.vertices(params.identity, params.expression, params.pose)

    def shading(relief: Tensor) -> Tensor:
        normals = torch.einsum("ij,jhw->hwi", R, detailed_normals(model, shape, relief))
        return (sh_basis(normals) @ params.light).movedim(-1, 0)

    plain = shading(torch.zeros_like(displacement))
    least = 0.1 * plain[:, resize(skin[None].float(), size)[0] > 0.5].median().clamp_min(FLOOR)
    line = (shading(displacement).clamp_min(least) / plain.clamp_min(least)).log() + cavity_log(displacement)
    line = resize(line, skin.shape[-1]) * skin
    grey, radius = line.mean(dim=0), max(1, skin.shape[-1] // BLEND_FINENESS)
    seen = photo.log.mean(dim=0) - extend(photo.log, photo.weight, len(skin), BLEND_FINENESS).mean(dim=0)
    sums = blur(torch.stack([seen * grey, grey * grey]) * photo.weight, radius)
    share = (sums[0] / (sums[1] + _LEAST_LINE)).clamp(0.0, 1.0)
    return Layer(photo.log - share * line, photo.weight)


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
    shading = believable_shading(shading, facing if bool(facing.any()) else torch.ones_like(facing))
    return colour.clamp_min(FLOOR).log() if shading is None else (colour / shading).clamp_min(FLOOR).log()


def believable_shading(
    shading: Tensor,
    seen: Tensor,
    cast_limit: float = CAST_LIMIT,
    within: tuple[float, float] = SHADING_RANGE,
) -> Tensor | None:
    """A fit's shading without what is more likely the skin's colour, or too dark to divide by.

    Args:
        shading: [N, 3] linear, of a fitted light.
        seen: [N] bool, where the camera sees the surface; somewhere at least.
        cast_limit: The median colour is believed up to this logarithm from grey.
        within: Grey is clamped to this range around its median.

    Returns:
        [N, 3], or None where there is no light.
    """
    middle = shading[seen].mean(dim=1).median()
    if float(middle) < 1e-4:
        return None
    grey = shading.mean(dim=1, keepdim=True).clamp(within[0] * middle, within[1] * middle)
    cast = (shading / grey.clamp_min(1e-6)).clamp_min(0.1).log()
    usual = cast[seen].median(dim=0).values.clamp(-cast_limit, cast_limit)
    return grey * (usual + (cast - usual).clamp(-CAST_SPREAD, CAST_SPREAD)).exp()


def _tone(photo: Layer, base: Tensor) -> Tensor:
    """[3] median difference between the photo's and the model's colours."""
    good = photo.weight > 0.5
    if not bool(good.any()):
        return base.new_zeros(3)
    return (photo.log - base)[:, good].median(dim=1).values.clamp(-TONE_LIMIT, TONE_LIMIT)


def _only_skin(photo: Layer, surface: TexelSurface) -> Layer:
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
    return Layer(photo.log, photo.weight * (inner + (1.0 - inner) * alike))


def _balance(photo: Layer, skin: Tensor) -> Layer:
    """Takes away the smooth difference of left and right, which is light that the fit did not explain."""
    both = photo.weight * photo.weight.flip(-1) * skin
    if float(both.max()) < 0.1:
        return photo
    step = extend(photo.log - photo.log.flip(-1), both, skin.shape[-1], smoothing=16)
    return Layer(photo.log - 0.5 * step, photo.weight)


def _tame_highlights(photo: Layer, base: Tensor, plain: Tensor) -> Layer:
    """Compresses what is brighter than the model's skin: reflections, which are no colour.

    What is far brighter is not believed at all: the white of an eye, teeth, or skin where the fitted light is
    much too dark. Where the model has brows and lips its skin beside them is the measure, as those of the
    photo are often beside the model's, or paler.
    """
    skin = torch.maximum(base.mean(dim=0), extend(base, plain, base.shape[-1]).mean(dim=0))
    excess = (photo.log.mean(dim=0) - skin - HIGHLIGHT).clamp_min(0.0)
    return Layer(photo.log - 0.75 * excess, photo.weight * (1.0 - smoothstep(excess, *TOO_BRIGHT)))


def extend(values: Tensor, weight: Tensor, size: int, smoothing: int = 64) -> Tensor:
    """`values`, smoothed over 1 / `smoothing` of the map and continued over all of it: [3, S, S]."""
    coarse = min(COARSE, size)
    weight = weight * weight
    mass = resize(weight[None], coarse)[0]
    mean = resize(torch.where(weight > 0, values, 0.0) * weight, coarse) / mass.clamp_min(1e-6)
    trust = smoothstep(mass, 0.05, 0.5)
    smooth = blur(push_pull(mean, trust), coarse // smoothing)
    return F.interpolate(smooth[None], size=(size, size), mode="bilinear", align_corners=False)[0]


def skin_map(model: MorphableModel, surface: TexelSurface) -> Tensor:
    """[S, S] bool; every texel of a model without a part of that name."""
    names = model.data.part_names
    if "skin" not in names:
        return surface.covered
    is_skin = (surface.part == names.index("skin"))[:, None]
    return surface.to_map(is_skin.to(surface.points_cam.dtype))[0] > 0.5
