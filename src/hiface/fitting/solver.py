# SPDX-License-Identifier: Apache-2.0
"""Levenberg-Marquardt with box constraints for small dense problems; knows nothing of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hiface.errors import FitError


@dataclass(frozen=True)
class Quadratic:
    """Second-order model of an energy at one point: E(x + d) = cost + gradient d + 0.5 d hessian d.

    Attributes:
        cost: scalar.
        gradient: [P].
        hessian: [P, P] symmetric positive semi-definite (Gauss-Newton).
    """

    cost: Tensor
    gradient: Tensor
    hessian: Tensor

    def __add__(self, other: Quadratic) -> Quadratic:
        return Quadratic(self.cost + other.cost, self.gradient + other.gradient, self.hessian + other.hessian)


class Energy(Protocol):
    """A term of the objective."""

    def cost(self, x: Tensor) -> Tensor:
        """Energy at x [P], a scalar."""
        ...

    def linearise(self, x: Tensor) -> Quadratic:
        """Quadratic model at x [P]."""
        ...


@dataclass(frozen=True)
class EnergySum:
    """Sum of energies over the same parameters.

    Attributes:
        terms: The energies.
    """

    terms: Sequence[Energy]

    def cost(self, x: Tensor) -> Tensor:
        """Sum of the terms' energies at x [P]."""
        return torch.stack([term.cost(x) for term in self.terms]).sum()

    def linearise(self, x: Tensor) -> Quadratic:
        """Sum of the terms' quadratic models at x [P]."""
        total = self.terms[0].linearise(x)
        for term in self.terms[1:]:
            total = total + term.linearise(x)
        return total


@dataclass(frozen=True)
class SolverOptions:
    """Stopping and damping of `minimise`.

    Attributes:
        max_iterations: Accepted plus rejected steps.
        damping: First Marquardt damping, relative to the diagonal of the Hessian.
        tolerance: Stop when the model predicts a decrease below this part of the energy.
        max_inner: Rounds of the projected-Newton search for one step.
    """

    max_iterations: int = 30
    damping: float = 1e-3
    tolerance: float = 1e-4
    max_inner: int = 10


@dataclass(frozen=True)
class SolverResult:
    """Where `minimise` ended.

    Attributes:
        x: [P] parameters, inside the box.
        cost: Energy at `x`.
        n_iterations: Steps tried.
        converged: Whether the tolerance was met before the limit of steps.
    """

    x: Tensor
    cost: float
    n_iterations: int
    converged: bool


def minimise(
    energy: Energy, x0: Tensor, lower: Tensor, upper: Tensor, options: SolverOptions | None = None
) -> SolverResult:
    """Minimises a sum of (robustly weighted) squares inside a box.

    Damping follows Nielsen's gain-ratio rule (Madsen, Nielsen, Tingleff, "Methods for Non-Linear Least
    Squares Problems", 2004, section 3.2); each damped quadratic is solved inside the box by projected Newton,
    so a parameter on its bound is free to leave it.

    Args:
        energy: What to minimise.
        x0: [P] start; moved into the box.
        lower: [P] bounds, -inf where there is none; equal to `upper` where the parameter is fixed.
        upper: [P] bounds.
        options: Stopping rules.

    Returns:
        The best point found; never worse than the start.

    Raises:
        FitError: The start or the energy there is not finite.
    """
    options = options or SolverOptions()
    x = torch.minimum(torch.maximum(x0, lower), upper)
    model = energy.linearise(x)
    if not (bool(torch.isfinite(x).all()) and _is_finite(model)):
        raise FitError(
            "fitting starts from values that are not finite; check the landmarks, the image and the pose"
        )
    damping, growth = options.damping, 2.0
    iteration = 0
    for iteration in range(1, options.max_iterations + 1):
        trial, predicted = _box_step(model, x, lower, upper, damping, options.max_inner)
        if not predicted > options.tolerance * abs(float(model.cost)) + 1e-12:
            return SolverResult(x, float(model.cost), iteration, True)
        cost = energy.cost(trial)
        gain = (float(model.cost) - float(cost)) / predicted
        candidate = energy.linearise(trial) if gain > 0 else None
        if candidate is not None and _is_finite(candidate):
            x, model = trial, candidate
            damping = max(damping * max(1 / 3, 1 - (2 * min(gain, 2.0) - 1) ** 3), 1e-9)
            growth = 2.0
        else:
            damping, growth = damping * growth, growth * 2
            if damping > 1e12:
                break
    return SolverResult(x, float(model.cost), iteration, False)


def _is_finite(model: Quadratic) -> bool:
    parts = (model.cost, model.gradient.sum(), model.hessian.sum())
    return all(bool(torch.isfinite(part)) for part in parts)


def _box_step(
    model: Quadratic, x: Tensor, lower: Tensor, upper: Tensor, damping: float, max_inner: int
) -> tuple[Tensor, float]:
    """Minimises the damped quadratic inside the box; returns the new point and the decrease it predicts.

    Projected Newton (Bertsekas 1982) with the active set of the gradient and a backtracking search along the
    projected path, so every round lowers the quadratic.
    """
    damped = model.hessian + torch.diag(damping * model.hessian.diagonal() + 1e-12)
    low, high = lower - x, upper - x
    step = torch.zeros_like(x)
    slope, value = model.gradient, 0.0
    for _ in range(max_inner):
        held = ((step <= low) & (slope > 0)) | ((step >= high) & (slope < 0)) | (low == high)
        free = torch.nonzero(~held)[:, 0]
        if free.numel() == 0:
            break
        newton = torch.zeros_like(x)
        newton[free] = _solve(damped[free][:, free], -slope[free])
        found = None
        for length in (1.0, 0.5, 0.2, 0.05, 0.01):
            trial = torch.minimum(torch.maximum(step + length * newton, low), high)
            product = damped @ trial
            trial_value = float(model.gradient @ trial + 0.5 * trial @ product)
            if trial_value < value + 0.1 * min(float(slope @ (trial - step)), 0.0):
                found = (trial, trial_value, model.gradient + product)
                break
        if found is None:
            break
        decrease = value - found[1]
        step, value, slope = found
        if decrease < 1e-3 * abs(value):
            break
    predicted = -(model.gradient @ step + 0.5 * step @ (model.hessian @ step))
    return x + step, float(predicted)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solves a symmetric positive definite system; adds to the diagonal until it factorises."""
    scale = matrix.diagonal().abs().max().clamp_min(1e-30)
    eye = torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
    for jitter in (0.0, 1e-10, 1e-7, 1e-4):
        factor, info = torch.linalg.cholesky_ex(matrix + jitter * scale * eye)
        if int(info) == 0:
            return torch.cholesky_solve(right[:, None], factor)[:, 0]
    return right / scale
