# SPDX-License-Identifier: Apache-2.0
"""Several runs on one benchmark side by side: a table and a picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from hiface.errors import EvaluationDataError, OptionError
from hiface.evaluation.metrics.realy import REGIONS
from hiface.optional import needed

PLOT_KINDS = ("png", "svg", "pdf")
_TENTH_MM = 0.1
_VIDEO_FIGURES = {
    "blendshape_error": "coefficients",
    "blinks_missed_percent": "missed blinks, %",
    "blink_peak_frames": "peak, frames",
    "jitter_px": "jitter, px",
    "jitter_moving_px": "jitter in motion, px",
    "nme51_percent": "inner 51, %",
    "pose_error_deg": "pose, degrees",
    "lost_percent": "lost, %",
    "false": "false faces",
    "identity_changes": "identity changes",
}


def figures_of(result: dict[str, Any]) -> dict[str, float]:
    """What a run is compared by, by column; smaller is better in all of them.

    Args:
        result: Content of a result.json.
    """
    summary, benchmark = result["summary"], result["benchmark"]
    if benchmark == "realy":
        table = summary.get("bent", {})
        return {f"{name}, mm": table[name]["mean"] for name in ("all", *REGIONS) if name in table}
    if benchmark.startswith("now"):
        pooled = summary.get("all", {})
        return {f"{name}, mm": pooled[name] for name in ("median", "mean", "std") if name in pooled}
    if benchmark == "landmarks":
        keys = (("nme51", "inner 51, %"), ("nme68", "all 68, %"))
        found = {label: summary[key]["mean_percent"] for key, label in keys if key in summary}
        return {label: value for label, value in found.items() if value is not None}
    kinds = [kind for kind in ("true", "bent", "rigid", "global", "now") if kind in summary]
    if benchmark == "tracking":
        keys = (
            ("nme51_percent", "inner 51, %"),
            ("jitter_percent", "jitter, %"),
            ("lost_percent", "lost, %"),
        )
        keys = (*keys, ("shape_spread_mm", "spread, mm"))
        return {label: summary[key] for key, label in keys if summary.get(key) is not None}
    if benchmark == "video":
        return {label: summary[key] for key, label in _VIDEO_FIGURES.items() if summary.get(key) is not None}
    figures = {f"{kind}, mm": summary[kind]["all"] for kind in kinds}
    if "nme51_percent" in summary:
        figures["inner 51, %"] = summary["nme51_percent"]
    if "other" in summary.get("detail_um", {}):
        figures["other wrinkles, um"] = summary["detail_um"]["other"]
    return figures


def markdown_table(results: list[dict[str, Any]]) -> str:
    """A row for each run, a column for each figure, with found pictures and time.

    Raises:
        EvaluationDataError: The runs are not on one version of one benchmark.
    """
    check_alike(results)
    rows = [figures_of(result) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        f"| method | {' | '.join(columns)} | pictures | seconds |",
        "| --- |" + " --- |" * (len(columns) + 2),
    ]
    for name_of_run, result, row in zip(names_of(results), results, rows, strict=True):
        values = " | ".join(f"{row[name]:.3f}" if name in row else "" for name in columns)
        scored, total = result["statuses"].get("ok", 0), sum(result["statuses"].values())
        seconds = "" if result.get("median_seconds") is None else f"{result['median_seconds']:.2f}"
        lines.append(f"| {name_of_run} | {values} | {scored} of {total} | {seconds} |")
    return "\n".join(lines) + "\n"


def names_of(results: list[dict[str, Any]]) -> list[str]:
    """What runs are called: their methods, numbered where they repeat."""
    methods = [result["method"] for result in results]
    return [
        method if methods.count(method) == 1 else f"{method} {methods[: i + 1].count(method)}"
        for i, method in enumerate(methods)
    ]


def check_alike(results: list[dict[str, Any]]) -> None:
    """Raises EvaluationDataError unless all results are of one version of one benchmark."""
    kinds = {(result["benchmark"], result.get("benchmark_version")) for result in results}
    if len(kinds) == 1:
        _check_pictures(results)
    if len(kinds) != 1:
        found = ", ".join(sorted(f"{name} version {version}" for name, version in kinds))
        raise EvaluationDataError(f"results of one benchmark can be compared, these are of {found or 'none'}")


def _check_pictures(results: list[dict[str, Any]]) -> None:
    """Raises EvaluationDataError that names two runs which are not of the same pictures."""
    pictures = [{row["name"] for row in result["rows"]} for result in results]
    names = names_of(results)
    for name, own in zip(names, pictures, strict=True):
        if own != pictures[0]:
            one = sorted(own ^ pictures[0])[0]
            raise EvaluationDataError(
                f"the results are not of the same pictures: {names[0]} has {len(pictures[0])}, {name} has "
                f"{len(own)}, and {one} is in one of them only; measure all methods on one set"
            )


def plot(results: list[dict[str, Any]], kind: str = "png") -> bytes:
    """The comparison as a picture: for NoW the share of vertices below a distance, else bars.

    Args:
        results: Contents of result.json.
        kind: One of PLOT_KINDS.

    Raises:
        OptionError: There is no such kind.
        EvaluationDataError: The runs are not on one version of one benchmark.
        MissingExtraError: matplotlib is not installed.
    """
    if kind not in PLOT_KINDS:
        raise OptionError(f"plots are {', '.join(PLOT_KINDS)}, not {kind!r}")
    check_alike(results)
    if not any(figures_of(result) for result in results):
        raise EvaluationDataError("none of the results has a score; there is nothing to draw")
    figure = needed("matplotlib.figure", "plots need matplotlib").Figure(
        figsize=(8.0, 4.2), dpi=130, layout="constrained"
    )
    figure.suptitle(f"{results[0]['benchmark']}, version {results[0].get('benchmark_version')}")
    if results[0]["benchmark"].startswith("now"):
        axes = figure.subplots()
        for label, result in zip(names_of(results), results, strict=True):
            below = np.array(result["summary"].get("all", {}).get("below_tenths_of_mm", []))
            axes.plot(_TENTH_MM * np.arange(1, len(below) + 1), 100 * below, label=label)
        axes.set(
            xlabel="distance to the prediction, mm", ylabel="vertices of scans below it, %", ylim=(0, 100)
        )
        axes.grid(alpha=0.3)
    else:
        axes = _bars(figure, results)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(results), 4))
    stream = io.BytesIO()
    figure.savefig(stream, format=kind)
    return stream.getvalue()


def _bars(figure: Any, results: list[dict[str, Any]]) -> Any:
    """A panel for each unit; returns the first."""
    rows = [figures_of(result) for result in results]
    units: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        units.setdefault(name.rpartition(", ")[2], []).append(name)
    panels = figure.subplots(
        1, len(units), width_ratios=[len(names) + 0.6 for names in units.values()], squeeze=False
    )[0]
    width = 0.8 / len(results)
    for axes, (unit, names) in zip(panels, units.items(), strict=True):
        for i, (label, row) in enumerate(zip(names_of(results), rows, strict=True)):
            places = np.arange(len(names)) + (i - 0.5 * (len(results) - 1)) * width
            axes.bar(places, [row.get(name, np.nan) for name in names], width, label=label)
        labels = [name.rpartition(", ")[0] for name in names]
        axes.set_xticks(np.arange(len(names)), labels, rotation=20, ha="right")
        axes.set_xlim(-0.5, len(names) - 0.5)  # bars without a value would not count
        axes.set_ylabel(unit)
        axes.grid(axis="y", alpha=0.3)
    return panels[0]
