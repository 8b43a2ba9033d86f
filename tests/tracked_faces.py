# SPDX-License-Identifier: Apache-2.0
"""Faces for tests of tracking: sightings, a detector that says what a script says, a short clip."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

import hiface
from hiface.fitting.initialise import mean_face
from hiface.networks.detect import Detection
from hiface.synthetic.clips import generate_clip
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, open_model
from hiface.synthetic.generator import Style
from hiface.tracking.live import drawn_face
from hiface.tracking.sightings import FaceWatcher, Sighting, WatchConfig

SIZE = 256
GAP = range(12, 24)  # longer than what is filled in
PERSON = (HOLDOUT_SEED + 17) * SEED_STRIDE + 9


def write_clip(folder):
    """Writes 30 frames of a person with an empty stretch into a folder; gives the samples."""
    samples = generate_clip(open_model(), PERSON, Style(SIZE), 30)
    for k, sample in enumerate(samples):
        picture = sample.image_srgb.permute(1, 2, 0).numpy()
        picture = np.full_like(picture, 90) if k in GAP else picture
        Image.fromarray(picture).save(folder / f"{k:03d}.png")
    return samples


def sighting(tracklet, frame, identity, expression=None, yaw=0.0, score=0.9, place=0.0):
    model = hiface.load_model()
    person = mean_face(model, SIZE, SIZE, 300.0)
    person = person.replace(identity=identity, static=torch.zeros(4))
    if expression is not None:
        person = person.replace(expression=expression)
    turn = torch.tensor([[np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0], [np.sin(yaw), 0, -np.cos(yaw)]])
    seen = replace(drawn_face(model, person), score=score, R_cam_object=turn.float())
    moved = {name: getattr(seen, name) + place for name in ("landmarks68_px", "dense_px", "iris_px", "box")}
    return Sighting(tracklet, frame, frame / 25, replace(seen, **moved), person)


def identities(*seeds):
    return [torch.from_numpy(np.random.default_rng(seed).normal(0, 1, 150)).float() for seed in seeds]


class Scripted:
    """Says who is where in each frame: a detector without pictures."""

    config = hiface.Reconstructor.__init__.__globals__["FaceDetector"](threads=1).config

    def __init__(self, script):
        self.script, self.frame, self.searches = script, 0, 0

    def with_config(self, config):
        return self

    def detect(self, image, focal):
        self.searches += 1
        return [s.detection for s in self.script[self.frame]]

    def look_again(self, image, places, focal):
        """The nearest face within half a face of each place."""
        out: list[Detection | None] = []
        for place in places:
            near = [
                (float((s.detection.landmarks68_px.mean(0) - torch.from_numpy(place).mean(0)).norm()), k)
                for k, s in enumerate(self.script[self.frame])
            ]
            best = min(near, default=(np.inf, 0))
            out.append(self.script[self.frame][best[1]].detection if best[0] < 60 else None)
        return out


def watched(script, config=None):
    detector = Scripted(script)
    by_detection = {id(s.detection): s.read for frame in script for s in frame}

    def read(image, detections):
        people = [by_detection[id(d)] for d in detections]
        return people, None

    watcher = FaceWatcher(detector, read, torch.ones(150), config or WatchConfig())
    grey, found = np.full((64, 64, 3), 90, np.uint8), []
    for frame in range(len(script)):
        detector.frame = frame
        found.append([s.tracklet for s in watcher.step(grey, frame, frame / 25, 300.0)])
    return found, detector
