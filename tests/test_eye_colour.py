"""The colour of irises: crops, beliefs of several photos, the packaged network, and paint on a texture."""

import numpy as np
import pytest
import torch

import hiface
from hiface.colour import srgb_to_linear
from hiface.data import Photo
from hiface.data.crop_arrays import eye_corners
from hiface.export.eyes import paint_irises, with_eyes_of
from hiface.morphable.iris_cones import iris_cones
from hiface.networks.eye_colour import IrisColour, eye_crops, packaged_eye_colour, shared_colour
from hiface.render.uv_space import uv_space
from hiface.synthetic.generator import Style, generate_picture
from hiface.synthetic.shots import sitter_of
from toy import toy_model


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def face_points(angle: float = 0.0) -> np.ndarray:
    """68 points whose eyes are 40 px wide, right eye at (100, 150), left at (200, 150), turned."""
    points = np.full((68, 2), 150.0, np.float32)
    points[:17] = np.stack([np.linspace(60, 240, 17), np.full(17, 260.0)], 1)
    (right_outer, right_inner), (left_inner, left_outer) = eye_corners()
    for row, x in ((right_outer, 80), (right_inner, 120), (left_inner, 180), (left_outer, 220)):
        points[row] = x, 150
    c, s = np.cos(angle), np.sin(angle)
    return (points - 150) @ np.array([[c, s], [-s, c]], np.float32) + 150


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_crops_have_eyes_upright_in_the_middle_and_the_nose_on_the_same_side(angle):
    points = face_points(angle)
    yy, xx = np.mgrid[:300, :300].astype(np.float32)
    image = np.full((300, 300, 3), 128, np.uint8)
    right, left = (points[pair] for pair in eye_corners())
    for centre, colour in ((right.mean(0), (250, 0, 0)), (left.mean(0), (0, 0, 250))):
        image[np.hypot(xx - centre[0], yy - centre[1]) < 8] = colour
    for inner in (right[1], left[0]):
        image[np.hypot(xx - inner[0], yy - inner[1]) < 6] = (0, 250, 0)
    crops = eye_crops(image, points, 40, 1.5)
    assert crops.shape == (3, 3, 40, 40)
    for crop, channel in ((crops[0], 0), (crops[1], 2)):
        middle = crop[:, 18:22, 18:22].mean((1, 2))
        assert float(middle[channel]) > 0.9 and float(middle[1]) < 0.1
        green = (crop[1] - crop[0] - crop[2]).clamp_min(0.3).sum(0) - 0.3 * 40
        column = float((green * (torch.arange(40) + 0.5)).sum() / green.sum())
        assert column == pytest.approx(20 + 20 * 40 / 60, abs=1)  # the inner corner, half an eye to the right


def belief(mean: float, sigma: float) -> IrisColour:
    one = torch.ones(3)
    return IrisColour(mean * one, sigma * one, -3.0 * one, 0.8 * one)


def test_beliefs_of_photos_multiply_and_what_all_people_have_in_common_counts_once():
    alone = shared_colour([belief(-2.0, 0.3)])
    assert torch.allclose(alone.log_mean, torch.full((3,), -2.0))
    assert float(alone.log_sigma[0]) == pytest.approx(0.3)
    blind = shared_colour([belief(-2.0, 0.3), belief(-3.0, 0.8)])  # the second photo shows nothing
    assert torch.allclose(blind.log_mean, alone.log_mean, atol=0.01)
    both = shared_colour([belief(-2.0, 0.3), belief(-1.8, 0.4)])
    grid = np.linspace(-6, 2, 8001)

    def log_normal(mean: float, sigma: float) -> np.ndarray:
        return -0.5 * ((grid - mean) / sigma) ** 2

    weight = np.exp(log_normal(-2.0, 0.3) + log_normal(-1.8, 0.4) - log_normal(-3.0, 0.8))
    mean = (grid * weight).sum() / weight.sum()
    spread = np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum())
    assert float(both.log_mean[0]) == pytest.approx(mean, abs=1e-3)
    assert float(both.log_sigma[0]) == pytest.approx(spread, abs=1e-3)


def test_network_tells_dark_from_light_eyes_and_knows_when_it_cannot(model):
    truth, said, sigma, open_eyes = [], [], [], []
    for seed in range(9_000_000, 9_000_000 + 3 * 120, 3):
        person = sitter_of(model, seed // 3, Style().effects)
        sample = generate_picture(model, seed, Style(256), person)
        found = packaged_eye_colour().read(
            sample.image_srgb.permute(1, 2, 0).contiguous().numpy(), sample.landmarks68_px
        )
        truth.append(np.log(person.person.iris_colour).mean())
        said.append(float(found.log_mean.mean()))
        sigma.append(float(found.log_sigma.mean()))
        open_eyes.append(float(sample.visible_iris.float().mean()))
    truth, said, sigma, open_eyes = map(np.array, (truth, said, sigma, open_eyes))
    sure = sigma <= np.median(sigma)
    assert np.corrcoef(truth[sure], said[sure])[0, 1] > 0.7
    assert np.abs(truth - said)[sure].mean() < 0.6 * np.abs(truth - truth.mean())[sure].mean()
    assert sigma[open_eyes < 0.05].mean() > sigma[open_eyes > 0.6].mean() + 0.1


def test_paint_reaches_irises_only(model):
    size = 512
    albedo = torch.full((3, size, size), 0.4)
    colour = torch.tensor([0.03, 0.06, 0.15])
    painted = paint_irises(model, albedo, colour)
    changed = (painted - albedo).abs().amax(0) > 1e-3
    space = uv_space(model.uv, model.uv_triangles, model.triangles, model.data.n_vertices, size)
    names = model.data.part_names
    part = torch.where(space.mask, model.data.triangle_parts[space.triangle_id.long().clamp_min(0)], -1)
    eyes = (part == names.index("eye_left")) | (part == names.index("eye_right"))
    assert bool(changed.any()) and not bool((changed & ~eyes).any())
    cones = iris_cones(model)
    assert cones is not None
    points = space.lift(model.template).permute(1, 2, 0)
    for side, name in enumerate(("eye_left", "eye_right")):
        here = part == names.index(name)
        out = torch.nn.functional.normalize(points[here] - cones.centres[side], dim=1)
        angle = torch.acos((out @ cones.axes[side]).clamp(-1, 1)) / cones.radius_rad
        texels = painted[:, here]
        ring = texels[:, (angle > 0.5) & (angle < 0.7)].mean(1)
        assert torch.allclose(ring / colour, torch.ones(3), atol=0.35)
        assert float(texels[:, angle < 0.25].max()) < 0.03  # pupil
        assert torch.allclose(texels[:, angle > 1.7], torch.tensor(0.4))


def test_model_without_eyeballs_is_left_alone():
    albedo = torch.rand(3, 64, 64)
    assert torch.equal(paint_irises(toy_model(), albedo, torch.rand(3)), albedo)


def test_texture_of_a_result_has_the_irises_that_were_read(model):
    sample = generate_picture(model, 9_000_300, Style(256, effects=frozenset()))
    photo = Photo(sample.image_srgb.permute(1, 2, 0).contiguous().numpy())
    (face,) = hiface.Reconstructor(device="cpu").reconstruct(photo)
    colour = face.iris_colour().colour
    texture = srgb_to_linear(face.texture(512))
    irises = (paint_irises(model, texture, 4 * colour) - texture).abs() > 0.03
    assert int(irises.sum()) > 100
    assert torch.allclose(paint_irises(model, texture, colour)[irises], texture[irises], atol=2e-3)


def test_eyes_of_a_texture_on_another_albedo(model):
    texture, albedo = torch.zeros(3, 256, 256), torch.ones(3, 128, 128)
    mixed = with_eyes_of(model, albedo, texture)
    space = uv_space(model.uv, model.uv_triangles, model.triangles, model.data.n_vertices, 256)
    part = torch.where(space.mask, model.data.triangle_parts[space.triangle_id.long().clamp_min(0)], -1)
    names = model.data.part_names
    eyes = (part == names.index("eye_left")) | (part == names.index("eye_right"))
    assert torch.equal(mixed == 0, eyes.expand(3, -1, -1))
    assert torch.equal(mixed[:, ~eyes], torch.ones(3, int((~eyes).sum())))
