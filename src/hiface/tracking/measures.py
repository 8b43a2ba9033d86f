# SPDX-License-Identifier: Apache-2.0
"""How steady a track is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_N_JAW = 17  # the outline slides along the jaw as the head turns
_REFERENCE_PX = 512
_SPAN = 5  # frames that a cubic is taken out of
_SECOND = math.sqrt(6.0)
"""Standard deviation of second differences over that of what is independent from frame to frame."""


def jitter_px(landmarks68_px: Tensor, times_s: Sequence[float], height: int) -> float | None:
    """What trembles in the 51 inner points, in pixels of a picture 512 high.

    The length of second differences, as trackers are measured on still faces, told by what a cubic through
    five frames leaves: a head that sways leaves almost nothing, and what is independent from frame to frame a
    known share. Means over the points, and the median over the frames, so that a blink does not count. None
    where no five frames in a row show the face.

    Args:
        landmarks68_px: [N, 68, 2] pixels, NaN where the face is not seen.
        times_s: Of all frames, increasing.
        height: Of the video, pixels.
    """
    points = landmarks68_px[:, _N_JAW:]
    if len(points) < _SPAN:
        return None
    times = torch.tensor(times_s, dtype=torch.float64).unfold(0, _SPAN, 1)
    apart = times[:, :, None] - times[:, None] + torch.eye(_SPAN)
    weights = 1.0 / apart.prod(dim=2)  # divided differences: zero on cubics
    weights = _SECOND * weights / weights.norm(dim=1, keepdim=True)
    left = torch.einsum("wplf,wf->wpl", points.double().unfold(0, _SPAN, 1), weights)
    lengths = left.norm(dim=-1).mean(dim=-1)
    known = lengths[torch.isfinite(lengths)]
    return float(known.median()) * _REFERENCE_PX / height if len(known) else None
