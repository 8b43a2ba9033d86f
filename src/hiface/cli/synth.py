# SPDX-License-Identifier: Apache-2.0
"""`hiface synth`: makes labelled pictures of people who do not exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from hiface.cli.bars import progress_bar
from hiface.errors import OptionError


@dataclass(frozen=True)
class SynthOptions:
    """What is made.

    Attributes:
        kind: images: single pictures. pairs: several pictures of one person. clips: frames with optical flow.
            rgbd: pictures with clean and measured depth.
        size: Side of a picture, pixels.
        length: Views of a pair (2 when left out) or frames of a clip (16).
        effects: all, plain, or names with commas between; "all,-hair" leaves one out. Names: hair, glasses,
            hats, occluders, skin, wrinkles, lashes, lamps, background, camera.
        labels: Large labels, with commas between: maps (depth, normals, UV, albedo, shading), vertices,
            displacement, codes (of the displacement, for `hiface train hiface`).
    """

    kind: Literal["images", "pairs", "clips", "rgbd"] = "images"
    size: int = 192
    length: int | None = None
    effects: Annotated[str, tyro.conf.arg(metavar="LIST")] = "all"
    labels: Annotated[str, tyro.conf.arg(metavar="LIST")] = "basic"


def synth(
    sample: tyro.conf.OmitArgPrefixes[SynthOptions],
    count: int = 1000,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")] = None,
    sheet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    seed: int = 0,
    workers: int = 1,
) -> int:
    """Makes labelled pictures of people who do not exist; an interrupted run goes on where it stopped.

    Args:
        sample: What is made.
        count: Number of samples: pictures, pairs or clips.
        out: Folder of tar shards (WebDataset) with manifest.json.
        sheet: Picture file for a contact sheet of COUNT people, with or instead of shards.
        seed: The same seed makes the same bytes.
        workers: Processes.

    Returns:
        Exit code.
    """
    from hiface.synthetic.datasets import make_spec

    if out is None and sheet is None:
        raise OptionError("nowhere to write: give a folder with -o FOLDER or a picture with --sheet FILE")
    labels = tuple(name.strip() for name in sample.labels.split(",") if name.strip())
    spec = make_spec(sample.kind, sample.size, seed, sample.effects, labels, sample.length)
    console = Console(stderr=True, emoji=False)
    if sheet is not None:
        from hiface.synthetic.datasets import open_model
        from hiface.synthetic.sheet import contact_sheet, sheet_format, write_sheet

        sheet_format(sheet)  # a wrong name is said before anything is drawn
        with console.status("drawing the contact sheet"):
            write_sheet(sheet, contact_sheet(open_model(), spec, count))
    if out is None:
        return 0
    from hiface.synthetic.shards import write_shards

    with progress_bar(console) as progress:
        task = progress.add_task(sample.kind, total=count)
        write_shards(
            out, count, spec, workers, lambda done, total: progress.update(task, completed=done, total=total)
        )
    return 0
