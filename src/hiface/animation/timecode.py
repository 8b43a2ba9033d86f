# SPDX-License-Identifier: Apache-2.0
"""Timecodes of Live Link Face: HH:MM:SS:FF.mmm, where FF.mmm is the frame within the second and its part."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from hiface.errors import FaceFileError

USUAL_FPS = (23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 50.0, 59.94, 60.0, 90.0, 100.0, 120.0, 240.0)
DEFAULT_FPS = 60.0
_FORM = re.compile(r"(\d{1,3}):(\d{2}):(\d{2}):(\d{1,4}(?:\.\d+)?)")
_NEAR = 0.02
_HALF_DAY_S = 43200.0


def to_timecode(seconds: float, fps: float) -> str:
    """Text of a time, exact to a thousandth of a frame.

    Args:
        seconds: Since midnight or the start, 0 or more.
        fps: Frames per second.
    """
    whole = int(seconds)
    frame = round((seconds - whole) * fps, 3)
    if frame >= round(fps, 3):
        whole, frame = whole + 1, 0.0
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:06.3f}"


def from_timecodes(texts: Sequence[str], fps: float = DEFAULT_FPS) -> np.ndarray | None:
    """Times of timecodes.

    Args:
        texts: One a row.
        fps: Frames per second where the rows do not tell: they do if a second ends among them.

    Returns:
        [N] increasing seconds from the first row on; rows whose text is no timecode, or the same as that of
        the row before, get times between their neighbours'. None where no text is a timecode.

    Raises:
        FaceFileError: A timecode is before the one above it; the message has the row.
    """
    found = [_FORM.fullmatch(text.strip()) for text in texts]
    rows = np.array([i for i, match in enumerate(found) if match])
    if len(rows) == 0:
        return None
    h, m, s, frames = np.array([[float(part) for part in match.groups()] for match in found if match]).T
    whole = h * 3600 + m * 60 + s
    whole = whole + 2 * _HALF_DAY_S * np.cumsum(np.r_[False, np.diff(whole) < -_HALF_DAY_S])
    new = np.r_[True, (np.diff(whole) != 0) | (np.diff(frames) != 0)]
    rows, whole, frames = rows[new], whole[new], frames[new]
    rate = _rate(whole, frames, fps)
    times = whole + frames / rate
    if (back := np.flatnonzero(np.diff(times) <= 0)).size:
        row = int(rows[back[0] + 1])
        raise FaceFileError(
            f"the timecode {texts[row]!r} of frame {row + 1} is not after the one above; mend or cut that row"
        )
    step = float(np.median(np.diff(times) / np.diff(rows))) if len(rows) > 1 else 1.0 / rate
    every = np.arange(len(texts))
    beyond = np.minimum(every - rows[0], 0) + np.maximum(every - rows[-1], 0)
    out = np.interp(every, rows, times) + step * beyond
    return out - out[0]


def _rate(whole: np.ndarray, frames: np.ndarray, fps: float) -> float:
    """Frames per second: what the frame number was short of where the second ended, near a usual rate.

    A frame that is missing there makes it too small, so that a rate that is not usual must be said twice.
    """
    next_second = np.flatnonzero(np.diff(whole) == 1)
    within = np.diff(frames)[np.diff(whole) == 0]
    if len(next_second) == 0 or len(within) == 0:
        return max(fps, float(np.ceil(frames.max() + 1e-9)), 1.0)
    ends = frames[next_second] + np.median(within) - frames[next_second + 1]
    found, in_whole = float(np.median(ends)), not (frames % 1).any()
    rates = [r for r in USUAL_FPS if r > frames.max() and not (in_whole and r % 1)]
    usual = min(rates, key=lambda rate: abs(rate - found), default=found)
    said_twice = len(ends) > 1 and float(np.ptp(ends)) <= _NEAR * found
    if said_twice and abs(usual - found) > _NEAR * usual:
        return max(found, 1.0)
    return usual if abs(usual - found) <= _NEAR * usual else min(rates, default=max(found, 1.0))
