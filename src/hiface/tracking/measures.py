# SPDX-License-Identifier: Apache-2.0
"""How steady a track is."""

from __future__ import annotations

import torch

from hiface.tracking.result import PersonTrack

_N_JAW = 17  # the outline slides along the jaw as the head turns
_REFERENCE_PX = 512


def jitter_px(person: PersonTrack, height: int) -> float | None:
    """Mean length of the second differences of the 51 inner points, in pixels of a picture 512 high.

    What trembles although the face does not; a face that moves has some of it too. Three frames in a row are
    needed; None where there are none.

    Args:
        person: The track.
        height: Of the video, pixels.
    """
    points = person.landmarks68_px[:, _N_JAW:]
    bends = points[2:] - 2.0 * points[1:-1] + points[:-2]
    lengths = bends.norm(dim=-1).mean(dim=-1)
    known = lengths[torch.isfinite(lengths)]
    return float(known.mean()) * _REFERENCE_PX / height if len(known) else None
