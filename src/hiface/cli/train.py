# SPDX-License-Identifier: Apache-2.0
"""`hiface train`: trains the networks from synthetic pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from hiface.training.choices import HifaceChoices

_DEFAULT = HifaceChoices()


def train(
    recipe: Annotated[Literal["landmarker", "finder", "recogniser", "hiface"], tyro.conf.Positional],
    data: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    steps: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    start: Path | None = None,
    choices: tyro.conf.OmitArgPrefixes[HifaceChoices] = _DEFAULT,
) -> int:
    """Trains a network on synthetic pictures made by `hiface synth`.

    Args:
        recipe: Which network.
        data: Folder of shards.
        out: Run folder: checkpoints, log, curve and exported weights.
        steps: Number of optimiser steps; the recipe's own when left out.
        device: cpu, cuda, cuda:1 ...
        resume: Go on from the run folder's last checkpoint.
        start: Weights (.safetensors) or checkpoint (.pt) of an earlier run to start from; for the preset
            paper also torchvision's resnet50 (.pth).
        choices: For the recipe hiface.

    Returns:
        Exit code.
    """
    from hiface.training.recipes import main_train

    main_train(recipe, data, out, steps, device, resume, start, choices)
    return 0
