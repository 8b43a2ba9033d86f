# SPDX-License-Identifier: Apache-2.0
"""Samples people from the sculpted targets: adults of all kinds, each a sum of weighted targets.

A person is ``base + weights @ targets``; the weights come from a seeded generator whose spreads were chosen
by eye so that the people look believable (sampling the full range of the sliders gives grotesques).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from .mpfb2 import BodyMesh, SourceData, read_target

RACES = ("african", "asian", "caucasian")
MEAN_AGE, MEAN_GENDER = 0.7, 0.5
SHARED_SIDES = 0.25
"""Part of a left or right slider's spread that the other side does not share."""

SIGMA = {
    "head": 0.13,
    "forehead": 0.22,
    "neck": 0.20,
    "ears": 0.25,
    "nose": 0.22,
    "mouth": 0.22,
    "eyes": 0.27,
    "eyebrows": 0.25,
    "cheek": 0.35,
    "chin": 0.25,
}
SIGMA_ONE_SIDED, SIGMA_ASYMMETRY = 0.08, 0.12
OPPOSITES = (
    ("decr", "incr"),
    ("in", "out"),
    ("down", "up"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)


@dataclass(frozen=True)
class Slider:
    """One degree of freedom: a target for negative values and one for positive values.

    ``negative`` is empty for targets without an opposite. ``twin`` groups the left and right version.
    """

    negative: str
    positive: str
    sigma: float
    twin: str


def find_sliders(source: SourceData) -> list[Slider]:
    """Pairs the targets of all head folders into sliders, in a fixed order."""
    sliders: list[Slider] = []
    for folder, sigma in SIGMA.items():
        names = source.target_names(folder)
        taken: set[str] = set()
        for name in names:
            if name in taken:
                continue
            partner = _opposite(name, names)
            taken.update({name, partner} - {""})
            twin = re.sub(r"/[lr]-", "/", name)
            if partner:
                sliders.append(Slider(name, partner, sigma, twin))
            else:
                sliders.append(Slider("", name, SIGMA_ONE_SIDED, twin))
    asym = [n for n in source.target_names("asym") if n.endswith("-l") and "/asymm-" not in n]
    sliders += [Slider(n, n[:-1] + "r", SIGMA_ASYMMETRY, n) for n in asym]
    return sliders


def _opposite(name: str, names: list[str]) -> str:
    for low, high in OPPOSITES:
        if name.endswith(f"-{low}"):
            partner = name[: -len(low)] + high
            return partner if partner in names else ""
    return ""


def macro_weights(
    age: float, gender: float, muscle: float, height: float, race: np.ndarray
) -> dict[str, float]:
    """Weights of the ``macrodetails`` targets of one adult.

    Args:
        age: 0.5 young … 1 old.
        gender: 0 female … 1 male.
        muscle: 0 … 1, 0.5 is average.
        height: 0 … 1, 0.5 is average.
        race: ``[3]`` shares that sum to 1, in the order of ``RACES``.
    """
    ages = {"young": 2.0 - 2.0 * age, "old": 2.0 * age - 1.0}
    genders = {"female": 1.0 - gender, "male": gender}
    high, low = max(0.0, 2 * muscle - 1), max(0.0, 1 - 2 * muscle)
    muscles = {"maxmuscle": high, "minmuscle": low, "averagemuscle": 1 - high - low}
    heights = {"maxheight": max(0.0, 2 * height - 1), "minheight": max(0.0, 1 - 2 * height)}
    out: dict[str, float] = {}
    for g, wg in genders.items():
        for a, wa in ages.items():
            for r, wr in zip(RACES, race, strict=True):
                out[f"macrodetails/{r}-{g}-{a}"] = wg * wa * float(wr)
            for m, wm in muscles.items():
                stem = f"{g}-{a}-{m}-averageweight"
                out[f"macrodetails/universal-{stem}"] = wg * wa * wm
                for h, wh in heights.items():
                    out[f"macrodetails/height/{stem}-{h}"] = wg * wa * wm * wh
    return {name: w for name, w in out.items() if w > 0.0}


def average_person(source: SourceData, body: BodyMesh) -> np.ndarray:
    """The average adult of the macro targets, ``[N, 3]`` decimetres, exactly mirror-symmetric."""
    weights = macro_weights(MEAN_AGE, MEAN_GENDER, 0.5, 0.5, np.full(3, 1 / 3))
    vertices = body.vertices.copy()
    for name, weight in weights.items():
        vertices += weight * read_target(source.target_path(name), len(vertices))
    flipped = vertices[body.mirror] * np.array([-1.0, 1.0, 1.0])
    return 0.5 * (vertices + flipped)


def sample_weights(sliders: list[Slider], count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Draws people.

    Args:
        sliders: from ``find_sliders``.
        count: number of people.
        seed: of the generator.

    Returns:
        Target names and their weights ``[count, len(names)]`` float32.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    shared: dict[str, np.ndarray] = {}
    for slider in sliders:
        common = shared.setdefault(slider.twin, rng.standard_normal(count))
        own = rng.standard_normal(count)
        sided = re.search(r"/[lr]-", slider.positive) is not None
        mix = np.sqrt(1 - SHARED_SIDES**2) * common + SHARED_SIDES * own if sided else common
        value = np.clip(slider.sigma * mix, -1.0, 1.0)
        if slider.negative:
            columns[slider.negative] = np.maximum(-value, 0.0)
            columns[slider.positive] = np.maximum(value, 0.0)
        else:
            columns[slider.positive] = np.abs(value)
    macros = _sample_macros(rng, count)
    names = sorted({name for person in macros for name in person})
    for name in names:
        columns[name] = np.array([person.get(name, 0.0) for person in macros])
    return list(columns), np.stack(list(columns.values()), axis=1).astype(np.float32)


def _sample_macros(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    age = rng.uniform(0.5, 1.0, count)
    side = np.where(rng.random(count) < 0.5, 0.08, 0.92)
    gender = np.clip(side + 0.18 * rng.standard_normal(count), 0.0, 1.0)
    muscle = np.clip(0.5 + 0.2 * rng.standard_normal(count), 0.0, 1.0)
    height = np.clip(0.5 + 0.08 * rng.standard_normal(count), 0.0, 1.0)
    race = rng.dirichlet(np.full(3, 0.5), count)
    rows = zip(age, gender, muscle, height, race, strict=True)
    return [macro_weights(a, g, m, h, r) for a, g, m, h, r in rows]


def target_matrix(source: SourceData, names: list[str], body: BodyMesh, rows: csr_matrix) -> np.ndarray:
    """Reads targets and maps them to head points.

    Args:
        source: where the files lie.
        names: target names.
        body: the base mesh.
        rows: sparse ``[P, N]`` operator from body vertices to the wanted points.

    Returns:
        ``[len(names), P, 3]`` float32 displacements in decimetres.
    """
    n = len(body.vertices)
    return np.stack([(rows @ read_target(source.target_path(name), n)).astype(np.float32) for name in names])
