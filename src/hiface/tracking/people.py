# SPDX-License-Identifier: Apache-2.0
"""Who is who in a video: tracklets of one person are joined, through cuts, absences and crossings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.tracking.sightings import Sighting, mean_likeness, unlikeness

SAME = 0.4
"""One minus the cosine of mean identities up to which two tracklets of one video are one person."""
_SHORT = 4  # frames under which a tracklet that is like nobody counts as a mistake
_LEAST_SHARE = 0.02  # of the video's frames that a person of one's own is seen in


@dataclass(frozen=True)
class Person:
    """Somebody in a video.

    Attributes:
        sightings: In order, at most one in a frame.
        likeness: [K] mean identity over its standard deviations.
    """

    sightings: tuple[Sighting, ...]
    likeness: Tensor


def people_of(sightings: Sequence[Sighting], identity_sigma: Tensor, n_frames: int) -> list[Person]:
    """Joins tracklets into people, the longest first.

    Tracklets that share a frame are different people. Two that do not are joined if their mean identities
    are alike; the likest pair first, and means are taken anew after each join.

    Args:
        sightings: Of all frames.
        identity_sigma: [K].
        n_frames: Of the video.

    Returns:
        The people, by how often they are seen. Short tracklets that are like nobody are left out.
    """
    tracklets: dict[int, list[Sighting]] = {}
    for sighting in sightings:
        tracklets.setdefault(sighting.tracklet, []).append(sighting)
    groups = [Person(tuple(t), mean_likeness(t, identity_sigma)) for t in tracklets.values()]
    while True:
        pair = _likest_pair(groups)
        if pair is None:
            break
        a, b = pair
        joined = sorted((*groups[a].sightings, *groups[b].sightings), key=lambda s: s.frame)
        groups = [g for i, g in enumerate(groups) if i not in pair]
        groups.append(Person(tuple(joined), mean_likeness(joined, identity_sigma)))
    least = max(_SHORT, _LEAST_SHARE * n_frames)
    groups.sort(key=lambda g: (-len(g.sightings), g.sightings[0].frame))
    kept = [g for g in groups if len(g.sightings) >= least]
    return kept or groups[:1]


def _likest_pair(groups: Sequence[Person]) -> tuple[int, int] | None:
    frames = [{s.frame for s in g.sightings} for g in groups]
    best, found = SAME, None
    for a in range(len(groups)):
        for b in range(a + 1, len(groups)):
            if frames[a] & frames[b]:
                continue
            distance = unlikeness(groups[a].likeness, groups[b].likeness)
            if distance <= best:
                best, found = distance, (a, b)
    return found


class Acquaintances:
    """The same while a video runs: each new tracklet is somebody known, or somebody new.

    Args:
        identity_sigma: [K].
    """

    def __init__(self, identity_sigma: Tensor) -> None:
        self._sigma = identity_sigma
        self._means: dict[int, tuple[Tensor, float]] = {}
        self._of_tracklet: dict[int, int] = {}

    def person_of(self, sighting: Sighting, present: Mapping[int, int]) -> int:
        """Number of a person, from 1.

        Args:
            sighting: Of the frame.
            present: Tracklet to person of the other faces in the frame, who this cannot be.
        """
        likeness = sighting.read.identity / self._sigma
        number = self._of_tracklet.get(sighting.tracklet)
        if number is None:
            free = [n for n in self._means if n not in present.values()]
            off = {n: unlikeness(likeness, self._means[n][0]) for n in free}
            nearest = min(off, key=lambda n: off[n], default=None)
            number = len(self._means) + 1 if nearest is None or off[nearest] > SAME else nearest
            self._of_tracklet[sighting.tracklet] = number
        mean, weight = self._means.get(number, (torch.zeros_like(likeness), 0.0))
        more = sighting.detection.score
        self._means[number] = (mean * weight + likeness * more) / (weight + more), min(weight + more, 100.0)
        return number
