# SPDX-License-Identifier: Apache-2.0
"""What every source of frames has in common: what is known of it, frames with their times, warnings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

FPS_RANGE = (0.001, 1000.0)
"""Frames a second that can be true."""
_Source = TypeVar("_Source", bound="VideoSource")
_JUMP_BACK_S = 1.0


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    Attributes:
        name: Name of the file or folder, or the camera's or stream's address.
        width: Pixels of an upright frame, after rotation and with square pixels.
        height: Pixels of an upright frame.
        fps: Frames a second on average.
        n_frames: Number of frames as the container states it, which may be wrong; None: it does not.
        duration_s: Length in seconds as the container states it, or None.
        has_audio: There is sound.
        live: Frames come when they are there, and those that are not fetched in time are dropped.
    """

    name: str
    width: int
    height: int
    fps: float
    n_frames: int | None
    duration_s: float | None
    has_audio: bool
    live: bool


@dataclass(frozen=True)
class VideoFrame:
    """One upright picture of a video.

    Attributes:
        index: 0, 1, 2 ... without gaps.
        time_s: Seconds since the first frame, strictly increasing.
        image_srgb: [H, W, 3] uint8 sRGB, contiguous; the caller may write to it.
        captured_s: When it came, by `time.monotonic`, of live sources.
    """

    index: int
    time_s: float
    image_srgb: np.ndarray
    captured_s: float | None = None


class VideoSource(ABC):
    """Frames in order; a context manager.

    Files and folders can be iterated again, which starts at the first frame; live sources go on.

    Attributes:
        info: What is known of the video.
        warnings: What was wrong with it without being an error, a line each; complete after the last frame.
    """

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.warnings: list[str] = []

    @property
    def dropped(self) -> int:
        """Frames of a live source that were not fetched in time; 0 for files and folders."""
        return 0

    @abstractmethod
    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames; raises VideoError when the source is closed or cannot be read."""

    @abstractmethod
    def close(self) -> None:
        """Frees file, decoder or camera; frames that were handed out stay valid."""

    def __enter__(self: _Source) -> _Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def warn(self, line: str) -> None:
        """Adds a warning unless it is there already."""
        if line not in self.warnings:
            self.warnings.append(line)


def plausible_fps(*rates: Any, fallback: float) -> float:
    """The first of some rates (numbers or None) that can be true: containers state 90000 too."""
    low, high = FPS_RANGE
    return next((float(rate) for rate in rates if rate is not None and low <= rate <= high), fallback)


class Clock:
    """Turns timestamps of any kind into seconds since the first frame that strictly increase.

    A missing timestamp becomes one frame after the last. One that stands still or steps back a little becomes
    half a frame after the last, so that true ones after it stay as they are. A jump back by more than a
    second is the start of another recording: it is appended one frame after the last.

    Attributes:
        mended: Number of timestamps that were changed.
    """

    def __init__(self, fps: float) -> None:
        """Takes the average rate in frames a second."""
        self.mended = 0
        self._step_s = 1.0 / fps
        self._start_s: float | None = None
        self._last_s = 0.0

    def tick(self, stamp_s: float | None) -> float:
        """Time of the next frame.

        Args:
            stamp_s: Its timestamp in seconds from any origin; None where it has none.

        Returns:
            Seconds since the first frame, over those of the frame before.
        """
        if self._start_s is None:
            self._start_s = 0.0 if stamp_s is None else stamp_s
            self.mended += stamp_s is None
            return 0.0
        if stamp_s is None:
            time_s = self._last_s + self._step_s
            self.mended += 1
        else:
            time_s = stamp_s - self._start_s
            if time_s < self._last_s - _JUMP_BACK_S:
                self._start_s = stamp_s - self._last_s - self._step_s
                time_s = self._last_s + self._step_s
                self.mended += 1
            elif time_s <= self._last_s:
                time_s = self._last_s + 0.5 * self._step_s
                self.mended += 1
        self._last_s = time_s
        return time_s
