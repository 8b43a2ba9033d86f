# SPDX-License-Identifier: Apache-2.0
"""What a face does in one picture: expression, eyes, and the joints' rotations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.synthetic.limits import exclude_values, rule_names

SIDES = ("Left", "Right")
_GAZE_YAW, _GAZE_UP, _GAZE_DOWN = 0.55, 0.36, 0.42  # how far eyes turn, radians
_HALF_PUPILS_M = 0.031
_CROSSED = 0.01  # share of people who squint at their nose


@dataclass(frozen=True)
class Plan:
    """What a face is to do, before numbers are drawn.

    Attributes:
        group: Kind of expression, of those in `expression_mixes.json`.
        mixes: Names of mixes, none for a neutral face.
        eyes: "rest", "closed", "half_closed" or "wink".
    """

    group: str
    mixes: tuple[str, ...]
    eyes: str


@dataclass(frozen=True)
class Gaze:
    """Angles of both eyes in head axes, radians, person's left eye first; yaw to the own left, pitch up."""

    yaw: tuple[float, float]
    pitch: float


@cache
def _eyelook_degrees() -> dict[str, float]:
    return load_json_asset("expressions/gaze.json")["degrees_at_one"]


@cache
def _library() -> dict[str, Any]:
    return load_json_asset("open/expression_mixes.json")


@cache
def _mixes() -> dict[str, dict[str, Any]]:
    return {mix["name"]: mix for mix in _library()["mixes"]}


def mix_names(group: str) -> tuple[str, ...]:
    """Names of the mixes of a group."""
    return tuple(name for name, mix in _mixes().items() if mix["group"] == group)


def mix_groups() -> tuple[str, ...]:
    """Names of the groups of expressions; the first is "neutral" and has no mixes."""
    return tuple(_library()["groups"])


@cache
def _lots(kind: str) -> tuple[list[str], np.ndarray]:
    """What is drawn by lot, and the upper ends of its shares: "groups", "eyes", or the mixes of a group."""
    if kind in ("groups", "eyes"):
        shares: dict[str, float] = _library()[kind]
    else:
        shares = {name: _mixes()[name]["weight"] for name in mix_names(kind)}
    weights = np.array(list(shares.values()))
    return list(shares), np.cumsum(weights) / weights.sum()


def _choose(kind: str, rng: np.random.Generator) -> str:
    """One of the names of `_lots`; draws one number."""
    names, ends = _lots(kind)
    return names[min(int(ends.searchsorted(rng.random(), side="right")), len(names) - 1)]


def sample_plan(rng: np.random.Generator) -> Plan:
    """Draws what a face is to do, by the shares of `expression_mixes.json`.

    Args:
        rng: Source of randomness.

    Returns:
        Plan; a second mix for a third of speech (sounds run into each other) and emotions.
    """
    group, eyes = _choose("groups", rng), _choose("eyes", rng)
    both, second = rng.random() < 0.33, rng.random()
    if not _lots(group)[0]:
        return Plan(group, (), eyes)
    mixes = [_choose(group, rng)]
    if both and group in ("speech", "emotion"):
        other = "speech" if group == "speech" or second < 0.4 else "emotion"
        mixes.append(_choose(other, rng))
    return Plan(group, tuple(mixes), eyes)


def _apply(
    values: dict[str, float], mix: dict[str, Any], rng: np.random.Generator, known: tuple[str, ...]
) -> None:
    strength = 1.0 if mix.get("full") else rng.uniform(0.4, 1.0)
    kept = SIDES[int(rng.integers(2))] if mix.get("one_sided") else None
    for stem, (low, high) in mix["shapes"].items():
        value = strength * rng.uniform(low, high)
        lopsided = rng.normal(0, 0.08)
        for side, sign in (("", 0), ("Left", 1), ("Right", -1)):
            if stem + side in known and (kept is None or side in ("", kept)):
                values[stem + side] = max(values.get(stem + side, 0.0), value * (1 + sign * lopsided))


def _add_sparse(values: dict[str, float], names: list[str], limit: float, rng: np.random.Generator) -> None:
    for name in names:
        values[name] = max(values.get(name, 0.0), rng.uniform(0, limit))


def _rest_lids(values: dict[str, float], rng: np.random.Generator) -> None:
    """Lids at rest: wide awake to sleepy, lower lids relaxed to tense."""
    blink = rng.normal(0.03, 0.05) if rng.random() < 0.65 else rng.uniform(0.0, 0.33)
    squint = rng.uniform(0.0, 0.45) if rng.random() < 0.5 else 0.0
    wide = rng.uniform(0.0, 0.4) if rng.random() < 0.2 else 0.0
    for side in SIDES:
        drawn = (("eyeBlink", blink + rng.normal(0, 0.01)), ("eyeSquint", squint), ("eyeWide", wide))
        for stem, value in drawn:
            values[stem + side] = max(values.get(stem + side, 0.0), value)
        for stem in ("eyeSquint", "eyeWide"):
            values[stem + side] *= 1.0 - float(np.clip(values["eyeBlink" + side], 0.0, 1.0))


def _set_eyes(values: dict[str, float], eyes: str, rng: np.random.Generator) -> None:
    """Closes eyes, half or one of them; draws the same numbers whatever it does."""
    side, share = SIDES[int(rng.integers(2))], rng.random()
    uneven, cheek = rng.normal(0, 0.03), rng.random()
    if eyes == "rest":
        return
    low, high = _library()["eye_ranges"][eyes]
    value = low + share * (high - low)
    for i, one in enumerate((side,) if eyes == "wink" else SIDES):
        values[f"eyeBlink{one}"] = float(np.clip(value + (i == 1) * uneven, low, high))
    if eyes == "wink":
        name = f"cheekSquint{side}"
        values[name] = max(values.get(name, 0.0), cheek * 0.9)
        other = f"eyeBlink{SIDES[1 - SIDES.index(side)]}"
        values[other] = min(values.get(other, 0.0), 0.4)


def express(
    plan: Plan, names: tuple[str, ...], rng: np.random.Generator, strong: bool = False
) -> dict[str, float]:
    """Draws the numbers of a plan: its mixes, a few random shapes on top, the lids.

    Args:
        plan: From `sample_plan`.
        names: The model's expression names.
        rng: Source of randomness.
        strong: Six random shapes up to 0.8 instead of three up to 0.2.

    Returns:
        Values by name; eyeLook shapes are left to `add_gaze`.
    """
    movable = [n for n in names if not n.startswith(("eyeLook", "eyeBlink", "tongue", "mouthClose"))]
    values: dict[str, float] = {}
    for name in plan.mixes:
        _apply(values, _mixes()[name], rng, names)
    if "anything" in plan.mixes:
        _add_sparse(values, rng.choice(movable, 12, replace=False).tolist(), 1.0, rng)
    if plan.group in ("smile", "tongue"):  # little disturbs these mouths
        movable = [n for n in movable if not n.startswith("mouth") or rng.random() < 0.2]
    chosen = rng.choice(movable, 6 if strong else 3, replace=False).tolist()
    _add_sparse(values, chosen, 0.8 if strong else 0.2, rng)
    _rest_lids(values, rng)
    _set_eyes(values, plan.eyes, rng)
    return limit_expression(values)


def sample_expression(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    """Draws a face's expression.

    Shares, mixes and their ranges lie in `assets/open/expression_mixes.json`: about half near neutral, wide
    smiles with teeth, shapes of speech, emotions, play, tongues and extremes; whatever the mouth does, eyes
    are closed, half closed or wink in some. On top come a few weak shapes, in one of ten faces strong ones,
    and lids at rest. Where a picture hardly shows the mouth, a network guesses what is most frequent: lips
    are closed in most photos.

    Args:
        names: The model's expression names.
        rng: Source of randomness.

    Returns:
        Values by name; eyeLook shapes are left to `add_gaze`.
    """
    plan = sample_plan(rng)
    return express(plan, names, rng, rng.random() < 0.1)


def limit_expression(values: dict[str, float]) -> dict[str, float]:
    """Clamps values to 0..1 and keeps shapes apart that exclude each other (`limits.exclude`)."""
    names = rule_names()  # always the same ones; a shape that is not there is as good as one that is off
    held = exclude_values(np.array([values.get(name, 0.0) for name in names]), names).tolist()
    out = {name: min(max(float(value), 0.0), 1.0) for name, value in values.items()}
    return out | {name: value for name, value in zip(names, held, strict=True) if name in values}


def lips_apart(values: dict[str, float]) -> float:
    """How far an expression uncovers the teeth, 0..1."""
    pulled = sum(values.get(f"mouth{stem}{side}", 0.0) for stem in ("UpperUp", "LowerDown") for side in SIDES)
    smile = 0.5 * (values.get("mouthSmileLeft", 0.0) + values.get("mouthSmileRight", 0.0))
    opened = values.get("jawOpen", 0.0) - values.get("mouthClose", 0.0)
    return float(np.clip(0.6 * pulled + opened + 0.3 * smile - 0.1, 0.0, 1.0))


def sample_gaze(
    rng: np.random.Generator,
    camera_yaw: float,
    camera_pitch: float,
    closed: float = 0.0,
    distance_m: float = 1.0,
) -> Gaze:
    """Draws where someone looks: mostly at the camera, else about, now and then as far as the eyes turn.

    Args:
        rng: Source of randomness.
        camera_yaw: Direction of the camera in head axes, radians to the own left.
        camera_pitch: The same, upwards.
        closed: How far the lids are closed, 0..1; nobody looks up behind a half closed lid.
        distance_m: Of the camera from the head.

    Returns:
        Gaze; both eyes meet where they look, at the camera or 0.25 to 10 m away, in 1 % at the nose.
    """
    kind, near, crossed = rng.random(), rng.random(), rng.random()
    jitter, about, far = rng.normal(0, 0.04, 2), rng.normal(0, 1, 2), rng.uniform(-1, 1, 2)
    reach = math.hypot(camera_yaw / (_GAZE_YAW + 0.1), camera_pitch / 0.5)
    at_camera = kind < (0.74 if reach < 1 else 0.25)
    target_m = distance_m if at_camera else 0.25 * 40.0**near
    if at_camera:
        yaw, pitch = camera_yaw + jitter[0], camera_pitch + jitter[1]
    elif kind < 0.9:
        yaw, pitch = 0.25 * about[0], -0.06 + 0.12 * about[1]
    else:
        yaw = _GAZE_YAW * far[0]
        pitch = _GAZE_UP * far[1] if far[1] > 0 else _GAZE_DOWN * far[1]
    yaw, pitch = float(np.clip(yaw, -_GAZE_YAW, _GAZE_YAW)), float(np.clip(pitch, -_GAZE_DOWN, _GAZE_UP))
    vergence = math.atan(_HALF_PUPILS_M / target_m) if crossed >= _CROSSED else 0.12 + 0.15 * near
    limit = _GAZE_YAW + 0.05
    both = (float(np.clip(yaw - vergence, -limit, limit)), float(np.clip(yaw + vergence, -limit, limit)))
    return lowered(Gaze(both, pitch), closed)


def lowered(gaze: Gaze, closed: float) -> Gaze:
    """The gaze behind lids that are `closed` (0..1): eyes do not look up behind a closing lid."""
    return Gaze(gaze.yaw, min(gaze.pitch, _GAZE_UP - (_GAZE_UP + 0.03) * min(2.0 * closed, 1.0)))


def add_gaze(values: dict[str, float], gaze: Gaze) -> dict[str, float]:
    """Adds the eyeLook shapes (lids and brows follow the eyes) that belong to a gaze."""
    out = dict(values)
    degrees = _eyelook_degrees()
    for side, yaw in zip(SIDES, gaze.yaw, strict=True):
        outward = yaw if side == "Left" else -yaw
        horizontal = "Out" if outward > 0 else "In"
        vertical = "Up" if gaze.pitch > 0 else "Down"
        out[f"eyeLook{horizontal}{side}"] = min(1.0, abs(math.degrees(yaw)) / degrees[horizontal])
        out[f"eyeLook{vertical}{side}"] = min(1.0, abs(math.degrees(gaze.pitch)) / degrees[vertical])
    return out


def pose_vector(joint_names: tuple[str, ...], gaze: Gaze, neck_bend: np.ndarray) -> Tensor:
    """Joint rotations of a picture.

    Args:
        joint_names: The model's joints.
        gaze: Gaze of both eyes.
        neck_bend: [2, 3] rotation vectors of neck and head, radians.

    Returns:
        [J, 3] rotation vectors, radians.
    """
    pose = np.zeros((len(joint_names), 3), dtype=np.float32)
    for name, bend in zip(("neck", "head"), neck_bend, strict=True):
        if name in joint_names:
            pose[joint_names.index(name)] = bend
    for name, yaw in zip(("eye_left", "eye_right"), gaze.yaw, strict=True):
        if name in joint_names:
            pose[joint_names.index(name)] = _look_rotvec(yaw, gaze.pitch)
    return torch.from_numpy(pose)


def _look_rotvec(yaw: float, pitch: float) -> np.ndarray:
    """Rotation without roll from +Z to a direction (Listing's law: the axis is in the xy plane)."""
    target = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    axis = np.array([-target[1], target[0], 0.0])
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.zeros(3)
    return axis / length * math.atan2(length, target[2])
