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
import torch.nn.functional as F
from torch import Tensor

from hiface.networks.boxes import iou_matrix
from hiface.networks.detect import DetectConfig, Detection, FaceDetector
from hiface.tracking.cuts import CutDetector
from hiface.types import FaceParams

Read = Callable[[np.ndarray, list[Detection]], tuple[FaceParams, Tensor | None]]
"""A picture [H, W, 3] and N faces in it to their coefficients and traces (`HifaceReader.read_traced`)."""


@dataclass(frozen=True)
class Sighting:
    """One face in one frame.

    Attributes:
        tracklet: Number of what is followed without a break.
        frame: Number of the frame.
        time_s: Its time.
        detection: Landmarks.
        read: Coefficients as the network reads them.
        trace: [C] what changes of expression are read from, if anything.
    """

    tracklet: int
    frame: int
    time_s: float
    detection: Detection
    read: FaceParams
    trace: Tensor | None = None


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


@dataclass(frozen=True)
class Followed:
    """A face that was in the last frame.

    Attributes:
        sighting: In that frame.
        velocity_px: [2] by which it moved.
        likeness: [K] mean identity over its standard deviations.
        count: Frames so far.
        strikes: Last frames in a row that showed somebody else.
    """

    sighting: Sighting
    velocity_px: np.ndarray
    likeness: Tensor
    count: int = 1
    strikes: int = 0


@dataclass(frozen=True)
class WatchState:
    """What a watcher knows after a frame, besides the scene.

    Attributes:
        followed: Faces of the frame.
        tracklets: Number of tracklets so far.
        searched_s: When the whole picture was searched last.
        lost_s: When a face was lost last.
        idle: Last frames in a row without a face.
    """

    followed: Sequence[Followed] = ()
    tracklets: int = 0
    searched_s: float = -np.inf
    lost_s: float = -np.inf
    idle: int = 0


@dataclass
class FaceWatcher:
    """Follows the faces of one video; frames come in order.

    Args:
        detector: Finds faces and landmarks.
        read: The network of coefficients.
        identity_sigma: [K] standard deviations by which identities are compared.
        config: How frames are searched.
        state: What is known of the last frame's faces; to go on with an earlier run, that of its last frame.
        going_on: While `read` is called, numbers of the tracklets that go on in this frame.
    """

    detector: FaceDetector
    read: Read
    identity_sigma: Tensor
    config: WatchConfig = field(default_factory=WatchConfig)
    state: WatchState = field(default_factory=WatchState)
    going_on: list[int] = field(default_factory=list)
    _scenes: CutDetector = field(default_factory=CutDetector)

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
        state = self.state
        if self.skip(image_srgb, frame):
            state = replace(state, followed=(), searched_s=-np.inf)
        found, lost = self._look_again(image_srgb, state.followed, focal_px)
        self.going_on = [old.sighting.tracklet for old, _ in found if old is not None]
        lost_s, searched_s = time_s if lost else state.lost_s, state.searched_s
        soon = time_s - lost_s <= self.config.lost_for_s
        wait_s = self.config.search_lost_s if soon else self.config.search_every_s
        if lost or not state.followed or time_s - searched_s >= wait_s - 1e-9:
            thorough = state.idle % self.config.idle_fine_every == 0
            found += self._newcomers(image_srgb, focal_px, [d for _, d in found], thorough)
            searched_s = time_s
        read, traces = self.read(image_srgb, [d for _, d in found]) if found else ((), None)
        tracklets, faces = state.tracklets, []
        for i, (old, detection) in enumerate(found):
            trace = None if traces is None else traces[i]
            faces.append(self._taken(old, Sighting(tracklets, frame, time_s, detection, read[i], trace)))
            tracklets = max(tracklets, faces[-1].sighting.tracklet + 1)
        faces = self._without_twins(faces)
        idle = 0 if found else state.idle + 1
        self.state = WatchState(faces, tracklets, searched_s, lost_s, idle)
        return [face.sighting for face in faces]

    def skip(self, image_srgb: np.ndarray, frame: int) -> bool:
        """Takes note of a frame's scene, which is all that is done with frames that an earlier run has seen.

        Returns:
            Whether another scene begins.
        """
        return self._scenes.step(image_srgb, frame)

    @property
    def cuts(self) -> list[int]:
        """Frames so far that began another scene."""
        return self._scenes.cuts

    def _look_again(
        self, image_srgb: np.ndarray, followed: Sequence[Followed], focal_px: float
    ) -> tuple[list[tuple[Followed | None, Detection]], bool]:
        """Followed faces with what is seen of them now, and whether one was lost."""
        if not followed:
            return [], False
        places = np.stack([f.sighting.detection.landmarks68_px.numpy() + f.velocity_px for f in followed])
        found: list[tuple[Followed | None, Detection]] = []
        again = self.detector.look_again(image_srgb, places.astype(np.float32), focal_px)
        for old, place, now in zip(followed, places, again, strict=True):
            if now is None:
                continue
            size = float((now.box[2:] - now.box[:2]).max())
            off = np.abs(now.landmarks68_px.numpy().mean(0) - place.mean(0)).max()
            if off <= self.config.leap * size:
                found.append((old, now))
        return found, len(found) < len(followed)

    def _newcomers(
        self, image_srgb: np.ndarray, focal_px: float, known: list[Detection], thorough: bool
    ) -> list[tuple[Followed | None, Detection]]:
        """Faces that are not followed yet."""
        found = (self._full if thorough else self._quick).detect(image_srgb, focal_px)
        if found and known:
            boxes = [np.stack([d.box.numpy() for d in group]) for group in (found, known)]
            far = iou_matrix(*boxes).max(axis=1) < self.config.newcomer_iou
            found = [d for d, new in zip(found, far, strict=True) if new]
        return [(None, d) for d in found]

    def _taken(self, old: Followed | None, seen: Sighting) -> Followed:
        """A face in this frame: what was followed goes on, or something new begins, which `seen` is."""
        likeness = seen.read.identity / self.identity_sigma
        begun = Followed(seen, np.zeros(2, np.float32), likeness)
        if old is None:
            return begun
        strikes = old.strikes + 1 if unlikeness(likeness, old.likeness) > self.config.unlike else 0
        if strikes >= self.config.strikes:
            return begun
        now, before = seen.detection.landmarks68_px, old.sighting.detection.landmarks68_px
        share = 0.0 if strikes else 1.0 / min(old.count + 1, self.config.memory)
        return Followed(
            replace(seen, tracklet=old.sighting.tracklet),
            (now - before).mean(0).numpy(),
            old.likeness + share * (likeness - old.likeness),
            old.count + 1,
            strikes,
        )

    def _without_twins(self, faces: list[Followed]) -> list[Followed]:
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
