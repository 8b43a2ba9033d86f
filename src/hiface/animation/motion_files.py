# SPDX-License-Identifier: Apache-2.0
"""Motions in tables, Live Link Face's recordings and others with a column per blendshape, and in any file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.animation.live_link import (
    channel_names,
    channels_to_rotation,
    rotation_to_channels,
    to_channels,
)
from hiface.animation.motion import Motion, fill_missing, motion_of
from hiface.animation.motion_json import SCHEMA, read_motion_json, shares, write_motion_json
from hiface.animation.orders import (
    arkit_name,
    expression_order,
    live_link_csv_header,
    live_link_rotation_channels,
    reorder,
)
from hiface.animation.timecode import DEFAULT_FPS, USUAL_FPS, from_timecodes, to_timecode
from hiface.atomic import atomic_write_text
from hiface.errors import FaceFileError, OptionError, ShapeError
from hiface.export.json_params import read_face_json

_SECONDS = ("time", "seconds", "time_s")
_COUNT = "blendshapecount"
_TIMECODE = "timecode"
_DECIMALS = 10
_EXACT_S = 1e-4


def read_motion(path: Path, names: Sequence[str] | None = None, fps: float = DEFAULT_FPS) -> Motion:
    """Reads a motion of any kind: a table, a motion in JSON, or one face.json.

    Args:
        path: A .csv or .json file.
        names: Wanted expression names, in order; ARKit's 52 in alphabetical order if None.
        fps: Frames per second where the file does not tell.

    Returns:
        The motion in the order of `names`; one frame for a face.json.

    Raises:
        FaceFileError: The file cannot be read, is of another kind or is damaged.
        OptionError: The file name has another ending.
    """
    names = expression_order("arkit52") if names is None else names
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise OptionError(f"{path.name} is no motion; give a .csv or .json file")
    if not path.exists():
        raise FaceFileError(f"{path} does not exist; check the path")
    if suffix == ".csv":
        return read_motion_csv(path, names, fps)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise FaceFileError(
            f"{path.name} is no motion: its JSON is nested too deeply; write it again"
        ) from error
    except (OSError, ValueError):
        content = None  # read_face_json says why
    if isinstance(content, dict) and content.get("schema") == SCHEMA:
        return read_motion_json(path, names)
    if isinstance(content, dict) and str(content.get("schema")).startswith("hiface.motion/"):
        return read_motion_json(path, names)  # says that the version is unknown
    record = read_face_json(path)
    face = motion_of([record.params], fps)
    return Motion(reorder(face.expression, record.expression_names, names), face.R_cam_head, face.times)


def read_motion_csv(path: Path, names: Sequence[str], fps: float = DEFAULT_FPS) -> Motion:
    """A table with a row per frame and columns named after blendshapes, in any order and letter case.

    Live Link Face's CSV files (columns Timecode, BlendshapeCount, EyeBlinkLeft, ...) and tables with a column
    `time` in seconds are read; other columns are passed over. Where HeadYaw, HeadPitch and HeadRoll are there
    and not all zero, they give the head's rotation (`hiface.animation.live_link` says how). The eyes'
    rotations are passed over: the eyeLook shapes say the same. Rows whose BlendshapeCount is 0 are frames
    without a face and are filled in.

    Args:
        path: The file.
        names: Expression names of the model, in order.
        fps: Frames per second where the table has no `time`, and where its timecodes do not tell.

    Returns:
        The motion, which begins at 0 seconds where it has timecodes.

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
        raise FaceFileError(f"{path.name} has no frames; give a table with a row per frame")
    columns = {(name or "").strip().lower(): name for name in rows[0]}
    wanted = {arkit_name(name) for name in names} - {None} | {name.lower() for name in names}
    known = [name for key, name in columns.items() if key in wanted or arkit_name(key) in wanted]
    if not known:
        raise FaceFileError(
            f"{path.name} has no column named after a blendshape, such as {names[0]} or {names[-1]}"
        )
    seen = [(row.get(columns.get(_COUNT, ""), "") or "").strip() != "0" for row in rows]
    if not any(seen):
        raise FaceFileError(f"{path.name} has no frame with a face; record it again")
    exact = {name.lower(): name for name in names}
    values = _shares(path, _numbers(path, rows, known, seen))
    expression = reorder(values, [exact.get(k.strip().lower(), k.strip()) for k in known], names)
    rotations = [columns.get(name.lower()) for name in live_link_rotation_channels()[:3]]
    head = None
    if all(name is not None for name in rotations):
        head = _numbers(path, rows, [str(name) for name in rotations], seen)
    times = _times(path, rows, columns, fps)
    if not bool(torch.isfinite(expression).all()) or not bool((times[1:] > times[:-1]).all()):
        raise FaceFileError(f"{path.name} has values that are not finite, or times that do not increase")
    status = None
    if not all(seen):
        expression, status = fill_missing(expression, seen)
        head = None if head is None else fill_missing(head, seen)[0]
    R = channels_to_rotation(head) if head is not None and bool(head.any()) else None
    return Motion(expression.float(), None if R is None else R.float(), times, None, status)


def _numbers(
    path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str], seen: Sequence[bool]
) -> Tensor:
    out = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for n, row in enumerate(rows):
        if not seen[n]:
            continue
        try:
            out[n] = torch.tensor([float(row[name]) for name in columns], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise FaceFileError(f"{path.name}, frame {n + 1}: {error}; mend or cut that row") from error
    return out


def _shares(path: Path, values: Tensor) -> Tensor:
    try:
        return shares(values)
    except ValueError as error:
        raise FaceFileError(f"{path.name} has {error}") from error


def _times(path: Path, rows: Sequence[dict[str, str]], columns: dict[str, str], fps: float) -> Tensor:
    clock = next((columns[word] for word in _SECONDS if word in columns), None)
    if clock is not None:
        return _numbers(path, rows, [clock], [True] * len(rows))[:, 0]
    times = None
    if _TIMECODE in columns:
        try:
            times = from_timecodes([row[columns[_TIMECODE]] or "" for row in rows], fps)
        except FaceFileError as error:
            raise FaceFileError(f"{path.name}: {error}") from error
    return torch.arange(len(rows)).double() / fps if times is None else torch.from_numpy(times)


def write_live_link_csv(path: Path, motion: Motion, fps: float | None = None) -> Path:
    """Writes a motion as the Live Link Face app would have recorded it.

    Args:
        path: File to write.
        motion: Expressions in alphabetical (ARKit) order.
        fps: Frames per second in which timecodes count. If None, the motion's own where a reader can tell it
            from the timecodes (a second ends among them), else 60, which readers assume, or the usual rate
            that they can tell best.

    Returns:
        The path. Frames that were not seen are written like the others; only JSON keeps the status.

    Raises:
        ShapeError: The expressions are not the 52 of ARKit.
        OutputError: The file cannot be written.
    """
    check_arkit(motion)
    R = None if motion.R_cam_head is None else motion.R_cam_head.double()
    channels = to_channels(motion.expression.double(), R).numpy()
    place = {name.lower(): i for i, name in enumerate(channel_names())}
    header = live_link_csv_header()
    channels = channels[:, [place[name.lower()] for name in header[2:]]]
    times = (motion.times.double() - min(float(motion.times[0]), 0.0)).tolist()
    codes = _telling(times, motion.fps) if fps is None else _timecodes(times, fps)
    rows = [
        [code, str(len(header) - 2), *map(_number, row)] for code, row in zip(codes, channels, strict=True)
    ]
    return atomic_write_text(path, _table([list(header), *rows], "\r\n"))


def write_motion(path: Path, motion: Motion) -> Path:
    """Writes a motion of ARKit's expressions: JSON where the suffix is .json, else Live Link Face's CSV.

    Raises:
        ShapeError: The expressions are not the 52 of ARKit.
        FaceFileError: A number is not finite.
        OutputError: The file cannot be written.
    """
    write = write_motion_json if path.suffix.lower() == ".json" else write_live_link_csv
    return write(path, motion)


def _timecodes(times: Sequence[float], fps: float) -> list[str]:
    return [to_timecode(seconds, fps) for seconds in times]


def _telling(times: Sequence[float], own: float | None) -> list[str]:
    """Timecodes from which a reader who knows nothing of the rate finds the times, or those that say most."""
    true, best = np.asarray(times) - times[0], (math.inf, [""])
    for rate in (own or DEFAULT_FPS, DEFAULT_FPS, *USUAL_FPS):
        codes = _timecodes(times, rate)
        off = float(np.abs(np.asarray(from_timecodes(codes)) - true).max())
        if off <= _EXACT_S:
            return codes
        best = min(best, (off, codes))
    return best[1]


def write_motion_csv(path: Path, motion: Motion, order: str = "arkit52") -> Path:
    """Writes a motion as a plain table: time in seconds, a column per shape, and the head's angles if known.

    Args:
        path: File to write.
        motion: Expressions in alphabetical (ARKit) order.
        order: Names and order of the columns, one of `hiface.animation.orders.ORDERS`.

    Returns:
        The path.

    Raises:
        ShapeError: The expressions are not the 52 of ARKit, or the order is unknown.
        OutputError: The file cannot be written.
    """
    check_arkit(motion)
    head = ["time", *expression_order(order)]
    columns = [motion.times.double()[:, None], reorder(motion.expression.double(), "arkit52", order)]
    if motion.R_cam_head is not None:
        head += live_link_rotation_channels()[:3]
        columns.append(rotation_to_channels(motion.R_cam_head.double()))
    rows = [list(map(_number, row)) for row in torch.cat(columns, dim=1).numpy()]
    return atomic_write_text(path, _table([head, *rows], "\n"))


def check_arkit(motion: Motion) -> None:
    """Raises `ShapeError` unless a motion has the 52 shapes of ARKit."""
    if motion.expression.shape[1] != len(expression_order("arkit52")):
        raise ShapeError(f"expected ARKit's 52 shapes, got {motion.expression.shape[1]}; reorder them first")


def _number(value: float | np.floating) -> str:
    if not math.isfinite(value):
        raise ShapeError("a motion with values that are not finite cannot be written; leave those frames out")
    return f"{value:.{_DECIMALS}f}"


def _table(rows: Sequence[Sequence[str]], line_end: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator=line_end).writerows(rows)
    return out.getvalue()
