# SPDX-License-Identifier: Apache-2.0
"""Geometry detail: a displacement for every texel from the shading of one photo (Jiang et al. 2018).

    E(d) = k sum_p w_p rho(r_p / sigma) + |(d - d_0) / s|^2 / 2 + mu_2 |L d|_1,    p^ = p + n d

with the residual r of `hiface.fitting.fine_shading` and the Laplacian L of the map. d_0 is what is known
before, from detail codes or nothing; s says how deep the lines of people are at a texel. The sums are
minimised by iteratively re-weighted Gauss-Newton; each linear system, sparse with a stencil of a few texels,
is solved by conjugate gradients with its diagonal as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
        effective_share: Share k of the texels that are independent of each other, less where the photo had to
            be enlarged.
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
    return known + fit_shared_relief(model, [(params, image_linear, known)], basis, config)


def fit_shared_relief(
    model: MorphableModel,
    photos: Iterable[tuple[FaceParams, Tensor, Tensor]],
    basis: DetailBasis | None = None,
    config: ReliefConfig = _DEFAULT,
) -> Tensor:
    """Finds the relief of a person that several photos show, beyond what is known of each.

    Args:
        model: Face model.
        photos: Params, image and known displacement of each, as for `fit_relief`; the latter differ with the
            expression and are of one size.
        basis: As for `fit_relief`.
        config: Weights.

    Returns:
        [1, S, S] metres, to be added to each known displacement; 0 where no photo says anything.

    Raises:
        ShapeError: The known displacements are not square maps of one size.
        FitError: The fit left finite numbers, or there is no photo.
    """
    looks: list[_Look] = []
    first: Tensor | None = None
    with torch.no_grad():
        for params, image_linear, known in photos:
            first = known if first is None else first
            if known.dim() != 3 or known.shape[0] != 1 or known.shape[1:] != 2 * first.shape[-1:]:
                raise ShapeError(f"known must be [1, S, S], of one S, got {tuple(known.shape)}")
            size = known.shape[-1]
            places = skin_places(model, size)
            radius = round(config.smooth_texels * size / 256)
            seen = read_fine_shading(model, params, image_linear, places, (size, 7 * size // 4), radius)
            if seen is not None:
                looks.append(_Look(seen, known.flatten()[places.texels] / _MM))
        if first is None:
            raise FitError("there is no photo to read relief from")
        relief = first.new_zeros(first.numel())
        if looks:
            texels, size = looks[0].seen.places.texels, first.shape[-1]
            spread = config.spread_share * _spread(basis, texels, size, first)
            found = _minimise(looks, spread.clamp_min(config.least_spread_m) / _MM, config) * _MM
            if not bool(torch.isfinite(found).all()):
                raise FitError("the fit of relief left finite numbers; check the light and the photo")
            relief[texels] = found
    return relief.reshape(first.shape)


@dataclass(frozen=True)
class _Look:
    """One photo's shading, and the displacement [N] in millimetres that is known of it."""

    seen: FineShading
    known: Tensor


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
class _Shading:
    """One photo's part of a Gauss-Newton step; rows are [N].

    Attributes:
        slopes: Derivatives of the logarithm of brightness to differences along u and v and to displacement.
        weight: Of each texel's shading.
        residual: What is not yet explained.
    """

    slopes: tuple[Tensor, ...]
    weight: Tensor
    residual: Tensor


@dataclass(frozen=True)
class _System:
    """The normal equations of one Gauss-Newton step; unknowns are [N], lengths in millimetres.

    Attributes:
        places: Texels.
        photos: What each photo asks for.
        prior: Of each texel's distance from what is known.
        stiff: Of each texel's squared bend.
    """

    places: TexelPlaces
    photos: list[_Shading]
    prior: Tensor
    stiff: Tensor

    def __call__(self, d: Tensor) -> Tensor:
        """The Hessian times d."""
        d_u, d_v = self.places.differences(d)
        out = self.prior * d + _laplacian(self.places, self.stiff * _laplacian(self.places, d))
        for photo in self.photos:
            to_u, to_v, to_d = photo.slopes
            out = out + self._transposed(photo, photo.weight * (to_u * d_u + to_v * d_v + to_d * d))
        return out

    def gradient(self, relief: Tensor, bend: Tensor) -> Tensor:
        """The negative gradient at a relief with that bend."""
        out = -self.prior * relief - _laplacian(self.places, self.stiff * bend)
        for photo in self.photos:
            out = out + self._transposed(photo, photo.weight * photo.residual)
        return out

    def _transposed(self, photo: _Shading, rows: Tensor) -> Tensor:
        """The transpose of a photo's derivative, times `rows`."""
        to_u, to_v, to_d = photo.slopes
        right, left, _, _ = self.places.neighbours(to_u * rows)
        _, _, below, above = self.places.neighbours(to_v * rows)
        return to_d * rows + left - right + above - below

    def diagonal(self) -> Tensor:
        """Diagonal of the Hessian."""
        out = self.prior + sum(self.places.neighbours(self.stiff), start=16.0 * self.stiff)
        for photo in self.photos:
            to_u, to_v, to_d = (photo.weight * slope**2 for slope in photo.slopes)
            right, left, _, _ = self.places.neighbours(to_u)
            _, _, below, above = self.places.neighbours(to_v)
            out = out + right + left + below + above + to_d
        return out


def _minimise(looks: list[_Look], spread: Tensor, config: ReliefConfig) -> Tensor:
    """[N] millimetres beyond what is known."""
    places, usual = looks[0].seen.places, torch.stack([look.known for look in looks]).mean(0)
    relief, prior = torch.zeros_like(spread), spread**-2
    for _ in range(config.rounds):
        bend = _laplacian(places, usual + relief)
        stiff = config.bend / (bend.abs() + config.least_bend_m / _MM)
        photos = [_shading(look, relief, config) for look in looks]
        system = _System(places, photos, prior, stiff)
        right = system.gradient(relief, bend)
        relief = relief + _conjugate_gradients(system, right, system.diagonal(), config.iterations)
    return relief


def _shading(look: _Look, relief: Tensor, config: ReliefConfig) -> _Shading:
    seen = look.seen
    logarithm, *slopes = seen.modelled((look.known + relief) * _MM)
    residual = seen.target - logarithm
    sigma = (1.4826 * residual[seen.weight > 0.5].abs().median()).clamp_min(config.floor)
    share = config.effective_share * seen.own_share
    weight = share * seen.weight * geman_weight((residual / sigma) ** 2, config.scale) / sigma**2
    return _Shading(tuple(slope * _MM for slope in slopes), weight, residual)


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
