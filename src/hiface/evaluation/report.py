# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: who a method fails for, and its worst portraits as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError
from hiface.evaluation.fairness import by_group, group_of, markdown, worst
from hiface.evaluation.prediction_files import read_prediction
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.runs import RunFolder
from hiface.export.draw import INK, PAPER, draw_landmarks, grid
from hiface.export.pictures import pil_png

_SIDE_PX, _COLUMNS, _WORST, _FONT_PX = 240, 5, 20, 13
_GREY = (128, 128, 128)  # where a picture cannot be read
_CAPTION = "points as predicted; errors of the shape"


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
    sheet = _with_caption(grid(panels, _COLUMNS), f"{_CAPTION}, worst first")
    return [*pages, atomic_write_bytes(folder.root / "worst.png", pil_png(sheet))]


def _with_caption(sheet: Image.Image, text: str) -> Image.Image:
    """The sheet with a line of text below it."""
    font = ImageFont.load_default(_FONT_PX)
    page = Image.new("RGB", (sheet.width, sheet.height + 2 * _FONT_PX), PAPER)
    page.paste(sheet)
    ImageDraw.Draw(page).text((2 + _FONT_PX, sheet.height + _FONT_PX), text, fill=INK, font=font, anchor="lm")
    return page


def _panel(
    benchmark: SyntheticBenchmark, row: dict[str, Any], folder: RunFolder, kind: str
) -> tuple[str, Image.Image]:
    """A portrait with the landmarks that were predicted, and what is known of it."""
    name, about = row["name"], benchmark.about[row["name"]]
    item = next(item for item in benchmark.items() if item.name == name)
    assert item.image is not None
    try:
        picture = Image.open(item.image).convert("RGB")
    except (OSError, SyntaxError, ValueError):
        picture = Image.new("RGB", (_SIDE_PX, _SIDE_PX), _GREY)
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
    if not path.exists():
        raise EvaluationDataError(f"{path} does not exist; run hiface eval first, or check its name")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationDataError(f"{path} is not a run's result ({error}); run hiface eval first") from error
    keys = ("benchmark", "method", "summary", "rows", "statuses")
    lacks = [key for key in keys if key not in result] if isinstance(result, dict) else list(keys)
    if lacks:
        raise EvaluationDataError(
            f"{path} is not a run's result, it lacks {', '.join(lacks)}; run hiface eval first"
        )
    return result
