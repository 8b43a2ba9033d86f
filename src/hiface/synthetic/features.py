# SPDX-License-Identifier: Apache-2.0
"""What a person's lids, lashes, brows, lips and teeth look like beyond the coefficients of the face model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LASH_COLOURS = ((0.006, 0.004, 0.003), (0.02, 0.011, 0.006), (0.07, 0.04, 0.02), (0.26, 0.17, 0.09))


@dataclass(frozen=True)
class LashStyle:
    """Lashes and eyeliner. Metres.

    Attributes:
        colour: [3] linear colour of the lashes.
        upper: Opacity of the upper row at its roots, 0..1.
        lower: Opacity of the lower row at its roots, 0..1.
        length_m: Length of the longest upper lashes.
        curl: How far open lashes turn up, 0..1.
        line_m: Height above the upper lid's edge of the dark line of roots or eyeliner.
        line: Opacity of that line, 0..1.
        wing_m: How far eyeliner runs on beyond the outer corner.
        clumps: [12] factors on the length from the inner to the outer corner.
    """

    colour: np.ndarray
    upper: float
    lower: float
    length_m: float
    curl: float
    line_m: float
    line: float
    wing_m: float
    clumps: np.ndarray


@dataclass(frozen=True)
class LidStyle:
    """Skin of the lids. Metres.

    Attributes:
        crease_m: Height of the crease above the lid's edge.
        crease: Strength of the crease: 0 none (monolid), 1 deep.
        hood: Darkness of the skin between edge and crease, 0..1.
        shadow_colour: [3] linear colour of eye shadow.
        shadow: Opacity of eye shadow, 0 for none.
        shadow_m: Height of eye shadow.
        bag_m: Depth of the line under the eye below the lower lid's edge.
        bag: Strength of that line.
        circle: Strength of dark rings under the eye.
        rim: Redness and brightness of the lower lid's wet rim, -1..1.
    """

    crease_m: float
    crease: float
    hood: float
    shadow_colour: np.ndarray
    shadow: float
    shadow_m: float
    bag_m: float
    bag: float
    circle: float
    rim: float


@dataclass(frozen=True)
class FeatureStyle:
    """Everything in this module for one person.

    Attributes:
        lashes: Lashes and eyeliner.
        lids: Skin around the eyes.
        sclera: [3] linear albedo of the white of the eye.
        lid_shade: How much the upper lid darkens the eyeball below it, 0..1.
        brow_fade: How far brows fade into the skin, 0..1.
        brow_ragged: Strength of the gaps between brow hairs, 0..1.
        lip_fade: How far lips take the colour of the skin, 0..1.
        tooth: [3] linear albedo of the teeth.
        tooth_light: How evenly teeth are lit in an open smile, 0..1.
    """

    lashes: LashStyle
    lids: LidStyle
    sclera: np.ndarray
    lid_shade: float
    brow_fade: float
    brow_ragged: float
    lip_fade: float
    tooth: np.ndarray
    tooth_light: float


def _sample_lashes(rng: np.random.Generator, dark: bool, make_up: bool) -> LashStyle:
    colour = _LASH_COLOURS[
        int(rng.choice(4, p=[0.75, 0.25, 0, 0] if dark or make_up else [0.3, 0.35, 0.2, 0.15]))
    ]
    liner = make_up and rng.random() < 0.7
    upper = rng.uniform(0.75, 1.0) if make_up else rng.uniform(0.25, 0.95)
    return LashStyle(
        colour=np.asarray(colour, dtype=np.float32),
        upper=float(upper),
        lower=float(rng.uniform(0.0, 0.55) * upper),
        length_m=float(rng.uniform(0.006, 0.0095) if make_up else rng.uniform(0.003, 0.0075)),
        curl=float(rng.uniform(0.3, 1.0) if make_up else rng.uniform(0.0, 0.8)),
        line_m=float(rng.uniform(0.0010, 0.0030) if liner else rng.uniform(0.0004, 0.0012)),
        line=float(rng.uniform(0.75, 1.0) if liner else upper * rng.uniform(0.5, 1.0)),
        wing_m=float(rng.uniform(0.002, 0.008)) if liner and rng.random() < 0.5 else 0.0,
        clumps=np.clip(rng.normal(1.0, 0.18, 12), 0.5, 1.5).astype(np.float32),
    )


def _sample_lids(rng: np.random.Generator, make_up: bool) -> LidStyle:
    monolid = rng.random() < 0.22
    painted = make_up and rng.random() < 0.6
    hue = np.array([(0.16, 0.09, 0.06), (0.10, 0.05, 0.06), (0.30, 0.18, 0.12), (0.06, 0.06, 0.09)])
    shade = hue[int(rng.integers(4))] * np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.15:
        shade = rng.uniform(0.03, 0.5, 3)
    return LidStyle(
        crease_m=float(rng.uniform(0.002, 0.005) if monolid else rng.uniform(0.003, 0.009)),
        crease=float(rng.uniform(0.0, 0.2) if monolid else rng.uniform(0.15, 1.0)),
        hood=float(rng.uniform(-0.12, 0.3)),
        shadow_colour=np.asarray(shade, dtype=np.float32),
        shadow=float(rng.uniform(0.2, 0.8)) if painted else 0.0,
        shadow_m=float(rng.uniform(0.004, 0.014)),
        bag_m=float(rng.uniform(0.004, 0.014)),
        bag=float(max(0.0, rng.normal(0.3, 0.4))),
        circle=float(max(0.0, rng.normal(0.15, 0.25))),
        rim=float(rng.uniform(-1.0, 1.0)),
    )


def sample_features(rng: np.random.Generator, dark: bool, make_up: bool) -> FeatureStyle:
    """Draws the features of a person.

    Args:
        rng: Source of randomness.
        dark: Whether hair and skin are dark, so that lashes and brows are.
        make_up: Whether the eyes are painted.

    Returns:
        FeatureStyle; half of the people have lips that differ little from their skin.
    """
    sclera = rng.uniform(0.26, 0.52) * np.array([1.0, rng.uniform(0.88, 0.98), rng.uniform(0.80, 0.97)])
    pale_brow = not dark and not make_up and rng.random() < 0.35
    tooth = rng.uniform(0.4, 0.8) * np.array([1.0, rng.uniform(0.92, 0.99), rng.uniform(0.74, 0.97)])
    return FeatureStyle(
        lashes=_sample_lashes(rng, dark, make_up),
        lids=_sample_lids(rng, make_up),
        sclera=sclera.astype(np.float32),
        lid_shade=float(rng.uniform(0.35, 0.95)),
        brow_fade=float(rng.uniform(0.35, 0.92) if pale_brow else rng.uniform(0.0, 0.3)),
        brow_ragged=float(rng.uniform(0.0, 0.4)),
        lip_fade=float(
            rng.uniform(0.35, 0.9) if rng.random() < 0.55 and not make_up else rng.uniform(0, 0.35)
        ),
        tooth=tooth.astype(np.float32),
        tooth_light=float(rng.uniform(0.5, 1.0)),
    )
