# SPDX-License-Identifier: Apache-2.0
"""NoW: distances of a neutral scan to a prediction, aligned by seven landmarks and then by the scan itself.

Sanyal et al., "Learning to Regress 3D Face Shape and Expression from an Image without 3D Supervision", CVPR
2019, and the benchmark's metrical variant. The published refinement minimises with a dogleg method over all
vertices of the scan; here the same sum of squared distances is minimised by Gauss-Newton steps with damping
(Levenberg-Marquardt).
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from hiface.errors import EvaluationDataError, ShapeError
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.mesh_files import PlainMesh
from hiface.geometry.procrustes import Similarity

N_LANDMARKS = 7
RADIUS_FACTOR = 1.4
_MAX_STEPS, _CONVERGED = 60, 1e-9


@dataclass(frozen=True)
class Scan:
    """A neutral scan.

    Attributes:
        mesh: In millimetres.
        landmarks: [7, 3] outer and inner corner of the subject's right eye, inner and outer corner of the
            left one, below the nose, right and left corner of the mouth.
    """

    mesh: PlainMesh
    landmarks: Tensor


@dataclass(frozen=True)
class NowPrediction:
    """A neutral face.

    Attributes:
        mesh: Any unit.
        landmarks: [7, 3] on it, in the order of `Scan.landmarks`.
    """

    mesh: PlainMesh
    landmarks: Tensor


def crop_face(scan: Scan, radius_factor: float = RADIUS_FACTOR) -> Tensor:
    """Vertices of the scan that count: those in a ball about the face.

    Its centre is 0.3 of the way from the point below the nose to the middle of the inner eye corners, its
    radius 1.4 times the mean of that way and the distance of the outer eye corners.

    Args:
        scan: The scan.
        radius_factor: 1.4; the Stirling challenge has 1.2.

    Returns:
        [N, 3] millimetres.

    Raises:
        EvaluationDataError: No vertex lies there; scan and landmarks do not belong together.
    """
    marks = scan.landmarks.double()
    below_nose, bridge = marks[4], 0.5 * (marks[1] + marks[2])
    centre = below_nose + 0.3 * (bridge - below_nose)
    radius = radius_factor * 0.5 * ((marks[0] - marks[3]).norm() + (bridge - below_nose).norm())
    vertices = scan.mesh.vertices.double()
    kept = vertices[(vertices - centre).norm(dim=-1) <= radius]
    if len(kept) == 0:
        raise EvaluationDataError("no vertex of the scan lies near its landmarks; are both in millimetres?")
    return kept


def landmark_alignment(source: Tensor, target: Tensor) -> Similarity:
    """Least-squares similarity of corresponding points that may be a reflection.

    Args:
        source: [N, 3].
        target: [N, 3].
    """
    s, t = source.double(), target.double()
    s0, t0 = s - s.mean(0), t - t.mean(0)
    U, singular, Vh = torch.linalg.svd(t0.T @ s0)
    R, scale = U @ Vh, singular.sum() / (s0**2).sum()
    return Similarity(R, t.mean(0) - scale * (R @ s.mean(0)), scale)


def refine(tree: SurfaceTree, points: Tensor, with_scale: bool) -> Similarity:
    """Similarity of the mesh that makes the sum of squared distances of points to its surface least.

    The change of a distance is that along the direction to the closest point, so that points may slide along
    the surface (Gauss-Newton on the distance itself).

    Args:
        tree: Surface of the mesh, roughly aligned.
        points: [N, 3] vertices of the scan.
        with_scale: Whether the mesh may become larger or smaller.

    Returns:
        Similarity of the mesh to the scan.
    """
    points = points.double()
    centre = points.mean(0)
    pose = Similarity(torch.eye(3).double(), torch.zeros(3).double(), torch.ones(()).double())
    damping, found = 1e-6, _pull_back(tree, points, pose)
    cost = float((found[1] ** 2).sum())
    for _ in range(_MAX_STEPS):
        H, g = _normal_equations(points, centre, *found, with_scale)
        step = torch.linalg.solve(H + damping * torch.diag(H.diagonal().clamp_min(1e-12)), -g)
        moved = _moved(pose, step, centre)
        tried = _pull_back(tree, points, moved)
        new = float((tried[1] ** 2).sum())
        if new < cost:
            done = cost - new <= _CONVERGED * max(cost, 1e-12)
            pose, found, cost, damping = moved, tried, new, max(0.1 * damping, 1e-9)
            if done:
                break
        elif damping > 1e3:
            break
        else:
            damping = max(10.0 * damping, 1e-6)
    return pose


def now_distances(
    prediction: NowPrediction, scan: Scan, unit_mm: float | None = None, radius_factor: float = RADIUS_FACTOR
) -> Tensor:
    """Distances of the scan's cropped vertices to the aligned prediction.

    Args:
        prediction: The neutral face.
        scan: The scan.
        unit_mm: Millimetres in a unit of the prediction for the metrical variant; None lets the alignment
            choose the size.
        radius_factor: See `crop_face`.

    Returns:
        [N] millimetres.

    Raises:
        ShapeError: Landmarks are missing.
        EvaluationDataError: Scan and landmarks do not belong together.
    """
    for marks, whose in ((prediction.landmarks, "prediction"), (scan.landmarks, "scan")):
        if tuple(marks.shape) != (N_LANDMARKS, 3) or not bool(marks.isfinite().all()):
            raise ShapeError(
                f"the {whose} needs [{N_LANDMARKS}, 3] finite landmarks, got {tuple(marks.shape)}"
            )
    points = crop_face(scan, radius_factor)
    first = landmark_alignment(prediction.landmarks, scan.landmarks)
    if unit_mm is not None:
        size = first.scale.new_tensor(unit_mm)
        middle = prediction.landmarks.double().mean(0)
        first = Similarity(first.R, scan.landmarks.double().mean(0) - size * (first.R @ middle), size)
    tree = SurfaceTree(first.apply(prediction.mesh.vertices.double()), prediction.mesh.triangles)
    return _pull_back(tree, points, refine(tree, points, with_scale=unit_mm is None))[1]


def _pull_back(tree: SurfaceTree, points: Tensor, pose: Similarity) -> tuple[Tensor, Tensor]:
    """Closest points [N, 3] on the moved mesh and distances [N], looked for where the mesh does not move."""
    local = ((points - pose.t) @ pose.R) / pose.scale
    found = tree.closest(local)
    return pose.apply(found.points), found.distances * pose.scale


def _normal_equations(
    points: Tensor, centre: Tensor, found: Tensor, distances: Tensor, with_scale: bool
) -> tuple[Tensor, Tensor]:
    """J^T J and J^T r for a turn, a shift and perhaps a log scale about the centre."""
    direction = (found - points) / distances.clamp_min(1e-12)[:, None]
    arm = found - centre
    columns = [torch.linalg.cross(arm, direction), direction]
    if with_scale:
        columns.append((direction * arm).sum(-1, keepdim=True))
    J = torch.cat(columns, dim=-1)
    return J.T @ J, J.T @ distances


def _moved(pose: Similarity, step: Tensor, centre: Tensor) -> Similarity:
    """The pose followed by a turn, shift and log scale about the centre."""
    R = roma.rotvec_to_rotmat(step[:3])
    scale = step[6].exp() if len(step) == 7 else step.new_ones(())
    t = scale * (R @ (pose.t - centre)) + centre + step[3:6]
    return Similarity(R @ pose.R, t, scale * pose.scale)
