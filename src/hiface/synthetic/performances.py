# SPDX-License-Identifier: Apache-2.0
"""What people do in the videos that tracking is measured on: talk, blink, turn, keep still, walk about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.clips import Motion, smooth_track
from hiface.synthetic.expressions import SIDES, limit_expression
from hiface.synthetic.speech import (
    Blink,
    bell,
    blink_values,
    brow_values,
    eased,
    fixations,
    sample_blink,
    sample_blinks,
    sample_phones,
    speech_values,
)

NECK_PIVOT_M = np.array([0.0, -0.05, -0.072])  # about where a head turns, head axes
_SWAY_DEG, _DRIFT_M = (5.0, 3.0, 2.0), (0.008, 0.005, 0.01)
_TURN_YAW_DEG, _TURN_PITCH_DEG = 45.0, 20.0
_STEPS_PER_S, _BOB_M = 1.9, 0.012


@dataclass(frozen=True)
class Acting:
    """What a head and a face do, before a camera stands anywhere.

    Attributes:
        times_s: [n] times of the frames.
        turn: [n, 3] yaw, pitch, roll against facing the camera, radians.
        way_m: [n, 3] way of the neck in camera axes.
        curves: ARKit weights [n] by name, without `eyeLook`.
        wander: How far the eyes jump about.
    """

    times_s: np.ndarray
    turn: np.ndarray
    way_m: np.ndarray
    curves: Mapping[str, np.ndarray]
    wander: float = 1.0

    def motion(self, R_first: np.ndarray, rng: np.random.Generator) -> Motion:
        """The acting as frames.

        Args:
            R_first: [3, 3] rotation of the head at rest, head to camera.
            rng: Source of randomness of the gaze.

        Returns:
            Motion; the head turns about its joint on the neck.
        """
        facing = head_rotation(0.0, 0.0, 0.0)
        swings = np.stack([facing.T @ head_rotation(*(float(a) for a in angles)) for angles in self.turn])
        kept = R_first @ NECK_PIVOT_M - (R_first @ swings) @ NECK_PIVOT_M
        names = list(self.curves)
        rows = np.stack([self.curves[name] for name in names], axis=1)
        values = [limit_expression(dict(zip(names, row.tolist(), strict=True))) for row in rows]
        gaze = fixations(self.times_s, self.turn, rng, self.wander)
        return Motion(self.turn, kept + self.way_m, values, gaze)


def _rest(rng: np.random.Generator) -> dict[str, float]:
    """A face at rest has a mood."""
    smile, squint = rng.uniform(0, 0.3) * (rng.random() < 0.6), rng.uniform(0, 0.25)
    values = {f"mouthFrown{side}": rng.uniform(0, 0.15) * (smile == 0) for side in SIDES}
    values |= {f"mouthSmile{side}": smile * rng.uniform(0.8, 1.0) for side in SIDES}
    values |= {f"eyeSquint{side}": squint for side in SIDES}
    values |= {f"browDown{side}": rng.uniform(0, 0.1) for side in SIDES}
    return values | {"browInnerUp": float(rng.uniform(0, 0.12))}


def _together(*parts: Mapping[str, np.ndarray | float], frames: int) -> dict[str, np.ndarray]:
    """The largest of all, for each channel."""
    out: dict[str, np.ndarray] = {}
    for part in parts:
        for name, curve in part.items():
            out[name] = np.maximum(out.get(name, np.zeros(frames)), curve)
    return out


def _sway(rng: np.random.Generator, times_s: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    scales = tuple(math.radians(a) * share for a in _SWAY_DEG)
    turn = smooth_track(rng, len(times_s), scales, times_s)
    return turn, smooth_track(rng, len(times_s), tuple(share * d for d in _DRIFT_M), times_s)


def talking(rng: np.random.Generator, times_s: np.ndarray, blink_every_s: float = 2.5) -> Acting:
    """Speech with pauses, accents of brows and nods, natural blinks, eyes that wander."""
    phones = sample_phones(rng, times_s[0], times_s[-1])
    speech, brows = speech_values(phones, times_s, rng), brow_values(phones, times_s, rng)
    blinks = blink_values(sample_blinks(rng, times_s[0], times_s[-1], blink_every_s), times_s)
    turn, way = _sway(rng, times_s, 1.0)
    stressed = [phone.at_s for phone in phones if phone.length_s > 0.1 and rng.random() < 0.25]
    for at in stressed:
        turn[:, 1] -= bell(times_s, at, 0.12) * math.radians(rng.uniform(1.0, 4.0))
    return Acting(times_s, turn, way, _together(speech, brows, blinks, _rest(rng), frames=len(times_s)), 0.8)


def blinking(rng: np.random.Generator, times_s: np.ndarray) -> Acting:
    """Blinks, half blinks and a wink of each eye, while all else is nearly still."""
    blinks: list[Blink] = []
    kinds = ["full", "full", "half", "Left", "full", "Right", "full"]
    now, number = times_s[0] + float(rng.uniform(0.25, 0.5)), int(rng.integers(2))
    while now < times_s[-1] - 0.25:
        kind = kinds[number % len(kinds)]
        blink = sample_blink(rng, now, float(rng.uniform(0.52, 0.65)) if kind == "half" else None)
        if kind in SIDES:
            slow = {"closing_s": rng.uniform(0.1, 0.15), "hold_s": rng.uniform(0.05, 0.2)}
            blink = replace(blink, sides=(kind,), **slow)
        blinks.append(blink)
        now, number = now + float(rng.uniform(0.5, 0.85)), number + 1
    winks = [
        {f"cheekSquint{b.sides[0]}": 0.5 * blink_values([b], times_s)[f"eyeBlink{b.sides[0]}"]}
        for b in blinks
        if len(b.sides) == 1
    ]
    turn, way = _sway(rng, times_s, 0.12)
    curves = _together(blink_values(blinks, times_s), _rest(rng), *winks, frames=len(times_s))
    return Acting(times_s, turn, way, curves, 0.1)


def turning(rng: np.random.Generator, times_s: np.ndarray) -> Acting:
    """Talks while the head turns to 45 degrees on either side, up and down by 20, and back."""
    talk = talking(rng, times_s, 1.8)
    start, length = times_s[0], times_s[-1] - times_s[0]
    sign = 1.0 if rng.random() < 0.5 else -1.0
    goals = (
        (0.0, 0.0),
        (sign, 0.0),
        (0.0, 0.0),
        (-sign, 0.0),
        (0.0, 0.0),
        (0.0, sign),
        (0.0, -sign),
        (0.0, 0.0),
    )
    ends = np.cumsum([0.04, 0.15, 0.17, 0.15, 0.17, 0.1, 0.14, 0.08])
    turn = 0.4 * talk.turn
    for (before, after), (begin, end) in zip(pairwise(goals), pairwise(ends), strict=True):
        share = eased(times_s, start + length * begin, start + length * end)
        turn[:, 0] += share * (after[0] - before[0]) * math.radians(_TURN_YAW_DEG)
        turn[:, 1] += share * (after[1] - before[1]) * math.radians(_TURN_PITCH_DEG)
    return replace(talk, turn=turn)


def keeping_still(rng: np.random.Generator, times_s: np.ndarray) -> Acting:
    """Nothing moves."""
    frames = len(times_s)
    turn = np.tile(np.radians(rng.normal(0, (8.0, 4.0, 3.0))), (frames, 1))
    return Acting(times_s, turn, np.zeros((frames, 3)), _together(_rest(rng), frames=frames), 0.0)


def walking(acting: Acting, goals_m: tuple[tuple[float, float], ...], turn_deg: float = 22.0) -> Acting:
    """The same acting on the way sideways.

    Args:
        acting: What is done on the way.
        goals_m: Times in seconds and places to the right of the start in metres, in order.
        turn_deg: How far the head turns towards where it goes.

    Returns:
        Acting that eases from goal to goal; head and shoulders bob.
    """
    t = acting.times_s
    aside = np.zeros(len(t))
    for (begin, before), (end, after) in pairwise(goals_m):
        aside += (after - before) * eased(t, begin, end)
    speed = np.gradient(aside + goals_m[0][1], t)
    pace = np.clip(np.abs(speed) / 0.5, 0, 1)
    way, turn = acting.way_m.copy(), acting.turn.copy()
    way[:, 0] += aside + goals_m[0][1]
    way[:, 1] += _BOB_M * pace * np.sin(2 * math.pi * _STEPS_PER_S * (t - t[0]))
    turn[:, 0] += math.radians(turn_deg) * np.tanh(speed / 0.4)
    return replace(acting, turn=turn, way_m=way)
