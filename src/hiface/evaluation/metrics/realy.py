# SPDX-License-Identifier: Apache-2.0
"""REALY: errors of nose, mouth, forehead and cheek against scans, each region aligned by itself.

Chai et al., "REALY: Rethinking the Evaluation of 3D Face Reconstruction", ECCV 2022. Three steps: a
similarity from seven keypoints (gICP), a rigid alignment of each region (rICP), and the scan's region bent
onto the prediction (bICP), which says which point of the prediction each scan vertex corresponds to. Beside
the published error ("bent"), the distance to the closest point is given after the second step ("rigid") and
after the first ("global").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import EvaluationDataError, ShapeError
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.mesh_files import PlainMesh
from hiface.geometry.nonrigid import Keypoints, deform_to_points
from hiface.geometry.procrustes import Similarity

REGIONS = ("nose", "mouth", "forehead", "cheek")
ESTIMATORS = ("bent", "rigid", "global")
LEFT_OUT = "keypoints_left_out"
N_KEYPOINTS = 85
_MAX_ITERATIONS, _CONVERGED = 100, 1e-6
_KEYPOINT_SHARE = {"cheek": 0.25}
_REACH_MM, _LEAST_KEYPOINTS = 5.0, 4  # as many as an affine map has rows
_MOST_GROWTH = 1.5  # with all keypoints it is 0.5 to 0.8, with the brows alone 2.4 to 9
_MERGE_DIGITS = 8


@lru_cache(maxsize=1)
def keypoint_groups() -> dict[str, Any]:
    """Which of the 85 keypoints each step uses."""
    return load_json_asset("landmarks/realy85_groups.json")


@dataclass(frozen=True)
class Subject:
    """Ground truth of one person, in the scan's own unit.

    Attributes:
        name: Number of the subject.
        keypoints: [85, 3].
        regions: Region to its piece of the scan.
        mm_per_unit: Millimetres in a unit of the scan (`metrical_scale`).
    """

    name: str
    keypoints: Tensor
    regions: Mapping[str, PlainMesh]
    mm_per_unit: float


@dataclass(frozen=True)
class PredictedMesh:
    """A prediction with the keypoints of its topology.

    Attributes:
        vertices: [V, 3] any unit.
        triangles: [T, 3] int64.
        keypoints: [85, 3] on it.
        measured: [T] bool, triangles that the last step may use; all if None.
    """

    vertices: Tensor
    triangles: Tensor
    keypoints: Tensor
    measured: Tensor | None = None


def similarity(source: Tensor, target: Tensor, with_scale: bool) -> Similarity:
    """REALY's alignment of corresponding points: R from the SVD of T S^T, scale = sum |t| / sum |R s|.

    The scale is a ratio of sums of absolute coordinates, not the least-squares one, and R may be a
    reflection, as in the published evaluation.

    Args:
        source: [N, 3].
        target: [N, 3].
        with_scale: Whether the scale is estimated.
    """
    s, t = source.double(), target.double()
    s0, t0 = s - s.mean(0), t - t.mean(0)
    U, _, Vh = torch.linalg.svd(t0.T @ s0)
    R = U @ Vh
    scale = t0.abs().sum() / (s0 @ R.T).abs().sum() if with_scale else t.new_ones(())
    return Similarity(R, t.mean(0) - scale * (R @ s.mean(0)), scale)


def global_alignment(predicted: PredictedMesh, keypoints: Tensor) -> Similarity:
    """Step 1, gICP: similarity of the prediction to the ground truth's [85, 3] keypoints."""
    seven = keypoint_groups()["seven"]
    return similarity(predicted.keypoints[seven], keypoints[seven], with_scale=True)


def regional_alignment(
    tree: SurfaceTree, predicted_keypoints: Tensor, subject: Subject, region: str
) -> Similarity:
    """Step 2, rICP: rigid transform of the globally aligned prediction to one region of the scan.

    Pairs are all vertices of the region with their closest points on the prediction, and the region's
    keypoints, repeated until they weigh as much (a quarter for the cheek).

    Args:
        tree: Surface of the prediction, aligned globally.
        predicted_keypoints: [85, 3] its keypoints, aligned globally.
        subject: Ground truth.
        region: One of REGIONS.

    Returns:
        Similarity with scale 1.
    """
    chosen = keypoint_groups()["aligned_by"][region]
    scan, true = subject.regions[region].vertices.double(), subject.keypoints[chosen].double()
    own = predicted_keypoints[chosen].double()
    repeats = int(len(scan) / len(chosen) * _KEYPOINT_SHARE.get(region, 1.0))
    target = torch.cat([scan, true.repeat(repeats, 1)])
    R, t = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    before = 0.0
    for _ in range(_MAX_ITERATIONS + 1):
        found = tree.closest((scan - t) @ R).points @ R.T + t
        source = torch.cat([found, (own @ R.T + t).repeat(repeats, 1)])
        step = similarity(source, target, with_scale=False)
        error = float(((step.apply(source) - target) ** 2).sum(-1).mean())
        if abs(error - before) < _CONVERGED:
            break
        before = error
        R, t = step.R @ R, step.R @ t + step.t
    return Similarity(R, t, t.new_ones(()))


def keypoints_near(subject: Subject, region: str) -> list[int]:
    """Which keypoints may pull at a region in step 3: those within 5 mm of its surface.

    The nearest vertex of a region is pulled to where a keypoint is, so that a keypoint farther away would
    bend even a perfect prediction. Where some are left out and the others do not span the region (brows alone
    at the lower edge of a forehead: an error of theirs would be several times as large on it), none pull.

    Args:
        subject: Ground truth.
        region: One of REGIONS.

    Returns:
        Numbers below 85.
    """
    chosen = keypoint_groups()["bent_by"][region]
    if not chosen:
        return []
    scan = subject.regions[region]
    places = subject.keypoints[chosen].double()
    vertices = scan.vertices.double()
    far = torch.cdist(places, vertices).amin(dim=1)  # of vertices, which settles it for fine scans
    if float(far.max()) * subject.mm_per_unit <= _REACH_MM:
        return list(chosen)
    far = SurfaceTree(vertices, scan.triangles).closest(places).distances
    is_near = far * subject.mm_per_unit <= _REACH_MM
    if bool(is_near.all()):
        return list(chosen)
    if int(is_near.sum()) < _LEAST_KEYPOINTS or _growth(places[is_near], vertices) > _MOST_GROWTH:
        return []
    return [k for k, near in zip(chosen, is_near.tolist(), strict=True) if near]


def _growth(keypoints: Tensor, vertices: Tensor) -> float:
    """Mean error at vertices [N, 3] of an affine map that is known at keypoints [K, 3] to within 1."""
    middle = keypoints.mean(0)
    known, asked = (
        torch.nn.functional.pad(points.double() - middle, (0, 1), value=1.0)
        for points in (keypoints, vertices)
    )
    return float((asked @ torch.linalg.pinv(known)).norm(dim=1).mean())


def bent_error(
    tree: SurfaceTree,
    predicted_keypoints: Tensor,
    subject: Subject,
    region: str,
    pulling: Sequence[int] | None = None,
) -> Tensor:
    """Steps 3 and 4, bICP: distances of scan vertices to their counterparts on the prediction.

    Unlike in the published evaluation, keypoints that are far off the region do not pull (`keypoints_near`).

    Args:
        tree: Surface of the regionally aligned prediction.
        predicted_keypoints: [85, 3] its keypoints.
        subject: Ground truth.
        region: One of REGIONS.
        pulling: What `keypoints_near` says, where it was asked already.

    Returns:
        [N] distances in the scan's unit; N without vertices that are in the file twice or belong to no
        triangle.
    """
    scan = merged(subject.regions[region])
    chosen = keypoints_near(subject, region) if pulling is None else list(pulling)
    pull = None
    if chosen:
        true = subject.keypoints[chosen].double()
        nearest = torch.cdist(true, scan.vertices).argmin(dim=1)
        pull = Keypoints(nearest, predicted_keypoints[chosen].double())
    targets = tree.closest(scan.vertices).points
    bent = deform_to_points(scan.vertices, scan.triangles, targets, pull)
    return (tree.closest(bent).points - scan.vertices).norm(dim=-1)


def realy_errors(predicted: PredictedMesh, subject: Subject) -> dict[str, dict[str, float]]:
    """Errors of one prediction.

    Args:
        predicted: The mesh.
        subject: Ground truth.

    Returns:
        Region to estimator (ESTIMATORS) to millimetres, and to LEFT_OUT: how many did not pull.

    Raises:
        ShapeError: The prediction has not 85 keypoints.
        EvaluationDataError: The subject lacks a region or keypoints.
    """
    _check(predicted, subject)
    fitted = global_alignment(predicted, subject.keypoints)
    vertices, keypoints = (
        fitted.apply(predicted.vertices.double()),
        fitted.apply(predicted.keypoints.double()),
    )
    tree = SurfaceTree(vertices, predicted.triangles)
    chosen = predicted.triangles if predicted.measured is None else predicted.triangles[predicted.measured]
    errors = {}
    for region in REGIONS:
        scan = subject.regions[region].vertices.double()
        rigid = regional_alignment(tree, keypoints, subject, region)
        own_tree = SurfaceTree(rigid.apply(vertices), chosen)
        pulling = keypoints_near(subject, region)
        values = {
            "bent": bent_error(own_tree, rigid.apply(keypoints), subject, region, pulling),
            "rigid": own_tree.closest(scan).distances,
            "global": tree.closest(scan).distances,
        }
        errors[region] = {name: subject.mm_per_unit * float(value.mean()) for name, value in values.items()}
        errors[region][LEFT_OUT] = len(keypoint_groups()["bent_by"][region]) - len(pulling)
    return errors


def merged(mesh: PlainMesh) -> PlainMesh:
    """The mesh without vertices that no triangle uses, with those at one place (1e-8) made one."""
    used, corners = np.unique(mesh.triangles.numpy(), return_inverse=True)
    vertices = mesh.vertices.double().numpy()[used]
    _, first, place = np.unique(vertices.round(_MERGE_DIGITS), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    triangles = rank[place.ravel()][corners.reshape(-1, 3)]
    return PlainMesh(torch.from_numpy(vertices[first[order]]), torch.from_numpy(triangles))


def _check(predicted: PredictedMesh, subject: Subject) -> None:
    if tuple(predicted.keypoints.shape) != (N_KEYPOINTS, 3):
        raise ShapeError(
            f"a prediction needs [{N_KEYPOINTS}, 3] keypoints, got {tuple(predicted.keypoints.shape)}"
        )
    if tuple(subject.keypoints.shape) != (N_KEYPOINTS, 3):
        raise EvaluationDataError(
            f"subject {subject.name} has {len(subject.keypoints)} keypoints; expected {N_KEYPOINTS}"
        )
    missing = [region for region in REGIONS if region not in subject.regions]
    if missing:
        raise EvaluationDataError(f"subject {subject.name} has no region {', '.join(missing)}")
