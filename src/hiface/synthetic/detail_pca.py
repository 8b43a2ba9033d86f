# SPDX-License-Identifier: Apache-2.0
"""The bases of displacement (`hiface.detail.basis`) by principal components over people who do not exist.

The people have lines, folds and dimples but neither pores nor the crossing lines of old skin: that grain has
no place of its own, so no basis holds it, and what components would make of the grain of the people they were
made from is noise to everybody else. What is explained is measured on people who have their grain.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hiface.detail.basis import STATES, DetailBasis, StateBasis
from hiface.detail.tension import tension_maps, vertex_tension
from hiface.errors import OptionError
from hiface.morphable import MorphableModel
from hiface.synthetic.expressions import sample_expression
from hiface.synthetic.generator import GENERATOR_VERSION
from hiface.synthetic.people import sample_person
from hiface.synthetic.posing import rest_of
from hiface.synthetic.wrinkles import person_detail, wrinkle_tables

DEFAULT_COUNTS = (300, 100, 60)
_HELD_SHARE = 0.1
_EXPRESSIONS = 400
_MOST_REACH = 0.98  # quantile of the reach that counts in full; single texels at lids and lips reach more
_LEAST_WEIGHT = 0.05  # of texels where skin is hardly ever compressed or stretched
_LEAST_MOTION_M = 3e-6  # texels that no state moves by that much (root mean square) are left out
_EDGE = (0.1, 0.5)  # weights of the region "face" between which detail fades in
_PASSES = 4
_STEPS = (1, 3, 10, 26, 60, 100, 200, 300)  # numbers of coefficients whose share is reported


@dataclass(frozen=True)
class DetailSamples:
    """Displacement of many people.

    Attributes:
        texels: [P] int64 texels of the face.
        maps: State to [N, P] float16, micrometres, faded out at the border of the face.
        reach: State to [P] root mean square over expressions of the mask that the state is multiplied with.
    """

    texels: Tensor
    maps: dict[str, Tensor]
    reach: dict[str, Tensor]


def _window(model: MorphableModel, size: int) -> Tensor:
    face = wrinkle_tables(model, size).regions["face"]
    rise = ((face - _EDGE[0]) / (_EDGE[1] - _EDGE[0])).clamp(0, 1)
    return rise * rise * (3 - 2 * rise)


@torch.no_grad()
def collect_detail(
    model: MorphableModel, people: range, size: int, seed: int, grain: bool, advance: Callable[[], None]
) -> DetailSamples:
    """Draws people and gathers their displacement maps.

    Args:
        model: Face model.
        people: Numbers of N people; they are in no data set.
        size: Side of the maps, texels.
        seed: Of the people.
        grain: Whether they have pores and the crossing lines of old skin.
        advance: Called after each person.

    Returns:
        DetailSamples.
    """
    window = _window(model, size).flatten()
    texels = window.nonzero()[:, 0]
    window = 1e6 * window[texels]
    count = len(people)
    maps = {state: torch.empty(count, len(texels), dtype=torch.float16) for state in STATES}
    squares = torch.zeros(2, len(texels))
    names = model.data.expression_names
    space = wrinkle_tables(model, size).space
    for i, number in enumerate(people):
        rng = np.random.default_rng([seed, number, 29])
        person = sample_person(model, rng)
        style = person.wrinkles if grain else replace(person.wrinkles, pores=0.0, crepe=0.0)
        detail = person_detail(model, person.identity, style, size)
        for state in STATES:
            maps[state][i] = getattr(detail, state).flatten()[texels] * window
        if i < _EXPRESSIONS:
            expression = model.expression_vector(sample_expression(names, rng))
            moved = rest_of(model, person.identity).shape + (
                expression @ model.expression_basis.flatten(1)
            ).unflatten(-1, (-1, 3))
            tension = vertex_tension(moved, detail.neutral, model.cells, smooth_steps=1)
            masks = torch.cat(tension_maps(tension, space)).flatten(1)[:, texels]
            squares += masks.square()
        advance()
    reach = (squares / min(count, _EXPRESSIONS)).sqrt()
    return DetailSamples(texels, maps, {"compressed": reach[0], "stretched": reach[1]})


def principal_components(values: Tensor, weight: Tensor, count: int) -> StateBasis:
    """Mean and weighted principal components.

    Args:
        values: [N, P] micrometres, floating.
        weight: [P] above 0.
        count: Number of components, below N.

    Returns:
        StateBasis in metres.
    """
    mean = values.float().mean(dim=0)
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)  # the lowrank decomposition draws from the global generator
    try:
        _, spread, directions = torch.svd_lowrank(
            (values.float() - mean) * weight, q=min(count + 24, len(values)), niter=_PASSES
        )
    finally:
        torch.random.set_rng_state(generator_state)
    sigma = spread[:count] / (len(values) - 1) ** 0.5
    rows = (directions[:, :count] / weight[:, None] * sigma).T
    return StateBasis(1e-6 * mean, 1e-6 * rows.contiguous(), weight)


def _shares(part: StateBasis, held: Tensor, steps: tuple[int, ...]) -> dict[str, float]:
    """Share of the weighted variance of held people that the first coefficients explain."""
    codes = part.encode(1e-6 * held.float())
    total = float((((1e-6 * held.float() - part.mean) * part.weight) ** 2).sum())
    per_row = (codes.square() * part.variances).sum(dim=0).cumsum(0)
    return {str(n): round(float(per_row[n - 1]) / total, 4) for n in steps if n <= part.count}


@torch.no_grad()
def build_detail_basis(
    model: MorphableModel,
    people: int = 6000,
    size: int = 256,
    counts: tuple[int, int, int] = DEFAULT_COUNTS,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> DetailBasis:
    """Makes the bases of a face model.

    Texels of the compressed and stretched states count as much as expressions compress and stretch them
    (root mean square of the masks M+ and M- over random expressions).

    Args:
        model: Face model.
        people: People to draw; one in ten is kept to measure the explained variance.
        size: Side of the maps.
        counts: Coefficients of the static, compressed and stretched state.
        seed: Of the people.
        advance: Called after each person.

    Returns:
        DetailBasis with its explained variances in the notes.

    Raises:
        OptionError: Too few people for that many coefficients.
    """
    kept = people - int(_HELD_SHARE * people)
    if kept < max(counts) + 50:
        least = round((max(counts) + 60) / (1 - _HELD_SHARE))
        raise OptionError(
            f"{people} people are too few for {max(counts)} coefficients; draw at least {least}"
        )
    samples = collect_detail(model, range(kept), size, seed, False, advance)
    parts: list[StateBasis] = []
    for state, count in zip(STATES, counts, strict=True):
        reach = samples.reach.get(state, torch.ones(len(samples.texels)))
        weight = (reach / reach.quantile(_MOST_REACH)).clamp(_LEAST_WEIGHT, 1)
        weight = (255 * weight).round() / 255  # as it is stored
        parts.append(principal_components(samples.maps[state], weight, count))
    held = collect_detail(model, range(kept, people), size, seed, True, advance)
    shares = {
        state: _shares(part, held.maps[state], _STEPS) for state, part in zip(STATES, parts, strict=True)
    }
    moved = torch.stack([(part.rows.square().sum(dim=0) + part.mean.square()).sqrt() for part in parts])
    used = moved.amax(dim=0) > _LEAST_MOTION_M
    parts = [StateBasis(p.mean[used], p.rows[:, used], p.weight[used]) for p in parts]
    notes = {
        "generator": GENERATOR_VERSION,
        "people": str(kept),
        "seed": str(seed),
        "explained": json.dumps(shares),
        "licence": "Apache-2.0",
    }
    return DetailBasis(model.data.name, size, samples.texels[used], parts[0], parts[1], parts[2], notes)
