# SPDX-License-Identifier: Apache-2.0
"""Detail codes from a photo: SD-DeTail inside an optimisation (HiFace's "plug and play").

    E(phi) = k sum_p w_p rho(r_p / sigma) + |phi - phi_0|^2 / (2 s^2),
    r = HP[ log I - log(rho_c L.Y(n)) ] - [ log L.Y(n'(phi)) - log L.Y(n) ]

over the texels p of the face. n' are the normals bent by D(phi) = D_sta + M+ D_com + M- D_str; the dynamic
codes follow from phi and the expression, which is known. HP takes away what is smooth over a centimetre or
two: errors of coarse shape, light and tone. k says which share of the texels is independent. The shading
hardly leaves its linear range, so a few Gauss-Newton steps with all of the small dense Jacobian are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.detail.displacement import bend_normals, relief_slopes
from hiface.detail.sd_detail import detail_space, detail_values, expression_masks
from hiface.errors import FitError, ShapeError
from hiface.fitting.photometric_energy import luminance
from hiface.fitting.robust import geman_weight
from hiface.fitting.shading import sh_basis_jacobian
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.pyramid import blur, resize
from hiface.render.shade import sh_basis
from hiface.render.texels import crop_to_head, photo_weights, texel_surface
from hiface.render.texture import sample_texture
from hiface.types import FaceParams

Dynamic = Callable[[Tensor, Tensor], Tensor]
_FLOOR = 1e-3
_FEWEST_TEXELS = 300


@dataclass(frozen=True)
class DetailFitConfig:
    """Weights of the fit of detail codes.

    Attributes:
        side_px: The head's longer side in the photo is brought within these limits: what is finer than the
            map's texels would be aliased.
        smooth_texels: Radius of the bell whose mean HP takes away.
        scale: Geman-McClure scale in robust standard deviations: hairs, freckles and highlights drop out.
        floor: Smallest standard deviation of the logarithm of brightness.
        effective_share: Share k of the texels that are independent of each other: what is wrong at one is
            wrong at its neighbours.
        sigma: Standard deviation s of the codes about their start, 1 if they start at people's mean.
        iterations: Gauss-Newton steps.
    """

    side_px: tuple[int, int] = (256, 384)
    smooth_texels: int = 16
    scale: float = 2.0
    floor: float = 0.02
    effective_share: float = 0.1
    sigma: float = 1.0
    iterations: int = 4


@dataclass(frozen=True)
class _Seen:
    """What the photo says at the P texels of a basis.

    Attributes:
        target: [P] high-passed logarithm of brightness over that of the smooth model.
        weight: [P] how well the photo shows each texel, 0..1.
        normals: [P, 3] smooth unit normals, camera axes.
        per_u: [P, 3] change of the normal per metre of difference along u; `per_v` likewise.
        per_v: [P, 3].
        light: [9] of brightness.
    """

    target: Tensor
    weight: Tensor
    normals: Tensor
    per_u: Tensor
    per_v: Tensor
    light: Tensor


def fit_detail_codes(
    model: MorphableModel,
    basis: DetailBasis,
    dynamic: Dynamic,
    params: FaceParams,
    image_linear: Tensor,
    config: DetailFitConfig | None = None,
) -> Tensor:
    """Static detail codes that explain a photo's fine shading, given coarse shape, albedo, light and pose.

    Args:
        model: Face model.
        basis: Detail basis of the model.
        dynamic: Dynamic codes from static codes [1, S] and expression [1, E] (`DynamicCodes`).
        params: One face without batch dimensions; `params.static` is where the codes start, if there is one.
        image_linear: [3, H, W] linear RGB, the photo of `params.camera`, of its size.
        config: Weights.

    Returns:
        [S] static codes; the start, or zeros, where the photo shows too little of the face.

    Raises:
        ShapeError: The codes are not of the basis, or the dynamic codes are of another number.
        FitError: The fit left finite numbers.
    """
    config = config or DetailFitConfig()
    first = params.identity.new_zeros(basis.static.count) if params.static is None else params.static
    if first.shape != (basis.static.count,):
        raise ShapeError(f"the detail basis has {basis.static.count} static codes, got {tuple(first.shape)}")
    with torch.no_grad():
        seen = _read_photo(model, basis, params, image_linear, config)
        if seen is None:
            return first
        masks = expression_masks(model, params.identity, params.expression, basis)
    codes = _solve(basis, dynamic, params.expression, masks, seen, first, config)
    if not bool(torch.isfinite(codes).all()):
        raise FitError("the fit of detail codes left finite numbers; check the light and the photo")
    return codes


def _read_photo(
    model: MorphableModel,
    basis: DetailBasis,
    params: FaceParams,
    image_linear: Tensor,
    config: DetailFitConfig,
) -> _Seen | None:
    verts_cam = model.vertices_cam(params)
    crop = crop_to_head(image_linear, params.camera, verts_cam, config.side_px)
    if crop is None:
        return None
    surface = texel_surface(model, params, basis.size)
    visible = surface.to_map(photo_weights(surface, crop, verts_cam, model.triangles)[:, None])
    lifted = detail_space(model, basis.size).lift(
        torch.cat([verts_cam, vertex_normals(verts_cam, model.triangles)], dim=1)
    )
    position, normal = lifted[:3], unit(lifted[3:], 0)
    slopes = relief_slopes(position, normal)
    albedo = resize(model.albedo_map(params.albedo), basis.size)

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(1)[:, basis.texels].t()

    light = luminance(params.light)
    normals, weight = rows(normal), rows(visible)[:, 0]
    shading = sh_basis(normals) @ light
    uv = crop.camera.cam_to_px(rows(position)) / light.new_tensor([crop.camera.width, crop.camera.height])
    brightness = luminance(sample_texture(crop.image_linear, uv))
    usable = (brightness > _FLOOR) & (shading > 0.1 * shading.median().clamp_min(_FLOOR))
    weight = weight * usable
    if int((weight > 0.5).sum()) < _FEWEST_TEXELS:
        return None
    smooth = luminance(rows(albedo)) * shading
    ratio = (brightness.clamp_min(_FLOOR) / smooth.clamp_min(_FLOOR)).log()
    target = ratio - _weighted_blur(basis, ratio, weight, config.smooth_texels)
    return _Seen(target, weight, normals, rows(slopes[0]), rows(slopes[1]), light)


def _weighted_blur(basis: DetailBasis, values: Tensor, weight: Tensor, radius: int) -> Tensor:
    """[P] mean of `values` [P] over a bell, counted by `weight` [P]."""
    maps = blur(basis.scatter(torch.stack([values * weight, weight]))[:, 0], radius)
    total, mass = basis.gather(maps[:, None])
    return total / mass.clamp_min(1e-3)


def _solve(
    basis: DetailBasis,
    dynamic: Dynamic,
    expression: Tensor,
    masks: tuple[Tensor, Tensor],
    seen: _Seen,
    first: Tensor,
    config: DetailFitConfig,
) -> Tensor:
    """Gauss-Newton with robust weights."""

    def moving(codes: Tensor) -> Tensor:
        return dynamic(codes[None], expression[None])[0]

    still_rows = basis.static.rows
    moving_rows = torch.cat([masks[0] * basis.compressed.rows, masks[1] * basis.stretched.rows])
    codes, prior = first, 1.0 / config.sigma**2
    eye = torch.eye(len(first), dtype=first.dtype, device=first.device)
    for _ in range(config.iterations):
        moving_jacobian = torch.func.jacrev(moving)(codes)
        with torch.no_grad():
            parts = detail_values(basis, codes, moving(codes), masks)
            logarithm, slope_u, slope_v = _log_shading(seen, *_differences(basis, parts[0] + parts[1]))
            residual = seen.target - logarithm
            rows_u, rows_v = _differences(basis, torch.addmm(still_rows, moving_jacobian.T, moving_rows))
            jacobian = rows_u * slope_u + rows_v * slope_v
            good = seen.weight > 0.5
            sigma = (1.4826 * residual[good].abs().median()).clamp_min(config.floor)
            weight = seen.weight * geman_weight((residual / sigma) ** 2, config.scale) / sigma**2
            weighted = jacobian * (config.effective_share * weight)
            hessian = weighted @ jacobian.T + prior * eye
            gradient = weighted @ residual - prior * (codes - first)
            codes = codes + torch.linalg.solve(hessian, gradient)
    return codes.detach()


def _differences(basis: DetailBasis, values: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of the neighbours along u and v of values [*B, P] at a basis's texels."""
    maps = F.pad(basis.scatter(values)[..., 0, :, :], (1, 1, 1, 1))
    u = maps[..., 1:-1, 2:] - maps[..., 1:-1, :-2]
    v = maps[..., 2:, 1:-1] - maps[..., :-2, 1:-1]
    return u.flatten(-2)[..., basis.texels], v.flatten(-2)[..., basis.texels]


def _log_shading(seen: _Seen, d_u: Tensor, d_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[P] logarithm of the shading with relief over that without, and its derivatives to both differences."""
    bent = bend_normals(seen.normals, (seen.per_u, seen.per_v), (d_u[:, None], d_v[:, None]), 1)
    plain, detailed = (sh_basis(n) @ seen.light for n in (seen.normals, bent))
    floor = 0.05 * plain[seen.weight > 0.5].median().clamp_min(_FLOOR)
    plain, detailed = plain.clamp_min(floor), detailed.clamp_min(floor)
    turned = (sh_basis_jacobian(bent) * seen.light[:, None]).sum(dim=1) / detailed[:, None]
    turned = turned - bent * (turned * bent).sum(dim=1, keepdim=True)
    return (
        (detailed / plain).log(),
        -(turned * seen.per_u).sum(dim=1),
        -(turned * seen.per_v).sum(dim=1),
    )
