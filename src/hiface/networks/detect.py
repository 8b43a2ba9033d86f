# SPDX-License-Identifier: Apache-2.0
"""Finds the faces of a photo and their landmarks: finder, landmark network, a second look at each face."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hiface.data.crops import CropFrame, crop_photo, eye_roll, frame_of_box, frame_of_points
from hiface.errors import ImageError
from hiface.networks.boxes import decode_maps, suppress
from hiface.networks.poses import mirror_rotation, ray_rotation, roll_rotation, rotation_from_6d
from hiface.networks.runtime import Runner, load_runner

_GREY = 128
_SPREAD = 0.06  # share of the box's side at which the spread halves a score


@dataclass(frozen=True)
class Detection:
    """One face of a photo; pixels of the photo, (0.5, 0.5) is the centre of its top-left pixel.

    Attributes:
        box: [4] x0, y0, x1, y1, tight around the 68 landmarks; may reach beyond the photo.
        score: 0..1, finder and landmark network together, see `face_score`.
        landmarks68_px: [68, 2] iBUG order.
        landmarks68_sigma_px: [68] standard deviation per axis.
        dense_px: [D, 2] the face model's dense set.
        dense_sigma_px: [D].
        iris_px: [I, 2] the face model's iris set.
        iris_sigma_px: [I].
        R_cam_object: [3, 3] rotation from object space to camera space.
    """

    box: Tensor
    score: float
    landmarks68_px: Tensor
    landmarks68_sigma_px: Tensor
    dense_px: Tensor
    dense_sigma_px: Tensor
    iris_px: Tensor
    iris_sigma_px: Tensor
    R_cam_object: Tensor


@dataclass(frozen=True)
class DetectConfig:
    """How a photo is searched.

    Attributes:
        base_side_px: Longer side of the photo as the finder first sees it.
        overview_side_px: Longer side in the overview, which has a wide margin, for faces that fill or leave
            the photo.
        overview_margin: Margin on both sides together, over the longer side of the photo in the overview.
        fine_side_px: Longer side for photos much larger than `base_side_px`, for small faces in them.
        min_finder_score: Candidates under this score are not looked at.
        min_presence: Least probability at the first look that a candidate is a face.
        min_score: Least `face_score` of a face that is returned.
        max_candidates: Candidates given to the landmark network.
        flip: Whether the second look averages the crop and its mirror image.
    """

    base_side_px: int = 416
    overview_side_px: int = 152
    overview_margin: float = 0.26
    fine_side_px: int = 1600
    min_finder_score: float = 0.3
    min_presence: float = 0.2
    min_score: float = 0.5
    max_candidates: int = 128
    flip: bool = True


@dataclass(frozen=True)
class _Look:
    """What the landmark network says of N crops, in pixels of the photo."""

    points: Tensor
    sigma: Tensor
    R_crop: Tensor
    presence: Tensor


class FaceDetector:
    """Owns the finder and the landmark network.

    Args:
        device: "cpu" (ONNX Runtime) or a torch device.
        threads: Threads on CPU; the cores at hand, at most 4, if None.
        config: How a photo is searched.

    Raises:
        AssetError: Weights are missing or damaged.
    """

    def __init__(
        self, device: str = "cpu", threads: int | None = None, config: DetectConfig | None = None
    ) -> None:
        self.config = config or DetectConfig()
        self._finder: Runner = load_runner("finder", device, threads)
        self._landmarker: Runner = load_runner("landmarker", device, threads)
        self._strides: tuple[int, ...] = tuple(json.loads(self._finder.metadata["config"])["strides"])
        sizes = json.loads(self._landmarker.metadata["config"])
        self._crop_px, self._crop_scale = int(sizes["crop_px"]), float(sizes["crop_scale"])
        self._n_dense = int(sizes["n_dense"])
        self._mirror = torch.tensor(json.loads(self._landmarker.metadata["mirror"]))

    def detect(self, image_srgb: np.ndarray, focal_px: float | None = None) -> list[Detection]:
        """Finds the faces of a photo.

        Args:
            image_srgb: [H, W, 3] uint8 sRGB, upright.
            focal_px: Focal length, used only to correct the rotation of faces away from the photo's centre;
                1.2 times the longer side if None.

        Returns:
            The faces, best score first; empty if there is none.

        Raises:
            ImageError: The array has another shape or type.
        """
        if (
            image_srgb.ndim != 3
            or image_srgb.shape[2] != 3
            or image_srgb.dtype != np.uint8
            or image_srgb.size == 0
        ):
            raise ImageError(
                f"detect needs [H, W, 3] uint8, got {image_srgb.shape} {image_srgb.dtype}; use read_photo"
            )
        with _one_torch_thread():
            return self._detect(image_srgb, focal_px or 1.2 * max(image_srgb.shape[:2]))

    def _detect(self, image_srgb: np.ndarray, focal_px: float) -> list[Detection]:
        boxes, scores = self._find(image_srgb)
        if len(boxes) == 0:
            return []
        whole = np.ascontiguousarray(image_srgb)
        photo = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        first = self._look(photo, frame_of_box(torch.from_numpy(boxes), self._crop_scale), flip=False)
        likely = first.presence.numpy()
        kept = _merge(first.points[:, :68], scores * likely, likely >= self.config.min_presence)
        if len(kept) == 0:
            return []
        frame = frame_of_points(first.points[kept, :68], self._crop_scale, eye_roll(first.points[kept]))
        look = self._look(photo, frame, flip=self.config.flip)
        spread = look.sigma[:, :68].mean(dim=1) * self._crop_scale / frame.side_px
        final = face_score(scores[kept], np.minimum(likely[kept], look.presence.numpy()), spread.numpy())
        left = _merge(look.points[:, :68], final, final >= self.config.min_score)
        height, width = image_srgb.shape[:2]
        R = _to_camera(look.R_crop, frame, width, height, focal_px)
        return [self._detection(look, R, float(final[i]), int(i)) for i in left]

    def _find(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidate boxes [N, 4] float32 in photo pixels, and scores [N], best first, without duplicates."""
        cfg, longest = self.config, max(image.shape[:2])
        passes = [
            (min(1.0, cfg.base_side_px / longest), 0.0),
            (cfg.overview_side_px / longest, cfg.overview_margin),
        ]
        if longest > 2 * cfg.base_side_px:
            passes.append((min(1.0, cfg.fine_side_px / longest), 0.0))
        boxes, scores = [], []
        for scale, margin in passes:
            canvas, offset, used = _canvas(image, scale, margin, self._strides[-1])
            found, score = decode_maps(self._finder(canvas), self._strides, cfg.min_finder_score)
            boxes.append((found - np.tile(offset, 2)) / np.tile(used, 2))
            scores.append(score)
        all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
        kept = suppress(all_boxes, all_scores, 0.45)[: cfg.max_candidates]
        return all_boxes[kept].astype(np.float32), all_scores[kept]

    def _look(self, photo: Tensor, frame: CropFrame, flip: bool) -> _Look:
        crops = crop_photo(photo, frame, self._crop_px)
        n = crops.shape[0]
        batch = torch.cat([crops, crops.flip(-1)]) if flip else crops
        points, log_sigma, rotation6d, presence = (
            torch.from_numpy(x) for x in self._landmarker(batch.numpy())
        )
        sigma, R = log_sigma.exp(), rotation_from_6d(rotation6d)
        presence = torch.sigmoid(presence)
        if flip:
            back = points[n:, self._mirror] * points.new_tensor([-1.0, 1.0])
            points = 0.5 * (points[:n] + back)
            sigma = 0.5 * (sigma[:n] + sigma[n:, self._mirror])
            total = R[:n] + mirror_rotation(R[n:])
            R = rotation_from_6d(torch.cat([total[..., 0], total[..., 1]], dim=-1))
            presence = 0.5 * (presence[:n] + presence[n:])
        half_side = 0.5 * frame.side_px[:, None]
        return _Look(frame.to_picture(points), sigma * half_side, R, presence)

    def _detection(self, look: _Look, R: Tensor, score: float, i: int) -> Detection:
        split = [68, self._n_dense, look.points.shape[1] - 68 - self._n_dense]
        p68, dense, iris = look.points[i].split(split)
        s68, s_dense, s_iris = look.sigma[i].split(split)
        box = torch.cat([p68.amin(dim=0), p68.amax(dim=0)])
        return Detection(box, score, p68, s68, dense, s_dense, iris, s_iris, R[i])


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Small tensors are faster in one thread, several times so where other programs use the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def face_score(finder: np.ndarray, presence: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """How sure it is that candidates are faces.

    Where there is no face the landmark network is unsure of its points, which tells a false candidate as
    well as its presence does. Formula and default threshold were set on synthetic scenes of held persons.

    Args:
        finder: [N] score of the finder, 0..1.
        presence: [N] the lesser probability of the two looks, 0..1.
        spread: [N] mean sigma of the 68 points over the longer side of the face's box.

    Returns:
        [N] 0..1.
    """
    return presence * finder**0.2 / (1.0 + (spread / _SPREAD) ** 4)


def _canvas(
    image: np.ndarray, scale: float, margin: float, multiple: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photo on a grey canvas for the finder.

    Returns:
        [1, 3, h, w] float32 0..1; the offset [2] of the photo on it; the exact scale [2] in x and y.
    """
    height, width = image.shape[:2]
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = image
    if (w, h) != (width, height):
        small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2.0))
    pad = round(margin * max(w, h) / 2)
    rows, cols = (-(-(side + 2 * pad) // multiple) * multiple for side in (h, w))
    canvas = np.full((rows, cols, 3), _GREY, np.uint8)
    canvas[pad : pad + h, pad : pad + w] = small
    batch = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255.0)
    return batch, np.array([pad, pad], np.float32), np.array([w / width, h / height], np.float32)


def _merge(points68: Tensor, scores: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Indices of the good faces without duplicates, best first; judged by their landmarks' boxes."""
    ids = np.nonzero(good)[0]
    if len(ids) == 0:
        return ids
    boxes = torch.cat([points68.amin(dim=1), points68.amax(dim=1)], dim=1).numpy()[ids]
    return ids[suppress(boxes, scores[ids], 0.35, 0.7)]


def _to_camera(R_crop: Tensor, frame: CropFrame, width: int, height: int, focal_px: float) -> Tensor:
    """From the crops' own axes to the photo's camera: undo the roll, then turn to the ray."""
    offset = (frame.centre_px - frame.centre_px.new_tensor([width / 2, height / 2])) / focal_px
    return ray_rotation(offset) @ roll_rotation(frame.roll) @ R_crop
