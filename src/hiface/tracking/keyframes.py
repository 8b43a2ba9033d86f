# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video a person is reconstructed from: sharp views from all sides, calm and well seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hiface.tracking.sightings import Sighting

_YAW_STEP = math.radians(15)
_APART_S = 0.2
_CALM = 0.3  # what a mean expression of 1 costs, in scores
_SMALL = 0.15  # what half the size costs


def choose_keyframes(sightings: Sequence[Sighting], count: int) -> list[Sighting]:
    """The frames that say most about a person.

    The best view of each sector of 15 degrees, the frontal sectors first; then the second best, and so on. A
    view is good if the networks are sure of it, the face is large, calm, and does not move.

    Args:
        sightings: Of one person, in order.
        count: Most frames.

    Returns:
        At most `count` sightings, at least 0.2 s apart, in order.
    """
    goodness = _goodness(sightings)
    sectors: dict[int, list[int]] = {}
    for i in sorted(range(len(sightings)), key=lambda i: -float(goodness[i])):
        sectors.setdefault(round(_yaw(sightings[i]) / _YAW_STEP), []).append(i)
    order = sorted(sectors, key=lambda sector: (abs(sector), sector))
    chosen: list[int] = []
    for turn in range(max((len(s) for s in sectors.values()), default=0)):
        for sector in order:
            if turn < len(sectors[sector]) and len(chosen) < count:
                i = sectors[sector][turn]
                if all(abs(sightings[i].time_s - sightings[k].time_s) >= _APART_S for k in chosen):
                    chosen.append(i)
        if len(chosen) >= count:
            break
    return [sightings[i] for i in sorted(chosen)]


def _goodness(sightings: Sequence[Sighting]) -> Tensor:
    score = torch.tensor([s.detection.score for s in sightings])
    calm = torch.stack([s.read.expression.mean() for s in sightings])
    points = torch.stack([s.detection.landmarks68_px for s in sightings])
    size = (points.amax(1) - points.amin(1)).amax(1)
    frames = torch.tensor([s.frame for s in sightings])
    moved = torch.zeros(len(sightings))
    if len(sightings) > 1:
        step = (points[1:] - points[:-1]).norm(dim=-1).mean(1) / size[1:]
        step[frames[1:] - frames[:-1] != 1] = 0.0
        moved[1:], moved[:-1] = step, torch.maximum(moved[:-1], step)
    return score - _CALM * calm + _SMALL * torch.log2(size / size.max()) - moved


def _yaw(sighting: Sighting) -> float:
    """Turn of the head to its left or right, radians, as seen from the camera."""
    R = sighting.detection.R_cam_object
    return math.atan2(float(R[0, 2]), -float(R[2, 2]))
