# SPDX-License-Identifier: Apache-2.0
"""Detail codes from a photo: SD-DeTail inside an optimisation (HiFace's "plug and play").

    E(phi) = k sum_p w_p rho(r_p / sigma) + |phi - phi_0|^2 / (2 s^2),
with the residual r of `hiface.fitting.fine_shading` over the texels p of the face, for the relief
D(phi) = D_sta + M+ D_com + M- D_str; the dynamic codes follow from phi and the expression, which is known.
k says which share of the texels is independent. The shading hardly leaves its linear range, so a few
Gauss-Newton steps with all of the small dense Jacobian are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
            wrong at its neighbours. Less where the photo had to be enlarged.
        sigma: Standard deviation s of the codes about their start, 1 if they start at people's mean.
        iterations: Gauss-Newton steps.
    """

    side_px: tuple[int, int] = (256, 384)
    smooth_texels: int = 16
    scale: float = 2.0
    floor: float = 0.02
    effective_share: float = 0.04
    sigma: float = 1.0
    iterations: int = 3


@dataclass(frozen=True)
class _Look:
    """One photo's shading, and how the face's expression folds the skin there.

    Attributes:
        seen: What the photo says.
        expression: [E].
        masks: M+ and M-, [P].
    """

    seen: FineShading
    expression: Tensor
    masks: tuple[Tensor, Tensor]


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
    return fit_shared_codes(model, basis, dynamic, [(params, image_linear)], config)


def fit_shared_codes(
    model: MorphableModel,
    basis: DetailBasis,
    dynamic: Dynamic,
    photos: Iterable[tuple[FaceParams, Tensor]],
    config: DetailFitConfig | None = None,
) -> Tensor:
    """The same for several photos of one person: codes that explain all of them, each with its expression.

    Args:
        model: Face model.
        basis: Detail basis of the model.
        dynamic: As for `fit_detail_codes`.
        photos: Params and image of each; the codes start at the mean of the photos' static codes.
        config: Weights.

    Returns:
        [S] static codes.

    Raises:
        ShapeError: The codes are not of the basis, or the dynamic codes are of another number.
        FitError: The fit left finite numbers, or there is no photo.
    """
    config = config or DetailFitConfig()
    starts, looks = [], []
    for params, image_linear in photos:
        start = params.identity.new_zeros(basis.static.count) if params.static is None else params.static
        if start.shape != (basis.static.count,):
            raise ShapeError(
                f"the detail basis has {basis.static.count} static codes, got {tuple(start.shape)}"
            )
        starts.append(start)
        with torch.no_grad():
            places = _places(basis.texels, basis.size)
            sides = config.side_px, config.smooth_texels
            seen = read_fine_shading(model, params, image_linear, places, *sides)
            if seen is not None:
                masks = expression_masks(model, params.identity, params.expression, basis)
                looks.append(_Look(seen, params.expression, masks))
    if not starts:
        raise FitError("there is no photo to read detail from")
    first = starts[0] if len(starts) == 1 else torch.stack(starts).mean(0)
    if not looks:
        return first
    codes = _solve(basis, dynamic, looks, first, config)
    if not bool(torch.isfinite(codes).all()):
        raise FitError("the fit of detail codes left finite numbers; check the light and the photo")
    return codes


def _solve(
    basis: DetailBasis, dynamic: Dynamic, looks: list[_Look], first: Tensor, config: DetailFitConfig
) -> Tensor:
    """Gauss-Newton with robust weights; the photos' normal equations are sums."""
    codes, prior = first, 1.0 / config.sigma**2
    for _ in range(config.iterations):
        hessian = prior * torch.eye(len(first), dtype=first.dtype, device=first.device)
        gradient = -prior * (codes - first)
        for look in looks:
            more = _normal_equations(basis, dynamic, look, codes, config)
            hessian, gradient = hessian + more[0], gradient + more[1]
        codes = codes + torch.linalg.solve(hessian, gradient)
    return codes.detach()


def _normal_equations(
    basis: DetailBasis, dynamic: Dynamic, look: _Look, codes: Tensor, config: DetailFitConfig
) -> tuple[Tensor, Tensor]:
    """Hessian [S, S] and negative gradient [S] of one photo."""

    def moving(codes: Tensor) -> Tensor:
        return dynamic(codes[None], look.expression[None])[0]

    moving_jacobian = torch.func.jacrev(moving)(codes)
    with torch.no_grad():
        seen, masks = look.seen, look.masks
        used = (seen.weight > 0).nonzero()[:, 0]
        moving_rows = torch.cat([masks[0] * basis.compressed.rows, masks[1] * basis.stretched.rows])
        parts = detail_values(basis, codes, moving(codes), masks)
        logarithm, *slopes = seen.modelled(parts[0] + parts[1])
        residual = seen.target - logarithm
        still = _slanted(seen.places, basis.static.rows, slopes, used)
        jacobian = torch.addmm(still, moving_jacobian.T, _slanted(seen.places, moving_rows, slopes, used))
        sigma = (1.4826 * residual[seen.weight > 0.5].abs().median()).clamp_min(config.floor)
        weight = seen.weight * geman_weight((residual / sigma) ** 2, config.scale) / sigma**2
        weighted = jacobian * (config.effective_share * seen.own_share * weight[used])
        return weighted @ jacobian.T, weighted @ residual[used]


def _slanted(places: TexelPlaces, rows: Tensor, slopes: list[Tensor], used: Tensor) -> Tensor:
    """[n, Q] change of the logarithm of brightness with each map [n, P], at the texels `used` [Q]."""
    more = F.pad(rows, (0, 1))
    right, left, below, above = (more.index_select(1, index[used]) for index in places.beside)
    to_u, to_v, to_d = (slope[used] for slope in slopes)
    return (right - left) * to_u + (below - above) * to_v + rows[:, used] * to_d


@cached_per_tensor
def _places(texels: Tensor, size: int) -> TexelPlaces:
    return TexelPlaces.of(texels, size)
