# SPDX-License-Identifier: Apache-2.0
"""`hiface train`: trains the shipped networks from synthetic pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def train(
    recipe: Annotated[Literal["landmarker", "finder", "recogniser", "hiface"], tyro.conf.Positional],
    data: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    steps: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    preset: Literal["small", "paper"] | None = None,
    photos: Path | None = None,
    teacher: Path | None = None,
    recogniser: Path | None = None,
) -> int:
    """Trains a network on synthetic pictures made by `hiface synth`.

    Args:
        recipe: Which network.
        data: Folder of shards.
        out: Run folder: checkpoints, log, curve and exported weights.
        steps: Number of optimiser steps; the recipe's own when left out.
        device: cpu, cuda, cuda:1 ...
        resume: Go on from the run folder's last checkpoint.
        preset: Sizes of the hiface network: small, or paper (ResNet-50).
        photos: Folder of photos without labels that the hiface network learns from as well.
        teacher: Weights of the same preset, trained on synthetic pictures, that label the photos.
        recogniser: Weights of a recogniser (`hiface train recogniser`) for the identity loss on photos.

    Returns:
        Exit code.
    """
    from hiface.errors import OptionError
    from hiface.training.recipes import PhotoTeaching, main_train

    if photos is None and (teacher or recogniser):
        raise OptionError("--teacher and --recogniser are for photos; name their folder with --photos")
    teaching = None if photos is None else PhotoTeaching(photos, teacher, recogniser)
    main_train(recipe, data, out, steps=steps, device=device, resume=resume, preset=preset, photos=teaching)
    return 0
