# SPDX-License-Identifier: Apache-2.0
"""The solver on problems with known answers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hiface.errors import FitError
from hiface.fitting.robust import geman_energy, geman_weight, student_energy, student_weight
from hiface.fitting.solver import EnergySum, Quadratic, SolverOptions, minimise

PRECISE = SolverOptions(max_iterations=200, tolerance=1e-14, max_inner=50)


def unbounded(n: int) -> tuple[Tensor, Tensor]:
    return torch.full((n,), -torch.inf).double(), torch.full((n,), torch.inf).double()


@dataclass(frozen=True)
class Quad:
    hessian: Tensor
    target: Tensor

    def cost(self, x: Tensor) -> Tensor:
        d = x - self.target
        return 0.5 * d @ self.hessian @ d

    def linearise(self, x: Tensor) -> Quadratic:
        return Quadratic(self.cost(x), self.hessian @ (x - self.target), self.hessian)


class Rosenbrock:
    def cost(self, x: Tensor) -> Tensor:
        return 0.5 * ((10 * (x[1] - x[0] ** 2)) ** 2 + (1 - x[0]) ** 2)

    def linearise(self, x: Tensor) -> Quadratic:
        residual = torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
        jacobian = torch.tensor([[-20 * float(x[0]), 10.0], [-1.0, 0.0]], dtype=x.dtype)
        return Quadratic(self.cost(x), jacobian.T @ residual, jacobian.T @ jacobian)


def random_quad(n: int, seed: int) -> Quad:
    gen = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=gen, dtype=torch.float64)
    return Quad(a @ a.T + 0.1 * torch.eye(n).double(), torch.randn(n, generator=gen, dtype=torch.float64))


def test_unbounded_quadratic_reaches_its_minimum():
    quad = random_quad(12, 0)
    result = minimise(quad, torch.zeros(12).double(), *unbounded(12), PRECISE)
    assert result.converged
    assert torch.allclose(result.x, quad.target, atol=1e-6)


def test_rosenbrock():
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    result = minimise(Rosenbrock(), start, *unbounded(2), PRECISE)
    assert torch.allclose(result.x, torch.ones(2).double(), atol=1e-6)


def test_rosenbrock_in_a_box_ends_on_the_bound():
    lower, upper = torch.tensor([-2.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double()
    result = minimise(Rosenbrock(), torch.tensor([-1.2, 1.0]).double(), lower, upper, PRECISE)
    assert torch.allclose(result.x, torch.tensor([0.5, 0.25]).double(), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 15))
def test_box_quadratic_meets_the_optimality_conditions(seed: int, n: int):
    quad = random_quad(n, seed)
    lower, upper = torch.full((n,), -0.3).double(), torch.full((n,), 0.4).double()
    result = minimise(quad, torch.zeros(n).double(), lower, upper, PRECISE)
    slope = quad.hessian @ (result.x - quad.target)
    assert (result.x >= lower).all() and (result.x <= upper).all()
    inside = (result.x > lower) & (result.x < upper)
    scale = float(quad.hessian.norm())
    assert slope[inside].abs().sum() < 1e-4 * scale
    assert (slope[result.x == lower] > -1e-4 * scale).all()
    assert (slope[result.x == upper] < 1e-4 * scale).all()


def test_held_parameters_stay():
    quad = random_quad(4, 3)
    lower, upper = unbounded(4)
    lower[1] = upper[1] = 0.25
    result = minimise(quad, torch.zeros(4).double(), lower, upper, PRECISE)
    assert result.x[1] == 0.25
    slope = quad.hessian @ (result.x - quad.target)
    assert slope[[0, 2, 3]].abs().max() < 1e-6


def test_sum_of_energies():
    a, b = random_quad(3, 1), random_quad(3, 2)
    both = EnergySum([a, b])
    x = torch.tensor([0.1, 0.2, 0.3]).double()
    assert torch.allclose(both.cost(x), a.cost(x) + b.cost(x))
    result = minimise(both, x, *unbounded(3), PRECISE)
    expected = torch.linalg.solve(a.hessian + b.hessian, a.hessian @ a.target + b.hessian @ b.target)
    assert torch.allclose(result.x, expected, atol=1e-6)


def test_never_worse_than_the_start_and_no_nan_from_a_bad_region():
    class Cliff:
        """Finite only for x < 1, although the slope points there."""

        def cost(self, x: Tensor) -> Tensor:
            return torch.where(x[0] < 1, 10 - x[0], torch.nan)

        def linearise(self, x: Tensor) -> Quadratic:
            return Quadratic(self.cost(x), -torch.ones(1).double(), 0.01 * torch.eye(1).double())

    result = minimise(Cliff(), torch.zeros(1).double(), *unbounded(1))
    assert 0 <= float(result.x) < 1
    assert result.cost <= 10


def test_not_finite_start_raises():
    quad = random_quad(2, 0)
    with pytest.raises(FitError, match="finite"):
        minimise(quad, torch.tensor([float("nan"), 0.0]).double(), *unbounded(2))


def test_singular_hessian_does_not_blow_up():
    quad = Quad(torch.diag(torch.tensor([1.0, 0.0]).double()), torch.ones(2).double())
    result = minimise(quad, torch.zeros(2).double(), *unbounded(2))
    assert torch.isfinite(result.x).all()
    assert abs(float(result.x[0]) - 1) < 1e-2


@pytest.mark.parametrize(
    ("energy", "weight"),
    [(student_energy, student_weight), (geman_energy, geman_weight)],
    ids=["student", "geman"],
)
def test_robust_weights_are_the_slope_of_the_energy(energy, weight):
    squared = torch.linspace(0, 30, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(squared, 3.0).sum(), squared)
    assert torch.allclose(2 * slope, weight(squared.detach(), 3.0))
    assert float(weight(torch.zeros(1), 3.0)) == 1.0
