# SPDX-License-Identifier: Apache-2.0
"""Short clips of one person with smooth motion, one light, one camera, and the flow between frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface
from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.compose import Picture
from hiface.synthetic.expressions import Gaze, limit_expression, sample_expression
from hiface.synthetic.generator import Style, SyntheticSample, Taken, take_picture
from hiface.synthetic.scene import FAR_M
from hiface.synthetic.shots import Act, Shot, draw_shot, limit_act, make_picture, pose_person, sitter_of
from hiface.synthetic.surface_maps import Traced, head_shown, trace_model
from hiface.types import Camera

FPS = 25.0
_SWING = (math.radians(9), math.radians(5), math.radians(3))  # yaw, pitch, roll
_DRIFT_M = (0.012, 0.008, 0.015)
_BLINKS_PER_S = 0.35
_SAME_SURFACE_M = 0.004


@dataclass(frozen=True)
class Motion:
    """How someone moves in a clip of F frames.

    Attributes:
        turn: [F, 3] yaw, pitch and roll against the first frame, radians.
        shift_m: [F, 3] way of the head in camera axes.
        values: F expressions by name.
        gaze: F directions.
    """

    turn: np.ndarray
    shift_m: np.ndarray
    values: list[dict[str, float]]
    gaze: list[Gaze]


def smooth_track(
    rng: np.random.Generator, frames: int, scales: tuple[float, ...], times_s: np.ndarray | None = None
) -> np.ndarray:
    """Random smooth curves that start at 0: sums of three slow sine waves (periods of 0.8 to 5 s).

    Args:
        rng: Source of randomness.
        frames: Number of frames.
        scales: Standard deviation of each curve.
        times_s: [frames] when the frames are; 25 a second if None.

    Returns:
        [frames, len(scales)].
    """
    t = (np.arange(frames) / FPS if times_s is None else times_s - times_s[0])[:, None, None]
    shape = (1, len(scales), 3)
    period = np.exp(rng.uniform(math.log(0.8), math.log(5.0), shape))
    phase = rng.uniform(0, 2 * math.pi, shape)
    waves = np.sin(2 * math.pi * t / period + phase) * rng.normal(0, 0.8, shape)
    track = waves.sum(axis=2) * np.asarray(scales)
    return track - track[:1]


def _eased(x: float) -> float:
    x = min(1.0, max(0.0, x))
    return x * x * (3 - 2 * x)


def _blend(a: dict[str, float], b: dict[str, float], share: float) -> dict[str, float]:
    return {k: (1 - share) * a.get(k, 0.0) + share * b.get(k, 0.0) for k in sorted({*a, *b})}


def _expressions(
    names: tuple[str, ...], first: dict[str, float], frames: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Expressions that change every 0.3 to 1.2 s, with blinks now and then."""
    keys, times = [first], [0.0]
    while times[-1] < frames:
        times.append(times[-1] + float(rng.uniform(0.3, 1.2)) * FPS)
        keys.append(sample_expression(names, rng))
    blinks = rng.uniform(0, frames, rng.poisson(_BLINKS_PER_S * frames / FPS))
    out, key = [], 0
    for frame in range(frames):
        while times[key + 1] <= frame:
            key += 1
        share = _eased((frame - times[key]) / (times[key + 1] - times[key]))
        values = _blend(keys[key], keys[key + 1], share)
        closed = max((1.0 - abs(frame - float(b)) / 3.0 for b in blinks), default=0.0)
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            if frame and name in names:
                values[name] = max(values.get(name, 0.0), closed)
        out.append(limit_expression(values))
    return out


def _gazes(first: Gaze, turn: np.ndarray, rng: np.random.Generator) -> list[Gaze]:
    """Eyes that hold on to what they look at while the head turns, and now and then jump elsewhere."""
    out, aim, target = [], np.zeros(2), np.zeros(2)
    for yaw, pitch, _ in turn:
        if rng.random() < 1.2 / FPS and out:
            target = rng.normal(0, (0.15, 0.08))
        aim = aim + (target - aim) * 0.7
        offset = (np.clip(aim[0] - yaw, -0.4, 0.4), np.clip(aim[1] - pitch, -0.3, 0.3))
        yaws = tuple(float(np.clip(y + offset[0], -0.6, 0.6)) for y in first.yaw)
        out.append(Gaze((yaws[0], yaws[1]), float(np.clip(first.pitch + offset[1], -0.42, 0.32))))
    return out


def sample_motion(
    names: tuple[str, ...], act: Act, frames: int, distance_m: float, rng: np.random.Generator
) -> Motion:
    """Draws how a clip goes on from its first frame.

    Args:
        names: The model's expression names.
        act: Of the first frame.
        frames: Number of frames.
        distance_m: Of the head from the camera; the nearer, the smaller its way.
        rng: Source of randomness.

    Returns:
        Motion that starts with the act.
    """
    turn = smooth_track(rng, frames, _SWING)
    reach = min(1.0, distance_m / 0.6)
    shift = smooth_track(rng, frames, tuple(reach * s for s in _DRIFT_M))
    values = _expressions(names, act.values, frames, rng)
    return Motion(turn, shift, values, _gazes(act.gaze, turn, rng))


def frame_shot(model: MorphableModel, first: Shot, motion: Motion, index: int) -> Shot:
    """The shot of one frame; camera, light, clothes and background are those of the first.

    Args:
        model: Face model.
        first: What the motion starts from.
        motion: Of the clip.
        index: Number of the frame.
    """
    act = Act(motion.values[index], motion.gaze[index], first.act.neck_bend)
    act = limit_act(model, first.sitter.person, act)
    posed = pose_person(model, first.sitter.person, act)
    camera = first.picture.params.camera
    facing = head_rotation(0.0, 0.0, 0.0)
    swing = facing.T @ head_rotation(*(float(a) for a in motion.turn[index]))
    T_cam_head = first.picture.T_cam_head.clone()
    T_cam_head[:3, :3] = T_cam_head[:3, :3] @ torch.from_numpy(swing).float()
    T_cam_head[:3, 3] += torch.from_numpy(motion.shift_m[index]).float()
    T_cam_object = T_cam_head @ torch.linalg.inv(posed.T_head)
    moved = Camera(camera.K, T_cam_object, camera.width, camera.height)
    # The shoulders stay as they are while the head turns.
    still = camera.R @ roma.rotvec_to_rotmat(torch.from_numpy(first.picture.body_turn))
    body_turn = roma.rotmat_to_rotvec(T_cam_object[:3, :3].T @ still).numpy()
    picture = make_picture(model, first.sitter, act, posed, moved, body_turn, first.picture.lights)
    return replace(first, act=act, picture=picture)


def optical_flow(
    model: MorphableModel, now: tuple[Picture, Tensor, Tensor], after: tuple[Picture, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Where what a pixel sees goes in the next frame.

    Args:
        model: Face model.
        now: Picture, its segmentation [S, S] and where it shows the face model [S, S] (`head_shown`).
        after: The same of the next picture.

    Returns:
        Flow [2, S, S] in pixels (right, down) and validity [S, S] bool. Valid are pixels of skin, eyes and
        mouth whose surface point is seen in both frames, exact up to rounding; and background that stays
        background, where the flow is 0. Hair, clothes and things have no flow.
    """
    traced, ahead = trace_model(model, now[0]), trace_model(model, after[0])
    data = model.data
    corners = traced.verts_cam.new_zeros(len(data.triangles), 3, 0)
    goal = interpolate_surface(
        traced.verts_px_z, ahead.verts_cam[None], corners, data.triangles, traced.frags
    )[1:].T
    px = after[0].params.camera.cam_to_px(goal)
    size = now[1].shape[-1]
    pixel = traced.frags.pixel
    here = torch.stack([pixel % size, pixel // size], dim=1) + 0.5
    flow = traced.image((px - here).T.contiguous())
    seen = torch.zeros(size * size, dtype=torch.bool)
    seen[pixel] = _arrives(px, goal[:, 2], ahead, after[2])
    valid = seen.reshape(size, size) & now[2]
    still = (now[1] == 0) & (after[1] == 0)
    return flow * valid, valid | still


def _arrives(px: Tensor, z: Tensor, ahead: Traced, head: Tensor) -> Tensor:
    """[P] bool: points at `px` [P, 2] and `z` are seen in the frame they arrive in."""
    size = head.shape[-1]
    inside = ((px >= 0) & (px < size)).all(dim=1) & (z > 0)
    column, row = (px[:, i].long().clamp(0, size - 1) for i in (0, 1))
    near = F.pad(ahead.depth()[None, None], (1,) * 4, value=FAR_M)
    # The deepest of the neighbours that see the model allows for slopes within a pixel.
    near = torch.where(near < FAR_M, near, 0.0)
    deepest = F.max_pool2d(near, 3, 1)[0, 0]
    reached = z <= deepest[row, column] + _SAME_SURFACE_M
    own = ahead.depth()[row, column]
    hidden = own < z - 4 * _SAME_SURFACE_M
    return inside & reached & ~hidden & head[row, column]


def _seen(taken: Taken) -> tuple[Picture, Tensor, Tensor]:
    segmentation = taken.sample.segmentation
    return taken.shot.picture, segmentation, head_shown(taken.composed, segmentation)


def generate_clip(
    model: MorphableModel, number: int, style: Style, frames: int = 16
) -> list[SyntheticSample]:
    """A clip of one person.

    Args:
        model: Face model.
        number: Number of the person, and the seed of everything else.
        style: Size, effects, labels.
        frames: Number of frames, 25 a second.

    Returns:
        Samples; all but the last have the maps "flow" [2, S, S] and "flow_valid" [S, S] (`optical_flow`).
    """
    sitter = sitter_of(model, number, style.effects)
    rng = np.random.default_rng([number, 37])
    first = draw_shot(model, sitter, rng, style.size, style.effects)
    distance = float(first.picture.T_cam_head[2, 3])
    motion = sample_motion(model.data.expression_names, first.act, frames, distance, rng)
    taken = []
    for index in range(frames):
        shot = frame_shot(model, first, motion, index)
        taken.append(take_picture(model, shot, np.random.default_rng([number, 41]), style, number, index))
    out = [t.sample for t in taken]
    for index in range(frames - 1):
        now, after = (_seen(t) for t in taken[index : index + 2])
        flow, valid = optical_flow(model, now, after)
        out[index] = replace(out[index], maps={**out[index].maps, "flow": flow, "flow_valid": valid})
    return out
