# SPDX-License-Identifier: Apache-2.0
"""People who do not exist: who they are (kept over several pictures) and what they do in one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.morphable import MorphableModel
from hiface.synthetic.features import FeatureStyle, sample_features
from hiface.synthetic.hair import HairStyle, sample_hair
from hiface.synthetic.identity import Traits, fits, sample_identity, sample_traits
from hiface.synthetic.wrinkles import WrinkleStyle, sample_wrinkles

_MIXES: dict[str, dict[str, tuple[float, float]]] = {
    "smile": {
        "mouthSmile": (0.3, 1.0),
        "cheekSquint": (0.1, 0.7),
        "eyeSquint": (0.0, 0.5),
        "mouthDimple": (0, 0.4),
    },
    "toothy": {
        "mouthSmile": (0.5, 1.0),
        "mouthUpperUp": (0.1, 0.8),
        "mouthLowerDown": (0.1, 0.7),
        "jawOpen": (0.02, 0.35),
        "mouthStretch": (0.0, 0.9),
        "mouthDimple": (0.0, 0.9),
        "cheekSquint": (0.2, 0.9),
        "eyeSquint": (0.1, 0.9),
    },
    "laugh": {
        "mouthSmile": (0.5, 1),
        "jawOpen": (0.25, 0.7),
        "mouthUpperUp": (0.2, 0.8),
        "eyeSquint": (0.2, 0.9),
    },
    "talk_a": {"jawOpen": (0.15, 0.55), "mouthLowerDown": (0.1, 0.5), "mouthUpperUp": (0, 0.3)},
    "talk_o": {"jawOpen": (0.15, 0.5), "mouthFunnel": (0.3, 0.9), "mouthPucker": (0.0, 0.4)},
    "talk_e": {"jawOpen": (0.05, 0.25), "mouthStretch": (0.2, 0.6), "mouthLowerDown": (0.1, 0.5)},
    "talk_f": {"jawOpen": (0.03, 0.15), "mouthRollLower": (0.2, 0.6), "mouthUpperUp": (0.1, 0.5)},
    "parted": {"jawOpen": (0.03, 0.2), "mouthUpperUp": (0.0, 0.3), "mouthLowerDown": (0.0, 0.4)},
    "thin_lips": {"mouthRollLower": (0.2, 0.8), "mouthRollUpper": (0.2, 0.8), "mouthPress": (0, 0.5)},
    "purse": {"mouthPucker": (0.2, 0.6), "mouthPress": (0.1, 0.5), "mouthShrugLower": (0.0, 0.5)},
    "talk_m": {"mouthPress": (0.2, 0.7), "mouthRollLower": (0.1, 0.6), "mouthRollUpper": (0.1, 0.6)},
    "surprise": {
        "browInnerUp": (0.4, 1),
        "browOuterUp": (0.4, 1),
        "eyeWide": (0.3, 1),
        "jawOpen": (0.1, 0.8),
    },
    "frown": {"browDown": (0.4, 1), "mouthFrown": (0.3, 1), "eyeSquint": (0.0, 0.5), "mouthPress": (0, 0.5)},
    "sad": {"browInnerUp": (0.4, 1), "mouthFrown": (0.4, 1), "mouthShrugLower": (0.1, 0.7)},
    "disgust": {
        "noseSneer": (0.4, 1),
        "mouthUpperUp": (0.3, 0.9),
        "browDown": (0.2, 0.8),
        "eyeSquint": (0.1, 0.7),
    },
    "blink": {"eyeBlink": (0.75, 1.0)},
    "half_blink": {"eyeBlink": (0.2, 0.75)},
    "squint": {"eyeSquint": (0.4, 1), "cheekSquint": (0.1, 0.7), "browDown": (0, 0.5)},
    "kiss": {"mouthPucker": (0.5, 1), "mouthFunnel": (0.0, 0.4)},
    "open": {"jawOpen": (0.3, 1.0)},
    "closed_jaw": {"jawOpen": (0.1, 0.5), "mouthClose": (0.1, 0.5)},
    "puff": {"cheekPuff": (0.4, 1), "mouthPress": (0.1, 0.5)},
    "tongue": {"jawOpen": (0.25, 0.6), "tongueOut": (0.5, 1)},
    "wide": {"eyeWide": (0.2, 1.0)},
}
_CALM = {"haemoglobin": 0.6, "carotene": 0.6, "cheeks": 0.7, "nose": 0.6, "forehead": 0.6, "centre": 0.6}
_MOUTHS = ("talk_a", "talk_o", "talk_e", "talk_f", "talk_m", "parted", "parted", "thin_lips", "purse", "open")
_TOOTHY = 0.15  # share of wide smiles
_AGE = (1.1, 1.5)  # beta distribution of ages
_MELANIN = (-2.0, 2.2)  # sigma; all skins alike often
_ODD_LOOKS = 0.1  # share of people with beard, make-up and hair of the other sex
_SELDOM = {True: {"long": 0.85, "medium": 0.4}, False: {"bald": 0.9, "short": 0.6}}
_UNHURRIED = ("toothy", "blink")  # never scaled down


@dataclass(frozen=True)
class Person:
    """Who someone is.

    Attributes:
        identity: [K] sigma.
        albedo: [A] sigma.
        iris_colour: [3] linear.
        oiliness: 0..1, how much the skin shines.
        features: Lids, lashes, brows, lips and teeth.
        blotches: Strengths of pore noise and of uneven blood.
        hair: Hair on the head.
        wrinkles: Age, lines and pores.
        traits: Sex, origin, age and weight that the shape was drawn for.
    """

    identity: Tensor
    albedo: Tensor
    iris_colour: np.ndarray
    oiliness: float
    features: FeatureStyle
    blotches: tuple[float, float]
    hair: HairStyle
    wrinkles: WrinkleStyle
    traits: Traits


@dataclass(frozen=True)
class Gaze:
    """Angles of both eyes in head axes, radians, person's left eye first; yaw to the own left, pitch up."""

    yaw: tuple[float, float]
    pitch: float


@cache
def _eyelook_degrees() -> dict[str, float]:
    return load_json_asset("expressions/gaze.json")["degrees_at_one"]


def sample_albedo(
    names: tuple[str, ...], rng: np.random.Generator, make_up: bool, bearded: float = 0.45
) -> Tensor:
    """Albedo coefficients over the whole range of human skin.

    Args:
        names: The model's albedo names.
        rng: Source of randomness.
        make_up: Whether lips and eyes are painted.
        bearded: Chance of hair on chin and upper lip.

    Returns:
        [A] in sigma.
    """
    values = rng.standard_normal(len(names))
    chance, density = rng.random(), rng.normal(0.6, 1.0)
    stubble = density if chance < bearded and not make_up else -1.5
    for i, name in enumerate(names):
        if name == "melanin":
            values[i] = rng.uniform(*_MELANIN)
        elif name in _CALM:
            values[i] *= _CALM[name]
        elif name in ("beard", "moustache"):
            values[i] = stubble + 0.4 * values[i]
        elif name in ("brow_density", "brow_thickness"):
            values[i] *= 1.4
        elif make_up and name in ("lip_blood", "eyelids"):
            values[i] = rng.normal(0.5, 1.6)
        values[i] = np.clip(values[i], -2.6, 2.6)
    return torch.from_numpy(values.astype(np.float32))


def _iris_colour(rng: np.random.Generator, dark: bool) -> np.ndarray:
    bases = np.array(
        [
            [0.035, 0.016, 0.007],
            [0.075, 0.036, 0.014],
            [0.11, 0.07, 0.025],
            [0.10, 0.12, 0.06],
            [0.11, 0.17, 0.24],
            [0.17, 0.19, 0.20],
        ]
    )
    shares = [0.75, 0.22, 0.03, 0, 0, 0] if dark else [0.22, 0.28, 0.14, 0.10, 0.18, 0.08]
    base = bases[rng.choice(len(bases), p=shares)]
    return (0.8 * base * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.08, 3))).astype(np.float32)


def sample_person(model: MorphableModel, rng: np.random.Generator) -> Person:
    """Draws a person.

    Args:
        model: Face model.
        rng: Source of randomness.

    Returns:
        Person; shape, beard, make-up and hair go with sex, age, weight and origin. A fifth of people lie 1.3
        times further from their group's mean than life does, and one in ten has the other sex's looks.
    """
    age, melanin = float(rng.beta(*_AGE)), float(rng.uniform(*_MELANIN))
    traits = sample_traits(rng, melanin, age)
    identity = sample_identity(traits, rng)
    if not fits(model):
        identity = rng.standard_normal(model.data.n_identity)
    manly = (traits.sex == "male") != (rng.random() < _ODD_LOOKS)
    make_up = rng.random() < (0.05 if manly else 0.55)
    names = model.data.albedo_names
    albedo = sample_albedo(names, rng, make_up, 0.7 if manly else 0.02)
    if "melanin" in names:
        albedo[names.index("melanin")] = melanin
    dark = bool(melanin + rng.normal(0, 0.3) > -0.3)
    iris_colour = _iris_colour(rng, dark)
    oiliness = float(rng.beta(1.6, 3.0))
    features = sample_features(rng, dark, make_up)
    blotches = (float(rng.uniform(0.005, 0.03)), float(rng.uniform(0.005, 0.03)))
    hair = _fitting_hair(sample_hair(rng), sample_hair(rng), manly, rng)
    return Person(
        identity=torch.from_numpy(identity.astype(np.float32)),
        albedo=albedo,
        iris_colour=iris_colour,
        oiliness=oiliness,
        features=features,
        blotches=blotches,
        hair=_greying(hair, age, rng),
        wrinkles=sample_wrinkles(rng, age),
        traits=traits,
    )


def _fitting_hair(first: HairStyle, second: HairStyle, manly: bool, rng: np.random.Generator) -> HairStyle:
    """The second cut where the first is seldom worn by the sex."""
    return second if rng.random() < _SELDOM[manly].get(first.kind, 0.0) else first


def _greying(hair: HairStyle, age: float, rng: np.random.Generator) -> HairStyle:
    """Hair of an age: grey or white for most old people."""
    grey = rng.random() < np.clip(1.6 * age - 0.55, 0.0, 0.85)
    if not grey:
        return hair
    level = rng.uniform(0.16, 0.6)
    shade = np.array([1.0, 0.985, 0.95]) * level
    mixed = rng.uniform(0.45, 1.0)
    return replace(hair, colour=(mixed * shade + (1 - mixed) * hair.colour).astype(np.float32))


def _apply(values: dict[str, float], mix: str, rng: np.random.Generator, known: tuple[str, ...]) -> None:
    strength = 1.0 if mix in _UNHURRIED else rng.uniform(0.4, 1.0)
    for stem, (low, high) in _MIXES[mix].items():
        value = strength * rng.uniform(low, high)
        lopsided = rng.normal(0, 0.08)
        for side, sign in (("", 0), ("Left", 1), ("Right", -1)):
            if stem + side in known:
                values[stem + side] = max(values.get(stem + side, 0.0), value * (1 + sign * lopsided))


def _add_sparse(values: dict[str, float], names: list[str], limit: float, rng: np.random.Generator) -> None:
    for name in names:
        values[name] = max(values.get(name, 0.0), rng.uniform(0, limit))


def _rest_lids(values: dict[str, float], rng: np.random.Generator) -> None:
    """Lids at rest: wide awake to sleepy, lower lids relaxed to tense."""
    blink = rng.normal(0.03, 0.05) if rng.random() < 0.65 else rng.uniform(0.0, 0.33)
    squint = rng.uniform(0.0, 0.45) if rng.random() < 0.5 else 0.0
    wide = rng.uniform(0.0, 0.4) if rng.random() < 0.2 else 0.0
    for side in ("Left", "Right"):
        for stem, value in (
            ("eyeBlink", blink + rng.normal(0, 0.01)),
            ("eyeSquint", squint),
            ("eyeWide", wide),
        ):
            values[stem + side] = max(values.get(stem + side, 0.0), value)


def sample_expression(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    """Draws a face's expression.

    Near neutral for 53 %, wide smiles with teeth for 15 %, shapes of speech and of quiet mouths for 12 %, the
    rest one or two named mixes; on top a few weak shapes, seldom strong ones, and lids at rest. Where a
    picture hardly shows the mouth, a network guesses what is most frequent: lips are closed in most photos.

    Args:
        names: The model's expression names.
        rng: Source of randomness.

    Returns:
        Values by name; eyeLook shapes are left to `add_gaze`.
    """
    movable = [n for n in names if not n.startswith(("eyeLook", "eyeBlink", "tongue", "mouthClose"))]
    values: dict[str, float] = {}
    kind, strong = rng.random(), rng.random() < 0.1
    mixes: list[str] = []
    if kind < _TOOTHY:
        mixes = ["toothy"] if rng.random() < 0.9 else ["toothy", "blink"]
    elif kind < _TOOTHY + 0.12:
        mixes = [_MOUTHS[int(rng.integers(len(_MOUTHS)))]]
    elif kind < _TOOTHY + 0.32:
        pool = tuple(_MIXES)
        mixes = [pool[int(rng.integers(len(pool)))] for _ in range(1 + int(rng.random() < 0.4))]
    for mix in mixes:
        _apply(values, mix, rng, names)
    if rng.random() < 0.03:
        values[f"eyeBlink{'Left' if rng.random() < 0.5 else 'Right'}"] = rng.uniform(0.8, 1.0)
    if kind < _TOOTHY:
        movable = [n for n in movable if not n.startswith("mouth") or rng.random() < 0.2]
    chosen = rng.choice(movable, 6 if strong else 3, replace=False).tolist()
    _add_sparse(values, chosen, 0.8 if strong else 0.2, rng)
    _rest_lids(values, rng)
    return limit_expression(values)


def limit_expression(values: dict[str, float]) -> dict[str, float]:
    """Clamps values to 0..1 and keeps pairs sensible: mouthClose never above jawOpen, no wide closed eyes."""
    out = {k: float(min(1.0, max(0.0, v))) for k, v in values.items()}
    if "mouthClose" in out:
        out["mouthClose"] = min(out["mouthClose"], out.get("jawOpen", 0.0))
    for side in ("Left", "Right"):
        closed = out.get(f"eyeBlink{side}", 0.0)
        for other in (f"eyeWide{side}", f"eyeSquint{side}"):
            if other in out:
                out[other] *= 1.0 - closed
        if f"mouthSmile{side}" in out and f"mouthFrown{side}" in out:
            out[f"mouthFrown{side}"] *= 1.0 - out[f"mouthSmile{side}"]
    if out.get("mouthPucker", 0.0) + out.get("mouthFunnel", 0.0) > 1.0:
        out["mouthFunnel"] = 1.0 - out["mouthPucker"]
    return out


def lips_apart(values: dict[str, float]) -> float:
    """How far an expression uncovers the teeth, 0..1."""
    pulled = sum(
        values.get(f"mouth{stem}{side}", 0.0)
        for stem in ("UpperUp", "LowerDown")
        for side in ("Left", "Right")
    )
    smile = 0.5 * (values.get("mouthSmileLeft", 0.0) + values.get("mouthSmileRight", 0.0))
    opened = values.get("jawOpen", 0.0) - values.get("mouthClose", 0.0)
    return float(np.clip(0.6 * pulled + opened + 0.3 * smile - 0.1, 0.0, 1.0))


def sample_gaze(
    rng: np.random.Generator, camera_yaw: float, camera_pitch: float, closed: float = 0.0
) -> Gaze:
    """Draws where someone looks: often at the camera, as far as the eyes turn.

    Args:
        rng: Source of randomness.
        camera_yaw: Direction of the camera in head axes, radians to the own left.
        camera_pitch: The same, upwards.
        closed: How far the lids are closed, 0..1; nobody looks up behind a half closed lid.

    Returns:
        Gaze with a little vergence.
    """
    if rng.random() < 0.72:
        yaw, pitch = camera_yaw + rng.normal(0, 0.04), camera_pitch + rng.normal(0, 0.04)
    else:
        yaw, pitch = rng.normal(0, 0.25), rng.normal(-0.06, 0.12)
    yaw, pitch = float(np.clip(yaw, -0.55, 0.55)), float(np.clip(pitch, -0.42, 0.32))
    pitch = min(pitch, 0.32 - 0.7 * min(closed, 0.5))
    vergence = float(rng.uniform(0, 0.05))
    return Gaze((yaw - vergence, yaw + vergence), pitch)


def add_gaze(values: dict[str, float], gaze: Gaze) -> dict[str, float]:
    """Adds the eyeLook shapes (lids and brows follow the eyes) that belong to a gaze."""
    out = dict(values)
    degrees = _eyelook_degrees()
    for side, yaw in zip(("Left", "Right"), gaze.yaw, strict=True):
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
