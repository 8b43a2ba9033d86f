# SPDX-License-Identifier: Apache-2.0
"""Photo in, faces out: finder -> landmarks -> fit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hiface.data import Photo, read_photo
from hiface.fitting.fit import fit_face
from hiface.fitting.observe import observation_from_detection
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection, FaceDetector
from hiface.result import FaceResult

METHODS = ("fit",)


class Reconstructor:
    """Turns photos into animatable 3D faces.

    Args:
        method: "fit": inverse rendering, initialised from landmarks.
        face_model: Name of a face model or a loaded one.
        device: Device of the fit, for example "cpu" or "cuda"; None takes CUDA if there is one.

    Raises:
        ValueError: Unknown method.
        AssetError: Weights or model files are missing.
    """

    def __init__(
        self,
        method: Literal["fit"] = "fit",
        face_model: str | MorphableModel = "open",
        device: str | torch.device | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
        self.method = method
        self.device = torch.device(device) if device else pick_device()[0]
        model = load_model(face_model) if isinstance(face_model, str) else face_model
        self.model = model.to(self.device)
        self.detector = FaceDetector()

    def reconstruct(self, image: str | Path | np.ndarray | Photo) -> list[FaceResult]:
        """Reconstructs every face of a photo.

        Args:
            image: Path of a picture, or an array ([H, W, 3] uint8 or 0..1 float sRGB, grey or RGBA too).

        Returns:
            One result per person, largest face first; empty if there is no face.

        Raises:
            ImageError: The picture cannot be read.
            FitError: The fit of a face diverged.
        """
        photo = image if isinstance(image, Photo) else read_photo(image)
        started = time.perf_counter()
        detections = self.detector.detect(photo.image_srgb, photo.focal_px)
        detect_s = time.perf_counter() - started
        detections = sorted(detections, key=_area, reverse=True)
        return [self.fit(photo, detection, detect_s) for detection in detections]

    def fit(self, photo: Photo, detection: Detection, detect_s: float = 0.0) -> FaceResult:
        """Fits one detected face; see `reconstruct`."""
        started = time.perf_counter()
        observation = observation_from_detection(detection, photo.image_srgb, photo.focal_px)
        result = fit_face(self.model, observation)
        params = result.params.to("cpu")
        timings = {"detect": detect_s, "fit": time.perf_counter() - started}
        model = self.model if self.device.type == "cpu" else load_model(self.model.name)
        return FaceResult(params, model, photo, detection, fitted=params, timings_s=timings)


def pick_device() -> tuple[torch.device, str]:
    """The device to use when none is named, with the reason in words."""
    if torch.cuda.is_available():
        return torch.device("cuda"), "a CUDA device is there"
    return torch.device("cpu"), "no CUDA device was found"


def _area(detection: Detection) -> float:
    x0, y0, x1, y1 = (float(v) for v in detection.box)
    return (x1 - x0) * (y1 - y0)
