# SPDX-License-Identifier: Apache-2.0
"""Expressions of a person's frames: what changes is read from all of them, what stays from their mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiface.networks.motion_net import Means, MotionNet
from hiface.tracking.sightings import Sighting

_ABOVE_REST = 0.5  # standard deviations that the mean lies above rest at least, as no coefficient is below 0
_MEMORY = 300  # frames over which live means go


def moved_expressions(network: MotionNet | None, sightings: Sequence[Sighting]) -> list[Tensor]:
    """Expressions of all frames of a person.

    Args:
        network: Reads changes; None leaves what was read of single frames.
        sightings: Of one person.

    Returns:
        [E] for each sighting, 0..1. Their mean is that of what was read of single frames, or as far above 0
        as they move.
    """
    read = [s.read.expression for s in sightings]
    traces = [s.trace for s in sightings if s.trace is not None]
    if network is None or len(traces) < len(sightings) or not sightings:
        return read
    expression, trace = torch.stack(read), torch.stack(traces)
    R = torch.stack([s.read.camera.R for s in sightings])
    with torch.no_grad():
        change = network(trace, expression, R, Means(trace.mean(0), expression.mean(0)))
    change -= change.mean(0)
    rest = _rest(network, expression.mean(0), change.std(0, correction=0))
    expression[:, list(network.config.channels)] = (rest + change).clamp(0.0, 1.0)
    return list(expression)


def _rest(network: MotionNet, mean: Tensor, spread: Tensor) -> Tensor:
    """[C] what changes are added to, from the mean [E] and the changes' spread [C]."""
    return torch.maximum(mean[list(network.config.channels)], _ABOVE_REST * spread)


class MotionSoFar:
    """The same frame by frame, with means over the frames up to now.

    Args:
        network: Reads changes.
    """

    def __init__(self, network: MotionNet) -> None:
        self._network, self._count = network, 0
        self._means = {name: torch.zeros(()) for name in ("trace", "expression", "change", "square")}

    def step(self, sighting: Sighting) -> Tensor:
        """Expression [E] of a person's next frame, 0..1."""
        expression, means = sighting.read.expression, self._means
        if sighting.trace is None:
            return expression
        self._count += 1
        self._learn("trace", sighting.trace)
        self._learn("expression", expression)
        with torch.no_grad():
            now = Means(means["trace"], means["expression"])
            change = self._network(sighting.trace, expression, sighting.read.camera.R, now)
        self._learn("change", change)
        self._learn("square", change.square())
        spread = (means["square"] - means["change"].square()).clamp_min(0.0).sqrt()
        channels = list(self._network.config.channels)
        rest = _rest(self._network, means["expression"], spread)
        moved = expression.clone()
        moved[channels] = (rest + change - means["change"]).clamp(0.0, 1.0)
        return moved

    def _learn(self, name: str, value: Tensor) -> None:
        mean = self._means[name]
        self._means[name] = mean + (value - mean) / min(self._count, _MEMORY)
