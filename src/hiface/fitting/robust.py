# SPDX-License-Identifier: Apache-2.0
"""Robust penalties as energies and as weights of iteratively re-weighted least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.fitting.solver import Quadratic


def student_energy(squared: Tensor, degrees: float) -> Tensor:
    """Student-t penalty of squared normalised residuals, elementwise; `squared / 2` near 0.

    Args:
        squared: [...] squared residuals over their variance.
        degrees: Degrees of freedom; smaller forgives outliers sooner.

    Returns:
        [...] energies.
    """
    return 0.5 * degrees * torch.log1p(squared / degrees)


def student_weight(squared: Tensor, degrees: float) -> Tensor:
    """Weight of the squares that matches `student_energy`, 1 at 0; [...] to [...]."""
    return degrees / (degrees + squared)


def geman_energy(squared: Tensor, scale: float) -> Tensor:
    """Geman-McClure penalty of squared residuals, elementwise; `squared / 2` near 0, at most `scale**2 / 2`.

    Args:
        squared: [...] squared residuals over their variance.
        scale: Residual (in standard deviations) at which a half of the bound is reached.

    Returns:
        [...] energies.
    """
    return 0.5 * squared * scale**2 / (scale**2 + squared)


def geman_weight(squared: Tensor, scale: float) -> Tensor:
    """Weight of the squares that matches `geman_energy`, 1 at 0; [...] to [...]."""
    return (scale**2 / (scale**2 + squared)) ** 2


def gauss_newton(cost: Tensor, residual: Tensor, jacobian: Tensor, weight: Tensor) -> Quadratic:
    """Quadratic model of 0.5 sum_i weight_i residual_i^2 with the weights held.

    Args:
        cost: scalar energy at this point (of the robust penalty).
        residual: [N].
        jacobian: [N, P].
        weight: [N], at least 0.

    Returns:
        The Gauss-Newton model in double precision.
    """
    weighted = jacobian * weight[:, None]
    gradient = weighted.T @ residual
    hessian = weighted.T @ jacobian
    return Quadratic(cost.double(), gradient.double(), hessian.double())
