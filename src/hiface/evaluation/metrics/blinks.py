# SPDX-License-Identifier: Apache-2.0
"""When eyes blink: events of curves of `eyeBlink`, and how far estimated ones are from the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiface.optional import needed

TRUE_PEAK, TRUE_RISE = 0.5, 0.3
FOUND_RISE = 0.2
_HALF_PEAK, _HALF_RISE = 0.25, 0.15  # what is no blink yet, but excuses the estimate of one
REACH_FRAMES = 5.0
_SHUT = 0.8


@dataclass(frozen=True)
class BlinkEvent:
    """One closing of an eye.

    Attributes:
        peak: The middle of the time in which it is closed by 80 % of the way or more, frames with their
            fraction; noise on a plateau moves it little.
        onset: When it is half closed on the way there, frames with their fraction.
        value: `eyeBlink` at the peak.
    """

    peak: float
    onset: float
    value: float


def find_blinks(curve: np.ndarray, least_peak: float, least_rise: float) -> list[BlinkEvent]:
    """Blinks of one eye.

    Args:
        curve: [n] `eyeBlink`, finite.
        least_peak: Lower peaks do not count.
        least_rise: Peaks that rise by less over what lies around them (their prominence) do not count.

    Returns:
        Events in order.

    Raises:
        MissingExtraError: scipy is missing.
    """
    signal = needed("scipy.signal", "finding blinks needs scipy")
    found, about = signal.find_peaks(curve, height=least_peak, prominence=least_rise)
    events = []
    for i, at in enumerate(found):
        top, rise = float(curve[at]), float(about["prominences"][i])
        shut, half = top - (1 - _SHUT) * rise, top - 0.5 * rise
        peak = 0.5 * (_crossing(curve, at, -1, shut) + _crossing(curve, at, 1, shut))
        events.append(BlinkEvent(peak, _crossing(curve, at, -1, half), top))
    return events


def _crossing(curve: np.ndarray, at: int, step: int, level: float) -> float:
    """Where a curve falls below a level on the way back or forth from a frame, between frames too."""
    while 0 <= at + step < len(curve) and curve[at + step] >= level:
        at += step
    if not 0 <= at + step < len(curve):
        return float(at)
    return at + step * float((curve[at] - level) / (curve[at] - curve[at + step]))


def pair_events(
    a: list[BlinkEvent], b: list[BlinkEvent], reach: float = REACH_FRAMES
) -> list[tuple[int, int]]:
    """Pairs of events whose peaks are at most `reach` frames apart, nearest first, each used once."""
    gaps = sorted((abs(x.peak - y.peak), i, j) for i, x in enumerate(a) for j, y in enumerate(b))
    pairs: list[tuple[int, int]] = []
    for gap, i, j in gaps:
        if gap <= reach and all(i != p and j != q for p, q in pairs):
            pairs.append((i, j))
    return sorted(pairs)


def blink_scores(
    truth: np.ndarray, found: np.ndarray, counts: np.ndarray, answered: np.ndarray
) -> dict[str, Any]:
    """Timing of the blinks of one eye of one person.

    Args:
        truth: [n] true `eyeBlink`; what it is where `counts` is False does not matter.
        found: [n] estimated; what it is where `answered` is False does not matter.
        counts: [n] bool, the face is there.
        answered: [n] bool, the estimate is of this person.

    Returns:
        true, missed, false: numbers of blinks (peaks of 0.5 and more; false ones belong to nothing, not even
        a half blink). peak_offsets, onset_offsets: estimated minus true, frames, for each blink that was
        found. ratios: the highest estimate within two frames of a true peak over its value.
    """
    true_curve = np.where(counts, np.nan_to_num(truth), 0.0)
    seen = answered & counts
    if not seen.any():
        curve = np.zeros(len(truth))
    else:
        curve = np.interp(np.arange(len(truth)), np.flatnonzero(seen), found[seen])
    events = [e for e in find_blinks(true_curve, TRUE_PEAK, TRUE_RISE) if _whole(e, counts)]
    guesses = find_blinks(curve, 0.0, FOUND_RISE)
    guesses = [g for g in guesses if seen[round(g.peak)]]
    pairs = pair_events(events, guesses)
    taken = {j for _, j in pairs}
    rest = [g for j, g in enumerate(guesses) if j not in taken and g.value >= TRUE_PEAK]
    excused = pair_events(find_blinks(true_curve, _HALF_PEAK, _HALF_RISE), rest)
    around = [curve[max(0, round(e.peak) - 2) : round(e.peak) + 3].max() / e.value for e in events]
    return {
        "true": len(events),
        "missed": len(events) - len(pairs),
        "false": len(rest) - len(excused),
        "peak_offsets": [round(guesses[j].peak - events[i].peak, 3) for i, j in pairs],
        "onset_offsets": [round(guesses[j].onset - events[i].onset, 3) for i, j in pairs],
        "ratios": [round(float(value), 4) for value in around],
    }


def _whole(event: BlinkEvent, counts: np.ndarray) -> bool:
    """Whether the face is there all around a blink."""
    at = round(event.peak)
    return bool(counts[max(0, at - 3) : at + 4].all())
