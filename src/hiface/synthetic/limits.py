# SPDX-License-Identifier: Apache-2.0
"""Physical limits: lids clear the eyeballs and close, lips do not cross, some shapes exclude each other.

Everything is done to the coefficients, never to vertices: what is drawn stays what the labels say. A person
or an expression beyond a limit is moved to the nearest one within it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
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


@cache
def _rules(
    names: tuple[str, ...],
) -> tuple[list[tuple[int, int]], Tensor, Tensor, list[tuple[int, int, float]]]:
    """Rules of `expression_limits.json` as indices into the names: opposites, who yields to whom, at most."""
    index, rules = {name: i for i, name in enumerate(names)}, load_json_asset("open/expression_limits.json")
    opposite = [(index[a], index[b]) for a, b in rules["opposite"] if a in index and b in index]
    yields = [(index[a], index[b]) for a, b in rules["yields"] if a in index and b in index]
    at_most = [(index[a], index.get(b, -1), float(f)) for a, b, f in rules["at_most"] if a in index]
    first, second = torch.tensor(yields, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return opposite, first, second, at_most


@torch.no_grad()
def exclude(expression: Tensor, names: tuple[str, ...]) -> Tensor:
    """Moves coefficients to where no two shapes are on that a face cannot hold at once.

    Opposites (jawLeft and jawRight) cancel; what yields leaves room (a + b <= 1: eyeBlink and eyeWide); what
    needs another shape never exceeds it (mouthClose <= jawOpen). Done twice, nothing changes the second time.

    Args:
        expression: [*B, E].
        names: The E names; rules on names that are not there are left out.

    Returns:
        [*B, E], 0..1.
    """
    out = expression.clamp(0.0, 1.0)
    opposite, first, second, at_most = _rules(names)
    for i, j in opposite:
        difference = out[..., i] - out[..., j]
        out[..., i], out[..., j] = difference.clamp_min(0), (-difference).clamp_min(0)
    first, second = first.to(out.device), second.to(out.device)
    room = 1.0 - out[..., first]
    out = out.scatter_reduce(-1, second.expand(room.shape), room, "amin")
    for i, j, factor in at_most:
        most = factor * out[..., j] if j >= 0 else torch.zeros_like(out[..., i])
        out[..., i] = torch.minimum(out[..., i], most)
    return out


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
    multipliers = np.zeros(len(b))
    moved, x = start.copy(), start
    for _ in range(_SWEEPS):
        worst = 0.0
        for i in range(len(b)):
            step = max((b[i] - A[i] @ x) / scale[i], -multipliers[i])
            if step == 0.0:
                continue
            multipliers[i] += step
            moved = moved + step * pull[i]
            x = np.clip(moved, low, high)
            worst = max(worst, abs(step) * scale[i])
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


def _hardest(values: Tensor, least: float, gradient: Callable[[Tensor], Tensor]) -> Rows | None:
    """Gradients and missing parts of those limits `values >= least` that are missed most."""
    flat = values.reshape(-1)
    missing = least - flat
    order = missing.topk(min(_ROWS, len(flat)))
    chosen = order.indices[order.values > TOLERANCE_M]
    if len(chosen) == 0:
        return None
    return gradient(chosen).double().numpy(), missing[chosen].double().numpy()


def _stack(parts: list[Rows | None], x: np.ndarray) -> Rows:
    """All rows, b made absolute: A x' >= A x + what is missing."""
    real = [part for part in parts if part is not None]
    if not real:
        return np.zeros((0, len(x))), np.zeros(0)
    A = np.concatenate([part[0] for part in real])
    return A, np.concatenate([part[1] for part in real]) + A @ x


def _states(model: MorphableModel) -> Tensor:
    """[S, E] expressions whose lids every person must allow."""
    rows = []
    for state in _STATES:
        named = {f"{stem}{side}": value for stem, value in state.items() for side in ("Left", "Right")}
        known = {k: v for k, v in named.items() if k in model.data.expression_names}
        rows.append(model.expression_vector(known))
    return torch.stack(rows)


@torch.no_grad()
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
    states = _states(model)
    flat = identity.reshape(-1, identity.shape[-1])
    rows = [_limit_person(tables, states, person) for person in flat]
    return torch.stack(rows).reshape(identity.shape).to(identity)


def _limit_person(tables: FaceTables, states: Tensor, person: Tensor) -> Tensor:
    shut = states[2]

    def violated(x: np.ndarray) -> Rows:
        identity = torch.from_numpy(x).to(tables.lids)
        here = tables.person(identity)
        clearance, outward = here.clearance(states)
        parts = [_hardest(clearance, CLEARANCE_M, lambda i: tables.clearance_by_identity(i, outward))]
        gap = here.lid_gap(shut).reshape(-1)
        parts.append(_hardest(-gap, -SHUT_GAP_M, lambda i: -tables.lid_gap_identity.reshape(len(gap), -1)[i]))
        lips = here.lips - tables.lips
        parts.append(_hardest(lips, -LIPS_CROSS_M, lambda i: tables.lips_identity[i]))
        return _stack(parts, x)

    start = person.double().numpy()
    bound = np.full(len(start), _FAR_SIGMA)
    out = _solve(start, np.ones(len(start)), (-bound, bound), violated)
    return torch.from_numpy(out)


@torch.no_grad()
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
    expression = exclude(expression, names)
    if tables is None:
        return expression
    batch = torch.broadcast_shapes(identity.shape[:-1], expression.shape[:-1])
    people = identity.expand(*batch, -1).reshape(-1, identity.shape[-1])
    flat = expression.expand(*batch, -1).reshape(-1, len(names))
    rows = [_limit_face(tables, tables.person(p), e) for p, e in zip(people, flat, strict=True)]
    return torch.stack(rows).reshape(*batch, -1).to(expression)


def _limit_face(tables: FaceTables, here: Limited, expression: Tensor) -> Tensor:
    start = expression.double().numpy()
    high = np.where(tables.may_rise, 1.0, start)

    def violated(x: np.ndarray) -> Rows:
        e = torch.from_numpy(x).to(here.lids)
        clearance, outward = here.clearance(e)
        gap = here.lid_gap(e)
        lips = here.lips + tables.lips_expression @ e - tables.lips
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
        height = here.tongue_height(torch.from_numpy(out).to(here.lids))
        if height is not None and height[0] < TONGUE_M - 5 * TOLERANCE_M:
            start[tongue] = TONGUE_IN
            out = _solve(start, tables.loose, box, violated)
    return torch.from_numpy(out)
