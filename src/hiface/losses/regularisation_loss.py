# SPDX-License-Identifier: Apache-2.0
"""L_reg: coefficients near what is likely (HiFace; weights of DECA's regularisers are the same in kind)."""

from __future__ import annotations

from torch import Tensor


def coefficient_prior(codes: Tensor) -> Tensor:
    """Mean square of coefficients in standard deviations: [*B, n] to [*B]."""
    return codes.square().mean(dim=-1)


def grey_light(light: Tensor) -> Tensor:
    """Squared deviation of light [*B, 9, 3] from its own mean over the colours: [*B] (DECA's light term)."""
    return (light - light.mean(dim=-1, keepdim=True)).square().mean(dim=(-1, -2))
