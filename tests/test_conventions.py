"""One test per line of docs/conventions.md, numbered alike."""

import math
import re
from pathlib import Path

import pytest
import roma
import torch

import hiface
from hiface.assets import load_json_asset
from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.export.relight import head_rotation
from hiface.geometry.normals import vertex_normals
from hiface.render.environment import panorama_light, turned_light
from hiface.render.shade import sh_basis
from hiface.render.texture import sample_texture
from hiface.types import Camera

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def part_vertices(model, part):
    """Indices of the vertices of a named mesh part."""
    return model.triangles[model.part_triangles([part])].unique()


def part_centre(model, part):
    return model.template[part_vertices(model, part)].mean(dim=0)


def test_every_line_of_the_page_has_a_test():
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    lines = {int(n) for n in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    tests = {int(n) for n in re.findall(r"def test_(\d+)_", Path(__file__).read_text(encoding="utf-8"))}
    assert lines == tests


def test_1_metres(model):
    eyes = part_centre(model, "eye_left") - part_centre(model, "eye_right")
    assert 0.055 < eyes.norm() < 0.070


def test_2_object_space(model):
    left = part_centre(model, "eye_left")
    nose_tip = model.landmarks("ibug68", model.template)[30]
    chin = model.landmarks("ibug68", model.template)[8]
    assert left[0] > 0.02 > 0 > part_centre(model, "eye_right")[0]
    assert chin[1] < nose_tip[1] < left[1]
    assert nose_tip[2] > left[2]


def test_3_camera_space(model):
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    camera = Camera.from_pose(upright, torch.tensor([0.0, 0.0, 0.6]), 800.0, 640, 480)
    verts_cam = camera.to_cam(model.template)
    assert torch.linalg.det(camera.R) == pytest.approx(1.0)
    assert (verts_cam[:, 2] > 0).all()
    points = model.landmarks("ibug68", verts_cam)
    assert points[8, 1] > points[30, 1]
    assert points[30, 2] < points[0, 2]
    assert points[42, 0] > points[36, 0]


def test_4_intrinsics_are_pixels():
    camera = Camera.from_pose(torch.eye(3), torch.zeros(3), 500.0, 640, 480)
    assert camera.K.tolist() == [[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(
        camera.cam_to_px(torch.tensor([[0.1, 0.2, 1.0]])), torch.tensor([[370.0, 340.0]])
    )


def test_5_pixel_centres():
    from hiface.render.rasterize import rasterize

    corners = torch.tensor([[0.45, 0.45, 1.0], [0.45, 0.65, 1.0], [0.65, 0.45, 1.0]])
    both = torch.tensor([[0, 1, 2], [0, 2, 1]])
    assert (rasterize(corners, both, 2, 2)[0, 0] >= 0).item()
    assert (rasterize(corners + torch.tensor([-0.2, -0.2, 0.0]), both, 2, 2) < 0).all()


def test_6_uv_origin_and_texel_centres():
    texture = torch.arange(16.0).reshape(1, 1, 4, 4)
    uv = torch.tensor([[[0.125, 0.125], [0.875, 0.125], [0.125, 0.875]]])
    got = sample_texture(texture, uv)
    assert got.flatten().tolist() == [0.0, 3.0, 12.0]
    model = hiface.load_model("open")
    height, width = model.albedo_mean.shape[-2:]
    assert height == width and height & (height - 1) == 0
    points = model.data.landmark_sets["ibug68"]
    uv_points = (model.uv[model.uv_triangles[points.triangle_ids]] * points.barycentric[..., None]).sum(1)
    assert uv_points[8, 1] > uv_points[27, 1], "the chin is below the nose in the map"


def test_7_colour():
    values = torch.linspace(0, 1, 256)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6, rtol=0)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404114)
    albedo = hiface.load_model("open").albedo_mean
    assert albedo.min() >= 0 and albedo.max() <= 1


def test_8_spherical_harmonics():
    gen = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(200_000, 3, generator=gen, dtype=torch.float64), dim=-1
    )
    basis = sh_basis(directions)
    gram = 4 * math.pi * basis.T @ basis / directions.shape[0]
    scale = gram.diagonal()
    off = gram - torch.diag(scale)
    assert basis.shape[-1] == 9
    assert off.abs().max() < 0.03 * scale.max(), "the nine functions are orthogonal"


def test_9_rotations(model):
    pose = torch.zeros(5, 3)
    pose[model.data.joint_names.index("head")] = torch.tensor([0.0, 0.3, 0.0])
    turned = model.vertices(torch.zeros(1), torch.zeros(52), pose)
    head = model.data.joints_template[model.data.joint_names.index("head")]
    tip = model.landmark_set("ibug68")
    want = (tip.positions(model.template, model.triangles)[30] - head) @ roma.rotvec_to_rotmat(
        torch.tensor([0.0, 0.3, 0.0])
    ).T + head
    torch.testing.assert_close(tip.positions(turned, model.triangles)[30], want, atol=2e-4, rtol=0)
    assert want[0] > 0.02, "a positive turn about +Y moves the nose to the face's own left"


def test_10_landmarks_are_data(model):
    points = model.landmarks("ibug68", model.template)
    assert points.shape == (68, 3)
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[48, 0] < 0 < points[54, 0]


def test_11_expressions(model):
    names = load_json_asset("expressions/arkit52.json")["names"]
    assert list(model.data.expression_names) == names == sorted(names)
    assert len(names) == 52 and {"jawOpen", "eyeBlinkLeft", "tongueOut"} <= set(names)


def test_12_winding(model):
    normals = vertex_normals(model.template, model.triangles)
    tip = model.landmark_set("ibug68")
    assert tip.positions(normals, model.triangles)[30, 2] > 0.5
    for eye in ("eye_left", "eye_right"):
        ids = part_vertices(model, eye)
        outward = model.template[ids] - model.template[ids].mean(0)
        assert ((outward * normals[ids]).sum(-1) > 0).float().mean() > 0.9


def test_13_coefficients_are_in_sigma(model):
    std_mm = 1000 * model.identity_basis.flatten(1).square().mean(dim=1).sqrt()
    assert std_mm[0] > 0.3, "one sigma of the first mode moves the head by a visible amount"
    assert (model.identity_basis.flatten(1).norm(dim=1)[:10] > model.identity_basis[-1].norm()).all()


def test_14_any_leading_dimensions(model):
    for batch in [(), (2,), (1, 2)]:
        verts = model.vertices(torch.zeros(*batch, 4), torch.zeros(*batch, 52), torch.zeros(*batch, 5, 3))
        assert verts.shape == (*batch, model.data.n_vertices, 3)


def test_15_gaze(model):
    names = model.data.expression_names
    eyeballs = torch.cat([part_vertices(model, p) for p in ("eye_left", "eye_right")])
    rows = [i for i, n in enumerate(names) if n.startswith("eyeLook")]
    assert model.expression_basis[rows][:, eyeballs].abs().max() == 0
    assert model.expression_basis[names.index("eyeLookDownLeft")].abs().max() > 1e-3


def test_16_names():
    text = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src" / "hiface").rglob("*.py"))
    assert "T_cam_object" in text and "verts_cam" in text
    assert not re.search(r"\bfaces\s*:\s*Tensor", text), "index triples are called triangles"


def test_17_turned_heads():
    nose, crown = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    assert (head_rotation(20.0) @ nose)[0] > 0.3
    assert (head_rotation(0.0, 20.0) @ nose)[1] < -0.3
    assert (head_rotation(0.0, 0.0, 20.0) @ crown)[0] > 0.3


def test_18_panoramas():
    panorama = torch.zeros(3, 32, 64)
    panorama[:, 12:20, 44:52] = 1.0
    right = panorama_light(panorama)
    assert right[3, 0] > 5 * max(abs(right[1, 0]), abs(right[2, 0]))
    middle = panorama_light(panorama.roll(-16, dims=2))
    assert torch.allclose(turned_light(middle, 90.0), right, atol=1e-3)
