# SPDX-License-Identifier: Apache-2.0
"""Timecodes of Live Link Face: HH:MM:SS:FF.mmm, where FF.mmm is the frame within the second and its part."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

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
        [N] seconds from the first row on, or None where a text is no timecode or they do not increase.
    """
    found = [_FORM.fullmatch(text.strip()) for text in texts]
    if not found or None in found:
        return None
    h, m, s, frames = np.array([[float(part) for part in match.groups()] for match in found if match]).T
    whole = h * 3600 + m * 60 + s
    times = whole + frames / _rate(whole, frames, fps)
    times = times + 2 * _HALF_DAY_S * np.cumsum(np.r_[False, np.diff(times) < -_HALF_DAY_S])
    return times - times[0] if (np.diff(times) > 0).all() else None


def _rate(whole: np.ndarray, frames: np.ndarray, fps: float) -> float:
    """Frames per second: what the frame number was short of where the second ended, near a usual rate."""
    next_second = np.flatnonzero(np.diff(whole) == 1)
    within = np.diff(frames)[np.diff(whole) == 0]
    if len(next_second) == 0 or len(within) == 0:
        return max(fps, float(np.ceil(frames.max() + 1e-9)), 1.0)
    found = float(np.median(frames[next_second] + np.median(within) - frames[next_second + 1]))
    usual = min(USUAL_FPS, key=lambda rate: abs(rate - found))
    return max(usual if abs(usual - found) <= _NEAR * usual else found, 1.0)
