# SPDX-License-Identifier: Apache-2.0
"""How many faces are found at a given number of false ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hiface.networks.boxes import contained_matrix, iou_matrix

BANDS_PX = (24.0, 32.0, 48.0, 96.0, math.inf)
_IGNORED = 0.5  # share of the smaller box within the other at which a find is neither right nor false


@dataclass(frozen=True)
class Finds:
    """What was found in one or more pictures.

    Attributes:
        face_px: [F] longer side of each face that counts.
        face_score: [F] score of the find that belongs to it; -inf if there is none.
        false_score: [M] scores of finds that belong to nothing.
        pictures: Number of pictures.
    """

    face_px: np.ndarray
    face_score: np.ndarray
    false_score: np.ndarray
    pictures: int


def match_finds(
    found: np.ndarray, scores: np.ndarray, faces: np.ndarray, counts: np.ndarray, min_iou: float = 0.4
) -> Finds:
    """Which finds of a picture are right and which are false.

    Finds are taken best first; each belongs to the face it overlaps most among those that are not taken yet.
    So a second find of a face is a false one, and right and false do not depend on a threshold.

    Args:
        found: [N, 4] boxes x0, y0, x1, y1.
        scores: [N].
        faces: [M, 4].
        counts: [M] bool; a face that does not count is neither missed nor a false find.
        min_iou: Least IoU of a find and its face.

    Returns:
        Finds of one picture.
    """
    overlap, free = iou_matrix(found, faces), np.ones(len(faces), bool)
    ignored = contained_matrix(found, faces[~counts]) > _IGNORED
    best, false = np.full(len(faces), -np.inf), []
    for i in np.argsort(-scores, kind="stable"):
        fits = np.where(free, overlap[i], 0.0)
        j = int(fits.argmax()) if len(fits) else -1
        if j >= 0 and fits[j] >= min_iou:
            free[j], best[j] = False, scores[i]
        elif not ignored[i].any():
            false.append(float(scores[i]))
    side = (faces[:, 2:] - faces[:, :2]).max(axis=1) if len(faces) else np.zeros(0)
    return Finds(side[counts], best[counts], np.asarray(false, np.float64), 1)


def join_finds(parts: list[Finds]) -> Finds:
    """Finds of several pictures."""
    return Finds(
        np.concatenate([p.face_px for p in parts]),
        np.concatenate([p.face_score for p in parts]),
        np.concatenate([p.false_score for p in parts]),
        sum(p.pictures for p in parts),
    )


def recall_at(finds: Finds, false_per_picture: float = 0.05, least_score: float = 0.0) -> dict:
    """Recall at a number of false finds, in all and by size.

    Args:
        finds: Finds of all pictures.
        false_per_picture: Most false finds, per picture.
        least_score: Finds of lower scores were not looked for.

    Returns:
        threshold: least score at which there are no more false finds; false: their number; faces, recall: in
        all; bands: the same by longer side, pixels.
    """
    allowed = math.floor(false_per_picture * finds.pictures + 1e-9)
    false = np.sort(finds.false_score)[::-1]
    limit = float(false[allowed]) if len(false) > allowed else -math.inf
    found = (finds.face_score > limit) & np.isfinite(finds.face_score)
    bands = {}
    for low, high in pairwise(BANDS_PX):
        chosen = (finds.face_px >= low) & (finds.face_px < high)
        name = f"{low:g} to {high:g} px" if math.isfinite(high) else f"{low:g} px and more"
        bands[name] = {"faces": int(chosen.sum()), "recall": _share(found[chosen])}
    return {
        "pictures": finds.pictures,
        "threshold": round(max(limit, least_score), 4),
        "false": int((finds.false_score > limit).sum()),
        "faces": len(finds.face_px),
        "recall": _share(found),
        "bands": bands,
    }


def _share(found: np.ndarray) -> float:
    return round(float(found.mean()), 4) if len(found) else math.nan
