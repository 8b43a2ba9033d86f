# SPDX-License-Identifier: Apache-2.0
"""Who someone is: sex, origin, age, weight and asymmetry, and the identity coefficients that go with them.

Coefficients are a conditional Gaussian. A person's head measures m are drawn from the survey's distribution
for sex and group, shifted by age and weight; traits t give a shape D t; the rest keeps the basis' own spread:

    z = D t + K (m - m0 - J D t) + R n,   n ~ N(0, I),   J K = I,   J R = 0,

with J the measures' slopes. So measured means, spreads and correlations are the survey's whatever the basis
says, and all else varies as the basis does. The tables, `assets/open/people.safetensors`, are made from
`assets/open/survey.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_tensors_asset
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel

SEXES = ("female", "male")
YOUNGEST, OLDEST = 18.0, 80.0
_WIDER = (0.2, 1.3)  # share of people further from their group's mean than life, and how much
_FURTHEST = 6.0  # sigma
_MALE = 0.46  # half the step from woman to man in the basis' own people
_GROWN = (25.0, 65.0, 0.4)  # years of the young head, years to the old one, place of the mean head between
_AGE = (44.0, 16.0)  # mean and spread of the drawn ages, years
_GROUP_BY_SKIN = np.array(  # rows light, medium, dark; white, black, hispanic, other
    [[0.62, 0.01, 0.17, 0.20], [0.15, 0.15, 0.35, 0.35], [0.02, 0.78, 0.06, 0.14]]
)
_ASYMMETRY_MM = (0.67, 0.07, 0.18, 0.10)  # young women, more in men, more in the old, log spread over people
_OF_ANY_ORIGIN = 0.15  # share of people whose skin says nothing about their group


@dataclass(frozen=True)
class Traits:
    """What is drawn before the shape.

    Attributes:
        sex: "female" or "male".
        group: One of the survey's groups.
        years: Age, 18..80.
        body_mass_index: kg/m².
        asymmetry_mm: Mean distance between the face and its mirror image.
        spread: 1, or more for people who lie further out than life.
    """

    sex: str
    group: str
    years: float
    body_mass_index: float
    asymmetry_mm: float
    spread: float

    @property
    def age(self) -> float:
        """Age as 0 (18 years) .. 1 (80 years)."""
        return (self.years - YOUNGEST) / (OLDEST - YOUNGEST)


@dataclass(frozen=True)
class PeopleTables:
    """Constants of the distribution; M measures, K coefficients, T traits, G groups, sexes female and male.

    Attributes:
        measures: Names of the measures.
        groups: Names of the groups.
        pairs: [M, 2] int64 ends of each measure, indices into vertices followed by joints.
        traits: [K, T] coefficients of a unit of male, african, asian, caucasian, age, fat.
        pull: [K, M] likeliest coefficients for a metre of each measure.
        residual: [K, K] factor of what is left; no measure changes along it.
        symmetric: [K] bool.
        origins: [G, 3] african, asian and caucasian share of each group.
        rest: [M] measures of the mean head, metres.
        slopes: [M, K] metres.
        mean: [2, G, M] metres.
        factor: [2, G, M, M] Cholesky factor of the spread at one age and weight, metres.
        by_age, by_fat: [2, G, M] metres for a spread of age or weight.
        log_bmi: [2, 2] mean and spread of the logarithm of the body mass index.
        asymmetry_mm: Mean distance to the mirror image that the residual itself gives.
    """

    measures: tuple[str, ...]
    groups: tuple[str, ...]
    pairs: np.ndarray
    traits: np.ndarray
    pull: np.ndarray
    residual: np.ndarray
    symmetric: np.ndarray
    origins: np.ndarray
    rest: np.ndarray
    slopes: np.ndarray
    mean: np.ndarray
    factor: np.ndarray
    by_age: np.ndarray
    by_fat: np.ndarray
    log_bmi: np.ndarray
    asymmetry_mm: float


@cache
def people_tables() -> PeopleTables:
    """The tables of the open model."""
    tensors, meta = load_tensors_asset("open/people.safetensors")
    arrays: dict[str, Any] = {name: t.numpy().astype(np.float64) for name, t in tensors.items()}
    arrays["pairs"] = arrays["pairs"].astype(np.int64)
    arrays["symmetric"] = arrays["symmetric"] > 0.5
    measures, groups = json.loads(meta["measures"]), json.loads(meta["groups"])
    return PeopleTables(tuple(measures), tuple(groups), asymmetry_mm=float(meta["asymmetry_mm"]), **arrays)


def fits(model: MorphableModel) -> bool:
    """Whether the tables belong to a model."""
    return model.name == "open" and model.data.n_identity == len(people_tables().traits)


def sample_traits(rng: np.random.Generator, melanin: float, age: float) -> Traits:
    """Draws sex, origin, weight and asymmetry of a person.

    Args:
        rng: Source of randomness.
        melanin: Of the skin, sigma (about -2.2..2.2); origin goes with it, loosely.
        age: 0 (18 years) .. 1 (80 years).

    Returns:
        Traits; women and men alike, groups in nearly equal parts if melanin is uniform.
    """
    tables = people_tables()
    sex = int(rng.random() < 0.5)
    row = int(np.clip((melanin + 2.0) / 1.4, 0, 2))
    shares = np.full(4, 0.25) if rng.random() < _OF_ANY_ORIGIN else _GROUP_BY_SKIN[row]
    group = int(rng.choice(len(tables.groups), p=shares))
    log_mean, log_spread = tables.log_bmi[sex]
    bmi = float(np.exp(log_mean + log_spread * np.clip(rng.standard_normal(), -2.2, 2.8)))
    young, man, old, uneven = _ASYMMETRY_MM
    asymmetry = (young + man * sex + old * age) * float(np.exp(rng.normal(0, uneven)))
    spread = _WIDER[1] if rng.random() < _WIDER[0] else 1.0
    years = YOUNGEST + (OLDEST - YOUNGEST) * age
    return Traits(SEXES[sex], tables.groups[group], years, bmi, asymmetry, spread)


def _trait_vector(tables: PeopleTables, traits: Traits) -> tuple[np.ndarray, int, int, float, float]:
    """Units of the trait directions, indices of sex and group, and the z scores of age and weight."""
    sex, group = SEXES.index(traits.sex), tables.groups.index(traits.group)
    log_mean, log_spread = tables.log_bmi[sex]
    fat = (float(np.log(traits.body_mass_index)) - log_mean) / log_spread
    young, span, middle = _GROWN
    grown = (traits.years - young) / span - middle
    vector = np.array([_MALE if sex else -_MALE, *tables.origins[group], grown, fat])
    return vector, sex, group, (traits.years - _AGE[0]) / _AGE[1], fat


def expected_identity(traits: Traits, tables: PeopleTables | None = None) -> np.ndarray:
    """Mean coefficients [K] of the people who share traits.

    Args:
        traits: Who.
        tables: Of the open model if not given.

    Returns:
        [K] in sigma; symmetric.
    """
    tables = people_tables() if tables is None else tables
    vector, sex, group, age, fat = _trait_vector(tables, traits)
    wanted = tables.mean[sex, group] + age * tables.by_age[sex, group] + fat * tables.by_fat[sex, group]
    shape = tables.traits @ vector
    return shape + tables.pull @ (wanted - tables.rest - tables.slopes @ shape)


def sample_identity(
    traits: Traits, rng: np.random.Generator, tables: PeopleTables | None = None
) -> np.ndarray:
    """Draws a person's identity coefficients.

    Args:
        traits: Who.
        rng: Source of randomness; always the same count of numbers is drawn.
        tables: Of the open model if not given.

    Returns:
        [K] in sigma.
    """
    tables = people_tables() if tables is None else tables
    sex, group = SEXES.index(traits.sex), tables.groups.index(traits.group)
    measured = tables.factor[sex, group] @ rng.standard_normal(len(tables.measures))
    other = tables.residual @ rng.standard_normal(len(tables.residual))
    drawn = expected_identity(traits, tables) + traits.spread * (tables.pull @ measured + other)
    drawn[~tables.symmetric] *= traits.asymmetry_mm / (tables.asymmetry_mm * traits.spread)
    return np.clip(drawn, -_FURTHEST, _FURTHEST)


def head_measures(model: MorphableModel, identity: Tensor) -> Tensor:
    """Caliper measures of heads.

    Args:
        model: The open model.
        identity: [*B, K] sigma.

    Returns:
        [*B, M] metres, in the order of `people_tables().measures`.

    Raises:
        ShapeError: The tables were made for another model.
    """
    if not fits(model):
        raise ShapeError(f"head measures are known for the open model only, got model {model.name!r}")
    first, second = torch.from_numpy(people_tables().pairs).to(identity.device).unbind(1)
    mean = torch.cat([model.template, model.joints_template])
    rows = torch.cat([model.identity_basis, model.joints_identity_basis], dim=1)
    rest = (mean[first] - mean[second]).to(identity)
    moved = identity @ (rows[:, first] - rows[:, second]).flatten(1).to(identity)
    return (rest + moved.unflatten(-1, (-1, 3))).norm(dim=-1)
