# SPDX-License-Identifier: Apache-2.0
"""What may be chosen for a recipe, without the weight of torch: the command line shows it too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class HifaceChoices:
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
