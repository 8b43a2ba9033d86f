# SPDX-License-Identifier: Apache-2.0
"""Frames at the rate at which they come, tracked as they come, with how late each answer is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hiface.data.video import VideoFrame, VideoSource
from hiface.tracking.live import LiveFace, LiveTracker

_LATE = 1.0  # frames behind from which recorded frames are passed over, as a newer one is there
_KEPT = 2000  # latencies that are remembered


@dataclass(frozen=True)
class LiveAnswer:
    """What is known of one frame.

    Attributes:
        frame: The frame.
        faces: In the order of their people's numbers; empty if nobody is there.
        shown_s: `time.monotonic` when the frame was captured, or would have been shown.
    """

    frame: VideoFrame
    faces: Sequence[LiveFace]
    shown_s: float


class Latencies:
    """Seconds from a frame's capture to when something was done with it, of the last frames."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._ends: deque[float] = deque(maxlen=_KEPT)

    def add(self, answer: LiveAnswer) -> None:
        """Counts an answer as done now."""
        now = time.monotonic()
        self._seconds.append(now - answer.shown_s)
        self._ends.append(now)

    def percentile_ms(self, share: float) -> float:
        """Latency that `share` (0 to 100) of the answers keep, milliseconds; 0 without answers."""
        return 1e3 * float(np.percentile(self._seconds, share)) if self._seconds else 0.0

    def rate(self) -> float:
        """Answers a second, over the last two seconds."""
        recent = [end for end in self._ends if self._ends[-1] - end <= 2.0]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    def __len__(self) -> int:
        return len(self._seconds)


class LiveStream:
    """Tracks a source at its own rate; an answer for each frame that was tracked.

    A camera's frames are taken as they come. Recorded frames are shown at their times, as a camera would have
    shown them; those that come up while the one before is still being worked on are passed over.

    Args:
        video: Open source.
        tracker: Keeps what is known of the people.
    """

    def __init__(self, video: VideoSource, tracker: LiveTracker) -> None:
        self._video, self._tracker = video, tracker
        self._skipped = 0

    @property
    def passed_over(self) -> int:
        """Frames that came while another one was being worked on."""
        return self._skipped + self._video.dropped

    def __iter__(self) -> Iterator[LiveAnswer]:
        info, start = self._video.info, None
        self._tracker.warm_up(info.width, info.height)
        for frame in self._video:
            now = time.monotonic()
            if info.live:
                shown = now if frame.captured_s is None else frame.captured_s
            else:
                start = now - frame.time_s if start is None else start
                shown = start + frame.time_s
                if now - shown > _LATE / max(info.fps, 1.0):
                    self._skipped += 1
                    continue
                time.sleep(max(0.0, shown - now))
            yield LiveAnswer(frame, self._tracker.step(frame.image_srgb, frame.time_s), shown)
