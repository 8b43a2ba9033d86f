# SPDX-License-Identifier: Apache-2.0
"""Where a method fails: errors by who is in a portrait and how they are seen, and the worst cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiface.evaluation.synthetic_set import About

LIMITS: dict[str, tuple[Callable[[About], float], tuple[tuple[str, float], ...]]] = {
    "age": (
        lambda a: a.years,
        (("18 to 34", 35), ("35 to 49", 50), ("50 to 64", 65), ("65 to 80", math.inf)),
    ),
    "skin": (
        lambda a: -a.skin_ita_deg,
        (
            ("very light", -55),
            ("light", -41),
            ("intermediate", -28),
            ("tan", -10),
            ("brown", 30),
            ("dark", math.inf),
        ),
    ),
    "sex": (lambda a: float(a.sex == "male"), (("female", 0.5), ("male", math.inf))),
    "yaw": (
        lambda a: abs(a.yaw_deg),
        (("0 to 15 degrees", 15), ("15 to 40", 40), ("40 to 65", 65), ("above 65", math.inf)),
    ),
    "light on the face": (
        lambda a: a.skin_luminance,
        (("dark, below 0.1", 0.1), ("0.1 to 0.3", 0.3), ("bright, above 0.3", math.inf)),
    ),
    "seen of the face": (
        lambda a: -a.visible,
        (("above 90 %", -0.9), ("60 to 90 %", -0.6), ("below 60 %", math.inf)),
    ),
    "size of the face": (
        lambda a: a.side_px,
        (("below 96 px", 96), ("96 to 160 px", 160), ("above 160 px", math.inf)),
    ),
}
"""Attribute to a number and ascending limits: a group holds what is below its limit and in no earlier one."""


@dataclass(frozen=True)
class GroupRow:
    """Errors of one group.

    Attributes:
        attribute: Key of LIMITS.
        group: Its name.
        count: Portraits.
        found: Share with a prediction, 0..1.
        shape: Mean region error, millimetres, by `kind`; NaN without any.
        shape_error: Standard error of that mean.
        over_mean_face: Ratio to the mean face's error of the same portraits, or NaN.
        nme51_percent: Mean landmark error, % of the eye distance, or NaN.
    """

    attribute: str
    group: str
    count: int
    found: float
    shape: float
    shape_error: float
    over_mean_face: float
    nme51_percent: float


def group_of(attribute: str, about: About) -> str:
    """Name of the group that a portrait belongs to."""
    number, limits = LIMITS[attribute]
    return next(name for name, limit in limits if number(about) < limit)


def by_group(about: dict[str, About], rows: list[dict[str, Any]], kind: str = "true") -> list[GroupRow]:
    """Errors of each group of each attribute; groups without portraits are left out.

    Args:
        about: What is known of the portraits, by name.
        rows: Rows of a run on them.
        kind: Estimator of the shape.
    """
    table = []
    for attribute, (_, limits) in LIMITS.items():
        for group, _ in limits:
            own = [row for row in rows if group_of(attribute, about[row["name"]]) == group]
            if own:
                table.append(_row(attribute, group, own, kind))
    return table


def _row(attribute: str, group: str, rows: list[dict[str, Any]], kind: str) -> GroupRow:
    scores = [row["scores"] for row in rows if row["status"] == "ok"]
    shape = np.array([s["mm"][kind]["all"] for s in scores if kind in s["mm"]])
    mean_face = np.array([s["mm"]["mean_face"]["all"] for s in scores if "mean_face" in s["mm"]])
    points = np.array([s["nme51"] for s in scores if "nme51" in s])
    ratio = shape.mean() / mean_face.mean() if kind == "true" and len(mean_face) else math.nan
    return GroupRow(
        attribute,
        group,
        len(rows),
        len(scores) / len(rows),
        float(shape.mean()) if len(shape) else math.nan,
        float(shape.std(ddof=1) / math.sqrt(len(shape))) if len(shape) > 1 else math.nan,
        float(ratio),
        100 * float(points.mean()) if len(points) else math.nan,
    )


def markdown(table: list[GroupRow]) -> str:
    """The groups as a table for a page."""
    lines = [
        "| | | portraits | found | shape, mm | over the mean face's | landmarks, % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for i, row in enumerate(table):
        first = row.attribute if i == 0 or table[i - 1].attribute != row.attribute else ""
        shape = _number(row.shape)
        if not math.isnan(row.shape_error):
            shape += f" ± {_number(row.shape_error)}"
        lines.append(
            f"| {first} | {row.group} | {row.count} | {100 * row.found:.0f} % | {shape} | "
            f"{_number(row.over_mean_face)} | {_number(row.nme51_percent, 1)} |"
        )
    return "\n".join(lines) + "\n"


def worst(rows: list[dict[str, Any]], count: int = 20, kind: str = "true") -> list[str]:
    """Names of the portraits with the largest errors; those without a prediction come first."""

    def badness(row: dict[str, Any]) -> float:
        if row["status"] != "ok":
            return math.inf
        found = row["scores"]["mm"].get(kind) or next(iter(row["scores"]["mm"].values()), None)
        return found["all"] if found else row["scores"].get("nme51", 0.0)

    return [row["name"] for row in sorted(rows, key=badness, reverse=True)[:count]]


def _number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
