# SPDX-License-Identifier: Apache-2.0
"""Boxes in numpy: IoU, suppression of duplicates, decoding of the finder's maps."""

from __future__ import annotations

import numpy as np


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and [M, 4] (x0, y0, x1, y1): [N, M]."""
    inter, area_a, area_b = _overlaps(a, b)
    return inter / np.maximum(area_a + area_b - inter, 1e-9)


def contained_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the smaller area of boxes [N, 4] and [M, 4]: [N, M]."""
    inter, area_a, area_b = _overlaps(a, b)
    return inter / np.maximum(np.minimum(area_a, area_b), 1e-9)


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
    if len(boxes) < 2:
        return np.arange(len(boxes))
    order = np.argsort(-scores, kind="stable")
    inter, area, other = _overlaps(boxes, boxes)
    clash = inter > max_iou * np.maximum(area + other - inter, 1e-9)
    if max_contained < 1.0:
        clash |= inter > max_contained * np.maximum(np.minimum(area, other), 1e-9)
    free, kept = np.ones(len(boxes), bool), []
    for i in order:
        if free[i]:
            kept.append(int(i))
            free &= ~clash[i]
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
        if len(ys) == 0:
            continue
        found = level[0, :, ys, xs]
        sides = np.exp(found[:, 1:]) * stride
        centre = np.stack([xs + 0.5, ys + 0.5], axis=1) * stride
        boxes.append(
            np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=1).astype(np.float32)
        )
        scores.append((1.0 / (1.0 + np.exp(-found[:, 0]))).astype(np.float32))
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    best = np.argsort(-all_scores, kind="stable")[:limit]
    return all_boxes[best], all_scores[best]


def _overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersections [N, M] of boxes and the areas of both lists, [N, 1] and [1, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0.0)
    area_a, area_b = (np.maximum(c[:, 2:] - c[:, :2], 0.0) for c in (a, b))
    inter = shared[..., 0] * shared[..., 1]
    return inter, (area_a[:, 0] * area_a[:, 1])[:, None], (area_b[:, 0] * area_b[:, 1])[None]
