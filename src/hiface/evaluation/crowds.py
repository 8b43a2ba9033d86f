# SPDX-License-Identifier: Apache-2.0
"""Pictures of several people that no network was trained on, and what finder and detector find in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hiface.errors import AssetError
from hiface.evaluation.finding import BANDS_PX, Finds, match_finds
from hiface.networks.boxes import decode_maps, suppress
from hiface.networks.detect import FaceDetector
from hiface.networks.runtime import Runner
from hiface.synthetic.datasets import HOLDOUT_SEED
from hiface.training.augment import BackgroundBank
from hiface.training.collages import CollageConfig, make_collages
from hiface.training.shards import Samples, ShardSet, manifest_of

HARD = CollageConfig(size=416, max_people=12, min_face_px=16.0, max_face_px=240.0)
PLAIN = replace(HARD, empty=0.0, faceless=0.0, clutter=0.0, margin=0.0)
CROWDS = {"crowds": PLAIN, "hard crowds": HARD}
LEAST_SCORE = 0.05
_BACKGROUNDS = 96
_MIN_SEEN = 0.35  # share of the 68 points


@dataclass(frozen=True)
class Crowd:
    """One picture of a crowd.

    Attributes:
        image_srgb: [S, S, 3] uint8.
        boxes: [M, 4] faces, x0, y0, x1, y1 pixels.
        counts: [M] bool; a face that is too small, hidden, cut or blurred does not count.
    """

    image_srgb: np.ndarray
    boxes: np.ndarray
    counts: np.ndarray


class _Seen(ShardSet):
    """People whose face is not hidden by what they hold or wear, of those kept for measuring."""

    def __init__(self, folder: Path) -> None:
        super().__init__((folder,), validation=True)

    def draw(self, rng: np.random.Generator, count: int, segmentation: bool = True) -> Samples:
        """Random samples, with replacement."""
        ids = rng.integers(len(self), size=4 * count)
        seen = self.take(ids, segmentation=False).visible[:, :68].float().mean(dim=1) >= _MIN_SEEN
        order = np.argsort(~seen.numpy(), kind="stable")
        return self.take(ids[order[:count]], segmentation)


def held_crowds(folder: Path, count: int, seed: int = 0, config: CollageConfig = PLAIN) -> Iterator[Crowd]:
    """Composes crowds of people of a hold-out set, as a camera would have taken them.

    Args:
        folder: Shards made by `write_holdout`.
        count: Number of pictures.
        seed: Seed.
        config: What the pictures hold. `PLAIN` has people only. In `HARD` a sixth of them have their face
            painted over or its pieces shuffled, pieces of people lie about, a tenth of the pictures has no
            face at all.

    Yields:
        Crowds; faces of at least 24 px count that are neither mostly hidden nor blurred beyond recognition.

    Raises:
        AssetError: The people do not belong to the data sets kept for measuring.
    """
    if manifest_of(folder).get("seed", -1) < HOLDOUT_SEED:
        fix = f"make a hold-out set with: hiface synth --seed {HOLDOUT_SEED} -o FOLDER"
        raise AssetError(f"{folder} holds people that a network may have been trained on; {fix}")
    people = _Seen(folder)
    backgrounds = BackgroundBank(_BACKGROUNDS, config.size, seed + 12345)
    for number in range(count):
        batch = make_collages(np.random.default_rng([seed, number, 17]), people, 1, config, backgrounds)
        there = batch.kind[0] != 0
        boxes = batch.boxes[0][there].numpy()
        large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0) >= BANDS_PX[0]
        image = (batch.images[0] * 255.0 + 0.5).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        yield Crowd(image, boxes, (batch.kind[0][there] > 0).numpy() & large)


def finds_of_detector(detector: FaceDetector, crowd: Crowd) -> Finds:
    """What the whole detector finds; make it with a low `DetectConfig.min_score`."""
    found = detector.detect(crowd.image_srgb)
    boxes = np.stack([d.box.numpy() for d in found]) if found else np.zeros((0, 4), np.float32)
    return match_finds(boxes, np.asarray([d.score for d in found]), crowd.boxes, crowd.counts)


def finds_of_finder(finder: Runner, crowd: Crowd) -> Finds:
    """What one pass of the finder alone finds, at the picture's own size (a multiple of 32)."""
    strides = tuple(json.loads(finder.metadata["config"])["strides"])
    planes = crowd.image_srgb.astype(np.float32).transpose(2, 0, 1)[None] / 255.0
    boxes, scores = decode_maps(finder(planes), strides, LEAST_SCORE)
    kept = suppress(boxes, scores, 0.45)
    return match_finds(boxes[kept], scores[kept], crowd.boxes, crowd.counts)
