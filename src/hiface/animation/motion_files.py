# SPDX-License-Identifier: Apache-2.0
"""Reads motions from files: Live Link Face recordings and other tables with one column per blendshape."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from hiface.animation.retarget import Motion
from hiface.errors import FaceFileError

DEFAULT_FPS = 60.0
_SECONDS = ("time", "seconds", "time_s")


def read_motion_csv(path: Path, names: Sequence[str], fps: float = DEFAULT_FPS) -> Motion:
    """A table with a row per frame and columns named after the 52 blendshapes, in any order and letter case.

    Live Link Face's CSV files (columns Timecode, BlendShapeCount, EyeBlinkLeft, ...) and tables with a column
    `time` in seconds are read; other columns are passed over.

    Args:
        path: The file.
        names: Expression names of the model, in order.
        fps: Frames per second where the table has no `time`.

    Returns:
        Motion without head rotations.

    Raises:
        FaceFileError: The file cannot be read, has no frame, no blendshape column, or a value that is not a
            number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FaceFileError(f"{path} cannot be read as a table ({error}); give a CSV file") from error
    if not rows:
        raise FaceFileError(f"{path.name} has no frames")
    columns = {(name or "").strip().lower(): name for name in rows[0]}
    known = [(i, columns[name.lower()]) for i, name in enumerate(names) if name.lower() in columns]
    if not known:
        raise FaceFileError(
            f"{path.name} has no column named after a blendshape, such as {names[0]} or {names[-1]}"
        )
    expression = torch.zeros(len(rows), len(names))
    clock = next((columns[word] for word in _SECONDS if word in columns), None)
    times = torch.arange(len(rows)) / fps
    for n, row in enumerate(rows):
        try:
            for i, column in known:
                expression[n, i] = float(row[column])
            if clock is not None:
                times[n] = float(row[clock])
        except (TypeError, ValueError) as error:
            raise FaceFileError(f"{path.name}, frame {n + 1}: {error}; mend or cut that row") from error
    if not bool(torch.isfinite(expression).all()) or not bool((times[1:] > times[:-1]).all()):
        raise FaceFileError(f"{path.name} has values that are not finite, or times that do not increase")
    return Motion(expression.clamp(0, 1), None, times)
