# SPDX-License-Identifier: Apache-2.0
"""`hiface train`: trains the networks from synthetic pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class HifaceTraining:
    """For the recipe hiface.

    Attributes:
        preset: Sizes of the network: small, or paper (ResNet-50).
        photos: Folder of photos without labels that the network learns from as well.
        teacher: Weights of the same preset, trained on synthetic pictures, that label the photos.
        recogniser: Weights of a recogniser (`hiface train recogniser`) for the identity loss on photos.
    """

    preset: Literal["small", "paper"] | None = None
    photos: Path | None = None
    teacher: Path | None = None
    recogniser: Path | None = None


_DEFAULT = HifaceTraining()


def train(
    recipe: Annotated[Literal["landmarker", "finder", "recogniser", "hiface"], tyro.conf.Positional],
    data: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    steps: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    choices: tyro.conf.OmitArgPrefixes[HifaceTraining] = _DEFAULT,
) -> int:
    """Trains a network on synthetic pictures made by `hiface synth`.

    Args:
        recipe: Which network.
        data: Folder of shards.
        out: Run folder: checkpoints, log, curve and exported weights.
        steps: Number of optimiser steps; the recipe's own when left out.
        device: cpu, cuda, cuda:1 ...
        resume: Go on from the run folder's last checkpoint.
        choices: For the recipe hiface.

    Returns:
        Exit code.
    """
    from hiface.training.recipes import HifaceChoices, main_train

    chosen = HifaceChoices(**vars(choices))
    main_train(recipe, data, out, steps=steps, device=device, resume=resume, choices=chosen)
    return 0
