# SPDX-License-Identifier: Apache-2.0
"""Analytic Jacobians of points, normals and colours against automatic differentiation in double precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from hiface.fitting.config import FitConfig
from hiface.fitting.landmark_energy import build_landmark_energy, build_landmark_model
from hiface.fitting.observations import FaceObservation, ImageCrop
from hiface.fitting.parameters import ParamLayout, PoseFrame, left_jacobian, to_face_params
from hiface.fitting.photometric_energy import PhotometricEnergy, blur_crop
from hiface.fitting.point_basis import gather_points, project, project_px
from hiface.fitting.priors import LightLevel, build_prior
from hiface.fitting.samples import build_samples
from hiface.fitting.shading import sample_normals, sh_basis_jacobian
from hiface.geometry.normals import vertex_normals
from hiface.render.shade import sh_basis
from toy import toy_model

DTYPE = torch.float64
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=DTYPE))


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def layout(model) -> ParamLayout:
    return ParamLayout(6, 52, 3)


@pytest.fixture(scope="module")
def frame() -> PoseFrame:
    R = roma.rotvec_to_rotmat(torch.tensor([0.1, 0.3, -0.1], dtype=DTYPE)) @ FLIP
    return PoseFrame(
        R=R,
        anchor=torch.tensor([0.01, 0.02, 0.03], dtype=DTYPE),
        centre_px=torch.tensor([130.0, 120.0], dtype=DTYPE),
        scale_px=900.0,
        focal_px=600.0,
        principal_px=torch.tensor([128.0, 128.0], dtype=DTYPE),
        size_px=80.0,
        width=256,
        height=256,
    )


@pytest.fixture
def x(layout) -> Tensor:
    gen = torch.Generator().manual_seed(5)
    x = 0.2 * torch.randn(layout.size, generator=gen, dtype=DTYPE)
    x[layout["light"]] += torch.eye(9, 3).double().flatten() * 3
    return x


def test_points_and_camera(model, layout, frame, x):
    points = gather_points(model.data, model.data.landmark_sets["ibug68"], 6).to(DTYPE)
    points.eye[:10], points.eye[10:20] = 0, 1
    expected = torch.autograd.functional.jacobian(lambda y: project_px(points, y, layout, frame), x)
    found = project(points, x, layout, frame).jacobian
    assert isinstance(expected, Tensor)
    assert expected[..., layout["gaze"]].abs().max() > 1
    assert torch.allclose(found, expected[..., : layout.n_geometry], atol=1e-8)
    assert expected[..., layout.n_geometry :].abs().max() == 0


def test_parameters_mean_the_same_as_the_model(model, layout, frame, x):
    """The projection of the fit is that of FaceParams through the model and the camera."""
    points = gather_points(model.data, model.data.landmark_sets["ibug68"], 6).to(DTYPE)
    params = to_face_params(x, layout, frame, model.data)
    px = params.camera.cam_to_px(model.landmarks("ibug68", model.vertices_cam(params)))
    assert torch.allclose(px.double(), project_px(points, x, layout, frame), atol=1e-2)


@pytest.mark.parametrize("size", [0.0, 1e-6, 0.5, 3.0])
def test_left_jacobian(size: float):
    w = size * torch.tensor([0.3, -0.8, 0.52], dtype=DTYPE)
    inverse = roma.rotvec_to_rotmat(w).T

    def moved(d: Tensor) -> Tensor:
        return roma.rotmat_to_rotvec(roma.rotvec_to_rotmat(w + d) @ inverse)

    step = 1e-5 * torch.eye(3, dtype=DTYPE)
    expected = torch.stack([(moved(e) - moved(-e)) / 2e-5 for e in step], dim=1)
    assert torch.allclose(left_jacobian(w), expected, atol=1e-6)


def test_sh_basis_jacobian():
    n = torch.randn(20, 3, dtype=DTYPE)
    expected = torch.autograd.functional.jacobian(lambda m: sh_basis(m).sum(0), n)
    assert isinstance(expected, Tensor)
    assert torch.allclose(sh_basis_jacobian(n), expected.permute(1, 0, 2))


def test_sample_normals_are_those_of_the_renderer(model):
    samples = build_samples(model, 300, 6, DTYPE)
    template = model.data.template.double()
    normals = vertex_normals(template, model.data.triangles)
    corners = normals[model.data.triangles[samples.triangle_ids]]
    expected = torch.nn.functional.normalize((corners * samples.barycentric[..., None]).sum(1), dim=-1)
    assert torch.allclose(sample_normals(samples, samples.vertices.mean), expected, atol=1e-4)


@pytest.fixture
def photometric(model, layout, frame) -> PhotometricEnergy:
    gen = torch.Generator().manual_seed(3)
    crop = ImageCrop(torch.rand(3, 128, 128, generator=gen), (20.0, 30.0), 0.7)
    samples = build_samples(model, 60, 6, DTYPE)
    visible = (torch.rand(60, generator=gen) > 0.3).double()
    image = blur_crop(crop, 6.0, 0.5, DTYPE)
    return PhotometricEnergy(samples, image, visible, 0.3, 0.1, 2.0, True, layout, frame)


def test_colours(photometric, layout, x):
    """All but the image's own slope: the picture is replaced by one that is linear in the pixel."""
    plane = torch.linspace(0, 1, 128, dtype=DTYPE).expand(3, 128, 128)
    rows = torch.cat([plane, torch.full_like(plane, 1 / 127), torch.zeros_like(plane)])
    energy = replace(photometric, image=replace(photometric.image, planes=rows))

    def residual(y: Tensor) -> Tensor:
        observed, modelled = energy.colours(y)
        return (observed - modelled) / energy.sigma

    expected = torch.autograd.functional.jacobian(residual, x)
    found, jacobian = energy.residual_jacobian(x)
    assert isinstance(expected, Tensor)
    assert torch.allclose(found, residual(x), atol=1e-5)
    for name, part in layout.slices.items():
        difference = (jacobian[..., part] - expected[..., part]).abs().max()
        assert difference < 1e-5 * max(1.0, float(expected[..., part].abs().max())), name


def test_fixed_geometry_keeps_the_colour_part(photometric, layout, x):
    fixed = replace(photometric, moves_geometry=False).linearise(x)
    free = photometric.linearise(x)
    n = layout.n_geometry
    assert torch.allclose(fixed.gradient[n:], free.gradient[n:])
    assert torch.allclose(fixed.hessian[n:, n:], free.hessian[n:, n:])
    assert fixed.hessian[:n].abs().max() == 0
    assert torch.allclose(fixed.cost, free.cost)


def test_image_slope_is_that_of_the_blurred_picture(photometric):
    gen = torch.Generator().manual_seed(1)
    px = 60 + 60 * torch.rand(50, 2, generator=gen, dtype=DTYPE)
    step = torch.tensor([0.7, 0.0], dtype=DTYPE)
    ahead, back = photometric.image.lookup(px + step)[0], photometric.image.lookup(px - step)[0]
    slope = photometric.image.lookup(px)[1][..., 0]
    assert torch.allclose((ahead - back) / 1.4, slope, atol=5e-3)


def gradient_of(energy, x: Tensor) -> Tensor:
    step = 1e-6 * torch.eye(x.shape[0], dtype=DTYPE)
    return torch.stack([(energy.cost(x + e) - energy.cost(x - e)) / 2e-6 for e in step])


def test_landmark_energy_gradient(model, layout, frame, x):
    landmarks = build_landmark_model(model, 6, DTYPE)
    gen = torch.Generator().manual_seed(2)
    px = project_px(landmarks.sparse, x, layout, frame) + 4 * torch.randn(68, 2, generator=gen, dtype=DTYPE)
    iris = project_px(landmarks.iris, x, layout, frame) + 1
    observation = FaceObservation(256, 256, px, dense_px=px + 2, iris_px=iris)
    energy = build_landmark_energy(landmarks, observation, x, layout, frame, FitConfig())
    model_ = energy.linearise(x)
    assert torch.allclose(model_.cost, energy.cost(x))
    assert torch.allclose(model_.gradient, gradient_of(energy, x), rtol=1e-4, atol=1e-4)


def test_prior_gradient(model, layout, x):
    prior = build_prior(layout, model.data.expression_names, FitConfig(), focal_known=False)
    assert torch.allclose(prior.linearise(x).gradient, gradient_of(prior, x), rtol=1e-4, atol=1e-3)


def test_light_level_gradient(layout, x):
    energy = LightLevel(layout["light"].start, 0.2, 0.4)
    bright = x.clone()
    bright[layout["light"]] += 1.0
    assert torch.allclose(energy.linearise(bright).gradient, gradient_of(energy, bright), atol=1e-6)
    assert energy.cost(bright) > energy.cost(bright - 0.5 * layout.mask("light"))
