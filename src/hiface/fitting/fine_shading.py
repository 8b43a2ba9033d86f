# SPDX-License-Identifier: Apache-2.0
"""What the fine shading of a photo says about relief, texel by texel.

    target = HP[ log I - log(rho_c E(n)) ],   modelled = log E(n'(d)) - log E(n) + cavity(d)

with luminance I, the coarse albedo rho_c, and the light E that reaches a normal n through the head's own
shadow. HP takes away what is smooth over a centimetre or two: errors of coarse shape, light and tone. Brows,
lips and lids are left out, whose colours no face model knows to the texel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.detail.displacement import CAVITY, CAVITY_M, bend_normals, relief_slopes
from hiface.detail.sd_detail import detail_space
from hiface.fitting.photometric_energy import luminance
from hiface.fitting.shading import sh_basis_jacobian
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.pyramid import blur, resize
from hiface.render.shade import sh_basis
from hiface.render.texels import crop_to_head, photo_weights, plain_skin, texel_surface
from hiface.render.texture import sample_texture
from hiface.render.visibility import reaching_light
from hiface.types import FaceParams

_FLOOR = 1e-3
_CLIPPED = 0.98
_FEWEST_TEXELS = 300
_OUTLIER = 3.0  # robust standard deviations from which a texel counts less for what is smooth
_LOST = luminance(torch.tensor(CAVITY)).item()


@dataclass(frozen=True)
class TexelPlaces:
    """Some texels of a square map.

    Attributes:
        size: Side of the map.
        texels: [N] int64 places in the flattened map.
        beside: [4, N] int64 numbers of the texels at the right, left, below and above; N for one that is not
            among them.
    """

    size: int
    texels: Tensor
    beside: Tensor

    @staticmethod
    def of(texels: Tensor, size: int) -> TexelPlaces:
        """Finds the neighbours of texels [N]; the map ends with a texel that is not among them."""
        number = torch.full(((size + 2) ** 2,), len(texels), device=texels.device)
        within = (texels // size + 1) * (size + 2) + texels % size + 1
        number[within] = torch.arange(len(texels), device=texels.device)
        steps = torch.tensor([1, -1, size + 2, -size - 2], device=texels.device)
        return TexelPlaces(size, texels, number[within + steps[:, None]])

    def to_map(self, values: Tensor) -> Tensor:
        """Values [*B, N] as maps [*B, size, size], 0 elsewhere."""
        maps = values.new_zeros(*values.shape[:-1], self.size * self.size)
        maps[..., self.texels] = values
        return maps.unflatten(-1, (self.size, self.size))

    def neighbours(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values [*B, N] at the right, at the left, below and above, each [*B, N]; 0 beyond the texels."""
        more = F.pad(values, (0, 1))
        return tuple(more.index_select(-1, index) for index in self.beside)

    def differences(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Differences of the neighbours along u and v of values [*B, N], each [*B, N]."""
        right, left, below, above = self.neighbours(values)
        return right - left, below - above


@dataclass(frozen=True)
class FineShading:
    """What a photo says at N texels of a square map.

    Attributes:
        places: Where the texels lie and what is beside them.
        target: [N] high-passed logarithm of brightness over that of the smooth model.
        weight: [N] how well the photo shows each texel, 0..1; 0 where it is left out.
        normals: [N, 3] smooth unit normals, camera axes.
        per_u: [N, 3] change of the normal per metre of difference along u; `per_v` likewise.
        per_v: [N, 3].
        light: [N, 9] luminance of the light that reaches each texel, spherical harmonics, camera axes.
        own_share: Share of what is looked at that the photo has pixels of its own for; below 1 where it was
            enlarged.
    """

    places: TexelPlaces
    target: Tensor
    weight: Tensor
    normals: Tensor
    per_u: Tensor
    per_v: Tensor
    light: Tensor
    own_share: float = 1.0

    def modelled(self, displacement: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logarithm of the brightness with relief over that without.

        Args:
            displacement: [N] metres.

        Returns:
            The logarithm [N], and its derivatives [N] to the differences along u and v and to the
            displacement itself, per metre.
        """
        d_u, d_v = self.places.differences(displacement)
        slopes = self.per_u, self.per_v
        bent = bend_normals(self.normals, slopes, (d_u[:, None], d_v[:, None]), 1)
        plain, detailed = ((sh_basis(n) * self.light).sum(1) for n in (self.normals, bent))
        floor = 0.05 * plain[self.weight > 0.5].median().clamp_min(_FLOOR)
        plain, detailed = plain.clamp_min(floor), detailed.clamp_min(floor)
        turned = (sh_basis_jacobian(bent) * self.light[..., None]).sum(dim=1) / detailed[:, None]
        turned = turned - bent * (turned * bent).sum(dim=1, keepdim=True)
        shade = (displacement.clamp_max(0) / CAVITY_M).exp()
        logarithm = (detailed / plain).log() + _LOST * (shade - 1)
        to_u, to_v = (-(turned * s).sum(dim=1) for s in slopes)
        return logarithm, to_u, to_v, torch.where(displacement < 0, shade * (_LOST / CAVITY_M), 0.0)


def read_fine_shading(
    model: MorphableModel,
    params: FaceParams,
    image_linear: Tensor,
    places: TexelPlaces,
    side_px: tuple[int, int],
    smooth_texels: int,
) -> FineShading | None:
    """Compares a photo with the smooth model.

    Args:
        model: Face model.
        params: One fitted face, without batch dimensions; its light is that without the head's own shadow.
        image_linear: [3, H, W] linear RGB, the photo of `params.camera`.
        places: Texels to look at.
        side_px: The head's longer side in the photo is brought within these limits: what is finer than the
            map's texels would be aliased.
        smooth_texels: Radius of the bell whose mean HP takes away.

    Returns:
        FineShading, or None where too little skin is seen.
    """
    size, verts_cam = places.size, model.vertices_cam(params)
    crop = crop_to_head(image_linear, params.camera, verts_cam, side_px)
    if crop is None:
        return None
    surface = texel_surface(model, params, size)
    visible = surface.to_map(photo_weights(surface, crop, verts_cam, model.triangles)[:, None])
    visible = visible * plain_skin(model, size)
    light = luminance(reaching_light(model, params.light, params.camera.R))
    normals = vertex_normals(verts_cam, model.triangles)
    lifted = detail_space(model, size).lift(torch.cat([verts_cam, normals, light], dim=1))
    position, normal = lifted[:3], unit(lifted[3:6], 0)
    slopes = relief_slopes(position, normal)
    albedo = resize(model.albedo_map(params.albedo), size)

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(1)[:, places.texels].t()

    normals, light, weight = rows(normal), rows(lifted[6:]), rows(visible)[:, 0]
    shading = (sh_basis(normals) * light).sum(1)
    uv = crop.camera.cam_to_px(rows(position)) / light.new_tensor([crop.camera.width, crop.camera.height])
    colour = sample_texture(crop.image_linear, uv)
    brightness = luminance(colour)
    usable = (brightness > _FLOOR) & (shading > 0.1 * shading.median().clamp_min(_FLOOR))
    weight = weight * (usable & (colour.amax(1) < _CLIPPED))
    if int((weight > 0.5).sum()) < _FEWEST_TEXELS:
        return None
    smooth = luminance(rows(albedo)) * shading
    ratio = (brightness.clamp_min(_FLOOR) / smooth.clamp_min(_FLOOR)).log()
    enlarged = max(1.0, float(crop.camera.focal_px / params.camera.focal_px))
    seen = FineShading(places, ratio, weight, normals, rows(slopes[0]), rows(slopes[1]), light, enlarged**-2)
    return _high_passed(seen, smooth_texels)


def _high_passed(seen: FineShading, radius: int) -> FineShading:
    """Takes the mean over a bell away, twice: texels far from the first mean hardly count for the second."""
    weight, target = seen.weight, seen.target
    for _ in range(2):
        maps = blur(seen.places.to_map(torch.stack([seen.target * weight, weight])), radius)
        total, mass = maps.flatten(1)[:, seen.places.texels]
        target = seen.target - total / mass.clamp_min(1e-3)
        spread = (1.4826 * target[seen.weight > 0.5].abs().median()).clamp_min(1e-3)
        weight = seen.weight / (1 + (target / (_OUTLIER * spread)) ** 2)
    return replace(seen, target=target)
