# SPDX-License-Identifier: Apache-2.0
"""`hiface track`: its files, recordings of cameras, and what it refuses before it begins."""

import json
import sys

import pytest
from PIL import Image

import hiface
from hiface.cli import track as command
from hiface.cli.main import main
from hiface.data import cameras
from hiface.errors import NoFaceError, OptionError, VideoError
from hiface.saving import SaveOptions
from hiface.tracking import outputs
from hiface.tracking import video as video_module
from hiface.tracking.outputs import write_video_track
from hiface.tracking.video import TrackOptions, track_video
from test_live_video import FakeCamera
from tracked_faces import write_clip
from video_clips import noise, read, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


@pytest.fixture(scope="module")
def tracked(clip):
    return track_video(clip, hiface.Reconstructor(device="cpu"), TrackOptions(keyframes=1, fps=25))


@pytest.fixture
def asked(monkeypatch):
    """What was to be tracked; nobody is found."""
    asked = []

    def nobody(video, reconstructor, options, work, advance):
        asked.append((str(video), options.fps))
        raise NoFaceError("nobody")

    monkeypatch.setattr(hiface.reconstructor, "Reconstructor", lambda *a, **k: None)
    monkeypatch.setattr(command, "_track", nobody)
    return asked


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["track", *map(str, arguments)])
    return ended.value.code


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_the_command(clip, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = (clip, "-o", out, "--fps", "25", "--keyframes", "1", "--no-overlay")
    assert run(*arguments) == 0
    assert json.loads((out / "track.json").read_text())["n_frames"] == 30
    assert not (out / ".seen").exists() and not (out / "overlay.mp4").exists()
    text = said(capsys)
    assert "interpolated" in text and "px at 512" in text
    assert run(*arguments, "--seconds", "3") == 1 and "cameras" in said(capsys)


def test_a_camera_is_recorded_once_and_tracked_with_resume(asked, tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(cameras, "open_container", lambda *a: made.append(FakeCamera(8, 0.02)) or made[-1])
    out, path = tmp_path / "out", tmp_path / "out" / "recording.mp4"
    for source in ("CAMERA:0", "rtmp://127.0.0.1/x"):
        assert run(source, "-o", out, *(("--fps", "30") if "CAMERA" in source else ())) == 1
        assert asked == [(str(path), None)]
        assert "it ended" in said(capsys)
        recorded, count = path.read_bytes(), len(made)
        assert run(source, "-o", out) == 1
        assert "--resume" in said(capsys) and len(made) == count and len(asked) == 1
        assert run(source, "-o", out, "--resume") == 1
        assert asked[1:] == [(str(path), None)] and len(made) == count and path.read_bytes() == recorded
        path.unlink()
        asked.clear()


def test_frames_of_a_camera_that_were_not_recorded_are_told(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cameras, "open_container", lambda *a: FakeCamera(40, 0.002))
    slow = hiface.export.video.VideoWriter.write
    monkeypatch.setattr(
        hiface.export.video.VideoWriter, "write", lambda *a: cameras.time.sleep(0.02) or slow(*a)
    )
    run("camera:0", "-o", tmp_path)
    assert "frames came too fast to be recorded" in said(capsys)


def test_live_sources_are_not_tracked_in_the_library(monkeypatch):
    monkeypatch.setattr(cameras, "open_container", lambda *a: pytest.fail("opened"))
    reconstructor = type("Network", (), {"network": True})()
    for source in ("camera:0", "Camera:0", "rtsp://host/a", "RTMP://host/a", "http://host/a.mp4"):
        with pytest.raises(VideoError, match="is live"):
            track_video(source, reconstructor)


def test_an_overlay_is_not_overwritten_by_its_own(asked, tracked, tmp_path, capsys):
    overlay = write(tmp_path / "overlay.mp4", noise(3))
    (tmp_path / "link.mp4").symlink_to(overlay)
    for name in ("overlay.mp4", "link.mp4"):
        assert run(tmp_path / name, "-o", tmp_path) == 1
        assert "would be overwritten; choose another" in said(capsys) and not asked
    with pytest.raises(OptionError, match="overwritten"):
        write_video_track(tracked, overlay, tmp_path, SaveOptions())
    assert len(read(overlay)[1]) == 3
    run(overlay, "-o", tmp_path / "other")
    assert asked == [(str(overlay), None)]


def test_an_overlay_without_pyav_is_told_at_once(asked, clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert run(clip, "-o", tmp_path) == 1
    text = said(capsys)
    assert "--no-overlay" in text and "pip install 'hiface[video]'" in text and not asked
    run(clip, "-o", tmp_path, "--no-overlay")
    assert len(asked) == 1


def test_an_overlay_that_fails_leaves_everything_else(clip, tracked, tmp_path, capsys, monkeypatch):
    def broken(*arguments):
        raise VideoError("no encoder takes this")

    monkeypatch.setattr(hiface.reconstructor, "Reconstructor", lambda *a, **k: None)
    monkeypatch.setattr(command, "_track", lambda *a: tracked)
    monkeypatch.setattr(outputs, "write_overlay", broken)
    assert run(clip, "-o", tmp_path) == 1
    text = said(capsys)
    assert "no encoder takes this" in text and "all else is in" in text and "interpolated" in text
    assert len(json.loads((tmp_path / "track.json").read_text())["people"]) == 1
    assert (tmp_path / "person1" / "face.glb").is_file()


def test_sound_that_went_wrong_is_told(clip, tracked, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hiface.reconstructor, "Reconstructor", lambda *a, **k: None)
    monkeypatch.setattr(command, "_track", lambda *a: tracked)
    closed = hiface.export.video.VideoWriter.close
    monkeypatch.setattr(
        hiface.export.video.VideoWriter, "close", lambda w: w.warnings.append("no sound") or closed(w)
    )
    assert run(clip, "-o", tmp_path) == 0
    assert "warning: no sound" in said(capsys)


def test_what_an_earlier_run_left_is_removed_and_other_files_stay(clip, tracked, tmp_path, monkeypatch):
    write_video_track(tracked, clip, tmp_path, SaveOptions(texture_size=256))
    (tmp_path / "person1").rename(tmp_path / "person2")
    (tmp_path / "person3").mkdir()
    (tmp_path / "person3" / "face.glb").touch()
    (tmp_path / "person3" / "my.blend").touch()
    (tmp_path / "personal").mkdir()
    monkeypatch.setattr(outputs, "save_person", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_video_track(tracked, clip, tmp_path, SaveOptions())
    assert not (tmp_path / "track.json").exists()
    monkeypatch.undo()
    write_video_track(tracked, clip, tmp_path, SaveOptions(texture_size=256), overlay=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["person1", "person3", "personal", "track.json"]
    assert [p.name for p in (tmp_path / "person3").iterdir()] == ["my.blend"]


def stopped(*arguments):
    raise KeyboardInterrupt


def test_people_who_were_left_out_are_told(clip, monkeypatch):
    reconstructor = hiface.Reconstructor(device="cpu")
    join = video_module.people_of

    def with_others(*arguments):
        people, _ = join(*arguments)
        return [*people, people[0], people[0]], 3

    monkeypatch.setattr(video_module, "people_of", with_others)
    warnings = track_video(clip, reconstructor, TrackOptions(people=1, keyframes=1, fps=25)).warnings
    assert warnings == [
        "people who were seen but not tracked: 2; use --people 3",
        "people who were seen too briefly to be tracked: 3",
    ]


def test_a_folder_at_the_least_rate(tracked, tmp_path):
    """The rate that the times give may be under the least one by a rounding."""
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    slow = hiface.tracking.VideoTrack("a", 64, 64, 0.00099999, [0.0], [])
    outputs.write_overlay(slow, tmp_path, tmp_path / "overlay.mp4")
    assert (tmp_path / "overlay.mp4").is_file()
