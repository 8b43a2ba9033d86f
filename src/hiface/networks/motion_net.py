# SPDX-License-Identifier: Apache-2.0
"""How a face's expression changes from frame to frame, read from what moves at its landmarks.

A photo alone does not tell somebody's raised brows from brows that sit high, so the HiFace network, which
sees one photo, answers carefully and moves little. Of several frames of one person all that is the person's
cancels out: changes of the network's evidence are linear in changes of expression, nearly, and a small
network adds what is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiface.networks.layers import set_to_ridge


@dataclass(frozen=True)
class MotionConfig:
    """Sizes.

    Attributes:
        n_evidence: Numbers that the HiFace network gives (`WithEvidence`).
        n_expression: Expression coefficients.
        channels: Places among them of those whose changes are read; others stay as the network reads them.
        hidden: Width of the small network.
        strength: Weight of the squared coefficients of the linear map, pictures.
    """

    n_evidence: int
    n_expression: int
    channels: tuple[int, ...]
    hidden: int = 64
    strength: float = 20_000.0


class MotionNet(nn.Module):
    """Evidence of frames to traces, and traces of one person to changes of expression.

    Args:
        config: Sizes.
    """

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        n_traces = len(config.channels)
        n_in = 2 * config.n_expression + n_traces + 2
        self.linear = nn.Linear(config.n_evidence + config.n_expression, n_traces)
        self.mix = nn.Sequential(
            nn.Linear(n_in, config.hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, n_traces),
        )
        last = self.mix[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(n_in))
        self.register_buffer("spread", torch.ones(n_in))

    def trace(self, evidence: Tensor, expression: Tensor) -> Tensor:
        """What one frame shows, up to a constant of the person.

        Args:
            evidence: [*B, n_evidence].
            expression: [*B, E] as the HiFace network reads it.

        Returns:
            [*B, C] about the size of coefficients.
        """
        return self.linear(torch.cat([evidence, expression], dim=-1))

    def forward(self, traces: Tensor, expression: Tensor, R_cam_object: Tensor, means: Means) -> Tensor:
        """Changes of expression, up to a constant of the person.

        Args:
            traces: [*B, C] of frames of one person.
            expression: [*B, E] as the HiFace network reads it.
            R_cam_object: [*B, 3, 3] rotation of the head.
            means: Over the person's frames.

        Returns:
            [*B, C] coefficients.
        """
        x = _inputs(traces, expression, R_cam_object, means)
        return traces - means.trace + self.mix((x - self.centre) / self.spread)

    def fit_linear(self, evidence: Tensor, expression: Tensor, truth: Tensor) -> None:
        """Sets the linear map to the ridge regression of changes on changes.

        Args:
            evidence: [P, n, n_evidence] of n frames of each of P people.
            expression: [P, n, E] as the HiFace network reads it.
            truth: [P, n, E].
        """
        both, goal = torch.cat([evidence, expression], dim=-1), truth[..., list(self.config.channels)]
        changes, goals = (x - x.mean(dim=1, keepdim=True) for x in (both, goal))
        set_to_ridge(self.linear, changes.flatten(0, 1), goals.flatten(0, 1), self.config.strength, 1e-3)

    def fit_spread(self, traces: Tensor, expression: Tensor, R_cam_object: Tensor) -> None:
        """Sets what brings the small network's inputs [P, n, ...] to unit spread."""
        x = _inputs(traces, expression, R_cam_object, Means.of(traces, expression)).flatten(0, 1)
        self.centre.copy_(x.mean(dim=0))
        self.spread.copy_(x.std(dim=0).clamp_min(1e-3))


@dataclass(frozen=True)
class Means:
    """Means over the frames of a person.

    Attributes:
        trace: [*B, C].
        expression: [*B, E].
    """

    trace: Tensor
    expression: Tensor

    @staticmethod
    def of(traces: Tensor, expression: Tensor) -> Means:
        """Means [*B, 1, ...] of traces [*B, n, C] and expressions [*B, n, E] over n frames."""
        return Means(traces.mean(dim=-2, keepdim=True), expression.mean(dim=-2, keepdim=True))


def _inputs(traces: Tensor, expression: Tensor, R_cam_object: Tensor, means: Means) -> Tensor:
    """What the small network sees; see `MotionNet.forward`."""
    changes = [traces - means.trace, expression, expression - means.expression]
    return torch.cat([*changes, _turn(R_cam_object)], dim=-1)


def _turn(R_cam_object: Tensor) -> Tensor:
    """[*B, 2] how far heads are turned and bowed, radians."""
    R = R_cam_object
    return torch.stack(
        [torch.atan2(R[..., 0, 2], -R[..., 2, 2]), torch.asin(R[..., 1, 2].clamp(-1, 1))], dim=-1
    )
