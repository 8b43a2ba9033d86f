# SPDX-License-Identifier: Apache-2.0
"""Expressions of a person's frames: what changes is read from all of them, what stays from their mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiface.networks.motion_net import Means, MotionNet
from hiface.tracking.sightings import Sighting

_ABOVE_REST = 0.5  # standard deviations of the changes that rest lies above 0 at least, as nothing is below
_MEMORY = 900  # frames over which live means go, the older the less


def moved_expressions(network: MotionNet | None, sightings: Sequence[Sighting]) -> list[Tensor]:
    """Expressions of all frames of a person.

    Args:
        network: Reads changes; None leaves what was read of single frames.
        sightings: Of one person; those without a finite trace stay as they were read.

    Returns:
        [E] for each sighting, 0..1. Changes are added to the mean of what single frames say, or to half
        their standard deviation where that is more.
    """
    moved = [s.read.expression for s in sightings]
    traces = {i: trace for i, s in enumerate(sightings) if (trace := _finite_trace(s)) is not None}
    if network is None or not traces:
        return moved
    usable, trace = list(traces), torch.stack(list(traces.values()))
    expression = torch.stack([moved[i] for i in usable])
    R = torch.stack([sightings[i].read.camera.R for i in usable])
    with torch.no_grad():
        change = network(trace, expression, R, Means.of(trace, expression))
    change -= change.mean(0)
    rest = _rest(network, expression.mean(0), change.std(0, correction=0))
    expression[:, list(network.config.channels)] = (rest + change).clamp(0.0, 1.0)
    for i, values in zip(usable, expression, strict=True):
        moved[i] = values
    return moved


def _finite_trace(sighting: Sighting) -> Tensor | None:
    trace = sighting.trace
    return trace if trace is not None and bool(torch.isfinite(trace).all()) else None


def _rest(network: MotionNet, mean: Tensor, spread: Tensor) -> Tensor:
    """[C] what changes are added to, from the mean [E] and the changes' spread [C]."""
    return torch.maximum(mean[list(network.config.channels)], _ABOVE_REST * spread)


class MotionSoFar:
    """The same frame by frame, with means over the frames up to now, the last half minute most of all.

    Args:
        network: Reads changes.
    """

    def __init__(self, network: MotionNet) -> None:
        self._network, self._count = network, 0
        self._means = {name: torch.zeros(()) for name in ("trace", "expression", "mixed", "square")}

    def step(self, sighting: Sighting) -> Tensor:
        """Expression [E] of a person's next frame, 0..1."""
        expression, means, trace = sighting.read.expression, self._means, _finite_trace(sighting)
        if trace is None:
            return expression
        self._count += 1
        self._learn("trace", trace)
        self._learn("expression", expression)
        with torch.no_grad():
            now = Means(means["trace"], means["expression"])
            change = self._network(trace, expression, sighting.read.camera.R, now)
        linear = trace - means["trace"]  # whose mean is none; that of the rest has to be learnt
        self._learn("mixed", change - linear)
        change = change - means["mixed"]
        self._learn("square", change.square())
        channels = list(self._network.config.channels)
        rest = _rest(self._network, means["expression"], means["square"].sqrt())
        moved = expression.clone()
        moved[channels] = (rest + change).clamp(0.0, 1.0)
        return moved

    def _learn(self, name: str, value: Tensor) -> None:
        mean = self._means[name]
        self._means[name] = mean + (value - mean) / min(self._count, _MEMORY)
