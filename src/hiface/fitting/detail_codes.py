# SPDX-License-Identifier: Apache-2.0
"""Detail codes from a photo: SD-DeTail inside an optimisation (HiFace's "plug and play").

    E(phi) = k sum_p w_p rho(r_p / sigma) + |phi - phi_0|^2 / (2 s^2),
with the residual r of `hiface.fitting.fine_shading` over the texels p of the face, for the relief
D(phi) = D_sta + M+ D_com + M- D_str; the dynamic codes follow from phi and the expression, which is known.
k says which share of the texels is independent. The shading hardly leaves its linear range, so a few
Gauss-Newton steps with all of the small dense Jacobian are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.detail.sd_detail import detail_values, expression_masks
from hiface.errors import FitError, ShapeError
from hiface.fitting.fine_shading import FineShading, TexelPlaces, read_fine_shading
from hiface.fitting.robust import geman_weight
from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.types import FaceParams

Dynamic = Callable[[Tensor, Tensor], Tensor]


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
    iterations: int = 3


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
        places = _places(basis.texels, basis.size)
        seen = read_fine_shading(model, params, image_linear, places, config.side_px, config.smooth_texels)
        if seen is None:
            return first
        masks = expression_masks(model, params.identity, params.expression, basis)
    codes = _solve(basis, dynamic, params.expression, masks, seen, first, config)
    if not bool(torch.isfinite(codes).all()):
        raise FitError("the fit of detail codes left finite numbers; check the light and the photo")
    return codes


def _solve(
    basis: DetailBasis,
    dynamic: Dynamic,
    expression: Tensor,
    masks: tuple[Tensor, Tensor],
    seen: FineShading,
    first: Tensor,
    config: DetailFitConfig,
) -> Tensor:
    """Gauss-Newton with robust weights."""

    def moving(codes: Tensor) -> Tensor:
        return dynamic(codes[None], expression[None])[0]

    with torch.no_grad():
        used = (seen.weight > 0).nonzero()[:, 0]
        moving_rows = torch.cat([masks[0] * basis.compressed.rows, masks[1] * basis.stretched.rows])
        still = _with_differences(seen.places, basis.static.rows, used)
        moved = _with_differences(seen.places, moving_rows, used)
    codes, prior = first, 1.0 / config.sigma**2
    eye = torch.eye(len(first), dtype=first.dtype, device=first.device)
    for _ in range(config.iterations):
        moving_jacobian = torch.func.jacrev(moving)(codes)
        with torch.no_grad():
            parts = detail_values(basis, codes, moving(codes), masks)
            logarithm, *slopes = seen.modelled(parts[0] + parts[1])
            residual = seen.target - logarithm
            changing = _slanted(moved, slopes, used)
            jacobian = torch.addmm(_slanted(still, slopes, used), moving_jacobian.T, changing)
            good = seen.weight > 0.5
            sigma = (1.4826 * residual[good].abs().median()).clamp_min(config.floor)
            weight = seen.weight * geman_weight((residual / sigma) ** 2, config.scale) / sigma**2
            weighted = jacobian * (config.effective_share * weight[used])
            hessian = weighted @ jacobian.T + prior * eye
            gradient = weighted @ residual[used] - prior * (codes - first)
            codes = codes + torch.linalg.solve(hessian, gradient)
    return codes.detach()


def _with_differences(places: TexelPlaces, rows: Tensor, used: Tensor) -> tuple[Tensor, ...]:
    """[n, Q] each: differences of maps [n, P] along u and v, and the maps, at the texels `used` [Q]."""
    return *(d[:, used] for d in places.differences(rows)), rows[:, used]


def _slanted(maps: tuple[Tensor, ...], slopes: list[Tensor], used: Tensor) -> Tensor:
    """[n, Q] change of the logarithm of brightness with each map."""
    return torch.stack([m * s[used] for m, s in zip(maps, slopes, strict=True)]).sum(0)


@cached_per_tensor
def _places(texels: Tensor, size: int) -> TexelPlaces:
    return TexelPlaces.of(texels, size)
