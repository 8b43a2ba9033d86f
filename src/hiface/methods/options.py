# SPDX-License-Identifier: Apache-2.0
"""Names of methods and what they may need; light, for the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = "folder:"
METHOD_NAMES = (
    "hiface",
    "hiface-refine",
    "hiface-fit",
    "mean",
    "landmarks",
    "eos",
    "mediapipe",
    f"{FOLDER}PATH",
)


@dataclass(frozen=True)
class MethodOptions:
    """What methods may need beside their name.

    Attributes:
        weights: Weights of the HiFace network (hiface, hiface-refine); the packaged ones when left out.
        device: Device of the HiFace network, such as cpu or cuda; chosen by itself when left out.
        eos_share: Folder of eos's own model and files (eos); the open model when left out.
        mediapipe_model: The file face_landmarker.task (mediapipe).
        face_model: Face model of another project (hiface-fit, landmarks, mean); the open model when left out.
        template: Mesh whose topology the meshes of a folder must have (folder:PATH).
    """

    weights: Path | None = None
    device: str | None = None
    eos_share: Path | None = None
    mediapipe_model: Path | None = None
    face_model: Path | None = None
    template: Path | None = None
