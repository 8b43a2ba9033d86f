# SPDX-License-Identifier: Apache-2.0
"""Whether photos show one person, and which face of each photo it is, from identities that a network read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.errors import DifferentPeopleError

UNLIKE = 0.7
"""One minus the cosine of identities over their standard deviations from which two people are not the same:
of pairs of photos of one synthetic person 1 % are that far apart, and three quarters of pairs of two."""
DOUBTFUL = 0.45
"""From here on it may be somebody else: 12 % of pairs of one synthetic person are that far apart. Most pairs
of two real people lie between this and `UNLIKE`, or not much beyond (docs/many_photos.md)."""

LOGGER = logging.getLogger(__name__)
Face = TypeVar("Face")


def one_person(
    groups: Sequence[Sequence[Face]], identities: Sequence[Sequence[Tensor]]
) -> tuple[list[Face], list[float | None]]:
    """Chooses in each photo the face that is most like those of the other photos.

    Logs a warning where it may be somebody else's.

    Args:
        groups: Faces of each photo, at least one, the likeliest first.
        identities: [K] identity over its standard deviation, of each face.

    Returns:
        One face of each photo, and its likeness to those of the others: the cosine of its identity and their
        mean, -1..1; None if there is one photo only.

    Raises:
        DifferentPeopleError: A photo's best face is unlike the others.
    """
    alone = [ids[0] for ids in identities if len(ids) == 1] or [ids[0] for ids in identities]
    centre = torch.stack(alone).mean(0)
    best = [
        max(range(len(ids)), key=lambda k, ids=ids: float(F.cosine_similarity(ids[k], centre, dim=0)))
        for ids in identities
    ]
    chosen = [group[k] for group, k in zip(groups, best, strict=True)]
    if len(chosen) == 1:
        return chosen, [None]
    faces = torch.stack([ids[k] for ids, k in zip(identities, best, strict=True)])
    others = (faces.sum(0) - faces) / (len(faces) - 1)
    likeness = F.cosine_similarity(faces, others, dim=1)
    if float(likeness.min()) < 1.0 - UNLIKE:
        raise DifferentPeopleError(_refusal(likeness))
    if float(likeness.min()) < 1.0 - DOUBTFUL:
        LOGGER.warning("%s", _doubt(likeness))
    return chosen, likeness.tolist()


def _refusal(likeness: Tensor) -> str:
    if len(likeness) == 2:
        return (
            f"the two photos show different people (likeness {float(likeness[0]):.2f}); reconstruct them one "
            "by one"
        )
    return (
        f"photo {int(likeness.argmin()) + 1} of {len(likeness)} with a face shows another person than the "
        f"others (likeness {float(likeness.min()):.2f}); leave it out, or reconstruct the photos one by one"
    )


def _doubt(likeness: Tensor) -> str:
    values = [f"{value:.2f}" for value in likeness.tolist()]
    if len(values) == 2:
        who = f"the two photos may show different people: their likeness is {values[0]}"
    else:
        named = [f"{i + 1} ({v})" for i, v in enumerate(values) if float(likeness[i]) < 1.0 - DOUBTFUL]
        who = f"of {len(values)} photos with a face these may show another person: {', '.join(named)}"
    return f"{who}; under {1.0 - DOUBTFUL:.2f} that cannot be told, so look at them"
