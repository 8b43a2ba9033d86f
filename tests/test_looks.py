# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np

from hiface.networks.looks import LandmarkReader, join_looks, mean_look

MIRROR = [1, 0, 2]


class FakeRunner:
    """Finds the brightest row and column of a crop; counts what it was given."""

    def __init__(self) -> None:
        config = {"crop_px": 8, "crop_scale": 1.6, "n_dense": 0}
        self.metadata = {"config": json.dumps(config), "mirror": json.dumps(MIRROR)}
        self.crops = 0

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        self.crops += len(batch)
        n = len(batch)
        column = batch.mean(axis=(1, 2)).argmax(axis=1)
        x = ((column + 0.5) / 4 - 1).astype(np.float32)
        points = np.stack([np.stack([x - 0.1, x + 0.1, x], axis=1), np.zeros((n, 3), np.float32)], axis=-1)
        log_sigma = np.tile(np.array([-3.0, -2.0, -1.0], np.float32), (n, 1))
        rotation = np.tile(np.array([1.0, 0, 0, 0, 1, 0], np.float32), (n, 1))
        visible = np.tile(np.array([4.0, -4.0, 0.0], np.float32), (n, 1))
        return points.astype(np.float32), log_sigma, rotation, np.zeros(n, np.float32), visible


def crops(columns: list[int]) -> np.ndarray:
    out = np.zeros((len(columns), 3, 8, 8), np.float32)
    for i, column in enumerate(columns):
        out[i, :, :, column] = 1.0
    return out


def test_the_mirror_image_says_the_same_of_each_point() -> None:
    runner = FakeRunner()
    reader = LandmarkReader(runner)
    seen = crops([1, 6])
    once, twice = reader.read(seen), reader.read_twice(seen)
    assert np.allclose(once.points, twice.points, atol=1e-6)
    assert np.allclose(twice.sigma[:, 0], 0.5 * (once.sigma[:, 0] + once.sigma[:, 1]))
    assert np.allclose(twice.R_crop, np.eye(3), atol=1e-6)
    assert np.allclose(twice.presence, 0.5)
    assert (once.visible[:, 0] > 0.9).all() and (once.visible[:, 1] < 0.1).all()
    assert np.allclose(twice.visible, 0.5, atol=1e-6)  # a point and its mirror image


def test_what_is_known_is_not_read_again() -> None:
    runner = FakeRunner()
    reader = LandmarkReader(runner)
    seen = crops([1, 6, 3])
    known = reader.read(seen[:2])
    runner.crops = 0
    again = reader.read_twice(seen, known)
    assert runner.crops == 4
    whole = reader.read_twice(seen)
    assert np.array_equal(again.points, whole.points) and np.array_equal(again.sigma, whole.sigma)
    reader.read_twice(seen[:2], known)
    assert runner.crops == 4 + 6 + 2


def test_looks_are_taken_joined_and_averaged() -> None:
    look = LandmarkReader(FakeRunner()).read(crops([0, 5, 7]))
    both = join_looks([look.take(slice(0, 1)), look.take(np.array([1, 2]))])
    assert np.array_equal(both.points, look.points) and np.array_equal(both.presence, look.presence)
    assert np.array_equal(both.visible, look.visible)
    assert np.allclose(mean_look(look, look).points, look.points)
    back = look.mirrored(np.array(MIRROR)).mirrored(np.array(MIRROR))
    assert np.array_equal(back.points, look.points) and np.array_equal(back.R_crop, look.R_crop)
