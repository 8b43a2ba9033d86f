# SPDX-License-Identifier: Apache-2.0
"""Who is who in a video: tracklets of one person are joined, through cuts, absences and crossings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.tracking.sightings import Sighting, unlikeness

SAME = 0.4
"""One minus the cosine of mean identities up to which two tracklets of one video are one person."""
_SHORT = 4  # frames under which a tracklet that is like nobody counts as a mistake
_LEAST_S = 1.0  # for which a person of one's own is seen
_LEAST_SHARE = 0.25  # the same in short videos, of all frames
_KNOWN = 64  # people that a live track remembers


@dataclass(frozen=True)
class Person:
    """Somebody in a video.

    Attributes:
        sightings: In order, at most one in a frame.
    """

    sightings: tuple[Sighting, ...]

    @property
    def size(self) -> float:
        """How much of the video the face fills: its width over the picture's, summed over the frames."""
        return sum(
            float(s.detection.box[2] - s.detection.box[0]) / s.read.camera.width for s in self.sightings
        )


def people_of(
    sightings: Sequence[Sighting], identity_sigma: Tensor, n_frames: int, fps: float
) -> tuple[list[Person], int]:
    """Joins tracklets into people, those who fill most of the pictures first.

    Tracklets that share a frame are different people. Two that do not are joined if their mean identities
    are alike; the likest pair first, and means are taken anew after each join.

    Args:
        sightings: Of all frames.
        identity_sigma: [K].
        n_frames: Of the video.
        fps: Frames a second.

    Returns:
        The people, by `Person.size`, then by who comes first; and how many more were seen for less than a
        second (a quarter of a short video), who are left out. Some frames that are like nobody are nobody.
    """
    tracklets: dict[int, list[Sighting]] = {}
    for sighting in sightings:
        tracklets.setdefault(sighting.tracklet, []).append(sighting)
    groups = _joined(list(tracklets.values()), identity_sigma)
    people = [Person(tuple(sorted(group, key=lambda s: s.frame))) for group in groups]
    people.sort(key=lambda person: (-person.size, person.sightings[0].frame))
    people = [person for person in people if len(person.sightings) >= _SHORT] or people[:1]
    least = min(_LEAST_S * fps, _LEAST_SHARE * n_frames)
    kept = [person for person in people if len(person.sightings) >= least] or people[:1]
    return kept, len(people) - len(kept)


def _joined(tracklets: list[list[Sighting]], identity_sigma: Tensor) -> list[list[Sighting]]:
    """Tracklets that are alike as one, the likest pair first."""
    if not tracklets:
        return []
    groups = [list(tracklet) for tracklet in tracklets]
    sums = torch.stack([_weighted(group, identity_sigma) for group in groups])
    barred = _share_frames(groups)
    units = F.normalize(sums, dim=1)
    apart = (1.0 - units @ units.T).masked_fill(barred, torch.inf)
    while True:
        a, b = divmod(int(apart.argmin()), len(groups))
        if float(apart[a, b]) > SAME:
            return [group for group in groups if group]
        groups[a], groups[b] = groups[a] + groups[b], []
        sums[a] += sums[b]
        barred[a] |= barred[b]
        barred[:, a] = barred[a]
        barred[b] = barred[:, b] = True
        row = 1.0 - F.cosine_similarity(sums, sums[a], dim=-1)
        apart[a] = apart[:, a] = row.masked_fill(barred[a], torch.inf)
        apart[b] = apart[:, b] = torch.inf


def _weighted(group: Sequence[Sighting], identity_sigma: Tensor) -> Tensor:
    """[K] sum of identities over their standard deviations, surer sightings counting more."""
    ids = torch.stack([s.read.identity for s in group]) / identity_sigma
    return (ids * torch.tensor([s.detection.score for s in group])[:, None]).sum(0)


def _share_frames(groups: Sequence[Sequence[Sighting]]) -> Tensor:
    """[G, G] whether two groups have a frame in common; each has with itself."""
    there: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        for sighting in group:
            there.setdefault(sighting.frame, []).append(number)
    shared = torch.zeros(len(groups), len(groups), dtype=torch.bool)
    for numbers in {tuple(numbers) for numbers in there.values()}:
        shared[np.ix_(numbers, numbers)] = True
    return shared


class Acquaintances:
    """The same while a video runs: each new tracklet is somebody known, or somebody new.

    Args:
        identity_sigma: [K].
    """

    def __init__(self, identity_sigma: Tensor) -> None:
        self._sigma = identity_sigma
        self._means: dict[int, tuple[Tensor, float]] = {}  # who was seen last comes last
        self._followed: dict[int, int] = {}
        self._people = 0

    def people_of(self, sightings: Sequence[Sighting]) -> list[int]:
        """Who is in a frame.

        Args:
            sightings: Of the frame.

        Returns:
            A number, from 1, for each of them, all different. Tracklets keep theirs; a new one is the likest
            of those who are not in the frame, or somebody new. Of the people who were seen longest ago, those
            over some number are forgotten.
        """
        before = self._followed
        self._followed = {s.tracklet: before[s.tracklet] for s in sightings if s.tracklet in before}
        for sighting in sightings:
            likeness = sighting.read.identity / self._sigma
            if sighting.tracklet not in self._followed:
                self._followed[sighting.tracklet] = self._recognised(likeness)
            number, more = self._followed[sighting.tracklet], sighting.detection.score
            mean, weight = self._means.pop(number, (torch.zeros_like(likeness), 0.0))
            mean = (mean * weight + likeness * more) / (weight + more)
            self._means[number] = mean, min(weight + more, 100.0)
        while len(self._means) > max(_KNOWN, len(sightings)):
            del self._means[next(iter(self._means))]
        return [self._followed[s.tracklet] for s in sightings]

    @property
    def followed(self) -> dict[int, int]:
        """Tracklets of the last frame, and whose they are."""
        return self._followed

    def __contains__(self, number: object) -> bool:
        """Whether a person is remembered."""
        return number in self._means

    def _recognised(self, likeness: Tensor) -> int:
        present = set(self._followed.values())
        off = {n: unlikeness(likeness, mean) for n, (mean, _) in self._means.items() if n not in present}
        nearest = min(off, key=lambda n: off[n], default=None)
        if nearest is not None and off[nearest] <= SAME:
            return nearest
        self._people += 1
        return self._people
