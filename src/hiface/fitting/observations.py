# SPDX-License-Identifier: Apache-2.0
"""What is known about one face in one photo before fitting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import FitError, ShapeError


@dataclass(frozen=True)
class ImageCrop:
    """A part of the photo around the face, possibly scaled.

    Attributes:
        image_linear: [3, H, W] linear RGB.
        offset_px: (x, y) of the crop's top-left corner in pixels of the original image.
        scale: Crop pixels per original pixel.
    """

    image_linear: Tensor
    offset_px: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.image_linear.dim() != 3 or self.image_linear.shape[0] != 3:
            raise ShapeError(f"image_linear must be [3, H, W], got {tuple(self.image_linear.shape)}")


@dataclass(frozen=True)
class FaceObservation:
    """Measurements that the fit explains. Positions are pixels of the original image.

    Attributes:
        width: Image width, pixels.
        height: Image height, pixels.
        landmarks68_px: [68, 2] iBUG order.
        landmarks68_sigma_px: [68] standard deviations, or None if unknown.
        dense_px: [D, 2] points of the model's landmark set "dense", or None.
        dense_sigma_px: [D] or None.
        iris_px: [2, 2] iris centres of the person's right and left eye (iBUG order of the eyes), or None.
        iris_sigma_px: [2] or None.
        R_cam_object: [3, 3] first guess of the rotation, or None.
        focal_px: Focal length known from the photo's metadata, or None.
        principal_px: [2] principal point; the image centre if None.
        crop: The picture, or None for a fit to points alone.
    """

    width: int
    height: int
    landmarks68_px: Tensor
    landmarks68_sigma_px: Tensor | None = None
    dense_px: Tensor | None = None
    dense_sigma_px: Tensor | None = None
    iris_px: Tensor | None = None
    iris_sigma_px: Tensor | None = None
    R_cam_object: Tensor | None = None
    focal_px: float | None = None
    principal_px: Tensor | None = None
    crop: ImageCrop | None = None

    def __post_init__(self) -> None:
        if tuple(self.landmarks68_px.shape) != (68, 2):
            raise ShapeError(f"landmarks68_px must be [68, 2], got {tuple(self.landmarks68_px.shape)}")
        if self.iris_px is not None and tuple(self.iris_px.shape) != (2, 2):
            raise ShapeError(f"iris_px must be [2, 2] (right eye, left eye), got {tuple(self.iris_px.shape)}")
        for points, sigma in (
            (self.landmarks68_px, self.landmarks68_sigma_px),
            (self.dense_px, self.dense_sigma_px),
            (self.iris_px, self.iris_sigma_px),
        ):
            if sigma is not None and (points is None or sigma.shape != points.shape[:1]):
                raise ShapeError(f"one standard deviation per point is needed, got {tuple(sigma.shape)}")

    def check_finite(self) -> None:
        """Raises FitError if a number is not finite or a standard deviation is not positive."""
        tensors = {
            "landmarks68_px": self.landmarks68_px,
            "landmarks68_sigma_px": self.landmarks68_sigma_px,
            "dense_px": self.dense_px,
            "dense_sigma_px": self.dense_sigma_px,
            "iris_px": self.iris_px,
            "iris_sigma_px": self.iris_sigma_px,
            "R_cam_object": self.R_cam_object,
            "crop.image_linear": None if self.crop is None else self.crop.image_linear,
        }
        for name, value in tensors.items():
            if value is not None and not bool(torch.isfinite(value).all()):
                raise FitError(
                    f"{name} has values that are not finite; the landmarks or the image are damaged"
                )
            if value is not None and "sigma" in name and not bool((value > 0).all()):
                raise FitError(f"{name} must be positive; leave it out if the uncertainty is unknown")
        if self.focal_px is not None and not 1.0 < self.focal_px < 1e6:
            raise FitError(
                f"focal_px must be a length in pixels, got {self.focal_px}; leave it out if unknown"
            )
