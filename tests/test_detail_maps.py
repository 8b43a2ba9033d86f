"""Normals of relief, shading with them, and the maps that other programs read."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.detail.basis import load_detail_basis
from hiface.detail.displacement import displaced_normals, relief_normals
from hiface.detail.sd_detail import detailed_normals
from hiface.errors import ShapeError
from hiface.export.detail_maps import (
    DISPLACEMENT_RANGE_M,
    displacement_png,
    tangent_frames,
    tangent_normal_map,
)
from hiface.geometry.normals import vertex_normals
from hiface.render.normal_mapped import render_normal_map
from hiface.render.pipeline import render
from hiface.render.shade import ambient_light
from hiface.types import Camera


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def cylinder(size=96, radius=0.1):
    """A smooth curved patch: positions and normals [3, S, S], and a wavy relief [1, S, S]."""
    angle, height = torch.meshgrid(
        torch.linspace(-0.8, 0.8, size).double(), torch.linspace(-0.1, 0.1, size).double(), indexing="xy"
    )
    normal = torch.stack([torch.sin(angle), torch.zeros_like(angle), torch.cos(angle)])
    position = radius * normal + torch.stack([torch.zeros_like(angle), height, torch.zeros_like(angle)])
    relief = 2e-4 * torch.sin(30 * angle) * torch.cos(150 * height)
    return position, normal, relief[None]


def angles_deg(a, b):
    return torch.rad2deg(torch.acos((a * b).sum(0).clamp(-1, 1)))


def test_relief_bends_normals_as_the_displaced_surface_does():
    position, normal, relief = cylinder()
    inner = (slice(2, -2), slice(2, -2))
    apart = angles_deg(displaced_normals(position, normal, relief), normal)[inner]
    error = angles_deg(relief_normals(position, normal, relief), displaced_normals(position, normal, relief))[
        inner
    ]
    assert float(apart.max()) > 3 and float(error.max()) < 0.15


def test_without_relief_the_normals_are_the_smooth_ones(model):
    none = torch.zeros(1, 256, 256)
    normals = detailed_normals(model, model.template, none)
    smooth = vertex_normals(model.template, model.triangles)
    from hiface.detail.sd_detail import detail_space

    lifted = torch.nn.functional.normalize(detail_space(model, 256).lift(smooth), dim=0)
    assert torch.allclose(normals, lifted, atol=1e-5)


def test_relief_normals_have_gradients():
    position, normal, relief = cylinder(8)
    assert torch.autograd.gradcheck(
        lambda d, p: relief_normals(p, normal, d),
        (relief.requires_grad_(True), position.requires_grad_(True)),
        atol=1e-4,
    )


def facing_camera(size=160):
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    return R, Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.8]), 3.0 * size, size, size)


def test_smooth_normals_in_a_map_change_nothing(model):
    R, camera = facing_camera()
    light = ambient_light(1.0, model.template)
    light[2] = -0.4  # from the camera
    smooth = render(model.mesh(model.template), camera, model.albedo_map(torch.zeros(21)), light)
    normals = detailed_normals(model, model.template, torch.zeros(1, 256, 256))
    same = render_normal_map(smooth, normals, R, light)
    inside = smooth.mask.expand_as(smooth.image)
    assert float((same.image - smooth.image)[inside].abs().median()) < 2e-3
    nothing = render_normal_map(smooth, torch.zeros(3, 16, 16), R, light)
    assert torch.allclose(nothing.image, smooth.image, atol=1e-6)
    assert torch.allclose(nothing.normals_cam, smooth.normals_cam, atol=1e-5)
    with pytest.raises(ShapeError, match="normal_map"):
        render_normal_map(smooth, torch.zeros(1, 16, 16), R, light)


def test_relief_shows_in_the_shading_and_lets_gradients_through(model):
    R, camera = facing_camera()
    basis = load_detail_basis()
    light = ambient_light(0.6, model.template)
    light[1] = -0.5
    smooth = render(model.mesh(model.template), camera, model.albedo_map(torch.zeros(21)), light)
    codes = torch.zeros(300, requires_grad=True)
    relief = basis.scatter(basis.static.decode(codes))
    drawn = render_normal_map(smooth, detailed_normals(model, model.template, relief), R, light)
    change = (drawn.image - smooth.image).abs().sum(0)
    assert float(change.detach().max()) > 0.05
    drawn.image.square().sum().backward()
    assert torch.isfinite(codes.grad).all() and float(codes.grad.abs().max()) > 0


def test_gradients_to_the_surface_are_finite_outside_the_charts_too(model):
    vertices = model.template.clone().requires_grad_(True)
    relief = torch.full((1, 256, 256), 1e-4)
    detailed_normals(model, vertices, relief).square().sum().backward()
    assert torch.isfinite(vertices.grad).all()


def test_frames_are_orthonormal_and_right_handed_as_gltf_wants(model):
    from hiface.detail.sd_detail import detail_space

    tangent, bitangent, normal = tangent_frames(model, model.template, 256)
    inside = detail_space(model, 256).mask
    rows = torch.stack([tangent, bitangent, normal])[:, :, inside]
    gram = torch.einsum("aip,bip->abp", rows, rows)
    assert torch.allclose(gram, torch.eye(3)[..., None].expand_as(gram), atol=1e-4)
    # u grows along the tangent, v against the bitangent: differences of the positions say the same.
    position = detail_space(model, 256).lift(model.template)
    along_u = position[:, 100:110, 121:141] - position[:, 100:110, 119:139]
    along_v = position[:, 101:111, 120:140] - position[:, 99:109, 120:140]
    here = (slice(None), slice(100, 110), slice(120, 140))
    assert float((along_u * tangent[here]).sum(0).min()) > 0
    assert float((along_v * bitangent[here]).sum(0).max()) < 0


def test_normal_map_is_flat_without_relief_and_leans_away_from_a_bump(model):
    assert torch.allclose(
        tangent_normal_map(model, model.template, torch.zeros(1, 256, 256)),
        torch.tensor([0.5, 0.5, 1.0])[:, None, None].expand(3, 256, 256),
        atol=2e-3,
    )
    bump = torch.zeros(1, 256, 256)
    ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    bump[0] = 1e-3 * torch.exp(-((xs - 128) ** 2 + (ys - 40) ** 2) / 50)  # on the forehead
    picture = tangent_normal_map(model, model.template, bump)
    assert float(picture[0, 40, 134]) > 0.53 and float(picture[0, 40, 122]) < 0.47
    assert float(picture[1, 34, 128]) > 0.53 and float(picture[1, 46, 128]) < 0.47  # green is up


def test_displacement_is_stored_in_sixteen_bits():
    values = torch.tensor([[[0.0, 1e-3], [-1e-3, 5e-3]]])
    picture = Image.open(io.BytesIO(displacement_png(values)))
    low, high = (float(v) for v in picture.text["displacement_range_m"].split())
    assert (low, high) == (-DISPLACEMENT_RANGE_M, DISPLACEMENT_RANGE_M)
    read = (np.asarray(picture).astype(np.float64) - 32768) / 32768 * DISPLACEMENT_RANGE_M
    assert np.allclose(read[0], [0, 1e-3], atol=1e-7) and math.isclose(read[1, 0], -1e-3, abs_tol=1e-7)
    assert read[1, 1] < DISPLACEMENT_RANGE_M  # deeper than the range: cut off, not wrapped round
    with pytest.raises(ShapeError, match="displacement"):
        displacement_png(torch.zeros(3, 4, 4))
