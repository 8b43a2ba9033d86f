# SPDX-License-Identifier: Apache-2.0
"""Whether photos show one person, and which face of each photo it is, from identities that a network read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.errors import DifferentPeopleError

UNLIKE = 0.7
"""One minus the cosine of identities over their standard deviations from which two people are not the same:
of synthetic people none is that far from their own other photos, and three quarters of other people are
(docs/inverse_rendering.md)."""

Face = TypeVar("Face")


def one_person(groups: Sequence[Sequence[Face]], identities: Sequence[Sequence[Tensor]]) -> list[Face]:
    """Chooses in each photo the face that is most like those of the other photos.

    Args:
        groups: Faces of each photo, at least one, the likeliest first.
        identities: [K] identity over its standard deviation, of each face.

    Returns:
        One face of each photo.

    Raises:
        DifferentPeopleError: A photo's best face is unlike the others.
    """
    alone = [ids[0] for ids in identities if len(ids) == 1] or [ids[0] for ids in identities]
    centre = torch.stack(alone).mean(0)
    chosen = [
        max(range(len(ids)), key=lambda k, ids=ids: float(F.cosine_similarity(ids[k], centre, dim=0)))
        for ids in identities
    ]
    faces = torch.stack([ids[k] for ids, k in zip(identities, chosen, strict=True)])
    if len(faces) > 1:
        others = (faces.sum(0) - faces) / (len(faces) - 1)
        distance = 1.0 - F.cosine_similarity(faces, others, dim=1)
        if float(distance.max()) > UNLIKE:
            raise DifferentPeopleError(_message(distance))
    return [group[k] for group, k in zip(groups, chosen, strict=True)]


def _message(distance: Tensor) -> str:
    if len(distance) == 2:
        return "the two photos show different people; reconstruct them one by one"
    worst = int(distance.argmax())
    return (
        f"photo {worst + 1} of {len(distance)} with a face shows another person than the others; leave it "
        "out, or reconstruct the photos one by one"
    )
