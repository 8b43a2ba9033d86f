# SPDX-License-Identifier: Apache-2.0
"""Finds the faces of a photo and their landmarks: finder, landmark network, a second look at each face."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.data.crops import CropFrame, box_of_points, eye_roll, frame_of_box, frame_of_points, join_frames
from hiface.errors import ImageError
from hiface.networks.boxes import contained_matrix, decode_maps, suppress
from hiface.networks.looks import LandmarkReader, Look, join_looks
from hiface.networks.poses import ray_rotation, roll_rotation
from hiface.networks.runtime import Runner, load_runner

_GREY = 128
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
    settled: tuple[float, float, float] = (0.06, 0.12, 0.25)
    flip: bool = True


@dataclass(frozen=True)
class _Seen:
    """Faces with where and what was read.

    Attributes:
        frame: N crops.
        crops: [N, 3, S, S].
        look: In crop coordinates.
        finder: [N] scores of the finder.
    """

    frame: CropFrame
    crops: Tensor
    look: Look
    finder: np.ndarray

    def take(self, ids: np.ndarray) -> _Seen:
        """The faces with these numbers."""
        i = torch.from_numpy(ids)
        return _Seen(self.frame.take(i), self.crops[i], self.look.take(i), self.finder[ids])

    def points(self) -> Tensor:
        """[N, L, 2] pixels of the photo."""
        return self.frame.to_picture(self.look.points)


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
        whole = np.ascontiguousarray(image_srgb)
        photo = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        boxes, scores = self._find(photo)
        if len(boxes) == 0:
            return []
        first = self._first_look(photo, boxes, scores)
        likely = first.look.presence.numpy()
        kept = _merge(first.points()[:, :68], first.finder * likely, likely >= self.config.min_presence)
        if len(kept) == 0:
            return []
        seen = self._second_look(photo, first.take(kept))
        look, points = seen.look, seen.points()
        spread = look.sigma[:, :68].mean(dim=1) * (0.5 * self._reader.crop_scale)
        presence = np.minimum(likely[kept], look.presence.numpy())
        final = face_score(seen.finder, presence, spread.numpy())
        left = _merge(points[:, :68], final, final >= self.config.min_score)
        height, width = image_srgb.shape[:2]
        R = _to_camera(look.R_crop, seen.frame, width, height, focal_px)
        sigma = look.sigma * (0.5 * seen.frame.side_px[:, None])
        return [self._detection(points[i], sigma[i], look.visible[i], R[i], float(final[i])) for i in left]

    def _find(self, photo: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Candidate boxes [N, 4] float32 in photo pixels, and scores [N], best first, without duplicates."""
        cfg = self.config
        longest = max(photo.shape[:2])
        small = _resized(photo, min(1.0, cfg.base_side_px / longest))
        boxes, scores = self._search(photo, small, 0.0)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        dominant = bool(((scores >= cfg.sure_finder_score) & (sides >= cfg.dominant * longest)).any())
        passes = []
        if not dominant:
            passes.append((_resized(small, cfg.overview_side_px / max(small.shape)), cfg.overview_margin))
        if longest > cfg.base_side_px * (2 if dominant else 1):
            passes.append((_resized(photo, min(1.0, cfg.fine_side_px / longest)), cfg.fine_margin))
        found = [(boxes, scores), *(self._search(photo, *seen) for seen in passes)]
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = suppress(boxes, scores, 0.45)[: cfg.max_candidates]
        return boxes[kept].astype(np.float32), scores[kept]

    def _search(self, photo: Tensor, picture: Tensor, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [N, 4] in photo pixels and scores [N] that the finder gives for a scaled photo."""
        canvas, pad = _canvas(picture, margin, self._strides[-1])
        boxes, scores = decode_maps(self._finder(canvas), self._strides, self.config.min_finder_score)
        scale = [picture.shape[i] / photo.shape[i] for i in (1, 0, 1, 0)]
        return (boxes - pad) / np.array(scale, np.float32), scores

    def _first_look(self, photo: Tensor, boxes: np.ndarray, scores: np.ndarray) -> _Seen:
        """One look at the sure candidates and as many others, then at more until a batch holds no face.

        Candidates inside a face that was found already are passed over.
        """
        cfg = self.config
        frame = frame_of_box(torch.from_numpy(boxes), self._reader.crop_scale)
        parts, left = [], np.arange(len(boxes))
        sure = int((scores >= cfg.sure_finder_score).sum())
        more = int((scores[sure : 2 * sure] >= cfg.lone_finder_score).sum()) if sure else cfg.batch
        now = left[: sure + more]
        while len(now):
            here = frame.take(torch.from_numpy(now))
            crops = self._reader.crops(photo, here)
            look = self._reader.read(crops)
            parts.append(_Seen(here, crops, look, scores[now]))
            face = look.presence >= _SURE_PRESENCE
            if not bool(face[sure if len(parts) == 1 else 0 :].any()):
                break
            found = box_of_points(here.to_picture(look.points[:, :68]))[face].numpy()
            left = left[len(now) :]
            inside = (contained_matrix(boxes[left], found) > _INSIDE).any(axis=1)
            left = left[~inside]
            now = left[: max(cfg.batch, len(scores) // 8)]
        return _join(parts)

    def _second_look(self, photo: Tensor, first: _Seen) -> _Seen:
        """A look along the eyes where the first crop was off, and in the mirror; settled faces come first."""
        points = first.points()
        better = frame_of_points(points[:, :68], self._reader.crop_scale, eye_roll(points))
        off = _is_off(first.frame, better, self.config.settled)
        still, moved = torch.nonzero(~off)[:, 0].numpy(), torch.nonzero(off)[:, 0].numpy()
        settled, frame = first.take(still), better.take(torch.from_numpy(moved))
        crops = torch.cat([settled.crops, self._reader.crops(photo, frame)])
        if self.config.flip:
            look = self._reader.read_twice(crops, settled.look)
        elif len(moved):
            look = join_looks([settled.look, self._reader.read(crops[len(still) :])])
        else:
            look = settled.look
        order = np.argsort(np.concatenate([still, moved]))
        frames = join_frames([settled.frame, frame])
        finder = np.concatenate([settled.finder, first.finder[moved]])
        return _Seen(frames, crops, look, finder).take(order)

    def _detection(
        self, points: Tensor, sigma: Tensor, visible: Tensor, R: Tensor, score: float
    ) -> Detection:
        split = [68, self._reader.n_dense, points.shape[0] - 68 - self._reader.n_dense]
        p68, dense, iris = points.split(split)
        s68, s_dense, s_iris = sigma.split(split)
        v68, v_dense, _ = visible.split(split)
        box = torch.cat([p68.amin(dim=0), p68.amax(dim=0)])
        return Detection(box, score, p68, s68, v68, dense, s_dense, v_dense, iris, s_iris, R)


def _join(parts: list[_Seen]) -> _Seen:
    return _Seen(
        join_frames([part.frame for part in parts]),
        torch.cat([part.crops for part in parts]),
        join_looks([part.look for part in parts]),
        np.concatenate([part.finder for part in parts]),
    )


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


def _resized(picture: Tensor, scale: float) -> Tensor:
    """[H, W, 3] uint8 scaled, with antialiasing; sides of at least 1."""
    height, width = picture.shape[:2]
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if size == (height, width):
        return picture
    planes = picture.permute(2, 0, 1)[None]
    return F.interpolate(planes, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def _canvas(picture: Tensor, margin: float, multiple: int) -> tuple[np.ndarray, int]:
    """A picture [h, w, 3] uint8 on a grey canvas for the finder.

    Returns:
        [1, 3, H, W] float32 0..1, sides multiples of `multiple`; width of the margin at the left and the top.
    """
    height, width = picture.shape[:2]
    pad = round(margin * max(height, width) / 2)
    rows, cols = (-(-(side + 2 * pad) // multiple) * multiple for side in (height, width))
    canvas = np.full((1, 3, rows, cols), _GREY / 255.0, np.float32)
    pixels = picture.numpy()
    for channel in range(3):  # each is contiguous in a resized picture
        inner = canvas[0, channel, pad : pad + height, pad : pad + width]
        np.multiply(pixels[..., channel], np.float32(1 / 255), out=inner)
    return canvas, pad


def _is_off(frame: CropFrame, better: CropFrame, limits: tuple[float, float, float]) -> Tensor:
    """[N] bool: the better crop differs from the one that was read by more than `limits`."""
    shift = (better.centre_px - frame.centre_px).norm(dim=-1) / frame.side_px
    growth = (better.side_px / frame.side_px).log().abs()
    turn = (better.roll - frame.roll).abs()
    return (shift > limits[0]) | (growth > limits[1]) | (turn > limits[2])


def _merge(points68: Tensor, scores: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Indices of the good faces without duplicates, best first; judged by their landmarks' boxes."""
    ids = np.nonzero(good)[0]
    if len(ids) == 0:
        return ids
    boxes = torch.cat([points68.amin(dim=1), points68.amax(dim=1)], dim=1).numpy()[ids]
    return ids[suppress(boxes, scores[ids], 0.35, _INSIDE)]


def _to_camera(R_crop: Tensor, frame: CropFrame, width: int, height: int, focal_px: float) -> Tensor:
    """From the crops' own axes to the photo's camera: undo the roll, then turn to the ray."""
    offset = (frame.centre_px - frame.centre_px.new_tensor([width / 2, height / 2])) / focal_px
    return ray_rotation(offset) @ roll_rotation(frame.roll) @ R_crop
