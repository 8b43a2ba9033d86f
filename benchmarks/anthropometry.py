# SPDX-License-Identifier: Apache-2.0
"""Measures of synthetic people beside the surveys': `python benchmarks/anthropometry.py [--out FILE]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hiface
from hiface.assets import load_json_asset
from hiface.morphable import MorphableModel
from hiface.synthetic.identity import SEXES, head_measures
from hiface.synthetic.people import sample_person

PAIRS = (
    ("bigonial", "bizygomatic"),
    ("nose_breadth", "lip_length"),
    ("bizygomatic", "head_breadth"),
    ("menton_sellion", "subnasale_sellion"),
    ("menton_sellion", "bizygomatic"),
    ("interpupillary", "bizygomatic"),
)


def surveyed(survey: dict[str, Any], name: str, sex: str, group: str) -> tuple[list[float], str]:
    """Mean and spread in mm, and where they are from."""
    cell = survey["by_group"][sex][group]
    if name in cell:
        return cell[name], survey["by_group"]["source"]
    return survey["by_sex"][name][sex], survey["by_sex"][name]["source"]


def surveyed_correlation(survey: dict[str, Any], pair: tuple[str, str], sex: str, group: str) -> float:
    """Of a quotient of the survey, else the stated one."""
    quotient = "/".join(pair)
    if quotient not in survey["ratios"]:
        table = survey["correlations"]
        return table.get(pair[0], {}).get(pair[1], table.get(pair[1], {}).get(pair[0], table["default"]))
    (a, b), cell = pair, survey["by_group"][sex][group]
    u, v = cell[a][1] / cell[a][0], cell[b][1] / cell[b][0]
    mean, sd = survey["ratios"][quotient][sex][group]
    return (u * u + v * v - (sd / mean) ** 2) / (2 * u * v)


def measured_people(model: MorphableModel, count: int) -> dict[tuple[str, str], np.ndarray]:
    """[n, M] measures in mm of the people of every sex and group, without those made wider than life."""
    cells: dict[tuple[str, str], list[torch.Tensor]] = {}
    for number in range(count):
        person = sample_person(model, np.random.default_rng([number, 11]))
        if person.traits.spread == 1.0:
            cells.setdefault((person.traits.sex, person.traits.group), []).append(person.identity)
    return {key: 1e3 * head_measures(model, torch.stack(cells[key])).numpy() for key in sorted(cells)}


def compare(model: MorphableModel, count: int) -> dict[str, Any]:
    """Means, spreads and correlations, survey beside samples.

    Returns:
        Rows of measures and of correlations, and the worst differences.
    """
    survey = load_json_asset("open/survey.json")
    names, rows, links = survey["measures"], [], []
    for (sex, group), table in measured_people(model, count).items():
        for i, name in enumerate(names):
            (mean, sd), source = surveyed(survey, name, sex, group)
            row = {"sex": sex, "group": group, "measure": name, "source": source, "n": len(table)}
            row |= {"survey_mean": mean, "mean": round(float(table[:, i].mean()), 1)}
            rows.append(row | {"survey_sd": sd, "sd": round(float(table[:, i].std(ddof=1)), 1)})
        for pair in PAIRS:
            a, b = (table[:, names.index(name)] for name in pair)
            wanted = surveyed_correlation(survey, pair, sex, group)
            link = {"sex": sex, "group": group, "pair": "/".join(pair), "survey": round(wanted, 2)}
            links.append(link | {"people": round(float(np.corrcoef(a, b)[0, 1]), 2)})
    known = [row for row in rows if "sculpted" not in survey["by_sex"].get(row["measure"], {})]
    return {
        "people": count,
        "largest_difference_of_means_mm": max(abs(r["mean"] - r["survey_mean"]) for r in known),
        "spread_over_survey": [f(r["sd"] / r["survey_sd"] for r in known) for f in (min, max)],
        "measures": rows,
        "correlations": links,
    }


def tables(result: dict[str, Any]) -> str:
    """Both tables as text: one row a measure or a pair, one column a group, survey / people."""
    groups = load_json_asset("open/survey.json")["groups"]
    lines = []
    for sex in SEXES:
        lines += [f"\n| {sex}, mm | " + " | ".join(groups) + " |", "| --- |" + " --- |" * len(groups)]
        for name in dict.fromkeys(r["measure"] for r in result["measures"]):
            cells = {r["group"]: r for r in result["measures"] if (r["sex"], r["measure"]) == (sex, name)}
            text = [
                "{survey_mean:.1f} ({survey_sd:.1f}) / {mean:.1f} ({sd:.1f})".format(**cells[g])
                for g in groups
            ]
            lines.append(f"| {name} | " + " | ".join(text) + " |")
    lines += ["\n| correlation, survey / people | women | men |", "| --- | --- | --- |"]
    for pair in dict.fromkeys(r["pair"] for r in result["correlations"]):
        text = []
        for sex in SEXES:
            cells = [r for r in result["correlations"] if (r["sex"], r["pair"]) == (sex, pair)]
            text.append(" / ".join(f"{np.mean([c[k] for c in cells]):.2f}" for k in ("survey", "people")))
        lines.append(f"| {pair} | " + " | ".join(text) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "anthropometry.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--people", type=int, default=2000)
    options = parser.parse_args()
    result = compare(hiface.load_model("open"), options.people)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables(result))
    print({k: v for k, v in result.items() if k not in ("measures", "correlations")})


if __name__ == "__main__":
    main()
