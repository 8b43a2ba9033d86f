# SPDX-License-Identifier: Apache-2.0
"""Photos in another light and heads from other sides, against renderings that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.cli.main import main
from hiface.colour import linear_to_srgb, to_uint8
from hiface.errors import ShapeError
from hiface.export.relight import (
    head_camera,
    head_picture,
    head_rotation,
    light_ball,
    read_light,
    relit_photo,
    shading_maps,
)
from hiface.geometry.normals import vertex_normals
from hiface.morphable import load_model
from hiface.render.rasterize import rasterize
from hiface.render.shade import ambient_light, sh_basis
from hiface.render.visibility import reaching_light
from hiface.types import Camera
from portrait import portrait
from test_detail_fit import face

SIZE = 160
NO_RELIEF = torch.zeros(1, 64, 64)


@pytest.fixture(scope="module")
def model():
    return load_model("open")


@pytest.fixture(scope="module")
def params(model):
    one = face(model, {"jawOpen": 0.2})
    return one.replace(camera=head_camera(model, one, SIZE, head_rotation(15.0)))


def grey(name):
    """A studio light without colour."""
    light = read_light(name).mean(1, keepdim=True)
    return light.expand(9, 3).contiguous()


def photo_in(model, params, light, level=0.5):
    """The head in a light, before grey."""
    (shading,), albedo, mask = shading_maps(
        model, params, params.camera, [light], NO_RELIEF, model.albedo_map(params.albedo)
    )
    usual = shading.mean(0)[mask].quantile(0.8)
    linear = torch.where(mask, level * albedo * shading / usual, torch.full_like(albedo, 0.2))
    return to_uint8(linear_to_srgb(linear)).permute(1, 2, 0).numpy(), mask


def test_a_photo_relit_is_the_photo_in_that_light(model, params):
    before, mask = photo_in(model, params.replace(light=grey("left")), grey("left"))
    truth, _ = photo_in(model, params, grey("right"))
    relit = relit_photo(model, params.replace(light=grey("left")), before, grey("right"))
    inner = -torch.nn.functional.max_pool2d(-mask.float()[None], 7, 1, 3)[0] > 0
    assert float(inner.float().mean()) > 0.1

    def off(picture):
        return np.abs(picture.astype(float) - truth)[inner].mean()

    assert off(relit) < 0.3 * off(before)


def test_its_own_light_changes_nothing(model, params):
    photo, _ = photo_in(model, params, grey("left"))
    same = relit_photo(model, params.replace(light=grey("left")), photo, grey("left"))
    assert np.abs(same.astype(int) - photo).max() <= 2


def test_around_the_head_the_photo_stays(model, params):
    wide = Camera.from_pose(params.camera.R, params.camera.t, float(params.camera.focal_px) / 3, SIZE, SIZE)
    small = params.replace(camera=wide, light=grey("left"))
    photo = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    relit = relit_photo(model, small, photo, grey("right"))
    changed = np.abs(relit.astype(int) - photo).max(-1) > 0
    assert not changed[:20].any() and not changed[-20:].any() and changed[60:100, 60:100].mean() > 0.5


def test_a_large_photo_is_relit_like_a_small_one(model, params):
    photo, _ = photo_in(model, params, grey("left"))
    factor = 9
    large = np.asarray(Image.fromarray(photo).resize((factor * SIZE,) * 2, Image.Resampling.NEAREST))
    K = params.camera.K * torch.tensor([factor, factor, 1.0])[:, None]
    zoomed = Camera(K, params.camera.T_cam_object, factor * SIZE, factor * SIZE)
    lit = params.replace(light=grey("left"))
    relit = relit_photo(model, lit.replace(camera=zoomed), large, grey("right"))
    small = relit_photo(model, lit, photo, grey("right")).astype(int)
    off = np.abs(relit[factor // 2 :: factor, factor // 2 :: factor].astype(int) - small)
    assert off.mean() < 1.5


def test_darkness_and_wrong_shapes(model, params):
    photo, _ = photo_in(model, params, grey("left"))
    dark = params.replace(light=torch.zeros(9, 3))
    assert np.array_equal(relit_photo(model, dark, photo, grey("right")), photo)
    gone = relit_photo(model, params.replace(light=grey("left")), photo, torch.zeros(9, 3))
    assert gone.shape == photo.shape
    double = relit_photo(model, params.replace(light=grey("left")), photo, grey("right").double())
    assert np.array_equal(
        double, relit_photo(model, params.replace(light=grey("left")), photo, grey("right"))
    )
    for light in (torch.zeros(9), torch.full((9, 3), float("nan"))):
        with pytest.raises(ShapeError, match="light"):
            relit_photo(model, params, photo, light)


def test_the_head_turns_the_way_it_says(model):
    ahead, up = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    assert float((head_rotation(30.0) @ ahead)[0]) == pytest.approx(0.5, abs=1e-5)
    assert float((head_rotation(0.0, 30.0) @ ahead)[1]) == pytest.approx(-0.5, abs=1e-5)
    assert float((head_rotation(0.0, 0.0, 30.0) @ up)[0]) == pytest.approx(0.5, abs=1e-5)
    R = head_rotation(20.0, -40.0, 70.0)
    assert torch.allclose(R @ R.T, torch.eye(3), atol=1e-6) and float(torch.det(R)) == pytest.approx(1.0)


def test_light_stays_where_it_is_when_the_head_turns(model, params):
    texture = torch.full((3, 16, 16), 0.6)
    for yaw in (-40.0, 40.0):
        camera = head_camera(model, params, 96, head_rotation(yaw))
        picture = np.asarray(head_picture(model, params, camera, texture, grey("left"))).astype(float)
        (shading,), _, mask = shading_maps(model, params, camera, [ambient_light(1.0, params.light)])
        columns = mask.any(0).nonzero()[:, 0]
        middle = int(columns.float().mean())
        half = [picture[:, :middle][mask[:, :middle]].mean(), picture[:, middle:][mask[:, middle:]].mean()]
        assert half[0] > 1.15 * half[1]
        assert float(shading[:, mask].max()) <= 1.05
        assert 0.1 < float(mask.float().mean()) < 0.6 and not mask[0].any() and not mask[:, 0].any()


def test_an_open_mouth_lets_light_in(model):
    """Pixels of lower teeth and tongue, in light from the camera, against the shadow of a closed mouth."""
    one, white = face(model, {"jawOpen": 0.7}), read_light("front")
    camera = head_camera(model, one, 384, head_rotation(0.0, -15.0))
    cam = camera.to_cam(model.vertices(one.identity, one.expression, one.pose))
    px_z = torch.cat([camera.cam_to_px(cam), cam[:, 2:]], dim=1)
    seen = rasterize(px_z, model.triangles, 384, 384)
    parts = [model.data.part_names.index(name) for name in ("teeth_lower", "tongue")]
    mouth = torch.isin(model.data.triangle_parts, torch.tensor(parts))
    inside = mouth[seen.clamp_min(0).long()] & (seen >= 0)
    assert int(inside.sum()) > 50
    (shading,), _, _ = shading_maps(model, one, camera, [white])
    normals = vertex_normals(cam, model.triangles)
    closed = (sh_basis(normals)[:, None] @ reaching_light(model, white, camera.R))[:, 0].clamp_min(0).mean(1)
    corners = model.triangles[seen.long()[inside]]
    assert float(shading.mean(0)[inside].mean()) > 1.1 * float(closed[corners].mean())


def test_heads_in_front_are_lit_once(model, params):
    """The same head far away behind itself: what is in front looks as if it were alone."""
    photo, mask = photo_in(model, params, grey("left"))
    front = params.replace(light=grey("left"))
    far = Camera.from_pose(params.camera.R, params.camera.t * 1.5, params.camera.focal_px, SIZE, SIZE)
    behind = relit_photo(model, front.replace(camera=far), photo, grey("right"))
    both = relit_photo(model, front, photo, grey("right"), onto=behind).astype(int)
    alone = relit_photo(model, front, photo, grey("right")).astype(int)
    inner = -torch.nn.functional.max_pool2d(-mask.float()[None], 31, 1, 15)[0] > 0
    assert int(inner.sum()) > 1000 and np.abs(both - alone)[inner].max() <= 1
    assert np.abs(behind.astype(int) - photo)[inner].mean() > 3


def test_a_ball_shows_where_light_comes_from():
    ball = np.asarray(light_ball(read_light("right"), 64)).astype(int)
    assert ball.shape == (64, 64, 3) and ball[32, 50].mean() > ball[32, 14].mean() + 20


def test_light_of_another_photo(tmp_path):
    (one,) = hiface.Reconstructor(device="cpu").reconstruct(portrait())
    one.save(tmp_path / "face.json")
    light = read_light(tmp_path / "face.json", 180.0)
    back, front = light[2].mean() * one.params.light[2].mean(), light[1].mean() - one.params.light[1].mean()
    assert float(back) <= 0 and abs(float(front)) < 0.1 * float(light[0].mean())
    assert torch.allclose(light[0], light[0].mean().expand(3))
    relit = one.relight("left")
    assert relit.shape == one.photo.image_srgb.shape and relit.dtype == np.uint8
    assert (np.abs(relit.astype(int) - one.photo.image_srgb) > 4).mean() > 0.02
    turned = one.with_expression(jawOpen=0.5).picture(128, yaw=30.0, light=tmp_path / "face.json")
    assert turned.size == (128, 128)


def test_the_command_writes_pictures_of_each_light(tmp_path, capsys):
    Image.fromarray(portrait()).save(tmp_path / "anna.png")
    Image.new("RGB", (64, 32), (90, 120, 200)).save(tmp_path / "sky.png")
    out = tmp_path / "out"
    options = ["--no-refine", "--size", "96", "--no-turntable", "--yaw", "20"]
    command = ["relight", str(tmp_path / "anna.png"), "-o", str(out), *options, "--light", "left"]
    with pytest.raises(SystemExit) as stop:
        main([*command, str(tmp_path / "sky.png")])
    assert stop.value.code == 0
    assert {p.name for p in out.iterdir()} == {"sheet.png", "photo_left.png", "photo_sky.png"}
    assert "2 lights in" in capsys.readouterr().err
    assert Image.open(out / "photo_sky.png").size == Image.open(tmp_path / "anna.png").size
    (one,) = hiface.Reconstructor(device="cpu", align=False).reconstruct(portrait())
    lights = [tmp_path / photo / "person1" / "face.json" for photo in ("b.dark", "c")]
    for light in lights:
        light.parent.mkdir(parents=True)
        one.save(light)
    with pytest.raises(SystemExit) as stop:
        main([*command[:-1], *map(str, lights)])
    assert stop.value.code == 0
    assert {"photo_b.dark-person1.png", "photo_c-person1.png"} < {p.name for p in out.iterdir()}
    with pytest.raises(SystemExit) as stop:
        main([*command[:-1], "above"])
    assert stop.value.code == 0 and "1 light in" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*command[:-1], "moonshine"])
    assert stop.value.code == 1 and "sunset" in capsys.readouterr().err
    Image.new("RGB", (320, 200), (40, 120, 200)).save(tmp_path / "empty.png")
    with pytest.raises(SystemExit) as stop:
        main(["relight", str(tmp_path / "empty.png"), "-o", str(out), "--no-refine"])
    assert stop.value.code == 1 and "no face" in capsys.readouterr().err
