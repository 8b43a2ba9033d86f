# SPDX-License-Identifier: Apache-2.0
"""What tracking a video gives: an answer for every frame and every person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hiface.animation.motion import Motion, held_frames
from hiface.result import FaceResult
from hiface.types import Camera, FaceParams

Status = Literal["ok", "interpolated", "missing"]
"""Seen and fitted; not seen in a short gap, taken from the frames about it; not there."""


@dataclass(frozen=True)
class PersonTrack:
    """One person in all N frames of a video. Numbers are NaN where the status is "missing".

    Attributes:
        number: 1 for whoever fills most of the pictures.
        face: The person, reconstructed from frames together: shape, texture and static detail.
        camera: Intrinsics of all frames; its pose has no meaning.
        status: N entries.
        expression: [N, E] 0..1, in the model's order.
        pose: [N, J, 3] rotation vectors of the joints, radians.
        T_cam_object: [N, 4, 4] head to camera, metres.
        light: [N, 9, 3] in camera axes.
        landmarks68_px: [N, 68, 2] of the fitted face, pixels of the frame.
        box: [N, 4] about them.
        score: [N] how sure it is that this is a face, 0..1.
        blendshapes: [N, E] what a program that knows the 52 shapes alone must be given: gaze is in them.
    """

    number: int
    face: FaceResult
    camera: Camera
    status: Sequence[Status]
    expression: Tensor
    pose: Tensor
    T_cam_object: Tensor
    light: Tensor
    landmarks68_px: Tensor
    box: Tensor
    score: Tensor
    blendshapes: Tensor

    def __len__(self) -> int:
        return len(self.status)

    @property
    def there(self) -> np.ndarray:
        """[N] bool, frames that are "ok" or "interpolated"."""
        return np.array([status != "missing" for status in self.status])

    def params(self, frame: int) -> FaceParams:
        """The person's coefficients in a frame; NaN where it is missing."""
        moved = replace(self.camera, T_cam_object=self.T_cam_object[frame])
        return self.face.params.replace(
            expression=self.expression[frame], pose=self.pose[frame], light=self.light[frame], camera=moved
        )

    def motion(self, times_s: Sequence[float]) -> Motion:
        """The motion of the face; frames where it is missing hold the last one."""
        last = held_frames(self.there)
        T = self.T_cam_object[last]
        times = torch.tensor(times_s, dtype=torch.float64)
        return Motion(self.blendshapes[last], T[:, :3, :3], times, T[:, :3, 3], tuple(self.status))


@dataclass(frozen=True)
class VideoTrack:
    """A tracked video.

    Attributes:
        name: Of the video.
        width: Pixels.
        height: Pixels.
        fps: Mean frames a second.
        times_s: N times, from the first frame.
        people: By how much of the pictures they fill.
        timings_s: Seconds by stage.
        warnings: What was wrong with the file, and who was left out.
    """

    name: str
    width: int
    height: int
    fps: float
    times_s: Sequence[float]
    people: Sequence[PersonTrack]
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
