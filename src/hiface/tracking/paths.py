# SPDX-License-Identifier: Apache-2.0
"""What a face does over the frames of a video, as numbers that can be filtered, and back.

The head's place is told by the pixel where its middle is seen and by the logarithm of its distance: a network
errs in them independently of how the head is turned, and of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from hiface.animation.gaze import EYE_JOINTS
from hiface.animation.smoothing import rts_smooth
from hiface.morphable import MorphableModel
from hiface.networks.hiface_params import head_anchor
from hiface.types import FaceParams

_FACE_M = 0.15  # size of a face


@dataclass(frozen=True)
class PathNoise:
    """What is known of errors from frame to frame, and of how quickly speeds change.

    Attributes:
        expression: Standard deviation of an expression's error from frame to frame, 0..1.
        expression_change: Changes of its speed, per second and square root of a second.
        gaze: Of an eye's angle, radians.
        gaze_change: Of the eye's speed.
        turn: Of the head's angle, radians.
        turn_change: Of its speed.
        place: Of the head's place over the face's size in the picture, and of the logarithm of its distance.
        place_change: Of its speed.
    """

    expression: float = 0.02
    expression_change: float = 2.0
    gaze: float = 0.03
    gaze_change: float = 3.0
    turn: float = 0.01
    turn_change: float = 0.5
    place: float = 0.004
    place_change: float = 0.3


@dataclass(frozen=True)
class FacePath:
    """One face over T frames as channels that can be filtered.

    Attributes:
        expression: [T, E].
        gaze: [T, 4] x and y of the left and the right eye's rotation vectors; [T, 0] of a model without.
        turn: [T, 3] rotation vectors of the head against `R_mean`, radians.
        place: [T, 3] where the head's middle is seen (x / z, y / z), and log z.
        R_mean: [3, 3].
    """

    expression: Tensor
    gaze: Tensor
    turn: Tensor
    place: Tensor
    R_mean: Tensor

    def channels(self) -> np.ndarray:
        """[T, C] all of them."""
        return torch.cat([self.expression, self.gaze, self.turn, self.place], dim=1).double().numpy()

    def with_channels(self, values: np.ndarray) -> FacePath:
        """The same with other values, expressions kept within 0..1."""
        parts = [part.shape[1] for part in (self.expression, self.gaze, self.turn, self.place)]
        expression, gaze, turn, place = torch.from_numpy(values).float().split(parts, dim=1)
        return FacePath(expression.clamp(0.0, 1.0), gaze, turn, place, self.R_mean)

    def face_angle(self) -> float:
        """The face's size over its mean distance."""
        known = self.place[torch.isfinite(self.place[:, 2]), 2]
        return _FACE_M * float(torch.exp(-known.mean()))

    def noise(self, noise: PathNoise) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations [C] of the channels' errors, and [C] of the changes of their speeds."""
        parts = (
            (self.expression, noise.expression, noise.expression_change),
            (self.gaze, noise.gaze, noise.gaze_change),
            (self.turn, noise.turn, noise.turn_change),
            (self.place, noise.place, noise.place_change),
        )
        sigma = np.concatenate([np.full(p.shape[1], error) for p, error, _ in parts])
        change = np.concatenate([np.full(p.shape[1], moved) for p, _, moved in parts])
        angle = self.face_angle()
        sigma[-3:-1], change[-3:-1] = angle * sigma[-3:-1], angle * change[-3:-1]
        return sigma, change


class FacePaths:
    """Ways between coefficients and paths.

    Args:
        model: Face model.
    """

    def __init__(self, model: MorphableModel) -> None:
        names = model.data.joint_names
        self._anchor = head_anchor(model)
        self._eyes = [names.index(joint) for joint in EYE_JOINTS if joint in names]

    def path_of(self, frames: list[FaceParams | None], R_mean: Tensor | None = None) -> FacePath:
        """The path of a face; rows of frames that are None are NaN.

        Args:
            frames: Unbatched coefficients of T frames, at least one of them known.
            R_mean: [3, 3] about which rotations are told; the mean of the frames' if None.
        """
        known = [frame for frame in frames if frame is not None]
        R = torch.stack([frame.camera.R for frame in known]).double()
        if R_mean is None:
            R_mean = torch.as_tensor(roma.special_procrustes(R.mean(0)))
        at = torch.stack([f.camera.T_cam_object[:3, :3] @ self._anchor for f in known])
        at = (at + torch.stack([f.camera.T_cam_object[:3, 3] for f in known])).double()
        gaze = torch.stack([f.pose[self._eyes, :2].flatten() for f in known])
        parts = (
            torch.stack([f.expression for f in known]),
            gaze,
            roma.rotmat_to_rotvec(R_mean.T @ R),
            torch.stack([at[:, 0] / at[:, 2], at[:, 1] / at[:, 2], torch.log(at[:, 2])], dim=1),
        )
        rows = torch.tensor([i for i, frame in enumerate(frames) if frame is not None])
        expression, gaze, turn, place = (_spread(part, rows, len(frames)) for part in parts)
        return FacePath(expression, gaze, turn, place, R_mean)

    def pose_of(self, path: FacePath, n_joints: int) -> tuple[Tensor, Tensor]:
        """Joints [T, J, 3] and T_cam_object [T, 4, 4] of a path, float32."""
        count = len(path.expression)
        pose = torch.zeros(count, n_joints, 3)
        pose[:, self._eyes, :2] = path.gaze.float().unflatten(1, (len(self._eyes), 2))
        R = path.R_mean @ roma.rotvec_to_rotmat(path.turn.double())
        depth = torch.exp(path.place[:, 2:].double())
        at = torch.cat([path.place[:, :2].double() * depth, depth], dim=1)
        T = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
        T[:, :3, :3] = R
        T[:, :3, 3] = at - R @ self._anchor.double()
        return pose, T.float()


def _spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Rows of values among `count`, the others NaN."""
    whole = torch.full((count, values.shape[1]), torch.nan, dtype=torch.float64)
    whole[rows] = values.double()
    return whole


def smooth_path(times_s: np.ndarray, path: FacePath, noise: PathNoise) -> FacePath:
    """A path smoothed from both sides; rows that are NaN are filled in."""
    sigma, change = path.noise(noise)
    return path.with_channels(rts_smooth(times_s, path.channels(), sigma, change))
