# SPDX-License-Identifier: Apache-2.0
"""Motions as JSON, schema "hiface.motion/1".

    {"schema": "hiface.motion/1", "software": {"name": ..., "version": ...},
     "names": [E names], "fps": 30.0 or "times_s": [N seconds, increasing],
     "status": [N words: "ok", "missing" or "interpolated"], "blendshapes": [N][E] of 0..1,
     "head": null or {"convention": ..., "rotation_xyzw": null or [N][4], "translation_m": null or [N][3]}}

A file has "fps" or "times_s", not both. Rotations are unit quaternions from object space (+Y up, +Z out of
the face, +X to its own left) to camera space (OpenCV: x right, y down, z forward); translations are metres.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import roma
import torch
from torch import Tensor

from hiface import __version__
from hiface.animation.motion import STATUSES, Motion
from hiface.animation.orders import expression_order, reorder
from hiface.atomic import atomic_write_text
from hiface.errors import FaceFileError, ShapeError

SCHEMA = "hiface.motion/1"
_CONVENTION = "object (+Y up, +Z out of the face) to camera (OpenCV: x right, y down, z forward)"
_DECIMALS = 8
_EVEN_S = 1e-4
_UNIT = 1e-2
LARGEST = 1.5
"""Expressions above this are no shares of 1, but percent for example."""


def write_motion_json(path: Path, motion: Motion, names: Sequence[str] | None = None) -> Path:
    """Writes a motion.

    Args:
        path: File to write.
        motion: The motion. Times that are even to a tenth of a millisecond and begin at 0 are written as fps.
        names: Names of the expressions, in order; ARKit's 52 if None.

    Returns:
        The path.

    Raises:
        ShapeError: There is not one name per expression.
        FaceFileError: A number is not finite.
        OutputError: The file cannot be written.
    """
    names = expression_order("arkit52") if names is None else names
    if len(names) != motion.expression.shape[1]:
        raise ShapeError(f"expected {motion.expression.shape[1]} names, got {len(names)}")
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "software": {"name": "hiface", "version": __version__},
        "names": list(names),
        **_clock(motion),
        "status": list(motion.status or ["ok"] * len(motion)),
        "head": None,
        "blendshapes": _rounded(motion.expression),
    }
    R, t = motion.R_cam_head, motion.t_cam_head
    if R is not None or t is not None:
        content["head"] = {
            "convention": _CONVENTION,
            "rotation_xyzw": None if R is None else _rounded(roma.rotmat_to_unitquat(R.double())),
            "translation_m": None if t is None else _rounded(t),
        }
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise FaceFileError(
            f"this motion cannot be written as JSON ({error}); leave those frames out"
        ) from error
    return atomic_write_text(path, text + "\n")


def read_motion_json(path: Path, names: Sequence[str] | None = None) -> Motion:
    """Reads a motion.

    Args:
        path: File written by `write_motion_json` or by another program in the same schema.
        names: Wanted expression names, in order; ARKit's 52 if None. What the file lacks is 0.

    Returns:
        The motion, float32 (times float64); expressions from 1 to 1.5 become 1, those below 0 become 0.

    Raises:
        FaceFileError: The file is missing, damaged, of another kind or of an unknown version.
    """
    names = expression_order("arkit52") if names is None else names
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise FaceFileError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise FaceFileError(f"{path.name} is not JSON ({error}); write it again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise FaceFileError(
            f"{path.name} has the schema {schema!r}, expected {SCHEMA!r}; update hiface or write it again"
        )
    try:
        return _motion(content, names)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FaceFileError(f"{path.name} is no whole motion ({reason}); write it again") from error


def _clock(motion: Motion) -> dict[str, Any]:
    times, fps = motion.times.double(), motion.fps
    if fps is not None and len(times) > 1:
        even = torch.arange(len(times)).double() / fps
        if float((times - even).abs().max()) <= _EVEN_S:
            return {"fps": round(fps, 6)}
    return {"times_s": [round(seconds, 6) for seconds in times.tolist()]}


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(v, _DECIMALS) for v in row] for row in values.detach().cpu().double().tolist()]


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _motion(content: dict[str, Any], wanted: Sequence[str]) -> Motion:
    names = content["names"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("names must be a list of texts")
    if len(set(names)) != len(names):
        raise ValueError("a name comes twice")
    if not set(names) & set(wanted) and not bool(reorder(torch.ones(len(names)), names, wanted).any()):
        raise ValueError(f"no name is that of a blendshape, such as {wanted[0]}")
    values = _numbers(content["blendshapes"], -1, len(names))
    n = len(values)
    if ("fps" in content) == ("times_s" in content):
        raise ValueError("a motion has either fps or times_s")
    if "fps" in content:
        fps = float(content["fps"])
        if not 0 < fps <= 10000:
            raise ValueError(f"fps must be more than 0 and at most 10000, got {fps}")
        times = torch.arange(n).double() / fps
    else:
        times = _numbers(content["times_s"], n, dtype=torch.float64)
        if not bool((times[1:] > times[:-1]).all()):
            raise ValueError("times_s must increase")
    status = content.get("status")
    if status is not None and (not isinstance(status, list) or not set(status) <= set(STATUSES)):
        raise ValueError(f"status must be words of {', '.join(STATUSES)}")
    head = content.get("head") or {}
    R, t = head.get("rotation_xyzw"), head.get("translation_m")
    return Motion(
        reorder(shares(values), names, wanted),
        None if R is None else _rotations(_numbers(R, n, 4)),
        times,
        None if t is None else _numbers(t, n, 3),
        None if status is None or (set(status) == {"ok"} and len(status) == n) else tuple(status),
    )


def shares(values: Tensor) -> Tensor:
    """Values clamped to 0..1; raises ValueError where they are so large that they must be of another unit."""
    largest = float(values.max())
    if largest > LARGEST:
        raise ValueError(f"values up to {largest:g}, expected 0 to 1; divide by 100 if they are percent")
    return values.clamp(0, 1)


def _rotations(quaternions: Tensor) -> Tensor:
    length = quaternions.double().norm(dim=-1, keepdim=True)
    if not bool(((length - 1).abs() < _UNIT).all()):
        raise ValueError("rotation_xyzw must be unit quaternions")
    return roma.unitquat_to_rotmat(quaternions.double() / length).float()


def _numbers(values: Any, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Finite numbers; -1 in `shape` takes any length above 0."""
    tensor = torch.tensor(values, dtype=dtype)
    fits = tensor.dim() == len(shape) and all(
        s > 0 if wanted == -1 else s == wanted for s, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits or not bool(tensor.isfinite().all()):
        raise ValueError(f"expected finite numbers of shape {list(shape)}, got {list(tensor.shape)}")
    return tensor
