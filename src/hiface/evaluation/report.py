# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: who a method fails for, and its worst portraits as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError
from hiface.evaluation.fairness import by_group, group_of, markdown, worst
from hiface.evaluation.prediction_files import read_prediction
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.runs import RunFolder
from hiface.export.draw import draw_landmarks, grid
from hiface.export.pictures import pil_png

_SIDE_PX, _COLUMNS, _WORST = 240, 5, 20


def write_reliability(
    benchmark: SyntheticBenchmark, rows: list[dict[str, Any]], folder: RunFolder
) -> list[Path]:
    """Writes OUT/groups.md and OUT/worst.png.

    Args:
        benchmark: Portraits that were measured on.
        rows: Their rows.
        folder: Run.

    Returns:
        The files.
    """
    kind = "true" if any("true" in row.get("scores", {}).get("mm", {}) for row in rows) else "bent"
    text = markdown(by_group(benchmark.about, rows, kind))
    pages = [atomic_write_text(folder.root / "groups.md", text)]
    named = {row["name"]: row for row in rows}
    panels = [_panel(benchmark, named[name], folder, kind) for name in worst(rows, _WORST, kind)]
    return [*pages, atomic_write_bytes(folder.root / "worst.png", pil_png(grid(panels, _COLUMNS)))]


def _panel(
    benchmark: SyntheticBenchmark, row: dict[str, Any], folder: RunFolder, kind: str
) -> tuple[str, Image.Image]:
    """A portrait with the landmarks that were predicted, and what is known of it."""
    name, about = row["name"], benchmark.about[row["name"]]
    item = next(item for item in benchmark.items() if item.name == name)
    assert item.image is not None
    picture = Image.open(item.image).convert("RGB")
    if row["status"] != "ok":
        label = row["status"]
    else:
        points = read_prediction(benchmark.saved(item, folder.predictions)[0])[0].landmarks68_px
        if points is not None:
            picture = draw_landmarks(picture, points)
        found = row["scores"]["mm"].get(kind)
        label = f"{found['all']:.1f} mm" if found else ""
    label += f", yaw {about.yaw_deg:.0f}, {group_of('skin', about)}, {100 * about.visible:.0f} % seen"
    return label, picture.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)


def read_result(path: Path) -> dict[str, Any]:
    """A result.json, by its path or that of its folder.

    Raises:
        EvaluationDataError: It is missing or of another kind.
    """
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["benchmark"], result["method"], result["summary"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationDataError(
            f"{path} is not a run's result ({error!r}); run hiface eval first"
        ) from error
    return result
