# SPDX-License-Identifier: Apache-2.0
"""What a face does over time: expression, head rotation and place, and which frames were really seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.types import FaceParams

STATUSES = ("ok", "missing", "interpolated")
"""Seen; not seen, so that the values of `held_frames` stand; filled in between two seen frames."""


@dataclass(frozen=True)
class Motion:
    """What a driver does, frame by frame.

    Attributes:
        expression: [N, E] 0..1, in the model's order.
        R_cam_head: [N, 3, 3] rotation of the head, object to camera, or None where it is not known.
        times: [N] seconds, increasing; float64 where clocks run for long.
        t_cam_head: [N, 3] place of the head in camera space, metres, or None where it is not known.
        status: N words of `STATUSES`, or None where every frame is "ok".
    """

    expression: Tensor
    R_cam_head: Tensor | None
    times: Tensor
    t_cam_head: Tensor | None = None
    status: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.expression)
        if self.expression.dim() != 2 or n == 0 or self.times.shape != (n,):
            raise ShapeError(
                f"a motion needs expressions [N, E] and N times, got {tuple(self.expression.shape)} and "
                f"{tuple(self.times.shape)}"
            )
        if not bool((self.times[1:] > self.times[:-1]).all()):
            raise ShapeError("the times of a motion must increase; leave out frames that come twice")
        if self.R_cam_head is not None and self.R_cam_head.shape != (n, 3, 3):
            raise ShapeError(f"R_cam_head must be [{n}, 3, 3], got {tuple(self.R_cam_head.shape)}")
        if self.t_cam_head is not None and self.t_cam_head.shape != (n, 3):
            raise ShapeError(f"t_cam_head must be [{n}, 3], got {tuple(self.t_cam_head.shape)}")
        if self.status is not None and (len(self.status) != n or not set(self.status) <= set(STATUSES)):
            raise ShapeError(f"status must be {n} words of {', '.join(STATUSES)}, got {self.status[:3]} ...")

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def fps(self) -> float | None:
        """Mean number of frames per second; None for a single frame."""
        return (len(self) - 1) / float(self.times[-1] - self.times[0]) if len(self) > 1 else None


def motion_of(faces: Sequence[FaceParams], fps: float = 24.0) -> Motion:
    """Motion of one person's coefficients, frame after frame.

    Args:
        faces: Unbatched coefficients.
        fps: Frames per second.
    """
    return Motion(
        torch.stack([face.expression for face in faces]),
        torch.stack([face.camera.R for face in faces]),
        torch.arange(len(faces)) / fps,
    )


def held_frames(seen: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Frames that stand for those that are missing.

    Args:
        seen: N; at least one frame.

    Returns:
        [N] the frame that each frame shows: itself, or the last one before it that was seen, or the first.

    Raises:
        ShapeError: No frame was seen.
    """
    there = np.asarray(seen, dtype=bool)
    if not there.any():
        raise ShapeError("a motion needs a frame in which a face was seen, all are missing")
    last = np.maximum.accumulate(np.where(there, np.arange(len(there)), -1))
    return np.where(last < 0, int(np.argmax(there)), last)


def fill_missing(
    values: Tensor, seen: Sequence[bool], times_s: Sequence[float] | None = None, gap_s: float = np.inf
) -> tuple[Tensor, tuple[str, ...]]:
    """Values for frames in which no face was seen: linear across gaps, held (`held_frames`) elsewhere.

    Args:
        values: [N, E]; rows that were not seen are not read.
        seen: N; at least one frame.
        times_s: N; evenly spaced if None.
        gap_s: Longest time between two seen frames that is a gap and no absence, in the unit of `times_s`.

    Returns:
        [N, E] and the status of every frame.

    Raises:
        ShapeError: No frame was seen.
    """
    there = np.asarray(seen, dtype=bool)
    times = np.arange(len(there), dtype=np.float64) if times_s is None else np.asarray(times_s, np.float64)
    before = held_frames(there)
    after = len(there) - 1 - held_frames(there[::-1])[::-1]
    wide = times[after] - times[before]
    inner = (before < np.arange(len(there))) & (np.arange(len(there)) < after) & (wide <= gap_s + 1e-9)
    share = torch.from_numpy(np.where(inner, (times - times[before]) / np.maximum(wide, 1e-9), 0.0))
    filled = torch.lerp(values[before], values[after], share.to(values)[:, None])
    status = np.where(there, "ok", np.where(inner, "interpolated", "missing"))
    return filled, tuple(status.tolist())
