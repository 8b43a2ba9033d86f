# SPDX-License-Identifier: Apache-2.0
"""How far landmarks are off, and which detection belongs to which reference face."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import ShapeError
from hiface.networks.boxes import iou_matrix


@lru_cache(maxsize=1)
def landmark_groups() -> dict[str, Any]:
    """Groups of the 68 points: jaw, eye corners, pairs of lids and lips."""
    return load_json_asset("landmarks/ibug68_groups.json")


def nme(pred: Tensor, truth: Tensor, norm: Tensor) -> Tensor:
    """Normalised mean error.

    Args:
        pred: [*B, L, 2] pixels.
        truth: [*B, L, 2] pixels.
        norm: [*B] length by which the error is divided, pixels, > 0.

    Returns:
        [*B] mean distance over norm; times 100 it is in per cent.

    Raises:
        ShapeError: The shapes do not fit.
    """
    if pred.shape != truth.shape or norm.shape != pred.shape[:-2]:
        raise ShapeError(
            f"nme needs equal shapes [*B, L, 2] and [*B], got {pred.shape}, {truth.shape}, {norm.shape}"
        )
    return (pred - truth).norm(dim=-1).mean(dim=-1) / norm


def eye_distance(landmarks68: Tensor) -> Tensor:
    """Distance of the outer eye corners: [*B, 68, 2] to [*B]."""
    right, left = landmark_groups()["outer_eye_corners"]
    return (landmarks68[..., right, :] - landmarks68[..., left, :]).norm(dim=-1)


def nme51(pred68: Tensor, truth68: Tensor) -> Tensor:
    """Error of the inner 51 points over the outer eye distance: [*B, 68, 2] twice to [*B]."""
    first = len(landmark_groups()["jaw"])
    return nme(pred68[..., first:, :], truth68[..., first:, :], eye_distance(truth68))


def offset_free_error(offsets: Tensor) -> float:
    """Mean error of the inner points once each point's mean offset over all faces is removed.

    Args:
        offsets: [N, 68, 2] predicted minus reference points over the eye distance.

    Returns:
        Same unit; what is left where references define points otherwise. NaN without faces.
    """
    inner = offsets[:, len(landmark_groups()["jaw"]) :]
    return float((inner - inner.mean(dim=0)).norm(dim=-1).mean())


def match_boxes(found: np.ndarray, reference: np.ndarray, min_iou: float = 0.4) -> np.ndarray:
    """Which detection belongs to which reference face; each is used once, best overlap first.

    A pair fits if its IoU is large enough, or if the centre of each lies in the other.

    Args:
        found: [N, 4] x0, y0, x1, y1.
        reference: [M, 4].
        min_iou: Least IoU.

    Returns:
        [M] int64 index of the detection of each reference face, -1 if it was not found.
    """
    result = np.full(len(reference), -1, np.int64)
    if len(found) == 0 or len(reference) == 0:
        return result
    overlap = iou_matrix(reference, found)
    fits = (overlap >= min_iou) | (_centre_inside(found, reference).T & _centre_inside(reference, found))
    score = np.where(fits, overlap, -1.0)
    for _ in range(min(score.shape)):
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        if score[row, column] <= 0.0:
            break
        result[row] = column
        score[row, :], score[:, column] = -1.0, -1.0
    return result


def _centre_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M] whether the centre of box n lies in other box m."""
    centre = 0.5 * (boxes[:, None, :2] + boxes[:, None, 2:])
    inside = (centre >= others[None, :, :2]) & (centre <= others[None, :, 2:])
    return inside[..., 0] & inside[..., 1]


def summarise(errors: list[float], limit: float = 0.10) -> dict[str, float]:
    """Mean, median and share above a limit of errors, all in per cent; NaN for an empty list."""
    if not errors:
        return {
            "mean_percent": float("nan"),
            "median_percent": float("nan"),
            "above_limit_percent": float("nan"),
        }
    values = torch.tensor(errors)
    return {
        "mean_percent": round(100 * float(values.mean()), 3),
        "median_percent": round(100 * float(values.quantile(0.5)), 3),
        "above_limit_percent": round(100 * float((values > limit).float().mean()), 1),
    }
