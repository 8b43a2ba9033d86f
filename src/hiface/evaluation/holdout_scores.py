# SPDX-License-Identifier: Apache-2.0
"""What networks say of faces with exact labels, and how far that is off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.data.crop_arrays import to_picture
from hiface.data.crops import CropFrame, box_of_points, eye_roll, frame_of_points
from hiface.errors import ShapeError
from hiface.evaluation.holdout import HeldFaces, SubsetLimits, subsets
from hiface.evaluation.landmarks import landmark_groups, match_boxes
from hiface.networks.detect import FaceDetector
from hiface.networks.looks import LandmarkReader

JITTER = (0.02, 0.03, 0.05)  # standard deviation of shift (crop sides), log scale, roll (radians)
_CLOSED_GAP, _CLOSED_BLINK, _OPEN_BLINK, _OPEN_JAW = 0.15, 0.7, 0.3, 0.3
_BATCH = 32


def jittered_frames(points_px: Tensor, scale: float, seed: int) -> CropFrame:
    """Crops along the eyes of faces, off by about as much as a second look's; the same for the same seed.

    Args:
        points_px: [N, L, 2] the 68 points first, pixels.
        scale: Side of the crop over the longer side of the box.
        seed: Seed.

    Returns:
        N crops.
    """
    true = frame_of_points(points_px[:, :68], scale, eye_roll(points_px))
    rng = np.random.default_rng([seed, 3])
    off = torch.from_numpy(rng.standard_normal((len(points_px), 4)).clip(-2.5, 2.5).astype(np.float32))
    shift, log_scale, roll = JITTER
    return CropFrame(
        true.centre_px + shift * off[:, :2] * true.side_px[:, None],
        true.side_px * torch.exp(log_scale * off[:, 2]),
        true.roll + roll * off[:, 3],
    )


def read_crops(reader: LandmarkReader, pictures: np.ndarray, faces: HeldFaces, seed: int = 0) -> Tensor:
    """Landmarks from one look at crops that are nearly right.

    Args:
        reader: The landmark network.
        pictures: [N, S, S, 3] uint8.
        faces: Their faces.
        seed: Of the crops' jitter.

    Returns:
        [N, L, 2] 68 and dense points, pixels.
    """
    frames = jittered_frames(faces.points_px, reader.crop_scale, seed).rows()
    out = []
    for start in range(0, len(pictures), _BATCH):
        ids = range(start, min(start + _BATCH, len(pictures)))
        crops = [reader.crops(np.asarray(pictures[i]), frames[i : i + 1]) for i in ids]
        points = reader.read(np.concatenate(crops)).points
        out.append(to_picture(frames[ids.start : ids.stop], points))
    return torch.from_numpy(np.concatenate(out)[:, : 68 + reader.n_dense])


def detect_faces(detector: FaceDetector, pictures: np.ndarray, faces: HeldFaces) -> Tensor:
    """Landmarks from the whole detector, which is told nothing of the face.

    Args:
        detector: The detector.
        pictures: [N, S, S, 3] uint8.
        faces: Their faces.

    Returns:
        [N, L, 2] 68 and dense points, pixels; NaN where the face was not found.
    """
    out = torch.full(faces.points_px.shape, math.nan)
    for i, box in enumerate(box_of_points(faces.points_px[:, :68]).numpy()):
        found = detector.detect(np.array(pictures[i]))
        boxes = np.stack([d.box.numpy() for d in found]) if found else np.zeros((0, 4), np.float32)
        best = int(match_boxes(boxes, box[None])[0])
        if best >= 0:
            out[i] = torch.cat([found[best].landmarks68_px, found[best].dense_px])
    return out


def spread(errors: Tensor) -> dict[str, float]:
    """Number, mean, its standard error, and median of errors, the latter three times 100; NaN is left out."""
    values = errors[torch.isfinite(errors)].double()
    count = len(values)
    if count == 0:
        return {"count": 0, "mean": math.nan, "standard_error": math.nan, "median": math.nan}
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return {
        "count": count,
        "mean": round(100 * float(values.mean()), 3),
        "standard_error": round(100 * error, 3),
        "median": round(100 * float(values.quantile(0.5)), 3),
    }


def point_errors(pred_px: Tensor, faces: HeldFaces) -> dict[str, Tensor]:
    """Mean errors of each face over a length.

    Args:
        pred_px: [N, L, 2] 68 and dense points; NaN for faces that were not found.
        faces: The truth.

    Returns:
        [N] by name: "inner51" and "dense" over `space_px`, all points, seen or not; "inner51_visible" and
        "dense_visible" over the same, NaN where none is visible; "inner51_flat" over `flat_px`.

    Raises:
        ShapeError: The shapes differ.
    """
    if pred_px.shape != faces.points_px.shape:
        raise ShapeError(f"expected points {tuple(faces.points_px.shape)}, got {tuple(pred_px.shape)}")
    distance = (pred_px - faces.points_px).norm(dim=-1)
    out = {}
    for name, part in (("inner51", slice(len(landmark_groups()["jaw"]), 68)), ("dense", slice(68, None))):
        seen = faces.visible[:, part].float()
        out[name] = distance[:, part].mean(dim=1) / faces.space_px
        out[f"{name}_visible"] = (distance[:, part] * seen).sum(dim=1) / seen.sum(dim=1) / faces.space_px
    out["inner51_flat"] = out["inner51"] * faces.space_px / faces.flat_px
    return out


def score_points(
    pred_px: Tensor, faces: HeldFaces, limits: SubsetLimits | None = None
) -> dict[str, dict[str, Any]]:
    """Errors by subset.

    Args:
        pred_px: [N, L, 2] points; NaN for faces that were not found.
        faces: The truth.
        limits: Where subsets begin.

    Returns:
        By subset: faces, their number; found, the share with a prediction; the `spread` of each of
        `point_errors`.
    """
    errors = point_errors(pred_px, faces)
    found = torch.isfinite(pred_px).all(dim=2).all(dim=1)
    table = {}
    for name, chosen in subsets(faces, limits).items():
        share = float(found[chosen].float().mean()) if bool(chosen.any()) else math.nan
        row: dict[str, Any] = {"faces": int(chosen.sum()), "found": round(share, 4)}
        table[name] = row | {kind: spread(values[chosen]) for kind, values in errors.items()}
    return table


def openings(points68: Tensor) -> Tensor:
    """Gaps between the right eye's lids, the left eye's, and the lips.

    Args:
        points68: [*B, 68, 2], iBUG order.

    Returns:
        [*B, 3] mean distance of the pairs, same unit.
    """
    groups = landmark_groups()
    gaps = []
    for pairs in (*groups["lid_pairs_right_left"], groups["lip_pairs"]):
        first, second = torch.tensor(pairs).unbind(dim=1)
        gaps.append((points68[..., first, :] - points68[..., second, :]).norm(dim=-1).mean(dim=-1))
    return torch.stack(gaps, dim=-1)


def opening_subsets(faces: HeldFaces) -> dict[str, Tensor]:
    """Which eyes and mouths are closed, winking or open.

    Args:
        faces: N faces.

    Returns:
        [N, 3] bool by name, right eye, left eye and mouth: "all"; "closed eyes" (gap under 15 % of the eye's
        width, or blink over 0.7); "winks" (both eyes of a face with one blink over 0.7, the other under
        0.3); "open mouths" (jawOpen over 0.3).
    """
    names, values = faces.expression_names, faces.expression
    blink = torch.stack([values[:, names.index(f"eyeBlink{side}")] for side in ("Right", "Left")], dim=1)
    corners = torch.tensor(landmark_groups()["eye_corners"])
    points = faces.points_px[:, :68]
    width = (points[:, corners[:, 0]] - points[:, corners[:, 1]]).norm(dim=-1)
    closed = (openings(points)[:, :2] < _CLOSED_GAP * width) | (blink > _CLOSED_BLINK)
    wink = (blink.amax(dim=1) > _CLOSED_BLINK) & (blink.amin(dim=1) < _OPEN_BLINK)
    none, every = torch.zeros_like(wink), torch.ones_like(wink)
    mouth = values[:, names.index("jawOpen")] > _OPEN_JAW
    return {
        "all eyes": torch.stack([every, every, none], dim=1),
        "closed eyes": torch.cat([closed, none[:, None]], dim=1),
        "winks": torch.stack([wink, wink, none], dim=1),
        "all mouths": torch.stack([none, none, every], dim=1),
        "open mouths": torch.stack([none, none, mouth], dim=1),
    }


def score_openings(pred_px: Tensor, faces: HeldFaces) -> dict[str, dict[str, Any]]:
    """Errors of lid and lip gaps over the eye distance in space, in %: absolute, and with sign (`bias`).

    Args:
        pred_px: [N, L, 2] points; NaN for faces that were not found.
        faces: The truth.

    Returns:
        By subset: number of gaps, mean, standard error, median of the absolute error; mean of the signed one,
        positive where a gap is predicted too wide.
    """
    wrong = (openings(pred_px[:, :68]) - openings(faces.points_px[:, :68])) / faces.space_px[:, None]
    table = {}
    for name, chosen in opening_subsets(faces).items():
        signed = wrong[chosen]
        table[name] = {**spread(signed.abs()), "bias": spread(signed)["mean"]}
    return table
