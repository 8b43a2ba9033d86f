# SPDX-License-Identifier: Apache-2.0
"""People who do not exist: who they are, kept over several pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.synthetic.beards import BeardStyle, sample_beard
from hiface.synthetic.features import FeatureStyle, sample_features
from hiface.synthetic.hair_styles import HairStyle, sample_hair
from hiface.synthetic.identity import Traits, fits, sample_identity, sample_traits
from hiface.synthetic.skin_marks import SkinMarks, sample_marks
from hiface.synthetic.wrinkles import WrinkleStyle, sample_wrinkles

_CALM = {"haemoglobin": 0.6, "carotene": 0.6, "cheeks": 0.7, "nose": 0.6, "forehead": 0.6, "centre": 0.6}
_AGE = (1.1, 1.5)  # beta distribution of ages
_MELANIN = (-2.0, 2.2)  # sigma; all skins alike often
_ODD_LOOKS = 0.1  # share of people with beard, make-up and hair of the other sex


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
        beard: Facial hair.
        wrinkles: Age, lines and pores.
        traits: Sex, origin, age and weight that the shape was drawn for.
        marks: Freckles, moles, flush, make-up.
    """

    identity: Tensor
    albedo: Tensor
    iris_colour: np.ndarray
    oiliness: float
    features: FeatureStyle
    blotches: tuple[float, float]
    hair: HairStyle
    beard: BeardStyle
    wrinkles: WrinkleStyle
    traits: Traits
    marks: SkinMarks


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
    albedo = sample_albedo(names, rng, make_up, 0.45 if manly else 0.02)
    if "melanin" in names:
        albedo[names.index("melanin")] = melanin
    dark = bool(melanin + rng.normal(0, 0.3) > -0.3)
    iris_colour = _iris_colour(rng, dark)
    oiliness = float(rng.beta(1.6, 3.0))
    features = sample_features(rng, dark, make_up)
    blotches = (float(rng.uniform(0.005, 0.03)), float(rng.uniform(0.005, 0.03)))
    hair = _greying(sample_hair(rng, dark, not manly), age, rng)
    return Person(
        identity=torch.from_numpy(identity.astype(np.float32)),
        albedo=albedo,
        iris_colour=iris_colour,
        oiliness=oiliness,
        features=features,
        blotches=blotches,
        hair=hair,
        beard=sample_beard(rng, hair.colour, manly),
        wrinkles=sample_wrinkles(rng, age),
        traits=traits,
        marks=sample_marks(rng, hair.colour, age, make_up),
    )


def _greying(hair: HairStyle, age: float, rng: np.random.Generator) -> HairStyle:
    """Hair of an age: grey or white for most old people."""
    grey = rng.random() < np.clip(1.6 * age - 0.55, 0.0, 0.85)
    if not grey:
        return hair
    level = rng.uniform(0.16, 0.6)
    shade = np.array([1.0, 0.985, 0.95]) * level
    mixed = rng.uniform(0.45, 1.0)
    colour = (mixed * shade + (1 - mixed) * hair.colour).astype(np.float32)
    return replace(hair, colour=colour, streaks=np.clip(colour * 1.25, 0, 0.75))
