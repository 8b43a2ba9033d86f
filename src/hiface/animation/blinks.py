# SPDX-License-Identifier: Apache-2.0
"""Blinks that shut the eyes: an estimate that stops half way is stretched, person by person."""

from __future__ import annotations

import numpy as np

SHUT = 0.95
"""What a blink reaches."""
LEAST_PEAK = 0.4
"""Lower peaks may be a narrowing of the eyes."""
_RISE = 0.2
_AROUND_S = 0.4
_LONGEST_S = 0.6
_FEWEST = 2


def blink_peaks(times_s: np.ndarray, closure: np.ndarray) -> np.ndarray:
    """Frames in which an eye is most shut during a blink.

    Args:
        times_s: [n] increasing.
        closure: [n] 0..1.

    Returns:
        [P] frames of peaks of `LEAST_PEAK` or more that rise by 0.2 over what lies within 0.4 s before and
        after them, and are not half as high for longer than 0.6 s.
    """
    peaks = []
    for at in np.flatnonzero(closure >= LEAST_PEAK):
        before = closure[(times_s >= times_s[at] - _AROUND_S) & (times_s < times_s[at])]
        after = closure[(times_s <= times_s[at] + _AROUND_S) & (times_s > times_s[at])]
        if not len(before) or not len(after) or closure[at] <= before.max() or closure[at] < after.max():
            continue
        foot = max(before.min(), after.min())
        high = (closure > 0.5 * (closure[at] + foot)) & (np.abs(times_s - times_s[at]) <= _LONGEST_S)
        if closure[at] - foot >= _RISE and np.ptp(times_s[high]) <= _LONGEST_S:
            peaks.append(at)
    return np.array(peaks, dtype=int)


def shut_blinks(times_s: np.ndarray, closure: np.ndarray) -> np.ndarray:
    """Stretches the closure of one eye so that its usual blink shuts it.

    How far somebody's eyes seem to close depends on lashes and glasses more than on the lids; people's blinks
    shut the eye. What is no wider open than usual stays as it is.

    Args:
        times_s: [n] increasing.
        closure: [n] `eyeBlink`, 0..1; NaN where the eye is not seen.

    Returns:
        [n] 0..1; unchanged with fewer than two blinks.
    """
    seen = np.isfinite(closure)
    if seen.sum() < 3:
        return closure
    peaks = blink_peaks(times_s[seen], closure[seen])
    if len(peaks) < _FEWEST:
        return closure
    top, rest = np.median(closure[seen][peaks]), np.median(closure[seen])
    if top >= SHUT:
        return closure
    stretched = rest + (closure - rest) * (SHUT - rest) / (top - rest)
    return np.where(closure > rest, np.minimum(stretched, 1.0), closure)
