# SPDX-License-Identifier: Apache-2.0
"""Frames come upright, with square pixels and in the standards' colours."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hiface.data import video_pixels
from video_clips import COLOURS, H, W, av, flat, noise, raw_video, read, tags, write, yuv


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_display_matrix_as_the_standard_has_it(turns, mirror):
    """Every pixel is sent where x' = a x + c y, y' = b x + d y says, by a loop."""
    angle = turns * np.pi / 2
    cos, sin = round(np.cos(angle)), round(np.sin(angle))
    a, b, c, d = (-cos, sin, sin, cos) if mirror else (cos, sin, -sin, cos)
    image = noise(1)[0][:5, :7].copy()
    places = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(5) for x in range(7)}
    left, top = min(p[0] for p in places), min(p[1] for p in places)
    matrix = (np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14]) * 65536).astype(np.int32)
    turned = video_pixels.turn_upright(image, matrix)
    assert turned.flags.c_contiguous
    for (x, y), colour in places.items():
        np.testing.assert_array_equal(turned[y - top, x - left], colour)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # a phone held upright: x' = -y, y' = x
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
    ],
)
def test_rotated_files_come_upright(tmp_path, matrix, expected):
    picture = flat((0, 0, 0))
    picture[: H // 2, : W // 2] = (255, 255, 255)  # top left
    picture[: H // 2, W // 2 :] = (255, 0, 0)
    path = write(tmp_path / "a.mp4", [picture] * 3)
    content = bytearray(path.read_bytes())
    place = content.index((1 << 16).to_bytes(4, "big") + bytes(12), content.index(b"tkhd"))
    a, b, c, d = ((v * 65536).to_bytes(4, "big", signed=True) for v in matrix)
    content[place : place + 20] = a + b + bytes(4) + c + d
    path.write_bytes(content)
    video, frames = read(path)
    upright = expected(picture)
    assert (video.info.height, video.info.width, 3) == upright.shape
    for frame in frames:
        assert frame.image_srgb.shape == upright.shape
        assert np.abs(frame.image_srgb.astype(int) - upright).mean() < 4
        assert frame.image_srgb.flags.c_contiguous and frame.image_srgb.flags.writeable


@pytest.mark.parametrize(("aspect", "size"), [("4:3", (85, 48)), ("1:2", (64, 96)), ("1:1", (64, 48))])
def test_pixels_become_square(tmp_path, aspect, size):
    path = raw_video(tmp_path / "a.mkv", [yuv(90, 128, 128)], "ffv1", lambda s: None)
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*map(int, aspect.split(":")))
        container.mux([*stream.encode(yuv(90, 128, 128)), *stream.encode(None)])
    assert read(path)[1][0].image_srgb.shape == (H, W, 3)
    video, frames = read(tmp_path / "b.mp4")
    assert (video.info.width, video.info.height) == size
    assert frames[0].image_srgb.shape == (size[1], size[0], 3)


def test_odd_sizes_are_padded_by_the_edge_and_come_back(tmp_path):
    pictures = [flat((90, 90, 90), 63, 47) for _ in range(3)]
    for p in pictures:
        p[:, 40:] = (200, 200, 200)
    _, frames = read(write(tmp_path / "a.mp4", pictures))
    image = frames[1].image_srgb.astype(int)
    assert image.shape == (48, 64, 3)
    assert np.abs(image[:47, :63] - pictures[0]).mean() < 3
    assert np.abs(image[:, 63] - 200).max() < 6


def test_odd_sizes_are_read(tmp_path):
    picture = noise(1)[0][:47, :63].copy()
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
    _, frames = read(raw_video(tmp_path / "a.mkv", [frame], "ffv1"))
    np.testing.assert_array_equal(frames[0].image_srgb, picture)


def test_frames_of_another_size_are_scaled(tmp_path):
    path = tmp_path / "a.ts"
    parts = []
    for k, (w, h) in enumerate([(64, 48), (96, 72)]):
        frames = [av.VideoFrame.from_ndarray(flat((120, 120, 120), w, h), format="rgb24") for _ in range(4)]
        frames = [f.reformat(format="yuv420p") for f in frames]
        parts.append(raw_video(tmp_path / f"{k}.ts", frames).read_bytes())
    path.write_bytes(b"".join(parts))
    video, frames = read(path)
    assert {f.image_srgb.shape for f in frames} == {(48, 64, 3)}
    assert len(frames) == 8
    assert any("4 frames of another size" in line for line in video.warnings)
    assert (np.diff([f.time_s for f in frames]) > 0).all()


def test_frames_that_are_turned_otherwise_have_bars_beside_them(monkeypatch):
    """A phone that was turned while it recorded: its display matrix changes inside the stream."""
    picture = flat((0, 0, 0))
    picture[: H // 2, : W // 2] = (255, 0, 0)
    turn = (np.array([0, 1, 0, -1, 0], np.int32) * 65536).tobytes()
    codec = SimpleNamespace(name="rawvideo", sample_aspect_ratio=None, color_trc=2, color_primaries=2)
    reader = video_pixels.FrameReader(SimpleNamespace(codec_context=codec, sample_aspect_ratio=None), "a")
    monkeypatch.setattr(reader, "_convert", lambda frame, kind: picture.copy())

    def image(matrix):
        side = {} if matrix is None else {"DISPLAYMATRIX": matrix}
        return reader.image(SimpleNamespace(width=W, height=H, side_data=side))

    images = [image(matrix) for matrix in (turn, turn, None, turn, None)]
    assert {image.shape for image in images} == {(W, H, 3)} and reader.resized == 2
    np.testing.assert_array_equal(images[0], np.rot90(picture, -1))
    np.testing.assert_array_equal(images[0], images[3])
    high = H * H // W  # of the lying picture in the upright one's width
    bar = (W - high) // 2
    inside = images[2][bar : bar + high].astype(int)
    assert images[2][:bar].max() == images[2][bar + high :].max() == 0 and images[2].flags.writeable
    assert inside[2 : high // 2 - 2, 2 : H // 2 - 2].mean((0, 1)) == pytest.approx([255, 0, 0], abs=2)
    assert inside[high // 2 + 3 :].max() < 10 and inside[:, H // 2 + 3 :].max() < 10


def to_rgb(y, u, v, kr, kb, full):
    """The textbook conversion of 8-bit values."""
    luma = y / 255 if full else (y - 16) / 219
    pb, pr = ((c - 128) / (255 if full else 224) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114)])
def test_stored_values_become_the_standards_colours(tmp_path, matrix, kr, kb, full):
    values = [(120, 100, 160), (81, 90, 200), (180, 128, 128)]
    frames = [yuv(*v) for v in values]
    path = raw_video(tmp_path / "a.mp4", frames, prepare=tags(matrix, 2 if full else 1), qp="0")
    for frame, value in zip(read(path)[1], values, strict=True):
        expected = to_rgb(*value, kr, kb, full)
        assert np.abs(frame.image_srgb.reshape(-1, 3).mean(0) - expected).max() < 2.5


def test_ten_bit_colours(tmp_path):
    frame = yuv(480, 400, 640, "yuv420p10le")
    try:
        path = raw_video(tmp_path / "a.mp4", [frame], prepare=tags(1), qp="0")
    except (av.FFmpegError, ValueError):
        pytest.skip("this PyAV has no 10-bit encoder")
    expected = to_rgb(120, 100, 160, 0.2126, 0.0722, False)
    assert np.abs(read(path)[1][0].image_srgb.reshape(-1, 3).mean(0) - expected).max() < 2.5


@pytest.mark.parametrize("curve", [16, 18])
@pytest.mark.parametrize("nits", [36.54, 100.0])
def test_hdr_greys_keep_their_light_under_the_knee(tmp_path, curve, nits):
    """A grey of so many cd/m2 becomes the sRGB value of its share of 203 cd/m2, the reference white."""
    if curve == 16:  # SMPTE ST 2084, the inverse EOTF
        power = (nits / 10000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:  # BT.2100: inverse OOTF with gamma 1.2 at 1000 cd/m2, then the OETF
        scene = (nits / 1000) ** (1 / 1.2)
        signal = (
            np.sqrt(3 * scene)
            if scene <= 1 / 12
            else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
        )
    frame = yuv(round(64 + 876 * signal), 512, 512, "yuv420p10le")
    try:
        path = raw_video(tmp_path / "a.mp4", [frame], prepare=tags(9, 1, 9, curve), qp="0")
    except (av.FFmpegError, ValueError):
        pytest.skip("this PyAV has no 10-bit encoder")
    linear = nits / 203
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(read(path)[1][0].image_srgb.reshape(-1, 3).mean(0) - expected).max() < 2.5


def test_hdr_highlights_are_bent_not_cut():
    code = np.arange(0, 65536, 64, dtype=np.uint16)
    grey = np.repeat(code[None, :, None], 3, axis=2)
    bent = video_pixels._wide_to_srgb(grey, 16, 9)[0, :, 1].astype(int)
    assert (np.diff(bent) >= 0).all()
    white = round(65535 * 0.5807)  # 203 cd/m2 by ST 2084, over 64
    assert 200 < bent[white // 64] < 250
    assert bent[round(65535 * 0.7518) // 64] >= 254  # 1000 cd/m2


@pytest.mark.parametrize("size", [(64, 48), (1280, 720)])
def test_colours_come_back(tmp_path, size):
    path = write(tmp_path / "a.mp4", [flat(c, *size) for c in COLOURS])
    for colour, frame in zip(COLOURS, read(path)[1], strict=True):
        assert np.abs(frame.image_srgb.astype(int) - colour).mean() < 3
    codec = av.open(str(path)).streams.video[0].codec_context
    assert [codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range] == [1, 1, 1, 1]


def test_gif_times_and_alpha(tmp_path):
    pictures = [Image.fromarray(flat(c)) for c in COLOURS[:3]]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 50], disposal=2
    )
    _, frames = read(tmp_path / "a.gif")
    np.testing.assert_allclose([f.time_s for f in frames], [0, 0.1, 0.4], atol=1e-6)
    for colour, frame in zip(COLOURS, frames, strict=False):
        np.testing.assert_allclose(frame.image_srgb[10, 10], colour, atol=8)
