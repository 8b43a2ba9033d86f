# SPDX-License-Identifier: Apache-2.0
"""Where the camera stands, and how the picture is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.types import Camera

_OPENCV = np.diag([1.0, -1.0, -1.0])
_TURN = np.array([0.7, 1.1, 0.5])  # how far a head turns on its shoulders: nod, turn, tilt, radians
_BODY_TURN = np.array(
    [0.5, 0.8, 0.35]
)  # how much of it the painted shoulders bear without a tear at the neck
_BEND = np.array([0.25, 0.3, 0.2])  # one joint's part


@dataclass(frozen=True)
class View:
    """How the head stands to the camera, before the picture is cut.

    Attributes:
        R_cam_head: [3, 3] rotation from head axes to camera axes.
        distance_m: From the camera to the head, metres.
        offset: Tangents of the head's direction from the optical axis, right and down.
        box_share: Longer side of the box around the face as a share of the picture's side.
        box_centre: Centre of that box as a share of the picture's side; outside 0..1 the face is cut.
        body_turn: [3] rotation vector of the shoulders against the head, head axes, radians.
        neck_bend: [2, 3] rotation vectors of neck and head.
    """

    R_cam_head: Tensor
    distance_m: float
    offset: tuple[float, float]
    box_share: float
    box_centre: tuple[float, float]
    body_turn: np.ndarray
    neck_bend: np.ndarray


def head_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3] rotation from head axes to camera axes of a head that looks at the camera at 0, 0, 0.

    Args:
        yaw: Turned to the own left, radians.
        pitch: Turned up, radians.
        roll: Tilted clockwise in the picture, radians.
    """
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, -pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    in_picture = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return in_picture @ _OPENCV @ about_x @ about_y


def _angles(rng: np.random.Generator) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a head against the camera, radians.

    12 % are turned by more than 60 degrees, 2 % by more than 90; pitch reaches 50 degrees; 99 % are tilted by
    less than 30.
    """
    kind, past, sign = rng.random(), rng.random(), 1.0 if rng.random() < 0.5 else -1.0
    yaw = float(np.clip(rng.normal(0, 22), -60, 60)) if kind < 0.62 else rng.uniform(-60, 60)
    if kind > 0.88:
        yaw = sign * (rng.uniform(60, 90) if past < 0.82 else rng.uniform(90, 115))
    kind = rng.random()
    reach = 50 if kind > 0.96 else 35
    pitch = float(np.clip(rng.normal(0, 10), -50, 50)) if kind < 0.88 else rng.uniform(-reach, reach)
    tilt = rng.random()
    roll = rng.normal(0, 8) if tilt < 0.93 else rng.uniform(-30, 30) if tilt < 0.985 else rng.uniform(-60, 60)
    return math.radians(yaw), math.radians(pitch), math.radians(roll)


def _bearing(
    rng: np.random.Generator, yaw: float, pitch: float, roll: float
) -> tuple[np.ndarray, np.ndarray]:
    """How the head sits on the shoulders: body's turn against it [3], bends of neck and head [2, 3].

    People turn and tilt the head a part of the way and the body the rest. In 45 % of pictures the head's part
    is split further between the joints of neck and head and the place of the painted shoulders.
    """
    noise, loose = rng.normal(0, 1, 3), rng.normal(0, math.radians(4), (2, 3)) * np.array([1.0, 0.7, 0.5])
    turn = np.array(
        [0.4 * pitch + 0.08 * noise[0], -0.45 * yaw + 0.22 * noise[1], 0.5 * roll + 0.08 * noise[2]]
    )
    turn = np.clip(turn, -_TURN, _TURN)
    bends, shares = rng.random() < 0.45, np.array([rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.35)])
    if not bends:
        return np.clip(turn, -_BODY_TURN, _BODY_TURN), np.zeros((2, 3))
    bend = np.clip(-shares[:, None] * turn + loose, -_BEND, _BEND)
    return np.clip(turn + bend.sum(axis=0), -_BODY_TURN, _BODY_TURN), bend


def sample_view(rng: np.random.Generator) -> View:
    """Draws a view: mostly within 50 degrees of yaw, with tails beyond profile; sometimes cut by an edge.

    Args:
        rng: Source of randomness.

    Returns:
        View.
    """
    yaw, pitch, roll = _angles(rng)
    focal_mm = math.exp(rng.uniform(math.log(24), math.log(135)))
    share = math.exp(rng.uniform(math.log(0.25), math.log(0.75)))
    frame_share = share / math.exp(rng.uniform(0, math.log(3.0)))
    distance = float(np.clip(0.17 * focal_mm / 36 / frame_share, 0.3, 6.0))
    offset = rng.normal(0, 0.07, 2)
    half = min(share / 2, 0.5)
    centre = 0.5 + (rng.uniform(-1, 1, 2) * max(0.03, 0.5 - half - 0.06))
    if rng.random() < 0.14:
        centre = _cut(rng, half)
    turn, bend = _bearing(rng, yaw, pitch, roll)
    return View(
        torch.from_numpy(head_rotation(yaw, pitch, roll).astype(np.float32)),
        distance,
        (float(offset[0]), float(offset[1])),
        share,
        (float(centre[0]), float(centre[1])),
        turn.astype(np.float32),
        bend.astype(np.float32),
    )


def _cut(rng: np.random.Generator, half: float) -> np.ndarray:
    """Centre of a face that one edge of the picture (seldom two) cuts, up to half of it."""
    centre = rng.uniform(0.35, 0.65, 2)
    for axis in rng.choice(2, 2 if rng.random() < 0.15 else 1, replace=False):
        inside = half * rng.uniform(-0.0, 0.85)
        centre[axis] = inside if rng.random() < 0.5 else 1 - inside
    return centre


def frame_camera(view: View, landmarks_head: Tensor, T_head_object: Tensor, size: int) -> Camera:
    """Chooses focal length and principal point so that the landmarks fill the wanted box.

    Args:
        view: From `sample_view`.
        landmarks_head: [L, 3] posed landmarks in head axes (object axes carried along by the head), metres.
        T_head_object: [4, 4] transform of the head joint (object space at rest to posed object space).
        size: Side of the picture, pixels.

    Returns:
        Camera; `T_cam_object` is such that the head, bent neck included, stands as the view says.
    """
    points, R = landmarks_head.numpy().astype(np.float64), view.R_cam_head.numpy().astype(np.float64)
    T_cam_head = np.eye(4)
    T_cam_head[:3, :3] = R
    T_cam_head[:3, 3] = np.array([*view.offset, 1.0]) * view.distance_m - R @ points.mean(axis=0)
    cam = points @ R.T + T_cam_head[:3, 3]
    flat = cam[:, :2] / cam[:, 2:]
    low, high = flat.min(axis=0), flat.max(axis=0)
    focal = view.box_share * size / float((high - low).max())
    centre = np.array(view.box_centre) * size - focal * (low + high) / 2
    K = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    T_cam_object = T_cam_head @ np.linalg.inv(T_head_object.numpy().astype(np.float64))
    K, T_cam_object = K.astype(np.float32), T_cam_object.astype(np.float32)
    return Camera(torch.from_numpy(K), torch.from_numpy(T_cam_object), size, size)
