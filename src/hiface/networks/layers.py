# SPDX-License-Identifier: Apache-2.0
"""Building blocks shared by the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, if asked for, ReLU: [B, Cin, H, W] to [B, Cout, H / s, W / s]."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        parts: list[nn.Module] = [
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(cout),
        ]
        super().__init__(*parts, *([nn.ReLU()] if relu else []))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a short cut (He et al. 2016, basic block)."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(cin, cout, 3, stride)
        self.second = ConvNorm(cout, cout, 3, 1, relu=False)
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(cin, cout, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] to [B, Cout, ceil(H / stride), ceil(W / stride)]."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def residual_stage(cin: int, cout: int, blocks: int) -> nn.Sequential:
    """`blocks` residual blocks of which the first halves the resolution."""
    return nn.Sequential(ResidualBlock(cin, cout, 2), *(ResidualBlock(cout, cout) for _ in range(blocks - 1)))


def halving_stage(cin: int, cout: int, blocks: int) -> nn.Sequential:
    """A convolution that halves the resolution, then `blocks` residual blocks."""
    return nn.Sequential(ConvNorm(cin, cout, 3, 2), *(ResidualBlock(cout, cout) for _ in range(blocks)))


def set_to_ridge(
    layer: nn.Linear, inputs: Tensor, outputs: Tensor, strength: float = 30.0, least_spread: float = 1e-9
) -> None:
    """Sets a layer to the ridge regression of outputs [N, D] on inputs [N, C].

    Args:
        layer: C to D.
        inputs: They are brought to unit spread for the penalty.
        outputs: What the layer shall say of them.
        strength: Weight of the squared coefficients, in samples; the bias has none.
        least_spread: Inputs of a smaller one are not brought to unit spread, but that much nearer.
    """
    x, y = inputs.double(), outputs.double()
    centre, mean = x.mean(dim=0), y.mean(dim=0)
    spread = (x - centre).square().mean(dim=0).sqrt().clamp_min(least_spread)
    x = (x - centre) / spread
    normal = x.T @ x + strength * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(normal, x.T @ (y - mean)) / spread[:, None]
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        assert layer.bias is not None
        layer.bias.copy_(mean - centre @ weight)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable numbers in a network."""
    return sum(p.numel() for p in network.parameters())
