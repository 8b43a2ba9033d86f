# SPDX-License-Identifier: Apache-2.0
"""Boxes in numpy: IoU, suppression of duplicates, decoding of the finder's maps."""

from __future__ import annotations

import numpy as np


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and [M, 4] (x0, y0, x1, y1): [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    area_a, area_b = _area(a), _area(b)
    return inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9)


def contained_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the smaller area of boxes [N, 4] and [M, 4]: [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    return inter / np.maximum(np.minimum(_area(a)[:, None], _area(b)[None]), 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, max_iou: float, max_contained: float = 2.0) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes: [N, 4].
        scores: [N].
        max_iou: A box is dropped if it overlaps a kept one by more.
        max_contained: A box is dropped if more than this share of the smaller of the two lies in the other.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind="stable")
    clash = (iou_matrix(boxes, boxes) > max_iou) | (contained_matrix(boxes, boxes) > max_contained)
    kept: list[int] = []
    for i in order:
        if not clash[i, kept].any():
            kept.append(int(i))
    return np.asarray(kept, dtype=np.int64)


def decode_maps(
    maps: tuple[np.ndarray, ...], strides: tuple[int, ...], min_score: float, limit: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate boxes of one picture.

    Args:
        maps: Outputs of the finder, [1, 5, h, w] for each stride.
        strides: Pixels per place of each map.
        min_score: Places under this score are dropped.
        limit: Number of places kept, best first.

    Returns:
        Boxes [N, 4] in pixels of the network's input and scores [N], best first.
    """
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    min_logit = float(np.log(min_score / (1.0 - min_score)))
    for level, stride in zip(maps, strides, strict=True):
        ys, xs = np.nonzero(level[0, 0] > min_logit)
        sides = np.exp(level[0, 1:, ys, xs]) * stride
        centre = (np.stack([xs, ys], axis=-1) + 0.5) * stride
        boxes.append(
            np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=-1).astype(np.float32)
        )
        scores.append(1.0 / (1.0 + np.exp(-level[0, 0, ys, xs])))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    best = np.argsort(-all_scores, kind="stable")[:limit]
    return all_boxes[best], all_scores[best]


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=-1)
