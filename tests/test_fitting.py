# SPDX-License-Identifier: Apache-2.0
"""Fits of faces whose truth is known, and of input that is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from hiface.errors import FitError, ShapeError
from hiface.evaluation.regions import ratio_to_mean, region_errors
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import fit_face
from hiface.fitting.initialise import weak_perspective
from hiface.fitting.observations import FaceObservation, ImageCrop
from hiface.geometry.procrustes import procrustes
from hiface.morphable import MorphableModel, load_model
from hiface.render.pipeline import render
from hiface.render.shade import SH_C0
from hiface.types import Camera, FaceParams

SIZE = 192
EXACT = FitConfig(
    n_identity=150,
    landmark_floor=0.001,
    landmark_sigma_scale=1.0,
    effective_sparse=68.0,
    effective_dense=320.0,
    reg_identity=1.0,
)
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_model("open")


def make_face(
    model: MorphableModel,
    seed: int,
    expression: dict[str, float] | None = None,
    turn: tuple = (0.05, 0.25, -0.05),
) -> FaceParams:
    gen = torch.Generator().manual_seed(seed)
    light = torch.zeros(9, 3)
    light[0] = 0.8 / SH_C0
    light[1:4] = torch.tensor([-0.25, -0.35, 0.2])[:, None]
    camera = Camera.from_pose(
        roma.rotvec_to_rotmat(torch.tensor(turn)) @ FLIP, torch.tensor([0.01, 0.0, 0.5]), 500.0, SIZE, SIZE
    )
    return FaceParams(
        torch.randn(model.data.n_identity, generator=gen),
        model.expression_vector(expression or {}),
        torch.zeros(model.data.n_joints, 3),
        0.7 * torch.randn(len(model.data.albedo_names), generator=gen),
        light,
        camera,
    )


def points_px(model: MorphableModel, params: FaceParams, name: str) -> Tensor:
    return params.camera.cam_to_px(model.landmarks_cam(name, model.vertices_cam(params)))


def observe(
    model: MorphableModel, params: FaceParams, noise_px: float = 0.0, picture: bool = False
) -> FaceObservation:
    gen = torch.Generator().manual_seed(11)

    def add(points: Tensor) -> Tensor:
        return points + noise_px * torch.randn(points.shape, generator=gen)

    sparse, dense = points_px(model, params, "ibug68"), points_px(model, params, "dense")
    iris = points_px(model, params, "iris").reshape(2, -1, 2).mean(1)
    sigma = max(noise_px, 0.2)
    crop = None
    if picture:
        mesh = model(params.identity, params.expression, params.pose)
        image = render(mesh, params.camera, model.albedo_map(params.albedo), params.light).image
        crop = ImageCrop(image.clamp(0, 1))
    return FaceObservation(
        SIZE,
        SIZE,
        add(sparse),
        torch.full((68,), sigma),
        add(dense),
        torch.full((len(dense),), sigma),
        add(iris),
        torch.full((2,), sigma),
        focal_px=500.0,
        crop=crop,
    )


def neutral(model: MorphableModel, params: FaceParams) -> Tensor:
    return model.shape(params.identity, torch.zeros(len(model.data.expression_names)))


def value(model: MorphableModel, params: FaceParams, name: str) -> float:
    return float(params.expression[model.expression_index(name)])


def test_exact_landmarks_give_pose_and_shape(model):
    truths = [make_face(model, seed) for seed in range(3)]
    fits = [fit_face(model, observe(model, truth), EXACT).params for truth in truths]
    for fit, truth in zip(fits, truths, strict=True):
        angle = torch.rad2deg(roma.rotmat_geodesic_distance(fit.camera.R, truth.camera.R))
        assert float(angle) < 1.5
    shapes, expected = (torch.stack([neutral(model, p) for p in group]) for group in (fits, truths))
    assert ratio_to_mean(model.data, shapes, expected)["mean"] < 0.5


def test_pose_of_the_mean_face(model):
    truth = make_face(model, 0)
    truth = truth.replace(identity=torch.zeros_like(truth.identity))
    fit = fit_face(model, observe(model, truth)).params
    assert float(torch.rad2deg(roma.rotmat_geodesic_distance(fit.camera.R, truth.camera.R))) < 0.5
    assert float((fit.camera.t - truth.camera.t).norm() / truth.camera.t.norm()) < 0.08


def test_one_eye_closes_alone(model):
    truth = make_face(model, 1, {"eyeBlinkLeft": 0.95})
    fit = fit_face(model, observe(model, truth)).params
    assert value(model, fit, "eyeBlinkLeft") > 0.7
    assert value(model, fit, "eyeBlinkRight") < 0.25


def test_open_jaw_and_closed_mouth(model):
    for amount in (0.0, 0.7):
        fit = fit_face(model, observe(model, make_face(model, 2, {"jawOpen": amount}))).params
        assert abs(value(model, fit, "jawOpen") - amount) < 0.2
        assert value(model, fit, "mouthClose") <= value(model, fit, "jawOpen") + 0.05


def test_gaze(model):
    truth = make_face(model, 3)
    joints = [model.data.joint_names.index(name) for name in ("eye_left", "eye_right")]
    pose = truth.pose.clone()
    pose[joints, 1] = 0.3
    fit = fit_face(model, observe(model, truth.replace(pose=pose))).params
    assert (fit.pose[joints, 1] > 0.18).all()
    assert (fit.pose[joints, 0].abs() < 0.12).all()


def test_wild_landmarks_change_little(model):
    truth = make_face(model, 4)
    observation = observe(model, truth, noise_px=0.5)
    gen = torch.Generator().manual_seed(7)

    def spoil(points: Tensor) -> Tensor:
        wild = torch.randperm(len(points), generator=gen)[: len(points) // 10]
        points = points.clone()
        points[wild] += 60 * (torch.rand(len(wild), 2, generator=gen) - 0.5).sign()
        return points

    assert observation.dense_px is not None
    spoiled = replace(
        observation, landmarks68_px=spoil(observation.landmarks68_px), dense_px=spoil(observation.dense_px)
    )
    clean, dirty = fit_face(model, observation).params, fit_face(model, spoiled).params
    assert float(torch.rad2deg(roma.rotmat_geodesic_distance(clean.camera.R, dirty.camera.R))) < 2.0
    drift = region_errors(model.data, neutral(model, dirty), neutral(model, clean)).mean("regional")
    assert float(drift) < 0.8


def test_weak_evidence_stays_near_the_mean(model):
    truth = make_face(model, 5)
    observation = observe(model, truth)
    vague = FaceObservation(SIZE, SIZE, observation.landmarks68_px, torch.full((68,), 15.0))
    fit = fit_face(model, vague).params
    assert float(fit.identity.abs().max()) < 0.5
    assert float(fit.expression.max()) < 0.2


def test_size_of_the_head_is_not_biased(model):
    """Without the evidence term every head comes out some per cent too small."""
    face = model.data.vertex_masks["face"]
    scales = []
    for seed in range(4):
        truth = make_face(model, 20 + seed)
        fit = fit_face(model, observe(model, truth, noise_px=0.5)).params
        aligned = procrustes(neutral(model, fit)[face], neutral(model, truth)[face], with_scale=True)
        scales.append(float(aligned.scale.log()))
    assert abs(sum(scales) / len(scales)) < 0.06


def test_picture_gives_light_and_albedo(model):
    truth = make_face(model, 6)
    result = fit_face(model, observe(model, truth, noise_px=0.5, picture=True))
    fit = result.params
    assert result.photometric_residual is not None and result.photometric_residual < 0.08
    mesh = model(fit.identity, fit.expression, fit.pose)
    expected = model(truth.identity, truth.expression, truth.pose)
    ours = render(mesh, fit.camera, model.albedo_map(fit.albedo), fit.light)
    theirs = render(expected, truth.camera, model.albedo_map(truth.albedo), truth.light)
    both = (ours.mask & theirs.mask)[0]
    difference = (ours.image - theirs.image)[:, both].abs().mean()
    assert float(difference) < 0.1 * float(theirs.image[:, both].mean())


@pytest.mark.parametrize("melanin", [-1.5, 1.8], ids=["light", "dark"])
def test_tone_of_skin_is_kept(model, melanin):
    truth = make_face(model, 12)
    albedo = torch.zeros(len(model.data.albedo_names))
    albedo[model.data.albedo_names.index("melanin")] = melanin
    truth = replace(truth, albedo=albedo)
    fit = fit_face(model, observe(model, truth, noise_px=0.5, picture=True)).params
    mean = model.data.albedo_mean.mean()
    ours, theirs = model.albedo_map(fit.albedo).mean(), model.albedo_map(albedo).mean()
    assert 0.3 < (ours - mean) / (theirs - mean) < 1.2


@pytest.mark.parametrize("level", [0.0, 1.0, 0.4], ids=["black", "white", "flat grey"])
def test_pictures_without_content(model, level):
    observation = observe(model, make_face(model, 7))
    crop = ImageCrop(torch.full((3, SIZE, SIZE), level))
    fit = fit_face(model, replace(observation, crop=crop)).params
    for part in (fit.identity, fit.expression, fit.light, fit.albedo, fit.camera.K, fit.camera.T_cam_object):
        assert torch.isfinite(part).all()
    assert float(fit.identity.abs().max()) < 4
    assert float(fit.light.abs().max()) < 20


def test_face_outside_the_crop_uses_landmarks_alone(model):
    observation = observe(model, make_face(model, 7))
    crop = ImageCrop(torch.rand(3, 40, 40), offset_px=(5000.0, 5000.0))
    result = fit_face(model, replace(observation, crop=crop))
    assert [stage.name for stage in result.stages] == ["pose", "landmarks", "landmarks"]
    assert result.photometric_residual is None


def test_not_a_number_raises(model):
    observation = observe(model, make_face(model, 8))
    points = observation.landmarks68_px.clone()
    points[3, 0] = float("nan")
    with pytest.raises(FitError, match="landmarks68_px"):
        fit_face(model, replace(observation, landmarks68_px=points))
    with pytest.raises(FitError, match="image_linear"):
        fit_face(model, replace(observation, crop=ImageCrop(torch.full((3, 8, 8), float("inf")))))
    with pytest.raises(FitError, match="positive"):
        fit_face(model, replace(observation, landmarks68_sigma_px=torch.zeros(68)))
    with pytest.raises(FitError, match="focal"):
        fit_face(model, replace(observation, focal_px=0.0))


def test_points_on_one_spot_raise(model):
    with pytest.raises(FitError):
        fit_face(model, FaceObservation(SIZE, SIZE, torch.full((68, 2), 50.0)))


def test_wrong_shapes_raise():
    with pytest.raises(ShapeError, match="68"):
        FaceObservation(10, 10, torch.zeros(67, 2))
    with pytest.raises(ShapeError, match="deviation"):
        FaceObservation(10, 10, torch.zeros(68, 2), torch.ones(3))
    with pytest.raises(ShapeError, match="image_linear"):
        ImageCrop(torch.zeros(1, 8, 8))


def test_same_input_same_result(model):
    observation = observe(model, make_face(model, 9), noise_px=0.5)
    first, second = fit_face(model, observation, FitConfig()), fit_face(model, observation)
    assert torch.equal(first.params.identity, second.params.identity)


def test_weak_perspective_with_and_without_known_rotation():
    gen = torch.Generator().manual_seed(0)
    points = torch.randn(60, 3, generator=gen, dtype=torch.float64) * 0.05
    R = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)) @ FLIP.double()
    centre = torch.tensor([100.0, 120.0], dtype=torch.float64)
    px = 900.0 * (points - points.mean(0)) @ R[:2].T + centre
    px[:6] += 80
    for known in (None, R):
        found, scale, where = weak_perspective(points, px, torch.ones(60).double(), known)
        assert torch.allclose(found, R, atol=1e-3)
        assert abs(scale - 900) < 2
        assert torch.allclose(where, centre + 900 * R[:2] @ (points.mean(0) - points.mean(0)), atol=0.5)
