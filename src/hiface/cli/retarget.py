# SPDX-License-Identifier: Apache-2.0
"""`hiface retarget`: a motion in another program's layout, calibrated, or onto a head with ARKit's names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hiface.errors import MeshFileError, OptionError

if TYPE_CHECKING:
    from hiface.animation.motion import Motion


def retarget(
    motion: tyro.conf.Positional[Path],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    to: Literal["live_link", "mediapipe", "ict", "arkit52"] | None = None,
    onto: Path | None = None,
    head: bool = False,
    neutral: tuple[int, ...] = (),
    calibration: Path | None = None,
    full_range: bool = False,
) -> int:
    """Writes a motion in another layout, or as an animation of any GLB with ARKit's names.

    Args:
        motion: A .csv table (Live Link Face writes such), a motion in .json, or a face.json.
        out: File to write: .csv, .json, or .glb together with --onto.
        to: Names and order of the expressions; live_link for .csv and arkit52 for .json when left out.
        onto: GLB file whose morph targets get the motion; it stays as it is.
        head: With --onto: turn the node named head too.
        neutral: Frames in which the face rests, from 0: rest becomes 0 and a full blink 1.
        calibration: File of a calibration: read, or with --neutral written.
        full_range: With --neutral: the motion shows every expression at its full extent, which becomes 1.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.animation.motion_files import read_motion

    suffix = out.suffix.lower()
    if suffix not in (".csv", ".json", ".glb"):
        raise OptionError(f"-o must end in .csv, .json or .glb, got {out.name}")
    if (suffix == ".glb") != (onto is not None):
        raise OptionError("a .glb needs --onto FILE.glb, and --onto needs -o FILE.glb")
    if suffix == ".glb" and to is not None:
        raise OptionError("--to is for .csv and .json files; a .glb keeps the names that it has")
    take = _calibrated(read_motion(motion), neutral, calibration, full_range)
    if onto is not None:
        _write_glb(take, onto, out, head)
    else:
        _write(take, out, to)
    Console(stderr=True, emoji=False).print(f"{len(take)} frames in {out}", highlight=False, markup=False)
    return 0


def _calibrated(motion: Motion, neutral: tuple[int, ...], file: Path | None, full_range: bool) -> Motion:
    from hiface.animation.calibration import BLINKS, calibrate, read_calibration, write_calibration
    from hiface.animation.orders import expression_order

    if full_range and not neutral:
        raise OptionError("--full-range needs --neutral FRAME ...")
    if not neutral:
        return motion if file is None else read_calibration(file).applied(motion)
    found = calibrate(motion, neutral, expression_order("arkit52") if full_range else BLINKS)
    if file is not None:
        write_calibration(file, found)
    return found.applied(motion)


def _write(motion: Motion, out: Path, to: str | None) -> None:
    from dataclasses import replace

    from hiface.animation.motion_files import write_live_link_csv, write_motion_csv
    from hiface.animation.motion_json import write_motion_json
    from hiface.animation.orders import expression_order, reorder

    if out.suffix.lower() == ".json":
        order = to or "arkit52"
        expression = reorder(motion.expression, "arkit52", order)
        write_motion_json(out, replace(motion, expression=expression), expression_order(order))
    elif to in (None, "live_link"):
        write_live_link_csv(out, motion)
    else:
        write_motion_csv(out, motion, to)


def _write_glb(motion: Motion, onto: Path, out: Path, head: bool) -> None:
    from hiface.animation.onto_glb import animate_glb
    from hiface.atomic import atomic_write_bytes

    try:
        content = onto.read_bytes()
    except OSError as error:
        raise MeshFileError(f"{onto} cannot be read ({error.strerror}); check the path") from error
    atomic_write_bytes(out, animate_glb(content, motion, with_head=head))
