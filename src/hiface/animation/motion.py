# SPDX-License-Identifier: Apache-2.0
"""What a face does over time: expression, head rotation and place, and which frames were really seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.types import FaceParams

STATUSES = ("ok", "missing", "interpolated")
"""Seen; not seen, so that the values of the nearest seen frame stand; filled in between two seen frames."""


@dataclass(frozen=True)
class Motion:
    """What a driver does, frame by frame.

    Attributes:
        expression: [N, E] 0..1, in the model's order.
        R_cam_head: [N, 3, 3] rotation of the head, object to camera, or None where it is not known.
        times: [N] seconds, increasing.
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
        """Mean number of frames per second; None for a single frame or times that do not increase."""
        seconds = float(self.times[-1] - self.times[0])
        return (len(self) - 1) / seconds if seconds > 0 else None


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


def fill_missing(expression: Tensor, seen: Sequence[bool]) -> tuple[Tensor, tuple[str, ...]]:
    """Values for frames in which no face was seen: linear between two seen frames, the nearest at the ends.

    Args:
        expression: [N, E]; rows that were not seen are not read.
        seen: N; at least one frame.

    Returns:
        [N, E] and the status of every frame.

    Raises:
        ShapeError: No frame was seen.
    """
    known = torch.tensor([i for i, there in enumerate(seen) if there])
    if len(known) == 0:
        raise ShapeError("a motion needs a frame in which a face was seen, all are missing")
    frames = torch.arange(len(expression))
    after = torch.searchsorted(known, frames).clamp(max=len(known) - 1)
    before = (after - (known[after] > frames).long()).clamp(min=0)
    low, high = known[before], known[after]
    share = ((frames - low) / (high - low).clamp(min=1)).clamp(0, 1).to(expression)[:, None]
    filled = torch.lerp(expression[low], expression[high], share)
    first, last = int(known[0]), int(known[-1])
    status = (
        "ok" if there else "interpolated" if first < i < last else "missing" for i, there in enumerate(seen)
    )
    return filled, tuple(status)
