# SPDX-License-Identifier: Apache-2.0
"""Video files and folders of pictures as frames: times, damage, order; every file is made here."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hiface.data import video_pixels
from hiface.data.frame_folders import natural_order
from hiface.data.video import open_video
from hiface.data.video_source import Clock, plausible_fps
from hiface.errors import MissingExtraError, OptionError, VideoError
from hiface.export.video import VideoWriter
from video_clips import H, W, av, flat, noise, raw_video, read, sound, write, yuv


@given(st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4)), min_size=1, max_size=50), st.floats(1, 240))
def test_times_always_start_at_zero_and_increase(stamps, fps):
    clock = Clock(fps)
    times = [clock.tick(s) for s in stamps]
    assert times[0] == 0.0
    assert (np.diff(times) > 0).all()


def test_good_times_stay_and_bad_ones_move_alone():
    clock = Clock(25)
    stamps = [5.0, 5.04, 5.04, 5.12, 5.10, 5.2, None, 5.28]
    times = [clock.tick(s) for s in stamps]
    np.testing.assert_allclose(times, [0, 0.04, 0.06, 0.12, 0.14, 0.2, 0.24, 0.28], atol=1e-9)
    assert clock.mended == 3
    assert clock.tick(1.0) == pytest.approx(0.32)  # another recording is appended
    assert clock.tick(1.5) == pytest.approx(0.82)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_variable_frame_rate_comes_back(tmp_path, suffix):
    times = [2.0, 2.033, 2.1, 2.4, 2.41, 3.0, 3.7]
    video, frames = read(write(tmp_path / f"a{suffix}", noise(7), times))
    # Matroska keeps milliseconds
    np.testing.assert_allclose([f.time_s for f in frames], np.array(times) - 2.0, atol=1.1e-3)
    assert [f.index for f in frames] == list(range(7))
    assert video.warnings == []


def test_written_twice_is_read_twice_and_closed_is_closed(tmp_path):
    video = open_video(write(tmp_path / "a.mp4", noise(9)))
    first = [f.image_srgb.copy() for f in video]
    again = [f.image_srgb for f in video]
    assert len(first) == 9
    np.testing.assert_array_equal(first, again)
    assert video.info.n_frames == 9
    assert video.info.fps == pytest.approx(25)
    assert video.info.duration_s == pytest.approx(0.36, abs=0.002)
    assert not video.info.has_audio
    video.close()
    with pytest.raises(VideoError, match="closed"):
        next(iter(video))


def test_repeated_timestamps_are_mended_with_a_warning(tmp_path):
    path = tmp_path / "a.avi"  # AVI has a rate and no timestamps; here two streams are glued into one clock
    raw_video(path, [yuv(i * 20, 128, 128) for i in range(6)], "mpeg4")
    plain = read(path)[0]
    assert plain.warnings == []
    good = [f.pts for f in av.open(str(path)).decode(video=0)]
    assert len(good) == 6
    with open_video(path) as video:
        passes = next(iter(video._running))
        real = passes._decoded

        def stuck():
            for frame in real:
                frame.pts = min(frame.pts, 3)
                yield frame

        passes._decoded = stuck()
        times = [f.time_s for f in video]
    assert (np.diff(times) > 0).all() and len(times) == 6
    assert any("2 frames had a time" in line for line in video.warnings)


def test_folders_are_in_natural_order(tmp_path):
    for i in range(12):
        Image.fromarray(flat((i * 20, 0, 0))).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    video, frames = read(tmp_path)
    assert [int(f.image_srgb[0, 0, 0]) for f in frames] == [i * 20 for i in range(12)]
    assert frames[-1].time_s == pytest.approx(11 / 25)
    assert (video.info.n_frames, video.info.fps, video.info.live) == (12, 25, False)
    with open_video(tmp_path, fps=10) as slow:
        assert [f.time_s for f in slow][:3] == pytest.approx([0, 0.1, 0.2])
    Image.fromarray(flat((0, 0, 0), 32, 32)).save(tmp_path / "frame5.png")
    with pytest.raises(VideoError, match=r"frame5\.png has 32 x 32"):
        read(tmp_path)
    (tmp_path / "frame5.png").write_bytes(b"broken")
    with pytest.raises(VideoError, match=r"frame5\.png"):
        read(tmp_path)


def test_natural_order_of_mixed_names():
    names = [
        "b2.png",
        "²x.png",
        "a10.png",
        "a9.png",
        "a.png",
        "٣.png",
        "10.png",
        "²9.png",
        "9.png",
        "a09.png",
    ]
    ordered = [p.name for p in sorted(map(Path, names), key=natural_order)]
    assert ordered[:7] == ["9.png", "10.png", "a.png", "a09.png", "a9.png", "a10.png", "b2.png"]
    assert ordered[7:] == ["²9.png", "²x.png", "٣.png"]  # digits of other kinds are letters


def test_each_bad_input_says_the_fix(tmp_path):
    whole = write(tmp_path / "whole.mp4", noise(20))
    index_last = raw_video(tmp_path / "last.mp4", [yuv(i * 10, 128, 128) for i in range(9)])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "text.txt").write_text("not a video\n" * 50)
    (tmp_path / "head.mp4").write_bytes(index_last.read_bytes()[:300])
    (tmp_path / "tail.mp4").write_bytes(whole.read_bytes()[2000:])
    (tmp_path / "nothing.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1\n")
    (tmp_path / "folder").mkdir()
    Image.fromarray(flat((1, 2, 3))).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.mp4").write_bytes((tmp_path / "photo.jpg").read_bytes())
    sound(tmp_path / "sound.wav", "pcm_s16le", picture=False)
    expected = {
        "missing.mp4": "does not exist; check",
        "empty.mp4": "is empty; copy",
        "text.mp4": "not a video that can be read; name",
        "text.txt": "text",
        "head.mp4": "no usable index.*copy it again",
        "tail.mp4": "not a video that can be read",
        "nothing.y4m": "no frame that can be decoded; convert",
        "folder": "has no pictures; name",
        "photo.jpg": "hiface reconstruct",
        "photo.mp4": "hiface reconstruct",
        "sound.wav": "only sound; name",
    }
    for name, message in expected.items():
        with pytest.raises(VideoError, match=message) as caught:
            open_video(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert caught.value.status == "bad_video"


def test_absurd_sizes_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", noise(2))
    monkeypatch.setattr(video_pixels, "MAX_PIXELS", W * H - 1)
    with pytest.raises(VideoError, match="64 x 48"):
        open_video(path)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e9, 1e-9, 1e-300, 1000.1])
def test_a_rate_must_be_one_that_can_be(tmp_path, fps):
    with pytest.raises(OptionError, match=r"0\.001 to 1000 frames a second") as caught:
        open_video(tmp_path, fps=fps)
    assert "\n" not in str(caught.value)
    Image.fromarray(flat((1, 2, 3))).save(tmp_path / "1.png")
    for good in (0.001, 1000.0):
        with open_video(tmp_path, good) as video:
            assert video.info.fps == good


def test_rates_that_containers_state_and_cannot_be_are_passed_over():
    assert (
        plausible_fps(None, Fraction(0), Fraction(90000), Fraction(30000, 1001), fallback=25.0)
        == 30000 / 1001
    )
    assert plausible_fps(None, fallback=25.0) == plausible_fps(1e-9, 1e9, fallback=25.0) == 25.0


def test_files_have_their_own_times(tmp_path):
    with pytest.raises(VideoError, match="leave fps out"):
        open_video(write(tmp_path / "a.mp4", noise(2)), fps=25)


def test_cut_files_play_what_is_there(tmp_path):
    pictures = noise(40)
    whole = write(tmp_path / "a.mp4", pictures).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    video, frames = read(tmp_path / "cut.mp4")
    assert 10 < len(frames) < 30
    assert any(f"ends early: {len(frames)} of 40 frames" in line for line in video.warnings)
    for frame in frames[:3]:
        assert np.abs(frame.image_srgb.mean() - pictures.mean()) < 10


def test_broken_packets_are_skipped(tmp_path):
    path = write(tmp_path / "a.mp4", noise(40))
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in places[20:22]:
        content[position : position + size] = bytes(size)
    (tmp_path / "b.mp4").write_bytes(content)
    video, frames = read(tmp_path / "b.mp4")
    assert len(frames) >= 30
    assert frames[-1].time_s == pytest.approx(39 / 25, abs=1e-3)
    assert any("damaged packets were skipped" in line for line in video.warnings)
    assert not any("ends early" in line for line in video.warnings)


def test_a_stream_cut_into_begins_with_a_whole_frame(tmp_path):
    pictures = [flat((40 + 5 * i, 128, 90)) for i in range(30)]
    frames = [av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format="yuv420p") for p in pictures]
    whole = raw_video(tmp_path / "a.ts", frames, g="10", keyint_min="10", sc_threshold="0", bf="0", qp="4")
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    start = packets[4].pos // 188 * 188
    (tmp_path / "b.ts").write_bytes(whole.read_bytes()[:564] + whole.read_bytes()[start:])
    _, frames = read(tmp_path / "b.ts")
    assert len(frames) >= 20
    reds = [f.image_srgb[..., 0].mean() for f in frames]
    assert np.abs(np.array(reds[:10]) - [40 + 5 * (30 - len(frames) + i) for i in range(10)]).max() < 6


def test_without_pyav_there_is_a_line_to_type(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", noise(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hiface\[video\]'"):
        open_video(path)
    with pytest.raises(MissingExtraError, match=r"hiface\[video\]"):
        VideoWriter(tmp_path / "b.mp4", W, H, 25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]
