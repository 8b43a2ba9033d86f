# SPDX-License-Identifier: Apache-2.0
"""From what the networks saw to what the fit explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hiface.assets import load_json_asset
from hiface.colour import srgb_to_linear
from hiface.data.crops import CropFrame, crop_photo, frame_of_box
from hiface.fitting.observations import FaceObservation, ImageCrop
from hiface.networks.detect import Detection

_CROP_PX = 256
_CROP_SCALE = 1.7


def observation_from_detection(
    detection: Detection, image_srgb: np.ndarray, focal_px: float | None = None
) -> FaceObservation:
    """Gathers landmarks, uncertainties and a linear crop of the photo.

    Args:
        detection: One detected face.
        image_srgb: [H, W, 3] uint8, the upright photo.
        focal_px: Focal length from the photo's metadata, or None.

    Returns:
        The observation, in pixels of the photo.
    """
    height, width = image_srgb.shape[:2]
    landmarks = landmark_observation(detection, width, height, focal_px)
    return replace(landmarks, crop=face_crop(detection, image_srgb))


def landmark_observation(
    detection: Detection, width: int, height: int, focal_px: float | None = None
) -> FaceObservation:
    """The same without the picture, of a photo of this size."""
    labels = load_json_asset("open/landmarks/iris.json")["labels"]
    eyes = torch.tensor(
        [[i for i, name in enumerate(labels) if name.startswith(side)] for side in ("right_", "left_")]
    )
    return FaceObservation(
        width=width,
        height=height,
        landmarks68_px=detection.landmarks68_px,
        landmarks68_sigma_px=detection.landmarks68_sigma_px,
        dense_px=detection.dense_px,
        dense_sigma_px=detection.dense_sigma_px,
        iris_px=detection.iris_px[eyes].mean(dim=1),
        iris_sigma_px=detection.iris_sigma_px[eyes].mean(dim=1),
        R_cam_object=detection.R_cam_object,
        focal_px=focal_px,
    )


def face_crop(detection: Detection, image_srgb: np.ndarray) -> ImageCrop:
    """Square crop around a face, at most `_CROP_PX` a side and never magnified."""
    frame = frame_of_box(detection.box[None], _CROP_SCALE)
    side = float(frame.side_px)
    size_px = int(min(_CROP_PX, max(16.0, side)))
    photo = torch.from_numpy(np.ascontiguousarray(image_srgb))
    upright = CropFrame(frame.centre_px, frame.side_px, torch.zeros(1))
    crop = srgb_to_linear(crop_photo(photo, upright, size_px)[0])
    corner = frame.centre_px[0] - side / 2
    return ImageCrop(crop, (float(corner[0]), float(corner[1])), size_px / side)
