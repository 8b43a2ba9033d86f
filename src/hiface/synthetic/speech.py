# SPDX-License-Identifier: Apache-2.0
"""What a face does over time: speech with coarticulation, accents of the brows, blinks, eyes that fixate.

Everything is a function of the frames' times, so that clips may have any rate, and a varying one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hiface.assets import load_json_asset
from hiface.synthetic.expressions import SIDES, Gaze

VOWELS = ("viseme_aa", "viseme_e", "viseme_ih", "viseme_oh", "viseme_ou")
CLOSING = ("viseme_pp", "viseme_ff")  # lips have to meet, whatever stands beside them
SILENCE = "viseme_sil"
_PHONES_PER_S = (8.0, 14.0)
_SENTENCE_S, _PAUSE_S = (1.0, 2.8), (0.3, 0.9)
_REACH = 0.6  # of a phone's neighbourhood, standard deviation over its length
_VOR_YAW, _VOR_PITCH = 0.42, 0.3  # how far eyes stay behind a turning head, radians
_SACCADE_S = 0.04


@dataclass(frozen=True)
class Blink:
    """One closing of the lids.

    Attributes:
        at_s: When the lids are closed furthest (the middle of that time).
        closing_s: How long they close.
        hold_s: How long they stay.
        opening_s: How long they open.
        depth: `eyeBlink` at its peak, 0..1.
        sides: Of `SIDES`; one for a wink.
    """

    at_s: float
    closing_s: float
    hold_s: float
    opening_s: float
    depth: float
    sides: tuple[str, ...] = SIDES


@dataclass(frozen=True)
class Phone:
    """A sound: when it is at its clearest, how long it lasts, and the name of its mix ("viseme_aa")."""

    at_s: float
    length_s: float
    viseme: str


@cache
def viseme_ranges() -> dict[str, dict[str, tuple[float, float]]]:
    """Ranges of the ARKit weights of the 15 visemes, by name and channel; both sides spelt out."""
    mixes = load_json_asset("open/expression_mixes.json")["mixes"]
    known = set(load_json_asset("expressions/arkit52.json")["names"])
    out = {}
    for mix in (mix for mix in mixes if mix["group"] == "speech"):
        channels = {}
        for stem, span in mix["shapes"].items():
            channels |= {stem + side: (span[0], span[1]) for side in ("", *SIDES) if stem + side in known}
        out[mix["name"]] = channels
    return out


def sample_phones(rng: np.random.Generator, start_s: float, end_s: float) -> list[Phone]:
    """Draws sentences of syllables, 8 to 14 sounds a second, with pauses between them."""
    consonants = [name for name in viseme_ranges() if name not in VOWELS and name != SILENCE]
    phones, now = [], start_s - float(rng.uniform(0.3, 1.0))
    while now < end_s + 0.5:
        stop, per_s = now + float(rng.uniform(*_SENTENCE_S)), float(rng.uniform(*_PHONES_PER_S))
        is_vowel = rng.random() < 0.4
        while now < stop:
            length = float(np.clip(rng.normal(1.2 if is_vowel else 0.8, 0.15), 0.5, 1.7)) / per_s
            viseme = str(rng.choice(VOWELS)) if is_vowel else str(rng.choice(consonants))
            phones.append(Phone(now + length / 2, length, viseme))
            now += length
            is_vowel = not is_vowel if rng.random() < 0.85 else is_vowel
        pause = float(rng.uniform(*_PAUSE_S))
        phones.append(Phone(now + pause / 2, pause, SILENCE))
        now += pause
    return phones


def speech_values(
    phones: Sequence[Phone], times_s: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Weights of speech: a mean of the sounds' targets, each with a bell-shaped weight in time.

    What stands beside a sound colours it (the dominance functions of Cohen and Massaro, 1993); sounds that
    close the lips weigh more.

    Args:
        phones: From `sample_phones`.
        times_s: [n] times of the frames.
        rng: Source of randomness of the targets.

    Returns:
        [n] by channel.
    """
    loudness = rng.uniform(0.6, 1.0)
    channels = sorted({name for ranges in viseme_ranges().values() for name in ranges})
    targets = np.zeros((len(phones), len(channels)))
    for row, phone in zip(targets, phones, strict=True):
        strength = loudness * rng.uniform(0.75, 1.0)
        clear = 1.0 if phone.viseme in CLOSING else strength
        for name, (low, high) in viseme_ranges()[phone.viseme].items():
            row[channels.index(name)] = clear * (low + (high - low) * strength)
    at, length = (np.array([getattr(p, key) for p in phones]) for key in ("at_s", "length_s"))
    weight = np.array([2.0 if phone.viseme in CLOSING else 1.0 for phone in phones])
    weights = weight * np.exp(-0.5 * ((times_s[:, None] - at) / (_REACH * np.minimum(length, 0.5))) ** 2)
    values = (weights + 1e-12) @ targets / (weights + 1e-12).sum(axis=1, keepdims=True)
    return {name: values[:, i] for i, name in enumerate(channels)}


def bell(times_s: np.ndarray, at_s: float, width_s: float) -> np.ndarray:
    """[n] a smooth rise and fall around a time, 1 at its top."""
    return np.exp(-0.5 * ((times_s - at_s) / width_s) ** 2)


def brow_values(
    phones: Sequence[Phone], times_s: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Accents: brows that go up, or together, on some stressed vowels."""
    stressed = [p.at_s for p in phones if p.viseme in VOWELS and rng.random() < 0.14]
    out = {name: np.zeros(len(times_s)) for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")}
    out |= {f"browDown{side}": np.zeros(len(times_s)) for side in SIDES}
    for at in stressed:
        curve = bell(times_s, at + rng.normal(0, 0.05), rng.uniform(0.1, 0.25)) * rng.uniform(0.2, 0.65)
        names = [f"browDown{side}" for side in SIDES] if rng.random() < 0.25 else list(out)[:3]
        for name in names:
            out[name] = np.maximum(out[name], curve * rng.uniform(0.75, 1.0))
    return out


def sample_blink(rng: np.random.Generator, at_s: float, depth: float | None = None) -> Blink:
    """Draws a natural blink: closing 80 to 120 ms, opening 120 to 250 ms."""
    deep = float(rng.uniform(0.9, 1.0)) if depth is None else depth
    return Blink(
        at_s,
        float(rng.uniform(0.08, 0.12)),
        float(rng.uniform(0.0, 0.05)),
        float(rng.uniform(0.12, 0.25)),
        deep,
    )


def sample_blinks(rng: np.random.Generator, start_s: float, end_s: float, every_s: float) -> list[Blink]:
    """Draws blinks with at least 0.6 s between them, one in `every_s` seconds on average."""
    blinks, now = [], start_s + float(rng.uniform(0.2, max(0.3, every_s)))
    while now < end_s:
        blinks.append(sample_blink(rng, now))
        now += 0.6 + float(rng.exponential(max(every_s - 0.6, 0.1)))
    return blinks


def blink_values(blinks: Sequence[Blink], times_s: np.ndarray) -> dict[str, np.ndarray]:
    """`eyeBlink` of both eyes, [n] by channel: smooth closing, a hold, smooth opening."""
    out = {f"eyeBlink{side}": np.zeros(len(times_s)) for side in SIDES}
    for blink in blinks:
        since = times_s - (blink.at_s - blink.hold_s / 2)
        rising = np.clip(1 + since / blink.closing_s, 0, 1)
        falling = np.clip(1 - (since - blink.hold_s) / blink.opening_s, 0, 1)
        x = np.minimum(rising, falling)
        curve = blink.depth * x * x * (3 - 2 * x)
        for side in blink.sides:
            out[f"eyeBlink{side}"] = np.maximum(out[f"eyeBlink{side}"], curve)
    return out


def fixations(
    times_s: np.ndarray, turn: np.ndarray, rng: np.random.Generator, wander: float = 1.0
) -> list[Gaze]:
    """Eyes that hold on to what they look at while the head turns, and jump now and then.

    Args:
        times_s: [n] times of the frames.
        turn: [n, 3] yaw, pitch and roll of the head, radians.
        rng: Source of randomness.
        wander: How far jumps go; 0 for eyes that stay.

    Returns:
        n directions.
    """
    jumps, now = [(times_s[0] - 1.0, np.zeros(2))], times_s[0]
    while wander > 0 and now < times_s[-1]:
        now += 0.35 + float(rng.exponential(0.8))
        away = rng.random() < 0.45
        jumps.append((now, rng.normal(0, (0.16, 0.08)) * wander if away else rng.normal(0, 0.02, 2)))
    aim = np.zeros((len(times_s), 2))
    for start, goal in jumps:
        share = np.clip((times_s - start) / _SACCADE_S, 0, 1)[:, None]
        aim = aim + (goal - aim) * share
    yaw = np.clip(aim[:, 0] - turn[:, 0], -_VOR_YAW, _VOR_YAW)
    pitch = np.clip(aim[:, 1] - turn[:, 1], -_VOR_PITCH, _VOR_PITCH)
    cross = math.atan(0.031 / 0.8)  # both eyes meet at 0.8 m
    return [Gaze((float(y) - cross, float(y) + cross), float(p)) for y, p in zip(yaw, pitch, strict=True)]


def eased(times_s: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """[n] the way from 0 to 1 with the least jerk (Flash and Hogan, 1985)."""
    x = np.clip((times_s - start_s) / (end_s - start_s), 0, 1)
    return x**3 * (10 - 15 * x + 6 * x * x)
