# SPDX-License-Identifier: Apache-2.0
"""Hard cuts in videos, seen in tiny grey pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SIDE = 32
_ALIKE = 0.6  # correlation under which two frames show other scenes
_LEAST = 0.03  # mean change of brightness, 0..1, that a cut makes


@dataclass
class CutDetector:
    """Says at each frame whether another scene begins.

    Pictures are compared by the correlation of their brightness, which does not see exposure and flashes; and
    by the mean difference, without which noise on a flat picture would be a cut. A flash of light is none.
    """

    _last: np.ndarray | None = None

    def step(self, image_srgb: np.ndarray) -> bool:
        """Whether this frame [H, W, 3] uint8 begins another scene than the last one; False at the first."""
        now = thumbnail(image_srgb)
        last, self._last = self._last, now
        if last is None:
            return False
        if last.shape != now.shape:
            return True
        return float(np.abs(now - last).mean()) > _LEAST and _correlation(now, last) < _ALIKE


def thumbnail(image_srgb: np.ndarray) -> np.ndarray:
    """Brightness of a picture at points of a grid, averaged over 8 pixels: [h, w] float32 0..1."""
    step = max(1, max(image_srgb.shape[:2]) // _SIDE)
    near = step // 2
    picks = [image_srgb[dy::step, dx::step, 1] for dy in (0, near) for dx in (0, near)]
    rows, columns = (min(p.shape[i] for p in picks) for i in (0, 1))
    return np.mean([p[:rows, :columns] for p in picks], axis=0, dtype=np.float32) / 255.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures; 0 where one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-6 else 0.0
