# SPDX-License-Identifier: Apache-2.0
"""Several photos of one person: one identity and albedo, each photo's own expression, pose, camera and light.

The joint Gauss-Newton system is block-arrow: photos touch each other only through what they share. Each
photo's own unknowns are eliminated (Schur complement), which leaves a small system of the shared ones; so
photos are looked at one after the other, and memory does not grow with the square of their number.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hiface.errors import FitError
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import (
    ALL_PARTS,
    FaceFit,
    FitResult,
    bounds,
    fit_photometric,
    fit_points,
    result_of,
)
from hiface.fitting.observations import FaceObservation
from hiface.fitting.priors import Start
from hiface.fitting.solver import EnergySum, Quadratic
from hiface.morphable import MorphableModel

SHARED = ("identity", "albedo")
_OWN = tuple(name for name in ALL_PARTS if name not in SHARED)
_RIDGE = 1e-13


@dataclass(frozen=True)
class Evidence:
    """What one photo says of the shared unknowns: 0.5 (s - at)^T information (s - at) + gradient (s - at).

    Attributes:
        information: [Q, Q].
        gradient: [Q] at `at`.
        at: [Q] where the photo was linearised.
    """

    information: Tensor
    gradient: Tensor
    at: Tensor


def shared_start(starts: Sequence[Start], correlation: float) -> list[Start]:
    """One belief about who it is, of a network's answers to several photos of a person.

    Args:
        starts: What is believed of each photo.
        correlation: Of the errors of two answers about the same person.

    Returns:
        The same with the mean identity and albedo; their standard deviations shrink with the number of
        photos, as far as errors are not the same in all of them.
    """
    n = len(starts)
    shrunk = ((1 + (n - 1) * correlation) / n) ** 0.5
    identity = torch.stack([s.params.identity for s in starts]).mean(0)
    albedo = torch.stack([s.params.albedo for s in starts]).mean(0)
    sigma = torch.stack([s.identity_sigma for s in starts]).square().mean(0).sqrt()
    return [
        replace(
            s,
            params=s.params.replace(identity=identity, albedo=albedo),
            identity_sigma=sigma * shrunk,
            albedo_sigma=s.albedo_sigma * shrunk,
        )
        for s in starts
    ]


def fit_together(
    model: MorphableModel,
    observations: Sequence[FaceObservation],
    believed: Sequence[Start] | None = None,
    config: FitConfig | None = None,
    rounds: int = 3,
) -> list[FitResult]:
    """Fits photos of one person.

    Args:
        model: Face model.
        observations: One for each photo.
        believed: One for each photo, of the same identity and albedo (`shared_start`), or None.
        config: Weights.
        rounds: Joint Gauss-Newton steps after each photo was fitted alone.

    Returns:
        One result for each photo, in order, all of the same identity and albedo.

    Raises:
        FitError: There is no photo, one is not finite, or no pose explains it.
    """
    if not observations:
        raise FitError("there is no photo to fit")
    config = config or FitConfig()
    starts = [None] * len(observations) if believed is None else list(believed)
    if len(starts) != len(observations):
        raise FitError(f"{len(observations)} photos need as many starts, got {len(starts)}")
    fits, seconds = [], []
    with torch.no_grad():
        for observation, start in zip(observations, starts, strict=True):
            begun = time.perf_counter()
            observation.check_finite()
            fits.append(fit_points(model, observation, config, start))
            fit_photometric(fits[-1])
            seconds.append(time.perf_counter() - begun)
        for _ in range(rounds if len(fits) > 1 else 0):
            begun = time.perf_counter()
            shared = _combined(fits)
            for fit in fits:
                fit.x[_shared(fit)] = shared
                fit.run("together", fit.finest(), _OWN, config.iterations_photometric // 2)
            seconds = [s + (time.perf_counter() - begun) / len(fits) for s in seconds]
        return [result_of(fit, model, start, s) for fit, start, s in zip(fits, starts, seconds, strict=True)]


def _shared(fit: FaceFit) -> Tensor:
    """[Q] places of the shared unknowns."""
    return torch.nonzero(fit.layout.mask(*SHARED))[:, 0]


def evidence(fit: FaceFit) -> Evidence:
    """What a photo says of the shared unknowns with its own ones at their best (linearised)."""
    shared = _shared(fit)
    data = EnergySum(fit.terms(fit.finest(), True)[1:]).linearise(fit.x)
    prior = fit.prior.linearise(fit.x)
    model = data + _without(prior, shared)
    lower, upper = bounds(fit.layout, fit.x, _OWN)
    own = fit.layout.mask(*_OWN) & ~((fit.x <= lower) & (model.gradient > 0))
    own = torch.nonzero(own & ~((fit.x >= upper) & (model.gradient < 0)))[:, 0]
    block = model.hessian[own][:, own]
    block = block + _RIDGE * block.diagonal().max() * torch.eye(len(own), dtype=block.dtype)
    across = model.hessian[own][:, shared]
    solved = torch.linalg.solve(block, torch.cat([across, model.gradient[own, None]], dim=1))
    information = model.hessian[shared][:, shared] - across.T @ solved[:, :-1]
    gradient = model.gradient[shared] - across.T @ solved[:, -1]
    return Evidence(information, gradient, fit.x[shared])


def _without(prior: Quadratic, shared: Tensor) -> Quadratic:
    """The prior of what is not shared; it couples nothing to the shared unknowns."""
    hessian, gradient = prior.hessian.clone(), prior.gradient.clone()
    hessian[shared], hessian[:, shared], gradient[shared] = 0.0, 0.0, 0.0
    return Quadratic(prior.cost, gradient, hessian)


def _combined(fits: Sequence[FaceFit]) -> Tensor:
    """[Q] the shared unknowns that all photos and the prior together say; the tone is the photos' mean."""
    first = fits[0]
    shared = _shared(first)
    prior = first.prior
    total = prior.hessian[shared][:, shared].clone()
    right = -prior.gradient[shared].clone()
    for fit in fits:
        said = evidence(fit)
        total += said.information
        right += said.information @ said.at - said.gradient
    tone = torch.isin(shared, torch.tensor(first.tone))
    mean = torch.stack([fit.x[shared] for fit in fits]).mean(0)
    free = torch.nonzero(~tone)[:, 0]
    held = torch.nonzero(tone)[:, 0]
    right = right[free] - total[free][:, held] @ mean[held]
    found = mean.clone()
    found[free] = torch.linalg.solve(total[free][:, free], right)
    lower, upper = bounds(first.layout, first.x, ALL_PARTS)
    return torch.minimum(torch.maximum(found, lower[shared]), upper[shared])
