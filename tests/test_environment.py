# SPDX-License-Identifier: Apache-2.0
"""Light of panoramas and lamps, against sums over the whole sphere."""

from __future__ import annotations

import math
import sys

import numpy as np
import OpenImageIO as oiio
import pytest
import torch
from PIL import Image

from hiface.data.panoramas import read_panorama
from hiface.errors import ImageError, MissingExtraError, OptionError, ShapeError, UnreadableImageError
from hiface.export.relight import read_light
from hiface.render.environment import (
    STUDIO_LIGHTS,
    lamp_light,
    panorama_directions,
    panorama_light,
    studio_light,
    turned_light,
)
from hiface.render.shade import ambient_light, sh_basis
from hiface.render.visibility import sphere_directions

RIGHT, DOWN, FORWARD = torch.eye(3)


def patch(row, column, height=32, width=64):
    """A dark panorama with a bright square."""
    out = torch.full((3, height, width), 0.05)
    out[:, row - 2 : row + 2, column - 2 : column + 2] = torch.tensor([8.0, 6.0, 4.0])[:, None, None]
    return out


def write(path, pixels):
    out = oiio.ImageOutput.create(str(path))
    out.open(str(path), oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], "float"))
    assert out.write_image(np.ascontiguousarray(pixels))
    out.close()


def test_light_is_what_a_matte_surface_receives():
    """Irradiance over pi, summed over all pixels; nine harmonics miss about a hundredth of it."""
    panorama = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(0)) + patch(10, 40)
    directions, angle = panorama_directions(32, 64)
    assert float(angle.sum()) * 64 == pytest.approx(4 * math.pi, rel=1e-5)
    normals = sphere_directions(64)
    cosine = (normals @ directions.reshape(-1, 3).T).clamp_min(0)
    received = cosine @ (panorama * angle).flatten(1).T / math.pi
    shaded = sh_basis(normals) @ panorama_light(panorama)
    assert float((shaded - received).abs().max()) < 0.06 * float(received.max())


def test_even_light_shades_every_normal_alike():
    even = panorama_light(torch.full((3, 64, 128), 0.7))
    assert torch.allclose(even, ambient_light(0.7, even), atol=1e-3)


@pytest.mark.parametrize(
    "row, column, towards",
    [(16, 32, FORWARD), (16, 48, RIGHT), (16, 16, -RIGHT), (3, 32, -DOWN), (28, 32, DOWN)],
)
def test_where_things_are_in_a_panorama(row, column, towards):
    first = panorama_light(patch(row, column)).sum(1)[[3, 1, 2]]
    assert float(torch.nn.functional.normalize(first, dim=0) @ towards) > 0.9


def test_turned_surroundings():
    behind = patch(16, 32)
    assert torch.allclose(
        turned_light(panorama_light(behind), 90.0), panorama_light(patch(16, 48)), atol=1e-4
    )


def test_a_lamp_is_the_panorama_that_shows_it():
    towards = torch.tensor([-2.0, -1.0, -2.0])
    directions, _ = panorama_directions(128, 256)
    radiance = ((directions @ torch.nn.functional.normalize(towards, dim=0) - 1) * 12.0).exp()
    colour = torch.tensor([3.0, 2.0, 1.0])
    seen = panorama_light(colour[:, None, None] * radiance)
    assert torch.allclose(lamp_light(towards, colour, 12.0), seen, atol=0.01)


@pytest.mark.parametrize("name", STUDIO_LIGHTS)
def test_studio_lights_light(name):
    shading = sh_basis(sphere_directions()) @ studio_light(name)
    assert float(shading.max()) > 0.3 and float(shading.min()) > -0.1 * float(shading.max())


def test_left_and_right_are_those_of_the_picture():
    left, right = (float((sh_basis(d) @ studio_light("left")).mean()) for d in (-RIGHT, RIGHT))
    assert left > 2 * right


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_panoramas_with_their_full_range(tmp_path, suffix):
    pixels = patch(10, 40).permute(1, 2, 0).numpy() * 50
    write(tmp_path / f"sky{suffix}", pixels)
    read = read_panorama(tmp_path / f"sky{suffix}")
    assert np.allclose(read.permute(1, 2, 0), pixels, rtol=0.01)
    assert torch.allclose(read_light(tmp_path / f"sky{suffix}"), panorama_light(read), atol=1e-3)
    with (tmp_path / f"sky{suffix}").open("r+b") as file:
        file.truncate(400)
    with pytest.raises(UnreadableImageError, match="sky"):
        read_panorama(tmp_path / f"sky{suffix}")


def test_values_that_are_no_light_count_as_dark(tmp_path):
    pixels = np.full((16, 32, 3), 0.5, dtype=np.float32)
    pixels[3, 4], pixels[5, 6], pixels[7, 8] = np.nan, np.inf, -3.0
    pixels[9, 9] = 40.0
    write(tmp_path / "odd.exr", pixels)
    read = read_panorama(tmp_path / "odd.exr")
    assert float(read[:, 3, 4].max()) == 0.0 == float(read[:, 7, 8].max())
    assert float(read[0, 5, 6]) >= 0.5 and bool(read.isfinite().all())


def test_large_pictures_keep_the_light_of_small_lamps(tmp_path):
    """Averages are of light, not of sRGB values."""
    pixels = np.full((2100, 4200, 3), 20, dtype=np.uint8)
    pixels[::8, ::8] = 255
    Image.fromarray(pixels).save(tmp_path / "lamps.png")
    read = read_panorama(tmp_path / "lamps.png")
    true = (1.0 + 63 * ((20 / 255 + 0.055) / 1.055) ** 2.4) / 64
    assert read.shape[-1] <= 2048 and float(read.mean()) == pytest.approx(true, rel=0.02)


def test_without_the_package_the_message_has_the_line_to_type(tmp_path, monkeypatch):
    write(tmp_path / "sky.hdr", np.ones((8, 16, 3), dtype=np.float32))
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hiface\[hdr\]'"):
        read_panorama(tmp_path / "sky.hdr")


def test_ordinary_pictures_are_srgb(tmp_path):
    Image.new("RGB", (64, 32), (188, 188, 188)).save(tmp_path / "room.png")
    assert torch.allclose(read_panorama(tmp_path / "room.png"), torch.full((3, 32, 64), 0.5), atol=0.005)


def test_what_is_no_light_is_a_named_error(tmp_path):
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "square.png")
    Image.new("RGB", (64, 32)).save(tmp_path / "black.png")
    for name, error, words in [
        ("square.png", ImageError, "twice as wide"),
        ("black.png", ImageError, "no light"),
        ("none.hdr", UnreadableImageError, "does not exist"),
        ("none.jpg", UnreadableImageError, "does not exist"),
    ]:
        with pytest.raises(error, match=words):
            read_light(tmp_path / name)
    with pytest.raises(OptionError, match="sunset"):
        read_light("moonshine")
    with pytest.raises(ShapeError, match="panorama"):
        panorama_light(torch.zeros(3, 1, 4))
