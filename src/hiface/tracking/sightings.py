# SPDX-License-Identifier: Apache-2.0
"""Finds the faces of a video's frames and follows each from frame to frame.

A face that was seen is looked for where it was (`FaceDetector.look_again`), which costs a tenth of a search.
The whole picture is searched at cuts, when a face was lost, and twice a second for newcomers. What is
followed without a break is one tracklet; who it is, is decided elsewhere (`hiface.tracking.people`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.networks.boxes import iou_matrix
from hiface.networks.detect import DetectConfig, Detection, FaceDetector
from hiface.tracking.cuts import CutDetector
from hiface.types import FaceParams

Read = Callable[[np.ndarray, list[Detection]], FaceParams]
"""A picture [H, W, 3] and N faces in it to their coefficients, with a leading dimension of N."""


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        tracklet: Number of what is followed without a break.
        frame: Number of the frame.
        time_s: Its time.
        detection: Landmarks.
        read: Coefficients as the network reads them.
    """

    tracklet: int
    frame: int
    time_s: float
    detection: Detection
    read: FaceParams


@dataclass(frozen=True)
class WatchConfig:
    """How frames are searched.

    Attributes:
        search_every_s: Seconds between searches of the whole picture while all faces are followed.
        search_lost_s: The same after a face was lost, so that one that was hidden is soon back.
        lost_for_s: How long after.
        idle_fine_every: While nobody is seen, every how many frames the fine view is searched too.
        fine_side_px: Longer side of the fine view: in videos, faces smaller than a fiftieth of the picture
            have no expression that could be read.
        newcomer_iou: Overlap with a followed face from which a find is that face.
        twin_iou: Overlap from which two followed faces have met on one face.
        leap: Distance over the face's size that a face may be off the place where it was expected.
        unlike: One minus the cosine of identities at which a frame shows somebody else.
        strikes: Frames in a row that show somebody else before a tracklet ends.
        memory: Frames over which a tracklet's identity is averaged.
    """

    search_every_s: float = 0.5
    search_lost_s: float = 0.1
    lost_for_s: float = 2.0
    idle_fine_every: int = 5
    fine_side_px: int = 1024
    newcomer_iou: float = 0.3
    twin_iou: float = 0.5
    leap: float = 0.5
    unlike: float = 0.45
    strikes: int = 3
    memory: int = 30


@dataclass
class _Followed:
    """A face that was in the last frame."""

    number: int
    sighting: Sighting
    velocity_px: np.ndarray
    likeness: Tensor
    count: int = 1
    strikes: int = 0


@dataclass
class FaceWatcher:
    """Follows the faces of one video; frames come in order.

    Args:
        detector: Finds faces and landmarks.
        read: The network of coefficients.
        identity_sigma: [K] standard deviations by which identities are compared.
        config: How frames are searched.
        cuts: Frames so far that began another scene.
    """

    detector: FaceDetector
    read: Read
    identity_sigma: Tensor
    config: WatchConfig = field(default_factory=WatchConfig)
    cuts: list[int] = field(default_factory=list)
    _scenes: CutDetector = field(default_factory=CutDetector)
    _followed: list[_Followed] = field(default_factory=list)
    _next: int = 0
    _searched_s: float = -np.inf
    _lost_s: float = -np.inf
    _idle: int = 0

    def __post_init__(self) -> None:
        everything = replace(self.detector.config, fine_side_px=self.config.fine_side_px)
        base = DetectConfig.base_side_px
        self._full = self.detector.with_config(everything)
        self._quick = self.detector.with_config(replace(everything, fine_side_px=base))

    def step(self, image_srgb: np.ndarray, frame: int, time_s: float, focal_px: float) -> list[Sighting]:
        """The faces of the next frame.

        Args:
            image_srgb: [H, W, 3] uint8, upright, of the same size in all frames.
            frame: Number of the frame.
            time_s: Its time, later than the last one's.
            focal_px: Focal length, pixels.

        Returns:
            One sighting for each face, in the order of their tracklets.
        """
        if self._scenes.step(image_srgb):
            self.cuts.append(frame)
            self._followed, self._searched_s = [], -np.inf
        found, lost = self._look_again(image_srgb, focal_px)
        self._lost_s = time_s if lost else self._lost_s
        soon = time_s - self._lost_s <= self.config.lost_for_s
        wait_s = self.config.search_lost_s if soon else self.config.search_every_s
        if lost or not self._followed or time_s - self._searched_s >= wait_s - 1e-9:
            found += self._newcomers(image_srgb, focal_px, [d for _, d in found])
            self._searched_s = time_s
        self._idle = 0 if found else self._idle + 1
        if not found:
            self._followed = []
            return []
        read = self.read(image_srgb, [d for _, d in found])
        kept = [self._taken(old, Sighting(0, frame, time_s, d, read[i])) for i, (old, d) in enumerate(found)]
        self._followed = self._without_twins(kept)
        return [face.sighting for face in self._followed]

    @property
    def tracklets(self) -> int:
        """Number of tracklets so far."""
        return self._next

    def resume(self, last: Sequence[Sighting], tracklets: int, cuts: Sequence[int]) -> None:
        """Goes on after frames that were seen before.

        Args:
            last: Of the last of these frames.
            tracklets: How many there were.
            cuts: Frames among them that began another scene.
        """
        self._next, self.cuts = tracklets, list(cuts)
        still, sigma = np.zeros(2, np.float32), self.identity_sigma
        self._followed = [_Followed(s.tracklet, s, still, s.read.identity / sigma) for s in last]

    def _look_again(
        self, image_srgb: np.ndarray, focal_px: float
    ) -> tuple[list[tuple[_Followed | None, Detection]], bool]:
        """Followed faces with what is seen of them now, and whether one was lost."""
        if not self._followed:
            return [], False
        places = np.stack(
            [f.sighting.detection.landmarks68_px.numpy() + f.velocity_px for f in self._followed]
        )
        found: list[tuple[_Followed | None, Detection]] = []
        again = self.detector.look_again(image_srgb, places.astype(np.float32), focal_px)
        for old, place, now in zip(self._followed, places, again, strict=True):
            if now is None:
                continue
            size = float((now.box[2:] - now.box[:2]).max())
            off = np.abs(now.landmarks68_px.numpy().mean(0) - place.mean(0)).max()
            if off <= self.config.leap * size:
                found.append((old, now))
        return found, len(found) < len(self._followed)

    def _newcomers(
        self, image_srgb: np.ndarray, focal_px: float, known: list[Detection]
    ) -> list[tuple[_Followed | None, Detection]]:
        """Faces that are not followed yet."""
        thorough = self._idle % self.config.idle_fine_every == 0
        found = (self._full if thorough else self._quick).detect(image_srgb, focal_px)
        if found and known:
            boxes = [np.stack([d.box.numpy() for d in group]) for group in (found, known)]
            far = iou_matrix(*boxes).max(axis=1) < self.config.newcomer_iou
            found = [d for d, new in zip(found, far, strict=True) if new]
        return [(None, d) for d in found]

    def _taken(self, old: _Followed | None, seen: Sighting) -> _Followed:
        """A face in this frame: what was followed goes on, or something new begins."""
        likeness = seen.read.identity / self.identity_sigma
        if old is None:
            return self._begun(seen, likeness)
        strikes = old.strikes + 1 if unlikeness(likeness, old.likeness) > self.config.unlike else 0
        if strikes >= self.config.strikes:
            return self._begun(seen, likeness)
        now, before = seen.detection.landmarks68_px, old.sighting.detection.landmarks68_px
        share = 0.0 if strikes else 1.0 / min(old.count + 1, self.config.memory)
        return _Followed(
            old.number,
            replace(seen, tracklet=old.number),
            (now - before).mean(0).numpy(),
            old.likeness + share * (likeness - old.likeness),
            old.count + 1,
            strikes,
        )

    def _begun(self, seen: Sighting, likeness: Tensor) -> _Followed:
        number, self._next = self._next, self._next + 1
        return _Followed(number, replace(seen, tracklet=number), np.zeros(2, np.float32), likeness)

    def _without_twins(self, faces: list[_Followed]) -> list[_Followed]:
        """Of followed faces that have met on one face, the one that it is most like stays."""
        if len(faces) < 2:
            return faces
        boxes = np.stack([f.sighting.detection.box.numpy() for f in faces])
        overlap = iou_matrix(boxes, boxes)
        off = [unlikeness(f.sighting.read.identity / self.identity_sigma, f.likeness) for f in faces]
        order = sorted(range(len(faces)), key=lambda i: (faces[i].count == 1, off[i]))
        kept: list[int] = []
        for i in order:
            if all(overlap[i, k] < self.config.twin_iou for k in kept):
                kept.append(i)
        return [faces[i] for i in sorted(kept)]


def unlikeness(a: Tensor, b: Tensor) -> float:
    """One minus the cosine of two identities [K] over their standard deviations: 0 alike, 1 unrelated."""
    return 1.0 - float(F.cosine_similarity(a, b, dim=0))


def mean_likeness(sightings: list[Sighting], identity_sigma: Tensor) -> Tensor:
    """[K] mean identity over its standard deviations of a tracklet, surer sightings counting more."""
    ids = torch.stack([s.read.identity for s in sightings]) / identity_sigma
    weight = torch.tensor([s.detection.score for s in sightings])
    return (ids * weight[:, None]).sum(0) / weight.sum()
