# SPDX-License-Identifier: Apache-2.0
"""What several methods need: detections in order, keypoints of a model, a prediction from coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.data import Photo
from hiface.errors import FitError, ShapeError
from hiface.evaluation.method import Prediction
from hiface.evaluation.metrics.realy import keypoint_groups
from hiface.fitting.observations import FaceObservation
from hiface.morphable import MorphableModel
from hiface.morphable.skinning import joint_transforms
from hiface.networks.detect import Detection, FaceDetector
from hiface.types import FaceParams, LandmarkSet

KEYPOINT_SETS = ("ibug68", "now7", "realy85")


def model_licence(face_model: str | Path) -> str:
    """What may be said of a face model's licence before its file is read."""
    if face_model == "open":
        return "face model from CC0 data"
    return f"face model: that of {Path(face_model).name}"


def most_certain_first(detector: FaceDetector, photo: Photo) -> list[Detection]:
    """Faces of a photo, sorted by score."""
    found = detector.detect(photo.image_srgb, photo.focal_px)
    return sorted(found, key=lambda detection: -detection.score)


def sparse_observation(detection: Detection, photo: Photo) -> FaceObservation:
    """The 68 points and their standard deviations alone: no dense points, no irises, no pose, no picture."""
    return FaceObservation(
        width=photo.width,
        height=photo.height,
        landmarks68_px=detection.landmarks68_px,
        landmarks68_sigma_px=detection.landmarks68_sigma_px,
        focal_px=photo.focal_px,
    )


def all_that_can_be_fitted(
    fit: Callable[[Detection], Prediction], detections: Sequence[Detection]
) -> list[Prediction]:
    """Predictions of the faces whose fit succeeds.

    Raises:
        FitError: There are faces, and none can be fitted.
    """
    found: list[Prediction] = []
    failed: FitError | None = None
    for detection in detections:
        try:
            found.append(fit(detection))
        except FitError as error:
            failed = error
    if failed is not None and not found:
        raise failed
    return found


def model_keypoints(model: MorphableModel) -> dict[str, LandmarkSet]:
    """Those of `KEYPOINT_SETS` that a model has."""
    sets = model.data.landmark_sets
    return {name: sets[name] for name in KEYPOINT_SETS if name in sets}


def model_prediction(
    model: MorphableModel, params: FaceParams, box: Tensor, displacement: Tensor | None = None
) -> Prediction:
    """A prediction from coefficients.

    Args:
        model: Face model that the coefficients belong to.
        params: Unbatched coefficients.
        box: [4] pixels.
        displacement: [1, S, S] metres or None.

    Returns:
        Prediction; at rest all joints and expressions are zero.
    """
    with torch.no_grad():
        vertices = model.vertices(params.identity, params.expression, params.pose)
        neutral = model.vertices(
            params.identity, torch.zeros_like(params.expression), torch.zeros_like(params.pose)
        )
        places = model.landmarks_cam("ibug68", params.camera.to_cam(vertices))
        points = params.camera.cam_to_px(places)
    is_arkit = model.data.expression_names == tuple(load_json_asset("expressions/arkit52.json")["names"])
    return Prediction(
        box=box,
        landmarks68_px=points,
        vertices=vertices,
        neutral_vertices=neutral,
        triangles=model.data.triangles,
        keypoints=model_keypoints(model),
        topology=model.name,
        metric=True,
        displacement=displacement,
        blendshapes=params.expression if is_arkit else None,
        T_cam_head=head_pose(model, params) if "head" in model.data.joint_names else None,
    )


def head_pose(model: MorphableModel, params: FaceParams) -> Tensor:
    """T_cam_head [4, 4] of unbatched coefficients: where the head joint, bent neck included, stands."""
    joints = model.joints(params.identity, params.expression)
    R, t = joint_transforms(joints, params.pose, model.data.joint_parents)
    head = model.data.joint_names.index("head")
    T_head = torch.eye(4, dtype=R.dtype)
    T_head[:3, :3], T_head[:3, 3] = R[head], t[head]
    return params.camera.T_cam_object @ T_head


def vertex_landmarks(name: str, vertex_ids: Sequence[int] | Tensor, triangles: Tensor) -> LandmarkSet:
    """Landmarks that are vertices, as corners of triangles.

    Args:
        name: Name of the set.
        vertex_ids: L vertices.
        triangles: [T, 3] int64.

    Returns:
        LandmarkSet whose points each are a corner of the first triangle that has it.

    Raises:
        ShapeError: A vertex belongs to no triangle.
    """
    ids = torch.as_tensor(vertex_ids, dtype=torch.int64)
    is_corner = triangles.flatten()[None] == ids[:, None]
    if not bool(is_corner.any(dim=1).all()):
        lost = ids[~is_corner.any(dim=1)].tolist()
        raise ShapeError(f"landmark set {name!r}: the vertices {lost} are corners of no triangle")
    corner = is_corner.int().argmax(dim=1)
    weights = torch.nn.functional.one_hot(corner % 3, 3).float()
    return LandmarkSet(name, corner // 3, weights)


def ibug68_keypoints(vertex_ids: Mapping[int, int], triangles: Tensor) -> dict[str, LandmarkSet]:
    """Keypoint sets of a topology from the vertices of its iBUG points, which may be less than 68.

    Args:
        vertex_ids: Zero-based iBUG point to vertex.
        triangles: [T, 3] int64.

    Returns:
        "ibug68" where all points are known, "now7" where its seven are.
    """
    found = {}
    for name, points in (("ibug68", range(68)), ("now7", keypoint_groups()["seven"])):
        if all(point in vertex_ids for point in points):
            found[name] = vertex_landmarks(name, [vertex_ids[point] for point in points], triangles)
    return found
