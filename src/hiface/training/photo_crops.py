# SPDX-License-Identifier: Apache-2.0
"""A user's own photos without labels: faces found, cut and kept for self-supervised training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Generator, Tensor

from hiface.data.crop_arrays import frames_of_boxes, read_crops
from hiface.data.crops import eye_roll, frame_of_points
from hiface.data.images import IMAGE_SUFFIXES, read_photo
from hiface.errors import AssetError, ImageError
from hiface.fitting.fit import default_focal_px
from hiface.networks.detect import FaceDetector
from hiface.networks.hiface import HifaceConfig
from hiface.networks.landmarker import Landmarker
from hiface.training.hiface_batches import look_at
from hiface.training.landmark_batches import CropJitter, jittered_frames, read_augmented
from hiface.training.shards import Samples

LOGGER = logging.getLogger(__name__)

PHOTO_JITTER = CropJitter(0.02, 0.03, 0.04, 1.0, 0.0, 0.0, 0.0, 0.0, False)
_WINDOW_SCALE = 2.2  # side of what is kept of a photo over the longer side of the face's box
_LEAST_FACE_PX = 60.0


@dataclass(frozen=True)
class PhotoBatch:
    """Faces of photos, without any truth.

    Attributes:
        crops: [B, 3, S, S] sRGB 0..1.
        seen_points: [B, P, 3] what the landmark network says of them.
        K: [B, 3, 3] of the pictures that `frames` speak of.
        frames: [B, 4] centre x and y, side (pixels), roll.
    """

    crops: Tensor
    seen_points: Tensor
    K: Tensor
    frames: Tensor


class PhotoCrops:
    """Faces of a folder of photos.

    Args:
        folder: Pictures; those that cannot be read and those without a face are passed over.
        size_px: Side of the window that is kept of each face.

    Raises:
        AssetError: No picture of the folder shows a usable face.
    """

    def __init__(self, folder: Path, size_px: int) -> None:
        files = photo_files(folder)
        detector = FaceDetector()
        images, points, cameras = [], [], []
        console = Console(stderr=True, emoji=False)
        for path in track(files, description="photos", console=console, transient=True):
            for image, px, K in _faces(path, detector, size_px):
                images.append(image)
                points.append(px)
                cameras.append(K)
        if not images:
            raise AssetError(
                f"none of the {len(files)} pictures in {folder} shows a face of at least "
                f"{_LEAST_FACE_PX:.0f} px; name a folder with photos of faces"
            )
        self.samples = Samples(
            images=torch.from_numpy(np.stack(images)),
            segmentation=torch.zeros(len(images), 0, 0, dtype=torch.uint8),
            points_px=torch.from_numpy(np.stack(points)),
            visible=torch.ones(len(images), points[0].shape[0], dtype=torch.bool),
            R_cam_head=torch.eye(3).expand(len(images), 3, 3),
            K=torch.from_numpy(np.stack(cameras)),
        )

    def __len__(self) -> int:
        return len(self.samples.images)

    def batch(
        self, rng: np.random.Generator, count: int, config: HifaceConfig, landmarker: Landmarker
    ) -> PhotoBatch:
        """Random faces, a little off centre.

        Args:
            rng: Source of randomness.
            count: Number of faces, drawn with replacement.
            config: Sizes of the network.
            landmarker: Landmark network.
        """
        ids = torch.from_numpy(rng.integers(len(self), size=count))
        s = self.samples
        drawn = Samples(
            s.images[ids], s.segmentation[ids], s.points_px[ids], s.visible[ids], s.R_cam_head[ids], s.K[ids]
        )
        gen = Generator().manual_seed(int(rng.integers(2**62)))
        true = frame_of_points(drawn.points_px[:, :68], config.crop_scale, eye_roll(drawn.points_px))
        frame = jittered_frames(gen, true, PHOTO_JITTER)
        crops, _ = read_augmented(gen, drawn, frame, config.crop_px, PHOTO_JITTER, None)
        return PhotoBatch(crops, look_at(landmarker, crops), drawn.K, frame.packed())


def photo_files(folder: Path) -> list[Path]:
    """Pictures of a folder and its subfolders, sorted.

    Raises:
        AssetError: There is none.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not files:
        raise AssetError(f"{folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)}); name a folder of photos")
    return files


def _faces(
    path: Path, detector: FaceDetector, size_px: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Window [4, S, S] uint8, points [L, 2] in it and K of each large enough face of a photo."""
    try:
        photo = read_photo(path)
    except ImageError as error:
        LOGGER.warning("%s is passed over: %s", path.name, error)
        return []
    height, width = photo.image_srgb.shape[:2]
    focal = photo.focal_px or default_focal_px(width, height)
    out = []
    for face in detector.detect(photo.image_srgb, photo.focal_px):
        box = face.box.numpy()
        if max(box[2:] - box[:2]) < _LEAST_FACE_PX:
            continue
        frame = frames_of_boxes(box[None], _WINDOW_SCALE)
        window = read_crops(np.ascontiguousarray(photo.image_srgb), frame, size_px)[0]
        scale = size_px / float(frame[0, 2])
        corner = frame[0, :2] - 0.5 * frame[0, 2]
        px = torch.cat([face.landmarks68_px, face.dense_px, face.iris_px]).numpy()
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)
        K[:2, 2] -= corner
        K[:2] *= scale
        image = np.concatenate([255 * window + 0.5, np.full((1, size_px, size_px), 255.0)])
        out.append((image.astype(np.uint8), ((px - corner) * scale).astype(np.float32), K))
    return out
