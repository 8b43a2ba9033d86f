# SPDX-License-Identifier: Apache-2.0
"""Geometry detail: a displacement for every texel from the shading of one photo (Jiang et al. 2018).

    E(d) = k sum_p w_p rho(r_p / sigma) + |(d - d_0) / s|^2 / 2 + mu_2 |L d|_1,    p^ = p + n d

with the residual r of `hiface.fitting.fine_shading` and the Laplacian L of the map. d_0 is what is known
before, from detail codes or nothing; s says how deep the lines of people are at a texel. The sums are
minimised by iteratively re-weighted Gauss-Newton; each linear system, sparse with a stencil of a few texels,
is solved by conjugate gradients with its diagonal as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.errors import FitError, ShapeError
from hiface.fitting.fine_shading import FineShading, TexelPlaces, read_fine_shading
from hiface.fitting.robust import geman_weight
from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.render.pyramid import resize
from hiface.render.uv_space import uv_space
from hiface.types import FaceParams

_MM = 1e-3
_LINE_M = 1e-4  # depth of lines where no basis says it


@dataclass(frozen=True)
class ReliefConfig:
    """Weights of the fit of relief; lengths in metres, texels of a map of 256.

    Attributes:
        smooth_texels: Radius of the bell whose mean is taken away from shading.
        scale: Geman-McClure scale in robust standard deviations: hairs, freckles and highlights drop out.
        floor: Smallest standard deviation of the logarithm of brightness.
        effective_share: Share k of the texels that are independent of each other.
        spread_share: Standard deviation s about d_0 over how deep people's lines are at a texel.
        least_spread_m: Smallest s.
        bend: Price mu_2 of a bend of 1 mm at a texel.
        least_bend_m: Bend below which the price becomes a square, so that its weight stays finite.
        rounds: Re-weighted Gauss-Newton steps.
        iterations: Conjugate-gradient steps in each.
    """

    smooth_texels: int = 16
    scale: float = 2.0
    floor: float = 0.01
    effective_share: float = 0.3
    spread_share: float = 0.5
    least_spread_m: float = 1e-5
    bend: float = 0.1
    least_bend_m: float = 3e-6
    rounds: int = 3
    iterations: int = 40


_DEFAULT = ReliefConfig()


def fit_relief(
    model: MorphableModel,
    params: FaceParams,
    image_linear: Tensor,
    known: Tensor,
    basis: DetailBasis | None = None,
    config: ReliefConfig = _DEFAULT,
) -> Tensor:
    """Finds the relief that a photo's shading shows.

    Args:
        model: Face model.
        params: One fitted face, without batch dimensions.
        image_linear: [3, H, W] linear RGB, the photo of `params.camera`.
        known: [1, S, S] metres, displacement d_0 that is known before; its size is that of the answer.
        basis: Says how deep lines are where; 0.1 mm everywhere if None.
        config: Weights.

    Returns:
        [1, S, S] metres, all of the displacement; `known` where the photo says nothing.

    Raises:
        ShapeError: `known` is not a square map.
        FitError: The fit left finite numbers.
    """
    if known.dim() != 3 or known.shape[0] != 1 or known.shape[1] != known.shape[2]:
        raise ShapeError(f"known must be [1, S, S], got {tuple(known.shape)}")
    size = known.shape[-1]
    with torch.no_grad():
        places = skin_places(model, size)
        texels = places.texels
        radius = round(config.smooth_texels * size / 256)
        seen = read_fine_shading(model, params, image_linear, places, (size, 7 * size // 4), radius)
        if seen is None:
            return known
        spread = (config.spread_share * _spread(basis, texels, size, known)).clamp_min(config.least_spread_m)
        found = _minimise(seen, known.flatten()[texels] / _MM, spread / _MM, config) * _MM
        if not bool(torch.isfinite(found).all()):
            raise FitError("the fit of relief left finite numbers; check the light and the photo")
        relief = known.clone().flatten()
        relief[texels] = found
        return relief.reshape(known.shape)


def skin_places(model: MorphableModel, size: int) -> TexelPlaces:
    """Texels of the face's skin with all their neighbours in its chart; of all charts without masks."""
    return _skin_places(model.uv, model, size)


@cached_per_tensor
def _skin_places(uv: Tensor, model: MorphableModel, size: int) -> TexelPlaces:
    data = model.data
    space = uv_space(uv, model.uv_triangles, model.triangles, data.n_vertices, size)
    face = torch.ones(data.n_vertices, dtype=torch.bool)
    for name in ("face", "skin"):
        face = face & data.vertex_masks.get(name, face)
    good = face[data.triangles].all(1)
    if "skin" in data.part_names:
        good = good & (data.triangle_parts == data.part_names.index("skin"))
    inside = (space.triangle_id >= 0) & good.to(uv.device)[space.triangle_id.clamp_min(0).long()]
    outside = F.max_pool2d((~inside).float()[None, None], 3, 1, 1)[0, 0]
    return TexelPlaces.of((outside < 0.5).flatten().nonzero()[:, 0], size)


def _spread(basis: DetailBasis | None, texels: Tensor, size: int, like: Tensor) -> Tensor:
    """[N] metres, standard deviation of people's static relief."""
    if basis is None:
        return like.new_full(texels.shape, _LINE_M)
    spread = basis.scatter(basis.static.rows.square().sum(0).sqrt()[None])[0]
    return resize(spread.to(like), size).flatten()[texels]


@dataclass(frozen=True)
class _System:
    """The normal equations of one Gauss-Newton step; rows and unknowns are [N], lengths in millimetres.

    Attributes:
        places: Texels.
        slopes: Derivatives of the logarithm of brightness to differences along u and v and to displacement.
        weight: Of each texel's shading.
        prior: Of each texel's distance from what is known.
        stiff: Of each texel's squared bend.
    """

    places: TexelPlaces
    slopes: tuple[Tensor, ...]
    weight: Tensor
    prior: Tensor
    stiff: Tensor

    def __call__(self, d: Tensor) -> Tensor:
        """The Hessian times d."""
        d_u, d_v = self.places.differences(d)
        to_u, to_v, to_d = self.slopes
        shading = self.weight * (to_u * d_u + to_v * d_v + to_d * d)
        bent = _laplacian(self.places, self.stiff * _laplacian(self.places, d))
        return self.transposed(shading) + self.prior * d + bent

    def transposed(self, rows: Tensor) -> Tensor:
        """The transpose of the shading's derivative, times `rows`."""
        to_u, to_v, to_d = self.slopes
        right, left, _, _ = self.places.neighbours(to_u * rows)
        _, _, below, above = self.places.neighbours(to_v * rows)
        return to_d * rows + left - right + above - below

    def diagonal(self) -> Tensor:
        """Diagonal of the Hessian."""
        to_u, to_v, to_d = (self.weight * slope**2 for slope in self.slopes)
        right, left, _, _ = self.places.neighbours(to_u)
        _, _, below, above = self.places.neighbours(to_v)
        bent = sum(self.places.neighbours(self.stiff), start=16.0 * self.stiff)
        return right + left + below + above + to_d + self.prior + bent


def _minimise(seen: FineShading, known: Tensor, spread: Tensor, config: ReliefConfig) -> Tensor:
    """[N] millimetres."""
    d, prior, places = known, spread**-2, seen.places
    for _ in range(config.rounds):
        logarithm, *slopes = seen.modelled(d * _MM)
        residual = seen.target - logarithm
        sigma = (1.4826 * residual[seen.weight > 0.5].abs().median()).clamp_min(config.floor)
        weight = config.effective_share * seen.weight * geman_weight((residual / sigma) ** 2, config.scale)
        weight, bend = weight / sigma**2, _laplacian(places, d)
        stiff = config.bend / (bend.abs() + config.least_bend_m / _MM)
        system = _System(places, tuple(slope * _MM for slope in slopes), weight, prior, stiff)
        right = system.transposed(weight * residual) - prior * (d - known) - _laplacian(places, stiff * bend)
        d = d + _conjugate_gradients(system, right, system.diagonal(), config.iterations)
    return d


def _laplacian(places: TexelPlaces, values: Tensor) -> Tensor:
    """[N] sum of the four neighbours minus four times each value; 0 beyond the texels; symmetric."""
    return sum(places.neighbours(values), start=-4.0 * values)


def _conjugate_gradients(
    hessian: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor, iterations: int
) -> Tensor:
    """Solves hessian(x) = right for a symmetric positive definite map, from x = 0."""
    x, left = torch.zeros_like(right), right
    scaled = left / diagonal
    direction, size = scaled, left @ scaled
    least = 1e-8 * size
    for _ in range(iterations):
        if not bool(size > least):
            break
        mapped = hessian(direction)
        length = size / (direction @ mapped)
        x, left = x + length * direction, left - length * mapped
        scaled = left / diagonal
        before, size = size, left @ scaled
        direction = scaled + (size / before) * direction
    return x
