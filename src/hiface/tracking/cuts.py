# SPDX-License-Identifier: Apache-2.0
"""Hard cuts in videos, seen in tiny grey pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_SIDE = 32
_ALIKE = 0.6  # correlation under which two frames show other scenes
_LEAST = 0.03  # mean change of brightness, 0..1, that a cut makes
_FLAT = 0.02  # standard deviation of brightness under which a picture shows nothing


@dataclass
class CutDetector:
    """Says at each frame whether another scene begins.

    Pictures are compared by the correlation of their brightness, which does not see exposure; and by the mean
    difference, without which noise would be a cut. A flash of light is none: frames that are all white, or of
    any one colour, are passed over, and a single odd frame is taken back at the next one.

    Attributes:
        cuts: Frames so far that begin another scene.
    """

    cuts: list[int] = field(default_factory=list)
    _last: np.ndarray | None = None
    _before: np.ndarray | None = None  # right after a cut, the last frame of the scene before

    def step(self, image_srgb: np.ndarray, frame: int) -> bool:
        """Whether a frame begins another scene than the last one.

        Args:
            image_srgb: [H, W, 3] uint8.
            frame: Its number.

        Returns:
            False at the first frame; True at an odd one too, which is in `cuts` until the next frame only.
        """
        now = thumbnail(image_srgb)
        if float(now.std()) < _FLAT:
            return False
        last, before = self._last, self._before
        self._last, self._before = now, None
        if last is None or not _differ(now, last):
            return False
        if before is not None and not _differ(now, before):
            self.cuts.pop()
            return False
        self.cuts.append(frame)
        self._before = last
        return True


def thumbnail(image_srgb: np.ndarray) -> np.ndarray:
    """Brightness of a picture at points of a grid, averaged over 8 pixels: [h, w] float32 0..1."""
    step = max(1, max(image_srgb.shape[:2]) // _SIDE)
    near = step // 2
    picks = [image_srgb[dy::step, dx::step, 1] for dy in (0, near) for dx in (0, near)]
    rows, columns = (min(p.shape[i] for p in picks) for i in (0, 1))
    return np.mean([p[:rows, :columns] for p in picks], axis=0, dtype=np.float32) / 255.0


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two pictures show other scenes."""
    return a.shape != b.shape or (float(np.abs(a - b).mean()) > _LEAST and _correlation(a, b) < _ALIKE)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures; 0 where one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-6 else 0.0
