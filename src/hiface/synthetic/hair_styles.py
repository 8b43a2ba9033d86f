# SPDX-License-Identifier: Apache-2.0
"""What hair people have: cut, colour, hairline. Growing and drawing are in `hair_growth` and `hair`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

KINDS = (
    "bald",
    "horseshoe",
    "buzz",
    "crop",
    "side",
    "back",
    "curly",
    "afro",
    "bob",
    "long",
    "tail",
    "bun",
)
_SHARE = (0.04, 0.06, 0.09, 0.20, 0.16, 0.09, 0.07, 0.04, 0.07, 0.11, 0.04, 0.03)
_SHARE_WOMANLY = (0.0, 0.0, 0.01, 0.05, 0.08, 0.03, 0.08, 0.05, 0.17, 0.33, 0.12, 0.08)
_COLOURS = np.array(
    [
        [0.009, 0.007, 0.006],
        [0.022, 0.013, 0.009],
        [0.055, 0.031, 0.018],
        [0.13, 0.078, 0.042],
        [0.33, 0.23, 0.125],
        [0.17, 0.062, 0.026],
        [0.20, 0.19, 0.18],
        [0.50, 0.48, 0.45],
    ]
)
_COLOUR_SHARE = np.array([0.17, 0.25, 0.23, 0.13, 0.10, 0.05, 0.04, 0.03])
_COLOUR_SHARE_DARK = np.array([0.52, 0.31, 0.11, 0.02, 0.01, 0.005, 0.015, 0.01])
_UNNATURAL = 0.015  # share of dyed hair in any hue


@dataclass(frozen=True)
class Cut:
    """Ranges of one cut. Metres; flows are those of `hair_growth.comb`.

    Attributes:
        length: Length of the locks.
        volume: Height of the hair over the skin on top.
        side: Share of that height at the sides.
        lift: How steeply locks leave the skin.
        gravity: How fast they turn down.
        flows: Ways of combing.
        count: Number of locks.
        width: Width of a lock.
        wave: Amplitude of waves.
        wave_length: Their length.
        slack: How far locks may stand off the others.
        fringe: Share of heads with a fringe.
    """

    length: tuple[float, float]
    volume: tuple[float, float]
    side: tuple[float, float]
    lift: tuple[float, float]
    gravity: tuple[float, float]
    flows: tuple[str, ...]
    count: int
    width: float
    wave: tuple[float, float]
    wave_length: tuple[float, float]
    slack: float
    fringe: float


_BOB = Cut(
    (0.13, 0.20),
    (0.012, 0.028),
    (0.6, 1.0),
    (0.2, 0.5),
    (0.15, 0.3),
    ("side", "middle"),
    1000,
    0.013,
    (0.0, 0.004),
    (0.05, 0.12),
    0.012,
    0.5,
)
_TAIL = Cut(
    (0.16, 0.20),
    (0.004, 0.012),
    (0.8, 1.0),
    (0.1, 0.3),
    (0.0, 0.0),
    ("tail",),
    760,
    0.009,
    (0, 0.001),
    (0.05, 0.10),
    0.002,
    0.2,
)

CUTS = {
    "horseshoe": Cut(
        (0.010, 0.035),
        (0.004, 0.010),
        (1.0, 1.0),
        (0.2, 0.6),
        (0.2, 0.4),
        ("back", "forward"),
        620,
        0.006,
        (0, 0.001),
        (0.03, 0.06),
        0.004,
        0.0,
    ),
    "buzz": Cut(
        (0.004, 0.009),
        (0.002, 0.005),
        (0.6, 1.0),
        (0.7, 1.5),
        (0.0, 0.1),
        ("forward",),
        1300,
        0.0055,
        (0, 0),
        (0.03, 0.06),
        0.004,
        0.0,
    ),
    "crop": Cut(
        (0.018, 0.050),
        (0.006, 0.018),
        (0.25, 0.7),
        (0.3, 0.9),
        (0.0, 0.15),
        ("forward", "forward", "side"),
        1050,
        0.0065,
        (0, 0.002),
        (0.03, 0.06),
        0.007,
        0.35,
    ),
    "side": Cut(
        (0.045, 0.085),
        (0.010, 0.026),
        (0.25, 0.6),
        (0.5, 1.2),
        (0.02, 0.15),
        ("side",),
        950,
        0.008,
        (0, 0.003),
        (0.05, 0.10),
        0.008,
        0.15,
    ),
    "back": Cut(
        (0.05, 0.11),
        (0.010, 0.026),
        (0.3, 0.7),
        (0.6, 1.4),
        (0.02, 0.15),
        ("back",),
        900,
        0.008,
        (0, 0.004),
        (0.05, 0.10),
        0.007,
        0.0,
    ),
    "curly": Cut(
        (0.04, 0.12),
        (0.018, 0.042),
        (0.5, 0.95),
        (0.6, 1.2),
        (0.1, 0.3),
        ("forward", "side", "middle"),
        1250,
        0.009,
        (0.003, 0.008),
        (0.028, 0.05),
        0.015,
        0.3,
    ),
    "afro": Cut(
        (0.03, 0.05),
        (0.028, 0.085),
        (0.75, 1.0),
        (1.2, 2.2),
        (0.0, 0.05),
        ("forward",),
        1500,
        0.011,
        (0.005, 0.009),
        (0.016, 0.026),
        0.018,
        0.0,
    ),
    "bob": _BOB,
    "long": Cut(
        (0.27, 0.50),
        (0.010, 0.026),
        (0.6, 1.0),
        (0.2, 0.5),
        (0.15, 0.3),
        ("side", "middle", "middle"),
        1000,
        0.016,
        (0.0, 0.009),
        (0.05, 0.14),
        0.012,
        0.25,
    ),
    "tail": _TAIL,
    "bun": replace(_TAIL, fringe=0.12),
}


@dataclass(frozen=True)
class HairStyle:
    """One head of hair. Angles in radians, lengths in metres.

    Attributes:
        kind: One of `KINDS`.
        colour: [3] linear.
        streaks: [3] linear colour of the lightest locks.
        length: Length of the locks.
        volume: Height over the skin on top, and its share at the sides.
        lift: How steeply locks leave the skin.
        gravity: How fast they turn down.
        flow: Way of combing.
        part: Place of the parting across the head, -1..1 of half its width.
        hairline: Polar angle of the hairline in front and of the sideburns.
        recede: How far the temples recede.
        peak: Depth of the widow's peak.
        nape: Polar angle of the hairline at the back.
        fringe: Length of the fringe, 0 for none, and its slant, -1..1.
        wave: Amplitude and length of waves.
        anchor: Polar angle of tail or bun at the back.
        face: Azimuth up to which hanging hair leaves the face free.
        crown: Angle of a thin patch around the crown, 0 for none.
        shade: Opacity of hair painted on the scalp, 0..1.
        seed: Seed of the locks.
    """

    kind: str
    colour: np.ndarray
    streaks: np.ndarray
    length: float
    volume: tuple[float, float]
    lift: float
    gravity: float
    flow: str
    part: float
    hairline: tuple[float, float]
    recede: float
    peak: float
    nape: float
    fringe: tuple[float, float]
    wave: tuple[float, float]
    anchor: float
    face: float
    crown: float
    shade: float
    seed: int


def sample_hair_colour(rng: np.random.Generator, dark: bool) -> np.ndarray:
    """Draws a colour of hair, [3] linear; 98.5 % are natural."""
    share = _COLOUR_SHARE_DARK if dark else _COLOUR_SHARE
    colour = _COLOURS[rng.choice(len(_COLOURS), p=share / share.sum())]
    hue = rng.uniform(0.03, 0.45, 3)
    dyed = rng.random() < _UNNATURAL
    return np.clip((hue if dyed else colour) * np.exp(rng.normal(0, 0.22)), 0.004, 0.7).astype(np.float32)


def sample_hair(rng: np.random.Generator, dark: bool = False, womanly: bool = False) -> HairStyle:
    """Draws a hairstyle.

    Args:
        rng: Source of randomness.
        dark: Whether the person is of those with dark skin and brows.
        womanly: Whether to draw from the cuts that more women wear.

    Returns:
        HairStyle.
    """
    kind = str(rng.choice(KINDS, p=_SHARE_WOMANLY if womanly else _SHARE))
    colour = sample_hair_colour(rng, dark)
    cut = CUTS.get(kind, CUTS["buzz"])
    u = rng.random(8)
    recede = float(abs(rng.normal(0, 9)) * (rng.random() < (0.12 if womanly else 0.5)))
    front = rng.normal(55, 3.5) - 0.4 * recede - (4 if kind == "tail" else 0)
    fringe = rng.random() < cut.fringe
    short = kind in ("crop", "side", "buzz")
    fringe_m = rng.uniform(0.018, 0.042) if short else rng.uniform(0.032, 0.066)
    sideburn = rng.uniform(84, 112) if not womanly else rng.uniform(82, 92)
    light = np.exp(rng.uniform(0.0, 0.7) * (1.0 if rng.random() < 0.35 else 0.3))
    crown = rng.uniform(14, 30) if rng.random() < 0.12 and short and not womanly else 0.0
    shade = {"bald": rng.uniform(0.0, 0.3), "buzz": rng.uniform(0.35, 0.8), "horseshoe": 0.5}
    return HairStyle(
        kind=kind,
        colour=colour,
        streaks=np.clip(colour * light, 0.004, 0.75).astype(np.float32),
        length=float(np.interp(u[0], (0, 1), cut.length)),
        volume=(float(np.interp(u[1], (0, 1), cut.volume)), float(np.interp(u[2], (0, 1), cut.side))),
        lift=float(np.interp(u[3], (0, 1), cut.lift)),
        gravity=float(np.interp(u[4], (0, 1), cut.gravity)),
        flow=cut.flows[int(rng.integers(len(cut.flows)))],
        part=float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)),
        hairline=(math.radians(front), math.radians(sideburn)),
        recede=math.radians(recede),
        peak=math.radians(max(0.0, rng.normal(0.5, 2.5))),
        nape=math.radians(rng.uniform(112, 126)),
        fringe=(float(fringe_m) if fringe else 0.0, float(np.clip(rng.normal(0, 0.5), -1, 1))),
        wave=(float(np.interp(u[5], (0, 1), cut.wave)), float(np.interp(u[6], (0, 1), cut.wave_length))),
        anchor=math.radians(rng.uniform(20, 75) if kind == "bun" else rng.uniform(55, 105)),
        face=math.radians(rng.uniform(38, 72)),
        crown=math.radians(crown),
        shade=float(shade.get(kind, 0.85)),
        seed=int(rng.integers(2**31)),
    )


_KNOTS = np.radians([0, 26, 46, 58, 68, 78, 105, 125, 150, 180])


def hairline(style: HairStyle, azimuth: np.ndarray) -> np.ndarray:
    """Where hair ends on the skin.

    Args:
        style: Hair.
        azimuth: [N] radians, 0 in front.

    Returns:
        [N] polar angle, radians: wavy, with widow's peak, receding temples and sideburns.
    """
    rng = np.random.default_rng(style.seed)
    theta = np.abs(azimuth)
    front, sideburn = style.hairline
    ear, back = math.radians(80), math.radians(102)
    values = [
        front,
        front - 0.02,
        front + 0.03,
        front + 0.22,
        sideburn,
        ear,
        ear,
        back,
        style.nape,
        style.nape,
    ]
    edge = np.interp(theta, _KNOTS, values)
    edge += style.peak * np.exp(-((theta / 0.16) ** 2))
    edge -= style.recede * np.exp(-(((theta - 0.62) / 0.26) ** 2))
    for k, phase in zip((3, 7, 13, 23), rng.uniform(0, 2 * math.pi, 4), strict=True):
        edge += 0.035 / math.sqrt(k) * np.sin(k * azimuth + phase)
    return edge
