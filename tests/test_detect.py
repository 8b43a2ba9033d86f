# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hiface.data.crops import box_of_points, eye_roll
from hiface.errors import ImageError
from hiface.networks.detect import (
    DetectConfig,
    FaceDetector,
    _is_off,
    _merge,
    face_score,
)
from hiface.networks.finder_input import finder_canvas, resized
from hiface.networks.looks import Look, join_looks


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(threads=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (31, 33), (200, 320), (1300, 40)])
def test_plain_pictures_hold_no_face_and_do_not_crash(detector: FaceDetector, shape: tuple[int, int]) -> None:
    for value in (0, 128, 255):
        assert detector.detect(np.full((*shape, 3), value, np.uint8)) == []


def test_noise_does_not_crash(detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    for found in (detector.detect(rng.integers(0, 256, (n, 150, 3), dtype=np.uint8)) for n in (7, 64, 150)):
        for face in found:
            assert torch.isfinite(face.landmarks68_px).all()


@pytest.mark.parametrize("array", [np.zeros((5, 5)), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8),
                                   np.zeros((5, 5, 4), np.uint8)])  # fmt: skip
def test_wrong_arrays_are_named_errors(detector: FaceDetector, array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="read_photo"):
        detector.detect(array)


def test_canvas_maps_pixels_exactly() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[20:30, 60:70] = 255
    small = resized(image, 0.5)
    assert small.shape == (25, 50, 3) and small.dtype == np.uint8
    canvas, pad = finder_canvas(small, 0.5, 32)
    assert canvas.shape[2] % 32 == 0 and canvas.shape[3] % 32 == 0
    ys, xs = np.nonzero(canvas[0, 0] > 0.9)
    low = (np.array([xs.min(), ys.min()]) - pad) / 0.5
    high = (np.array([xs.max() + 1, ys.max() + 1]) - pad) / 0.5
    assert np.allclose(low, [60, 20], atol=2) and np.allclose(high, [70, 30], atol=2)
    assert np.isclose(canvas[0, 0, 0, 0], 128 / 255)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (2, 3), (70, 50)])
def test_shrinking_keeps_the_mean_and_at_least_one_pixel(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    small = resized(image, 0.25)
    assert min(small.shape[:2]) >= 1
    assert abs(float(small.mean() - image.mean())) < 16
    assert np.array_equal(resized(image, 1.0), image)


def test_crops_that_need_no_second_look() -> None:
    frames = np.tile(np.array([0.0, 0.0, 100.0, 0.0], np.float32), (4, 1))
    better = np.array([[4, 0, 104, 0.1], [0, 9, 100, 0], [0, 0, 130, 0], [0, 0, 100, -0.4]], np.float32)
    assert _is_off(frames, better, (0.06, 0.12, 0.25)).tolist() == [False, True, True, True]


def test_duplicates_are_merged_and_neighbours_kept() -> None:
    base = np.random.default_rng(0).random((68, 2)) * 50
    points = np.stack([base, base + 3, base + np.array([45.0, 0.0]), base * 0.4 + 10])
    scores = np.array([0.7, 0.9, 0.6, 0.8])
    assert _merge(points, scores, scores > 0.5).tolist() == [1, 2]
    assert len(_merge(points, scores, scores > 2)) == 0


def test_eye_roll() -> None:
    points = torch.zeros(1, 68, 2)
    points[:, [42, 45]] = torch.tensor([10.0, 10.0])
    assert abs(float(eye_roll(points)) - np.pi / 4) < 1e-6


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    config = DetectConfig(min_finder_score=0.01, min_presence=0.0, min_score=0.0, max_candidates=5)
    a, b = (FaceDetector(threads=n, config=config).detect(image) for n in (1, 2))
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert torch.allclose(first.landmarks68_px, second.landmarks68_px, atol=0.05)


def test_face_score_falls_with_doubt() -> None:
    finder, presence, spread = np.full(3, 0.6), np.array([0.9, 0.9, 0.3]), np.array([0.03, 0.08, 0.03])
    sure, spread_out, absent = face_score(finder, presence, spread)
    assert sure > 0.7 and spread_out < 0.3 and absent < 0.3
    assert face_score(np.array([0.3]), presence[:1], spread[:1]) < sure


class FakeFinder:
    """Says in the first view that faces lie at given boxes of the photo; counts the views."""

    def __init__(self, photo_px: int, boxes: list[tuple[float, float, float, float, float]]) -> None:
        self.photo_px, self.boxes, self.views = photo_px, boxes, []
        self.metadata = {"config": json.dumps({"strides": [8, 16, 32]})}

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        height, width = batch.shape[2:]
        self.views.append(width)
        maps = [np.full((1, 5, height // s, width // s), -9.0, np.float32) for s in (8, 16, 32)]
        scale = width / self.photo_px
        for x0, y0, x1, y1, score in self.boxes if len(self.views) == 1 else []:
            column, row = int((x0 + x1) * scale / 16), int((y0 + y1) * scale / 16)
            centre = np.array([(column + 0.5) * 8, (row + 0.5) * 8])
            low, high = centre - np.array([x0, y0]) * scale, np.array([x1, y1]) * scale - centre
            sides = np.log(np.concatenate([low, high]) / 8)
            maps[0][0, :, row, column] = [np.log(score / (1 - score)), *sides]
        return tuple(maps)


class FakeReader:
    """Looks at crops: points fill the crop's box, presence is read from the photo's brightness there."""

    crop_px, crop_scale, n_dense = 8, 1.6, 0

    def __init__(self) -> None:
        self.looked = self.twice = 0

    def crops(self, photo: np.ndarray, frames: np.ndarray) -> np.ndarray:
        x, y = frames[:, :2].astype(int).T
        return np.tile((photo[y, x] / np.float32(255))[:, :, None, None], (1, 1, 8, 8))

    def read(self, crops: np.ndarray) -> Look:
        n = len(crops)
        self.looked += n
        corners = np.tile(np.array([[-1.0, -1.0], [1.0, 1.0]], np.float32), (n, 34, 1)) / self.crop_scale
        ones, R = np.ones((n, 68), np.float32), np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
        return Look(corners, 0.01 * ones, R, crops.mean((1, 2, 3)), ones)

    def read_twice(self, crops: np.ndarray, known: Look) -> Look:
        new = self.read(crops[len(known.presence) :])
        self.twice += len(crops)
        return join_looks([known, new])


def fake_detector(finder: FakeFinder, reader: FakeReader) -> FaceDetector:
    detector = FaceDetector(threads=1)
    detector._finder, detector._reader = finder, reader  # pyright: ignore
    return detector


def first_looks(boxes: list[tuple[float, float, float, float, float]], faces: list[int]) -> tuple[int, int]:
    """Numbers of crops looked at first and of views, in a 512 px photo where some boxes are faces."""
    photo = np.zeros((512, 512, 3), np.uint8)
    for i in faces:
        x0, y0, x1, y1 = map(int, boxes[i][:4])
        photo[y0:y1, x0:x1] = 255
    finder, reader = FakeFinder(512, boxes), FakeReader()
    detector = fake_detector(finder, reader)
    found, scores = detector._find(photo)
    detector._first_look(photo, found, scores)
    return reader.looked, len(finder.views)


def test_effort_follows_what_the_finder_says() -> None:
    big = (100.0, 100.0, 220.0, 220.0, 0.9)
    weak = [
        (20.0 + 60 * i, 400.0, 50.0 + 60 * i, 430.0, s)
        for i, s in enumerate((0.6, 0.29, 0.28, 0.27, 0.26, 0.255))
    ]
    small = (300.0, 100.0, 340.0, 140.0, 0.9)
    # One dominant face: one view, one look; the next best candidate gets a look only if it is fairly sure.
    assert first_looks([big], [0]) == (1, 1)
    assert first_looks([big, *weak[1:]], [0]) == (1, 1)
    assert first_looks([big, *weak], [0]) == (2, 1)
    # A second face among the weak ones is found and keeps the search going, two at a time.
    assert first_looks([big, *weak], [0, 1]) == (4, 1)
    assert first_looks([big, *weak], [0, 1, 2]) == (6, 1)
    # No dominant face: overview and fine view too.
    assert first_looks([small], [0])[1] == 3
    # Nothing sure: two looks, then no more.
    assert first_looks(weak, []) == (2, 3)


def test_only_what_can_become_a_face_gets_a_second_look() -> None:
    """Presence times the finder's score bounds the score; the others are merged as before, then dropped."""
    boxes = [(100.0, 100.0, 220.0, 220.0, 0.9), (300.0, 300.0, 420.0, 420.0, 0.9)]
    for brightness, expected in ((255, 2), (170, 2), (160, 1), (60, 1)):
        photo = np.zeros((512, 512, 3), np.uint8)
        photo[100:220, 100:220], photo[300:420, 300:420] = 255, brightness
        finder, reader = FakeFinder(512, boxes), FakeReader()
        found = fake_detector(finder, reader).detect(photo)
        assert (len(found), reader.twice) == (expected, expected)
        bound = face_score(np.array([0.9]), np.array([brightness / 255]), np.zeros(1))
        assert (expected == 2) == bool(bound >= DetectConfig().min_score)


def test_a_photo_may_be_read_only_and_is_left_as_it_is(detector: FaceDetector) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    before = photo.copy()
    photo.flags.writeable = False
    detector.detect(photo)
    assert np.array_equal(photo, before)


def test_faces_do_not_depend_on_what_was_seen_before(detector: FaceDetector) -> None:
    config = DetectConfig(min_finder_score=0.01, min_presence=0.0, min_score=0.0, max_candidates=5)
    asked, rng = FaceDetector(threads=1, config=config), np.random.default_rng(3)
    photo, other = (rng.integers(0, 256, (n, 128, 3), dtype=np.uint8) for n in (96, 200))
    first = asked.detect(photo)
    asked.detect(other)
    again = asked.detect(photo)
    assert len(first) == len(again) > 0
    for a, b in zip(first, again, strict=True):
        assert a.score == b.score and torch.equal(a.landmarks68_px, b.landmarks68_px)


def test_synthetic_people_are_found_where_they_are(detector: FaceDetector) -> None:
    from hiface import load_model
    from hiface.synthetic.generator import generate_batch

    errors, seen = [], 0
    for sample in generate_batch(load_model("open"), seeds=range(30, 42), size=192):
        box = box_of_points(sample.landmarks68_px)
        if not bool(((box[:2] > 8) & (box[2:] < 184)).all()) or sample.visible68.float().mean() < 0.85:
            continue
        seen += 1
        image = np.ascontiguousarray(sample.image_srgb.permute(1, 2, 0).numpy())
        size = float((box[2:] - box[:2]).max())
        distances = [
            (d.landmarks68_px - sample.landmarks68_px).norm(dim=-1).mean() / size
            for d in detector.detect(image)
        ]
        errors.append(min(map(float, distances), default=1.0))
    assert seen >= 3 and float(np.median(errors)) < 0.04, errors


def test_looking_again_finds_the_same_face_without_a_search(detector: FaceDetector) -> None:
    from hiface import load_model
    from hiface.synthetic.generator import generate_batch

    seen = 0
    for sample in generate_batch(load_model("open"), seeds=range(30, 36), size=192):
        image = np.ascontiguousarray(sample.image_srgb.permute(1, 2, 0).numpy())
        found = detector.detect(image)[:1]
        if not found or found[0].score < 0.8:
            continue
        seen += 1
        size = float((found[0].box[2:] - found[0].box[:2]).max())
        moved = found[0].landmarks68_px.numpy()[None] + 0.15 * size
        (again,) = detector.look_again(image, moved)
        assert again is not None and again.score > 0.8
        off = (again.landmarks68_px - found[0].landmarks68_px).norm(dim=1).mean()
        assert off < 0.02 * size
        assert detector.look_again(np.full_like(image, 90), moved) == [None]
    assert seen >= 3
    assert detector.look_again(image, np.zeros((0, 68, 2), np.float32)) == []
