"""Recordings with faults: damaged timecodes, long takes, two senders of one name, folders that are gone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hiface.animation.calibration import read_calibration
from hiface.animation.live_link import Packet, encode_packet
from hiface.animation.live_link_udp import Counts, LiveLinkReceiver
from hiface.animation.motion import Motion
from hiface.animation.motion_files import read_motion, write_live_link_csv, write_motion
from hiface.cli.live_link import _recorded
from hiface.cli.main import main
from hiface.errors import FaceFileError, LiveLinkError, ShapeError

ID, OTHER = (f"${i}2345678-9ABC-DEF0-1234-56789ABCDEF0" for i in (1, 2))


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["live-link", *map(str, words)])
    return int(done.value.code or 0)


def packet(number: int, device: str = ID, value: float = 0.5, rate: tuple[int, int] = (60, 1)) -> Packet:
    return Packet("face", device, np.full(61, value, np.float32), number, 0.0, rate)


def table(path: Path, codes: list[str]) -> Path:
    path.write_text("\n".join(["Timecode,JawOpen", *(f"{code},0.5" for code in codes)]) + "\n")
    return path


def app_codes(first: int, last: int, fps: int = 30) -> list[str]:
    """Timecodes as the app counts them."""
    return [f"10:20:{i // fps:02d}:{i % fps:02d}.000" for i in range(first, last)]


def test_times_must_increase():
    for times in ([0.0, 0.0], [1.0, 0.5], [0.0, float("nan")]):
        with pytest.raises(ShapeError, match="increase"):
            Motion(torch.zeros(2, 52), None, torch.tensor(times))


@pytest.mark.parametrize("start_s", [0.0, 1200.0, 7200.0])
def test_times_of_arrival_late_in_a_recording(tmp_path, start_s):
    """Pairs of packets 20 microseconds apart; the frame numbers stand still, so that arrival counts."""
    arrived = [start_s * (i > 0) + (i // 2) / 30 + (i % 2) * 2e-5 for i in range(300)]
    motion = _recorded([(packet(5), at) for at in arrived])
    expected = np.array(arrived) - arrived[0]
    assert np.abs(motion.times.numpy() - expected).max() < 4e-3
    write_motion(tmp_path / "a.json", motion)
    assert np.abs(read_motion(tmp_path / "a.json").times.numpy() - motion.times.numpy()).max() < 1e-6
    write_motion(tmp_path / "a.csv", motion)
    assert np.abs(read_motion(tmp_path / "a.csv").times.numpy() - motion.times.numpy()).max() < 0.02


@pytest.mark.parametrize("wrong", [0, 150, 299])
@pytest.mark.parametrize("text", ["", "bad", "10:20"])
def test_a_damaged_timecode_gets_a_time_between_its_neighbours(tmp_path, wrong, text):
    codes = app_codes(0, 300)
    codes[wrong] = text
    times = read_motion(table(tmp_path / "a.csv", codes)).times.numpy()
    assert np.abs(times - np.arange(300) / 30).max() < 1e-9


def test_timecodes_that_come_twice(tmp_path):
    codes = app_codes(0, 300)
    codes[150] = codes[149]
    assert np.allclose(read_motion(table(tmp_path / "a.csv", codes)).times, np.arange(300) / 30, atol=1e-9)
    twice = [code for code in app_codes(0, 90) for _ in range(2)]  # 60 frames, timecodes of 30
    assert np.allclose(read_motion(table(tmp_path / "b.csv", twice)).times, np.arange(180) / 60, atol=1e-9)


def test_a_timecode_that_goes_back_is_named(tmp_path):
    codes = app_codes(0, 300)
    codes[150] = codes[100]
    with pytest.raises(FaceFileError, match=r"a\.csv: the timecode '10:20:03:10\.000' of frame 151"):
        read_motion(table(tmp_path / "a.csv", codes))


@pytest.mark.parametrize(("fps", "lost"), [(30, 29), (30, 30), (50, 49), (60, 60), (48, 47)])
def test_a_frame_lost_where_the_only_second_ends(tmp_path, fps, lost):
    at = np.array([i for i in range(fps * 2 // 3, fps * 3 // 2) if i != lost])
    codes = app_codes(0, 2 * fps, fps)
    times = read_motion(table(tmp_path / "a.csv", [codes[i] for i in at])).times.numpy()
    assert np.abs(times - (at - at[0]) / fps).max() < 1e-3


@pytest.mark.parametrize("missing", [1, 28, 29, 30])
@pytest.mark.parametrize("fps", [12.0, 24.0, 29.97, 30.0])
def test_tables_written_with_a_gap_are_read_with_it(tmp_path, fps, missing):
    times = [i / fps for i in range(40) if i != missing]
    write_live_link_csv(tmp_path / "a.csv", Motion(torch.rand(39, 52), None, torch.tensor(times).double()))
    assert read_motion(tmp_path / "a.csv").times.tolist() == pytest.approx(times, abs=2e-4)


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_percent_is_not_clamped(tmp_path, name):
    path = tmp_path / name
    for value, fits in ((1.4, True), (80.0, False)):
        if name == "a.csv":
            path.write_text(f"time,jawOpen\n0,0.5\n1,{value}\n")
        else:
            content = {"schema": "hiface.motion/1", "names": ["jawOpen"], "fps": 30}
            path.write_text(json.dumps({**content, "blendshapes": [[0.5], [value]]}))
        if fits:
            assert float(read_motion(path).expression.max()) == 1.0
        else:
            with pytest.raises(FaceFileError, match=r"values up to 80.*divide by 100"):
                read_motion(path)


def test_a_calibration_that_names_a_channel_twice_is_refused(tmp_path):
    content = {"schema": "hiface.calibration/1", "names": ["jawOpen"] * 2, "rest": [0, 0.2], "gain": [1, 2]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(FaceFileError, match="twice"):
        read_calibration(tmp_path / "a.json")


def test_another_device_of_the_name_must_wait():
    with LiveLinkReceiver(0, "127.0.0.1") as receiver:
        came = [
            receiver._accepted(encode_packet(packet(number, device)), at)
            for number, device, at in (
                (10, ID, 0.0),
                (900, OTHER, 0.01),
                (11, ID, 0.02),
                (901, OTHER, 0.03),
                (902, OTHER, 1.0),  # 0.98 s after the first one was heard last
                (903, OTHER, 1.03),
                (12, ID, 1.04),
            )
        ]
    assert [p and p.frame for p in came] == [10, None, 11, None, None, 903, None]
    assert (receiver.counts.frames, receiver.counts.others, receiver.counts.late) == (3, 4, 0)


def test_frames_lost_are_counted_by_the_commonest_step():
    counts = Counts()
    counts.steps.update({2: 50, 1: 1, 4: 3})
    assert counts.lost == 3
    counts.steps.clear()
    assert counts.lost == 0


def test_a_recording_outlives_its_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(LiveLinkReceiver, "__init__", lambda *_: pytest.fail("the port was opened"))
    assert run("listen", "-o", tmp_path / "file" / "a.csv", "--port", 0) == 1
    assert "cannot write into" in " ".join(capsys.readouterr().err.split())
    monkeypatch.undo()
    out = tmp_path / "gone"

    def frames(self, seconds=None):
        self.counts.frames += 2
        yield packet(1), 0.0
        yield packet(2), 1 / 60
        out.rmdir()
        out.write_text("")  # a file where the folder was

    monkeypatch.setattr(LiveLinkReceiver, "frames", frames)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("listen", "-o", out / "a.csv", "--port", 0, "--host", "127.0.0.1") == 1
    (kept,) = tmp_path.glob("hiface-*/a.csv")
    assert "".join(str(kept).split()) in "".join(capsys.readouterr().err.split())
    assert len(read_motion(kept)) == 2


def test_hosts_that_cannot_be_listened_on():
    with pytest.raises(LiveLinkError, match="'::1' is no IPv4 address"):
        LiveLinkReceiver(0, "::1")
    with pytest.raises(LiveLinkError, match="--host"):
        LiveLinkReceiver(0, "192.0.2.1")
