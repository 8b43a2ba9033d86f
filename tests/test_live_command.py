# SPDX-License-Identifier: Apache-2.0
"""`hiface live`: packets while it happens, and a motion that is kept whatever happens."""

import socket
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import roma
import torch

import hiface
from hiface.animation.live_link import decode_packet
from hiface.animation.motion_json import read_motion_json
from hiface.cli.live import LiveOptions, _Outlet
from hiface.cli.main import main
from hiface.data.video import VideoFrame
from hiface.data.video_files import VideoFile
from hiface.errors import LiveLinkError
from hiface.tracking import streaming
from hiface.tracking.streaming import LiveAnswer
from tracked_faces import write_clip
from video_clips import flat, write


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["live", *map(str, arguments)])
    return ended.value.code


def face(person, value=0.5, turn=0.0):
    T = torch.eye(4)
    T[:3, :3] = roma.rotvec_to_rotmat(torch.tensor([0.0, turn, 0.0]))
    camera = SimpleNamespace(T_cam_object=T, R=T[:3, :3])
    return SimpleNamespace(
        person=person, blendshapes=torch.full((52,), value), params=SimpleNamespace(camera=camera)
    )


def answer(k, *faces):
    return LiveAnswer(VideoFrame(k, k / 10, np.zeros((8, 8, 3), np.uint8)), faces, 0.0)


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Plays answers instead of tracking; gives a function that takes them, and a video."""
    video = write(tmp_path / "a.mp4", [flat((9, 9, 9))] * 2)
    played = []

    class Stream:
        passed_over = 0

        def __init__(self, *arguments):
            return

        def __iter__(self):
            for each in played[0]:
                if isinstance(each, BaseException):
                    raise each
                yield each

    monkeypatch.setattr(hiface.reconstructor, "Reconstructor", lambda *a, **k: None)
    monkeypatch.setattr("hiface.tracking.live.LiveTracker", lambda *a: None)
    monkeypatch.setattr(streaming, "LiveStream", Stream)

    def play(answers, *arguments):
        played[:] = [answers]
        return run(video, "--to", "none", *arguments)

    return play


def test_the_command_sends_and_keeps_a_motion(tmp_path, capsys):
    clip, out = tmp_path / "clip", tmp_path / "motion.json"
    clip.mkdir()
    write_clip(clip)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        assert run(clip, "--fps", "5", "--to", to, "--name", "anna", "-o", out) == 0
        packets = [decode_packet(listener.recv(4096)) for _ in range(10)]
    assert {packet.subject for packet in packets} == {"anna"}
    with_face = [packet.channels for packet in packets if packet.channels is not None]
    assert len(with_face) > 3 and all(len(channels) == 61 for channels in with_face)
    motion = read_motion_json(out)
    assert len(motion) >= 10 and "packets" in capsys.readouterr().err
    for wrong in (["-o", "motion.txt"], ["--seconds", "0"], ["--to", ":x"]):
        assert run(clip, *wrong) == 1


def test_short_gaps_are_filled_in_and_long_ones_missing(scripted, tmp_path):
    out = tmp_path / "new" / "motion.json"
    answers = [
        answer(0),
        answer(1, face(1, 0.2)),
        answer(2),
        answer(3, face(2)),
        answer(4, face(1, 0.8, 0.3)),
    ]
    answers += [answer(k) for k in range(5, 9)] + [answer(9, face(1, 0.1)), answer(10)]
    assert scripted(answers, "-o", out) == 0
    motion = read_motion_json(out)
    words = {"o": "ok", "m": "missing", "i": "interpolated"}
    assert motion.status == tuple(words[letter] for letter in "moiiommmmom")
    expected = torch.tensor([0.2, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.1, 0.1])
    assert torch.allclose(motion.expression, expected[:, None].expand(-1, 52), atol=1e-5)
    turns = roma.rotmat_to_rotvec(motion.R_cam_head)[:, 1]
    assert torch.allclose(turns[:6], torch.tensor([0.0, 0.0, 0.1, 0.2, 0.3, 0.3]), atol=2e-3)


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 0), (LiveLinkError("unplugged"), 1)])
def test_the_motion_is_kept_however_it_ends(scripted, tmp_path, end, code):
    out = tmp_path / "motion.json"
    assert scripted([answer(0, face(1)), answer(1, face(1)), end], "-o", out) == code
    assert len(read_motion_json(out)) == 2


def test_pictures_are_not_kept(scripted, tmp_path):
    held = []

    def answers():
        for k in range(20):
            picture = np.zeros((8, 8, 3), np.uint8)
            held.append(weakref.ref(picture))
            yield LiveAnswer(VideoFrame(k, k / 10, picture), [face(1)], 0.0)
            assert sum(ref() is not None for ref in held) <= 3

    assert scripted(answers(), "-o", tmp_path / "motion.csv") == 0
    assert len(held) == 20


def test_where_nothing_can_be_written_nothing_begins(scripted, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "motion.json").mkdir()
    for out in (tmp_path / "file" / "motion.json", tmp_path / "motion.json"):
        assert scripted([ZeroDivisionError()], "-o", out) == 1
        assert "with -o" in " ".join(capsys.readouterr().err.split())


def test_nobody_is_an_error(scripted, tmp_path, capsys):
    assert scripted([answer(0), answer(1)], "-o", tmp_path / "motion.json") == 1
    assert "no face was seen" in capsys.readouterr().err


def test_senders_of_people_who_went_away_are_closed():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        with _Outlet(LiveOptions(to=to), 10.0, None) as outlet:
            outlet.send(answer(0, *(face(n) for n in range(1, 41))))
            assert len(outlet._senders) == 40 and outlet.sent == 40
            for k in range(1, 52):
                outlet.send(answer(k, face(2)))
            assert sorted(outlet._senders) == [1, 2] and sorted(outlet._seen_s) == [1, 2]
            assert outlet.sent == 40 + 51 * 2 + 50 * 38
            outlet.send(answer(52, face(7)))
            assert sorted(outlet._senders) == [1, 2, 7]


def test_what_was_wrong_with_the_source_is_told(scripted, capsys, monkeypatch):
    close = VideoFile.close
    monkeypatch.setattr(VideoFile, "close", lambda video: video.warn("unplugged") or close(video))
    assert scripted([answer(0, face(1))]) == 0
    assert "warning: unplugged" in capsys.readouterr().err
