# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.colour import linear_to_srgb, to_uint8
from hiface.errors import OutputError, ShapeError
from hiface.export.draw import (
    INK,
    LINE_COLOUR,
    NOTHING_SRGB8,
    PAPER,
    crop_square,
    draw_landmarks,
    grid,
    landmark_lines,
)
from hiface.export.overview import clay, head_view, normal_colours, overview, write_overview
from hiface.morphable import MorphableModel
from hiface.render import ambient_light, render
from hiface.types import Camera, FaceParams
from toy import toy_model


@dataclass(frozen=True)
class ToyFace:
    """A fitted face and its photo."""

    params: FaceParams
    model: MorphableModel
    photo: np.ndarray

    def landmarks(self) -> torch.Tensor:
        mesh = self.model(self.params.identity, self.params.expression, self.params.pose)
        return self.params.camera.project(self.model.landmarks("ibug68", mesh.vertices))


@pytest.fixture(scope="module")
def face() -> ToyFace:
    torch.manual_seed(0)
    model = toy_model()
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    camera = Camera.from_pose(R, torch.tensor([0.05, 0.0, 0.7]), 500.0, 320, 256)
    light = ambient_light(0.8, torch.zeros(()))
    params = FaceParams(torch.zeros(8), torch.zeros(52), torch.zeros(5, 3), torch.zeros(3), light, camera)
    mesh = model(params.identity, params.expression, params.pose)
    blue = torch.tensor([0.1, 0.1, 0.7])[:, None, None]
    image = render(mesh, camera, model.albedo_map(params.albedo), light, background=blue).image
    photo = to_uint8(linear_to_srgb(image)).permute(1, 2, 0).contiguous().numpy()
    return ToyFace(params, model, photo)


def test_overview_shows_six_aligned_panels(face: ToyFace) -> None:
    sheet = overview(face.model, face.params, face.photo, face.landmarks(), panel_px=96)
    gap, title = 14, 19
    assert sheet.size == (3 * (96 + gap) + gap, 2 * (96 + title + gap) + gap // 2)
    pixels = np.asarray(sheet).astype(int)
    panels = [
        pixels[gap // 2 + title + r * (96 + title + gap) :][:96, gap + c * (96 + gap) :][:, :96]
        for r in range(2)
        for c in range(3)
    ]
    photo, landmarks, fit, shape, albedo, normals = panels
    assert np.abs(photo[8:-8, 8:-8] - fit[8:-8, 8:-8]).mean() < 3
    assert (np.abs(photo - landmarks).sum(-1) > 60).mean() > 0.005
    inside = photo[..., 2] - photo[..., 0] < 60
    for panel in (shape, albedo, normals):
        assert (np.abs(panel - np.median(panel[:6, 20:-20], axis=(0, 1))).sum(-1) > 40)[inside].mean() > 0.9
    centre = normals[44:52, 44:52].mean(axis=(0, 1))
    assert centre[2] > 240 and abs(centre[0] - 128) < 16 and abs(centre[1] - 128) < 16
    assert normals[48, 70, 0] > 150 > 110 > normals[48, 26, 0]
    assert normals[25, 48, 1] > 150 > 110 > normals[70, 48, 1]


def test_overview_of_a_head_partly_outside_the_photo(face: ToyFace) -> None:
    T = face.params.camera.T_cam_object.clone()
    T[0, 3] = 0.2
    params = face.params.replace(camera=Camera(face.params.camera.K, T, 320, 256))
    sheet = overview(face.model, params, face.photo, face.landmarks(), panel_px=64)
    assert sheet.size[0] == 3 * 78 + 14
    view = head_view(
        params.camera.project(face.model.vertices(params.identity, params.expression, params.pose))
    )
    edge = round((320 - view.centre_px[0] + view.side_px / 2) * 64 / view.side_px)
    assert 8 < edge < 56, "the photo ends within the panel"
    middle = np.asarray(sheet)[26 + 24 : 26 + 40, 14:78].astype(int)  # rows of the panel "photo"
    assert (middle[:, edge:] == NOTHING_SRGB8).all()
    assert (np.abs(middle[:, :edge] - NOTHING_SRGB8).sum(-1) > 60).all()
    with pytest.raises(ShapeError, match="one face"):
        overview(face.model, params.replace(identity=torch.zeros(1, 8)), face.photo, face.landmarks())


def test_head_view_maps_pixels_like_its_camera(face: ToyFace) -> None:
    points = face.model.template
    view = head_view(face.params.camera.project(points))
    camera = view.camera(face.params.camera, 200)
    assert torch.allclose(
        camera.project(points), view.to_view(face.params.camera.project(points), 200), atol=1e-3
    )
    px = camera.project(points)
    assert px.min() > 5 and px.max() < 195


def test_crop_square_places_pixels_and_is_plain_beyond_the_photo() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:40] = 255
    crop = np.asarray(crop_square(image, (35.0, 15.0), 20.0, 20))
    assert crop.shape == (20, 20, 3) and crop[6:14, 6:14].min() == 255 and crop[:4].max() == 0
    image[:, :] = (np.arange(60)[None, :, None] * 4).astype(np.uint8)
    crop = np.asarray(crop_square(image, (0.0, 20.0), 40.0, 40)).astype(int)
    assert (crop[:, :20] == NOTHING_SRGB8).all() and crop[:, 20:22].max() <= 8
    assert abs(crop[20, 30, 0] - 40) <= 2
    far = np.asarray(crop_square(image, (500.0, 20.0), 40.0, 40))
    assert (far == NOTHING_SRGB8).all()


def test_landmark_lines_join_neighbours_and_close_eyes_and_lips() -> None:
    lines = landmark_lines()
    assert sorted({i for line in lines for i in line}) == list(range(68))
    assert [line[0] for line in lines if line[0] == line[-1]] == [36, 42, 48, 60]
    assert all(b - a == 1 for line in lines for a, b in pairwise(line) if b != line[0])


def test_landmarks_are_drawn_where_they_are() -> None:
    points = torch.full((68, 2), 20.0)
    points[0], points[1] = torch.tensor([10.0, 50.0]), torch.tensor([90.0, 50.0])
    points[2:17] = points[1]
    picture = np.asarray(draw_landmarks(Image.new("RGB", (100, 60)), points, 2.0)).astype(int)
    assert np.abs(picture[50, 50] - LINE_COLOUR).max() < 40
    assert picture[49, 9].min() > 150 and picture[5:15, 60:].max() == 0
    assert np.asarray(draw_landmarks(Image.new("RGB", (9, 9)), torch.tensor([[4.0, 4.0]]))).max() > 100


def test_grid_has_titles() -> None:
    picture = Image.new("RGB", (80, 60), (255, 0, 0))
    sheet = np.asarray(grid([("one", picture), ("two", picture), ("three", picture)], columns=2)).astype(int)
    assert tuple(sheet[0, 0]) == PAPER
    assert (np.abs(sheet[7:26, 14:60] - INK).sum(-1) < 120).any()
    assert (sheet == [255, 0, 0]).all(-1).sum() > 3 * 80 * 60 * 0.98


def test_clay_is_brightest_towards_the_lamp_and_normals_have_the_usual_colours() -> None:
    normals = torch.tensor([[-0.5, 0.5, 0.0], [-0.5, 0.5, 0.0], [-0.7, -0.7, -1.0]])[:, None]
    values = clay(normals / normals.norm(dim=0)).mean(dim=0)[0]
    assert values[0] > values[1] and values.min() > 0 and values.max() < 1
    assert torch.allclose(
        normal_colours(torch.tensor([0.0, 0.0, -1.0])[:, None, None]).flatten(), torch.tensor([0.5, 0.5, 1])
    )


def test_write_overview(face: ToyFace, tmp_path: Path) -> None:
    args = (face.model, face.params, face.photo, face.landmarks())
    path = write_overview(tmp_path / "overview.png", *args)
    assert Image.open(path).size[0] > 1000
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_overview(tmp_path / "file" / "overview.png", *args)
