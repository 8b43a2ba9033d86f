# SPDX-License-Identifier: Apache-2.0
"""Dynamic detail codes from static codes and expression, by adaptive instance normalisation.

    phi = Phi( sigma(xi~) * (varphi - mu(varphi)) / sigma(varphi) + mu(xi~) ),   xi~ = MLP(xi)     (HiFace)

Read as it stands, expression reaches `phi` through two numbers, the mean and the deviation of xi~. The other
reading is StyleGAN's: the MLP gives a scale and a shift for each coefficient. The normalisation takes away
how lined a face is, so a linear map of the static codes as they are may be added (`benchmarks/adain.py`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hiface.networks.layers import set_to_ridge

Reading = Literal["moments", "style"]
_TINY = 1e-3


def normalised(codes: Tensor) -> Tensor:
    """(x - mean) / deviation of each row: [B, n] to [B, n]."""
    centred = codes - codes.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + _TINY).sqrt()


class DynamicCodes(nn.Module):
    """Phi and the MLP of the expression.

    Args:
        n_static: Static coefficients.
        n_expression: Expression coefficients.
        n_dynamic: Compressed and stretched coefficients together.
        hidden: Width of the hidden layers.
        reading: "moments": expression enters by mean and deviation of xi~ (the equation as it stands);
            "style": by a scale and a shift for each coefficient.
        dropout: Of the inputs and the hidden layer of Phi, while training.
        linear: Whether a linear map of the static codes is added; its weights are given, not learnt
            (`start_linear`).
    """

    def __init__(
        self,
        n_static: int,
        n_expression: int,
        n_dynamic: int,
        hidden: int,
        reading: Reading,
        *,
        dropout: float = 0.0,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.reading = reading
        n_style = n_static if reading == "moments" else 2 * n_static
        last = nn.Linear(hidden, n_style)
        self.style = nn.Sequential(nn.Linear(n_expression, hidden), nn.ReLU(), last)
        first, final = nn.Linear(n_static, hidden), nn.Linear(hidden, n_dynamic)
        self.map = nn.Sequential(nn.Dropout(dropout), first, nn.ReLU(), nn.Dropout(dropout), final)
        self.linear = nn.Linear(n_static, n_dynamic).requires_grad_(False) if linear else None
        if linear:
            nn.init.normal_(final.weight, std=0.01)
            nn.init.zeros_(final.bias)
        if reading == "style":
            with torch.no_grad():
                last.weight.mul_(0.1)
                last.bias.copy_(torch.cat([torch.ones(n_static), torch.zeros(n_static)]))

    def forward(self, static: Tensor, expression: Tensor) -> Tensor:
        """Static codes [B, n_static] and expression [B, n_expression] 0..1 to codes [B, n_dynamic]."""
        style = self.style(expression)
        if self.reading == "moments":
            shift = style.mean(dim=1, keepdim=True)
            scale = ((style - shift).square().mean(dim=1, keepdim=True) + _TINY).sqrt()
        else:
            scale, shift = style.chunk(2, dim=1)
        codes = self.map(scale * normalised(static) + shift)
        return codes if self.linear is None else codes + self.linear(static)

    def start_linear(self, static: Tensor, dynamic: Tensor) -> None:
        """Fits the linear map, if there is one, to people's static [N, S] and dynamic [N, D] codes.

        The best guess of the dynamic codes from a guess of the static ones is the same map of that guess, so
        it need not be learnt together with the network.
        """
        if self.linear is not None:
            set_to_ridge(self.linear, static, dynamic)
