# SPDX-License-Identifier: Apache-2.0
"""Physical limits: lids clear the eyeballs and close, lips do not cross, some shapes exclude each other.

Everything is done to the coefficients, never to vertices: what is drawn stays what the labels say. A person
or an expression beyond a limit is moved to the nearest one within it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.synthetic.limit_tables import FaceTables, Limited, face_tables

CLEARANCE_M = -0.0001  # lids may dent the eyeball by this much, as they lie on it
TOLERANCE_M = 0.0001  # limits may be missed by this much
SHUT = 0.9  # from this eyeBlink on, eyes are shut
SHUT_GAP_M = -0.0002  # shut lids overlap by this much at least
OVERLAP_M = 0.0030  # and lids never by more than this
LIPS_CROSS_M = 0.0015  # how far lips may overlap more than on the mean head at rest
TONGUE_M = -0.0025  # the tongue's underside dips into the lower lip by no more than this
TONGUE_IN = 0.4  # tongueOut that stays behind the lips
_ROUNDS = 4
_SWEEPS = 40
_ROWS = 12  # hardest limits of one kind that a round looks at
_FAR_SIGMA = 4.0
_STATES: tuple[dict[str, float], ...] = (
    {},
    {"eyeBlink": 0.5},
    {"eyeBlink": 1.0},
    {"eyeLookDown": 1.0},
    {"eyeLookUp": 0.8},
)

Rows = tuple[np.ndarray, np.ndarray]  # A [m, n] and b [m] of A x >= b


@dataclass(frozen=True)
class _Rules:
    """Rules of `expression_limits.json` as indices into names.

    Attributes:
        opposite: Two [n] arrays of shapes that cancel.
        yields: Two [n] arrays: who stays, and who leaves room.
        at_most: Who, whose value is the most (-1: nobody's), and the factor on it.
    """

    opposite: np.ndarray
    yields: np.ndarray
    at_most: list[tuple[int, int, float]]


@cache
def _rule_rows() -> dict[str, Any]:
    return load_json_asset("open/expression_limits.json")


@lru_cache(maxsize=64)
def _rules(names: tuple[str, ...]) -> _Rules:
    index, rules = {name: i for i, name in enumerate(names)}, _rule_rows()

    def pairs(kind: str) -> np.ndarray:
        rows = [(index[a], index[b]) for a, b in rules[kind] if a in index and b in index]
        return np.array(rows, dtype=np.int64).reshape(-1, 2).T

    at_most = [(index[a], index.get(b, -1), float(f)) for a, b, f in rules["at_most"] if a in index]
    return _Rules(pairs("opposite"), pairs("yields"), at_most)


@cache
def rule_names() -> tuple[str, ...]:
    """Names of the shapes that `exclude` has rules on."""
    rules = _rule_rows()
    rows = [row[:2] for kind in ("opposite", "yields", "at_most") for row in rules[kind]]
    return tuple(sorted({name for row in rows for name in row}))


def exclude_values(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """`exclude` for an array [*B, E]; the dtype stays."""
    out, rules = values.clip(0.0, 1.0), _rules(names)
    first, second = rules.opposite
    difference = out[..., first] - out[..., second]
    out[..., first], out[..., second] = np.maximum(difference, 0), np.maximum(-difference, 0)
    first, second = rules.yields
    room = 1 - out[..., first]
    for i, j in enumerate(second.tolist()):
        out[..., j] = np.minimum(out[..., j], room[..., i])
    for i, j, factor in rules.at_most:
        most = factor * out[..., j] if j >= 0 else 0.0
        out[..., i] = np.minimum(out[..., i], most)
    return out


def exclude(expression: Tensor, names: tuple[str, ...]) -> Tensor:
    """Moves coefficients to where no two shapes are on that a face cannot hold at once.

    Opposites (jawLeft and jawRight) cancel; what yields leaves room (a + b <= 1: eyeBlink and eyeWide); what
    needs another shape never exceeds it (mouthClose <= jawOpen). Done twice, nothing changes the second time.

    Args:
        expression: [*B, E].
        names: The E names; rules on names that are not there are left out.

    Returns:
        [*B, E], 0..1, without gradient.
    """
    return torch.from_numpy(exclude_values(expression.detach().cpu().numpy(), names)).to(expression.device)


def _nearest(
    start: np.ndarray, rows: Rows, loose: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """The point of a box nearest to `start` with A x >= b, by coordinate ascent on the multipliers.

    Args:
        start: [n].
        rows: A [m, n] and b [m].
        loose: [n] how easily each variable moves; 0 for fixed ones.
        low: [n] lower ends of the box.
        high: [n] upper ends.

    Returns:
        [n]; as near as it got if nothing fulfils all.
    """
    A, b = rows
    if len(b) == 0:
        return start
    pull = A * loose
    scale = np.maximum((pull * A).sum(axis=1), 1e-12)
    multipliers = [0.0] * len(b)
    limits = list(zip(A, pull, b.tolist(), scale.tolist(), strict=True))
    moved, x = start.copy(), start
    for _ in range(_SWEEPS):
        worst = 0.0
        for i, (row, towards, least, size) in enumerate(limits):
            step = max((least - float(row.dot(x))) / size, -multipliers[i])
            if step == 0.0:
                continue
            multipliers[i] += step
            moved += step * towards
            x = np.minimum(np.maximum(moved, low), high)
            worst = max(worst, abs(step) * size)
        if worst < 0.2 * TOLERANCE_M:
            break
    return x


def _solve(
    start: np.ndarray,
    loose: np.ndarray,
    box: tuple[np.ndarray, np.ndarray],
    violated: Callable[[np.ndarray], Rows],
) -> np.ndarray:
    """Nearest point within limits that are not linear: linearised where it stands, limits kept once met."""
    x = start
    A, b = violated(x)
    for _ in range(_ROUNDS):
        if len(b) == 0:
            break
        x = _nearest(start, (A, b), loose, *box)
        more = violated(x)
        if len(more[1]) == 0:
            break
        A, b = np.concatenate([A, more[0]]), np.concatenate([b, more[1]])
    return x


def _hardest(values: np.ndarray, least: float, gradient: Callable[[np.ndarray], np.ndarray]) -> Rows | None:
    """Gradients and missing parts of those limits `values >= least` that are missed most."""
    missing = np.float32(least) - values.reshape(-1)
    chosen = (missing > TOLERANCE_M).nonzero()[0]
    if len(chosen) == 0:
        return None
    chosen = chosen[np.argsort(-missing[chosen], kind="stable")[:_ROWS]]
    return gradient(chosen).astype(np.float64), missing[chosen].astype(np.float64)


def _stack(parts: list[Rows | None], x: np.ndarray) -> Rows:
    """All rows, b made absolute: A x' >= A x + what is missing."""
    real = [part for part in parts if part is not None]
    if not real:
        return np.zeros((0, len(x))), np.zeros(0)
    A = np.concatenate([part[0] for part in real])
    return A, np.concatenate([part[1] for part in real]) + A @ x


@cached_per_tensor
def _states(_: Tensor, model: MorphableModel) -> np.ndarray:
    """[S, E] expressions whose lids every person must allow."""
    rows = []
    for state in _STATES:
        named = {f"{stem}{side}": value for stem, value in state.items() for side in ("Left", "Right")}
        known = {k: v for k, v in named.items() if k in model.data.expression_names}
        rows.append(model.expression_vector(known))
    return torch.stack(rows).cpu().numpy()


def limit_identity(model: MorphableModel, identity: Tensor) -> Tensor:
    """The nearest person whose face works.

    Lids clear the eyeballs at rest, in half a blink, a full one and looking up and down; they meet in a full
    blink; lips do not cross at rest.

    Args:
        model: Face model; without lids and lips nothing changes.
        identity: [*B, K] sigma.

    Returns:
        [*B, K] sigma; nearest in the Mahalanobis distance of the prior.
    """
    tables = face_tables(model)
    if tables is None:
        return identity
    states = _states(model.data.template, model)
    flat = identity.detach().cpu().double().reshape(-1, identity.shape[-1]).numpy()
    rows = np.stack([_limit_person(tables, states, person) for person in flat])
    return torch.from_numpy(rows).reshape(identity.shape).to(identity)


def _limit_person(tables: FaceTables, states: np.ndarray, start: np.ndarray) -> np.ndarray:
    shut = states[2]

    def violated(x: np.ndarray) -> Rows:
        here = tables.person(x)
        clearance, outward = here.clearance(states)
        parts = [_hardest(clearance, CLEARANCE_M, lambda i: tables.clearance_by_identity(i, outward))]
        gap = here.lid_gap(shut).reshape(-1)
        parts.append(_hardest(-gap, -SHUT_GAP_M, lambda i: -tables.lid_gap_identity.reshape(len(gap), -1)[i]))
        lips = here.lips - tables.lips
        parts.append(_hardest(lips, -LIPS_CROSS_M, lambda i: tables.lips_identity[i]))
        return _stack(parts, x)

    bound = np.full(len(start), _FAR_SIGMA)
    return _solve(start, np.ones(len(start)), (-bound, bound), violated)


@cached_per_tensor
def _points(identity: Tensor, model: MorphableModel) -> Limited:
    """A person's points, kept as long as the tensor that says who it is."""
    tables = face_tables(model)
    assert tables is not None  # models without are left alone
    return tables.person(identity.detach().cpu())


def limit_face(model: MorphableModel, identity: Tensor, expression: Tensor) -> Tensor:
    """The nearest expression that this person's face can hold.

    Shapes that exclude each other give way first (`exclude`). Then eyeBlink, eyeSquint, eyeWide and what else
    moves the lids change as little as is needed for lids to clear the eyeballs, to meet where eyeBlink is 0.9
    or more, and not to pass each other; shapes of mouth and jaw so that lips do not cross and the tongue
    passes over the lower lip. The eyeLook shapes belong to the gaze and stay.

    Args:
        model: Face model; without lids and lips only `exclude` is done.
        identity: [*B, K] sigma.
        expression: [*B, E]; leading dimensions broadcast.

    Returns:
        [*B, E], 0..1.
    """
    names = model.data.expression_names
    tables = face_tables(model)
    held = exclude_values(expression.detach().cpu().numpy(), names)
    if tables is None:
        return torch.from_numpy(held).to(expression)
    batch = torch.broadcast_shapes(identity.shape[:-1], expression.shape[:-1])
    flat = np.broadcast_to(held, (*batch, len(names))).reshape(-1, len(names))
    if identity.dim() == 1:
        people = [_points(identity, model)] * len(flat)
    else:
        rows = identity.detach().cpu().expand(*batch, -1).reshape(-1, identity.shape[-1])
        people = [tables.person(row) for row in rows]
    out = np.stack([_limit_face(tables, who, e) for who, e in zip(people, flat, strict=True)])
    return torch.from_numpy(out).reshape(*batch, -1).to(expression)


def _limit_face(tables: FaceTables, here: Limited, expression: np.ndarray) -> np.ndarray:
    start = expression.astype(np.float64)
    high = np.where(tables.may_rise, 1.0, start)

    def violated(x: np.ndarray) -> Rows:
        e = x.astype(np.float32)
        clearance, outward = here.clearance(e)
        gap, lips = here.lid_gap(e), here.lips_over(e)
        by_gap = tables.lid_gap_expression
        shut = e[list(tables.blink)] >= SHUT - 1e-3
        n = gap.shape[1]
        parts = [
            _hardest(clearance, CLEARANCE_M, lambda i: tables.clearance_by_expression(i, outward)),
            _hardest(gap, -OVERLAP_M, lambda i: by_gap.reshape(2 * n, -1)[i]),
            _hardest(lips, -LIPS_CROSS_M, lambda i: tables.lips_expression[i]),
        ]
        height = here.tongue_height(e) if e[tables.tongue_out] > TONGUE_IN else None
        if height is not None and height[0] < TONGUE_M - TOLERANCE_M:
            parts.append((height[1][None], np.array([TONGUE_M - height[0]])))
        for side in (0, 1):
            if shut[side]:
                parts.append(_hardest(-gap[side], -SHUT_GAP_M, lambda i, s=side: -by_gap[s][i]))
        return _stack(parts, x)

    box = (np.zeros(len(start)), high)
    out = _solve(start, tables.loose, box, violated)
    tongue = tables.tongue_out
    if out[tongue] > TONGUE_IN:
        height = here.tongue_height(out)
        if height is not None and height[0] < TONGUE_M - 5 * TOLERANCE_M:
            start[tongue] = TONGUE_IN
            out = _solve(start, tables.loose, box, violated)
    return out
