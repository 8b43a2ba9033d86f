# SPDX-License-Identifier: Apache-2.0
"""Finds the faces of a photo and their landmarks: finder, landmark network, a second look at each face."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.data.crop_arrays import eye_rolls, frames_of_boxes, frames_of_points, tight_boxes, to_picture
from hiface.errors import ImageError
from hiface.networks.boxes import contained_matrix, decode_maps, suppress
from hiface.networks.finder_input import finder_canvas, resized
from hiface.networks.looks import LandmarkReader, Look, join_looks
from hiface.networks.pose_arrays import turned_to_camera
from hiface.networks.runtime import Runner, load_runner

_INSIDE = 0.7  # share of a box within another at which both are one face
_SURE_PRESENCE = 0.5
_SPREAD = 0.06  # share of the box's side at which the spread halves a score


@dataclass(frozen=True)
class Detection:
    """One face of a photo; pixels of the photo, (0.5, 0.5) is the centre of its top-left pixel.

    Attributes:
        box: [4] x0, y0, x1, y1, tight around the 68 landmarks; may reach beyond the photo.
        score: 0..1, finder and landmark network together, see `face_score`.
        landmarks68_px: [68, 2] iBUG order.
        landmarks68_sigma_px: [68] standard deviation per axis.
        landmarks68_visible: [68] probability that a point is inside the photo and nothing is in front of it.
        dense_px: [D, 2] the face model's dense set.
        dense_sigma_px: [D].
        dense_visible: [D].
        iris_px: [I, 2] the face model's iris set.
        iris_sigma_px: [I].
        R_cam_object: [3, 3] rotation from object space to camera space.
    """

    box: Tensor
    score: float
    landmarks68_px: Tensor
    landmarks68_sigma_px: Tensor
    landmarks68_visible: Tensor
    dense_px: Tensor
    dense_sigma_px: Tensor
    dense_visible: Tensor
    iris_px: Tensor
    iris_sigma_px: Tensor
    R_cam_object: Tensor


@dataclass(frozen=True)
class DetectConfig:
    """How a photo is searched.

    Attributes:
        base_side_px: Longer side of the photo as the finder first sees it.
        dominant: Share of the photo's longer side from which on a sure face counts as what the photo shows.
        overview_side_px: Longer side in the overview, which has a wide margin, for faces that fill or leave
            the photo; photos with a dominant face are not seen so.
        overview_margin: Margin on both sides together, over the longer side of the photo in the overview.
        fine_side_px: Longer side in the fine view, for small faces; photos with a dominant face are seen so
            only if they are twice as large as `base_side_px`.
        fine_margin: Margin around it like `overview_margin`, for small faces cut by the photo's edge.
        min_finder_score: Candidates under this score are not looked at.
        min_presence: Least probability at the first look that a candidate is a face.
        min_score: Least `face_score` of a face that is returned.
        sure_finder_score: Candidates from this score on are all looked at; the others, best first, until one
            batch of them holds no face.
        batch: Least number of candidates in such a batch.
        lone_finder_score: Least score of the others that are looked at together with the sure ones; if none
            of the next best has it, none is looked at.
        max_candidates: Most candidates given to the landmark network.
        settled: How far the landmarks may say that the first crop was off (shift over its side, logarithm of
            its side, roll in radians) for the second look to use the same crop.
        flip: Whether the second look averages the crop and its mirror image.
    """

    base_side_px: int = 320
    dominant: float = 0.15
    overview_side_px: int = 128
    overview_margin: float = 0.26
    fine_side_px: int = 2048
    fine_margin: float = 0.04
    min_finder_score: float = 0.25
    min_presence: float = 0.2
    min_score: float = 0.65
    sure_finder_score: float = 0.7
    batch: int = 2
    lone_finder_score: float = 0.3
    max_candidates: int = 128
    settled: tuple[float, float, float] = (0.03, 0.06, 0.12)
    flip: bool = True


@dataclass(frozen=True)
class _Seen:
    """Faces with where and what was read.

    Attributes:
        frames: [N, 4] crops, see `hiface.data.crop_arrays`.
        crops: [N, 3, S, S].
        look: In crop coordinates.
        finder: [N] scores of the finder.
    """

    frames: np.ndarray
    crops: np.ndarray
    look: Look
    finder: np.ndarray

    def take(self, ids: np.ndarray) -> _Seen:
        """The faces with these numbers."""
        if len(ids) == len(self.finder) and (ids == np.arange(len(ids))).all():
            return self
        return _Seen(self.frames[ids], self.crops[ids], self.look.take(ids), self.finder[ids])

    def points(self) -> np.ndarray:
        """[N, L, 2] pixels of the photo."""
        return to_picture(self.frames, self.look.points)


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
        self._reader = LandmarkReader(load_runner("landmarker", device, threads))
        self._strides: tuple[int, ...] = tuple(json.loads(self._finder.metadata["config"])["strides"])

    def with_config(self, config: DetectConfig) -> FaceDetector:
        """The same networks, which search a photo in another way."""
        other = copy.copy(self)
        other.config = config
        return other

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
        photo = _checked(image_srgb)
        with _one_torch_thread():
            return self._detect(photo, focal_px or 1.2 * max(photo.shape[:2]))

    def look_again(
        self, image_srgb: np.ndarray, points68_px: np.ndarray, focal_px: float | None = None
    ) -> list[Detection | None]:
        """Reads faces whose places are nearly known, as those of a video's frame before, without a search.

        Args:
            image_srgb: [H, W, 3] uint8 sRGB, upright.
            points68_px: [N, 68, 2] where the landmarks are expected, within a third of the face's size.
            focal_px: As for `detect`.

        Returns:
            N faces; None where there is none. Two places may lead to one face.

        Raises:
            ImageError: The array has another shape or type.
        """
        photo = _checked(image_srgb)
        if len(points68_px) == 0:
            return []
        with _one_torch_thread():
            frames = frames_of_points(points68_px, self._reader.crop_scale, eye_rolls(points68_px))
            crops = self._reader.crops(photo, frames)
            first = _Seen(frames, crops, self._reader.read(crops), np.ones(len(frames), np.float32))
            seen = self._second_look(photo, first)
            points, final = self._judged(seen, first.look.presence)
            found = self._detections(photo, seen, points, final, focal_px or 1.2 * max(photo.shape[:2]))
        sure = final >= self.config.min_score
        return [face if good else None for face, good in zip(found, sure, strict=True)]

    def _detect(self, photo: np.ndarray, focal_px: float) -> list[Detection]:
        boxes, scores = self._find(photo)
        if len(boxes) == 0:
            return []
        first = self._first_look(photo, boxes, scores)
        likely = first.look.presence
        kept = _merge(first.points()[:, :68], first.finder * likely, likely >= self.config.min_presence)
        # A second look cannot raise a face above the score that it has if no point of it is in doubt.
        kept = kept[face_score(first.finder[kept], likely[kept], np.zeros(1)) >= self.config.min_score]
        if len(kept) == 0:
            return []
        seen = self._second_look(photo, first.take(kept))
        points, final = self._judged(seen, likely[kept])
        left = _merge(points[:, :68], final, final >= self.config.min_score)
        return self._detections(photo, seen.take(left), points[left], final[left], focal_px)

    def _judged(self, seen: _Seen, presence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [N, L, 2] in pixels and scores [N] of faces that had a presence [N] at the first look."""
        spread = seen.look.sigma[:, :68].mean(axis=1) * (0.5 * self._reader.crop_scale)
        return seen.points(), face_score(seen.finder, np.minimum(presence, seen.look.presence), spread)

    def _detections(
        self, photo: np.ndarray, seen: _Seen, points: np.ndarray, scores: np.ndarray, focal_px: float
    ) -> list[Detection]:
        look = seen.look
        middle = np.array([0.5 * photo.shape[1], 0.5 * photo.shape[0]], np.float32)
        R = turned_to_camera(look.R_crop, (seen.frames[:, :2] - middle) / focal_px, seen.frames[:, 3])
        sigma = look.sigma * (0.5 * seen.frames[:, 2:3])
        return [
            self._detection(points[i], sigma[i], look.visible[i], R[i], float(scores[i]))
            for i in range(len(points))
        ]

    def _find(self, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidate boxes [N, 4] float32 in photo pixels, and scores [N], best first, without duplicates."""
        cfg = self.config
        longest = max(photo.shape[:2])
        small = resized(photo, min(1.0, cfg.base_side_px / longest))
        boxes, scores = self._search(photo, small, 0.0)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        dominant = bool(((scores >= cfg.sure_finder_score) & (sides >= cfg.dominant * longest)).any())
        passes = []
        if not dominant:
            passes.append((resized(small, cfg.overview_side_px / max(small.shape)), cfg.overview_margin))
        if longest > cfg.base_side_px * (2 if dominant else 1):
            passes.append((resized(photo, min(1.0, cfg.fine_side_px / longest)), cfg.fine_margin))
        if passes:
            found = [(boxes, scores), *(self._search(photo, *seen) for seen in passes)]
            boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = suppress(boxes, scores, 0.45)[: cfg.max_candidates]
        return boxes[kept].astype(np.float32), scores[kept]

    def _search(self, photo: np.ndarray, picture: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4] in photo pixels and scores [N] that the finder gives for a scaled photo."""
        canvas, pad = finder_canvas(picture, margin, self._strides[-1])
        boxes, scores = decode_maps(self._finder(canvas), self._strides, self.config.min_finder_score)
        scale = [picture.shape[i] / photo.shape[i] for i in (1, 0, 1, 0)]
        return (boxes - pad) / np.array(scale, np.float32), scores

    def _first_look(self, photo: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> _Seen:
        """One look at the sure candidates and as many others, then at more until a batch holds no face.

        Candidates inside a face that was found already are passed over.
        """
        cfg = self.config
        frames = frames_of_boxes(boxes, self._reader.crop_scale)
        parts, left = [], np.arange(len(boxes))
        sure = int((scores >= cfg.sure_finder_score).sum())
        more = int((scores[sure : 2 * sure] >= cfg.lone_finder_score).sum()) if sure else cfg.batch
        now = left[: sure + more]
        while len(now):
            here = frames[now]
            crops = self._reader.crops(photo, here)
            look = self._reader.read(crops)
            parts.append(_Seen(here, crops, look, scores[now]))
            face = look.presence >= _SURE_PRESENCE
            if not bool(face[sure if len(parts) == 1 else 0 :].any()):
                break
            left = left[len(now) :]
            if len(left) == 0:
                break
            found = tight_boxes(to_picture(here, look.points[:, :68]))[face]
            inside = (contained_matrix(boxes[left], found) > _INSIDE).any(axis=1)
            left = left[~inside]
            now = left[: max(cfg.batch, len(scores) // 8)]
        return _join(parts)

    def _second_look(self, photo: np.ndarray, first: _Seen) -> _Seen:
        """A look along the eyes where the first crop was off, and in the mirror; settled faces come first."""
        points = first.points()
        better = frames_of_points(points[:, :68], self._reader.crop_scale, eye_rolls(points))
        off = _is_off(first.frames, better, self.config.settled)
        still, moved = np.nonzero(~off)[0], np.nonzero(off)[0]
        settled, frames = first.take(still), better[moved]
        crops = settled.crops
        if len(moved):
            crops = np.concatenate([crops, self._reader.crops(photo, frames)])
        if self.config.flip:
            look = self._reader.read_twice(crops, settled.look)
        elif len(moved):
            look = join_looks([settled.look, self._reader.read(crops[len(still) :])])
        else:
            look = settled.look
        order = np.argsort(np.concatenate([still, moved]))
        finder = np.concatenate([settled.finder, first.finder[moved]])
        return _Seen(np.concatenate([settled.frames, frames]), crops, look, finder).take(order)

    def _detection(
        self, points: np.ndarray, sigma: np.ndarray, visible: np.ndarray, R: np.ndarray, score: float
    ) -> Detection:
        dense, iris = slice(68, 68 + self._reader.n_dense), slice(68 + self._reader.n_dense, None)
        box = torch.from_numpy(tight_boxes(points[None, :68])[0])
        p, s, v = torch.from_numpy(points), torch.from_numpy(sigma), torch.from_numpy(visible)
        p68, s68, v68 = p[:68], s[:68], v[:68]
        pose = torch.from_numpy(R)
        return Detection(box, score, p68, s68, v68, p[dense], s[dense], v[dense], p[iris], s[iris], pose)


def _join(parts: list[_Seen]) -> _Seen:
    if len(parts) == 1:
        return parts[0]
    return _Seen(
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.crops for part in parts]),
        join_looks([part.look for part in parts]),
        np.concatenate([part.finder for part in parts]),
    )


def _checked(image_srgb: np.ndarray) -> np.ndarray:
    """A contiguous, writeable photo; raises ImageError if it is not [H, W, 3] uint8."""
    shape, dtype = image_srgb.shape, image_srgb.dtype
    if image_srgb.ndim != 3 or shape[2] != 3 or dtype != np.uint8 or image_srgb.size == 0:
        raise ImageError(f"detect needs [H, W, 3] uint8, got {shape} {dtype}; use read_photo")
    whole = np.ascontiguousarray(image_srgb)
    return whole if whole.flags.writeable else whole.copy()


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


def _is_off(frames: np.ndarray, better: np.ndarray, limits: tuple[float, float, float]) -> np.ndarray:
    """[N] bool: the better crops differ from those that were read by more than `limits`."""
    shift = np.hypot(better[:, 0] - frames[:, 0], better[:, 1] - frames[:, 1]) / frames[:, 2]
    growth = np.abs(np.log(better[:, 2] / frames[:, 2]))
    turn = np.abs(better[:, 3] - frames[:, 3])
    return (shift > limits[0]) | (growth > limits[1]) | (turn > limits[2])


def _merge(points68: np.ndarray, scores: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Indices of the good faces without duplicates, best first; judged by their landmarks' boxes."""
    ids = np.nonzero(good)[0]
    if len(ids) < 2:
        return ids
    return ids[suppress(tight_boxes(points68[ids]), scores[ids], 0.35, _INSIDE)]
