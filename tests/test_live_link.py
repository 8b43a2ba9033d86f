# SPDX-License-Identifier: Apache-2.0
"""Live Link: channels against angles by hand, packets against bytes laid out with struct, UDP on loopback."""

from __future__ import annotations

import itertools
import json
import math
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiface.animation.live_link import (
    Packet,
    channel_names,
    channels_to_rotation,
    decode_packet,
    encode_packet,
    from_channels,
    rotation_to_channels,
    to_channels,
)
from hiface.animation.live_link_udp import LiveLinkReceiver, LiveLinkSender, play
from hiface.animation.motion import Motion
from hiface.animation.motion_files import read_motion
from hiface.animation.motion_json import write_motion_json
from hiface.animation.orders import expression_order
from hiface.cli.live_link import address
from hiface.cli.main import main
from hiface.errors import LiveLinkError, OptionError, ShapeError

ID = "$12345678-9ABC-DEF0-1234-56789ABCDEF0"
NAMES = expression_order("arkit52")


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["live-link", *map(str, words)])
    return int(done.value.code or 0)


def by_hand(values: list[float], name: bytes = b"iPhone", frame: int = 4711, rate: tuple[int, int] = (60, 1)):
    """A packet written out piece by piece."""
    return (
        struct.pack("<i", 6)
        + ID.encode()
        + struct.pack(">i", len(name))
        + name
        + struct.pack(">if", frame, 0.25)
        + struct.pack(">ii", *rate)
        + b"\x3d"
        + b"".join(struct.pack(">f", value) for value in values)
    )


def turned(axis: str, angle: float) -> torch.Tensor:
    """A head turned about one axis of an upright camera that looks at it: x right, y up, z to the camera."""
    c, s = math.cos(angle), math.sin(angle)
    R = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    return torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ torch.tensor(R, dtype=torch.float32)


def test_a_packet_is_laid_out_as_the_phone_does() -> None:
    values = [i / 64 for i in range(61)]
    packet = Packet("iPhone", ID, np.array(values), 4711, 0.25, (60, 1))
    assert encode_packet(packet) == by_hand(values)
    read = decode_packet(by_hand(values))
    assert (
        read.channels is not None and read.channels.tolist() == values and read.channels.dtype == np.float32
    )
    assert (read.subject, read.device_id, read.frame, read.part, read.rate) == (
        "iPhone",
        ID,
        4711,
        0.25,
        (60, 1),
    )
    assert read.fps == 60 and decode_packet(by_hand(values, rate=(30, 0))).fps is None
    assert decode_packet(by_hand(values, "Zoë 🙂".encode())).subject == "Zoë 🙂"


def test_packets_without_a_face() -> None:
    whole = by_hand([0.0] * 61)
    for length in (4 + 37 + 4 + 6, 4 + 37 + 4 + 6 + 16):
        assert decode_packet(whole[:length]).channels is None
    assert decode_packet(whole[:51]).frame is None and decode_packet(whole[:67]).frame == 4711
    assert decode_packet(whole[:67] + b"\0").channels is None
    empty = Packet("a", ID, None, 5, 0.0, (60, 1))
    assert decode_packet(encode_packet(empty)) == empty
    assert decode_packet(encode_packet(Packet("a", ID, None, None))).frame is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off"),
        (by_hand([0.0] * 61)[:44], "cut off"),
        (by_hand([0.0] * 61)[:60], "cut off"),
        (by_hand([0.0] * 61)[:-1], "243 bytes"),
        (by_hand([0.0] * 61) + b"\0", "245 bytes"),
        (by_hand([0.0] * 60), "240 bytes"),
        (struct.pack("<i", 7) + by_hand([0.0] * 61)[4:], "version 7"),
        (struct.pack(">i", 6) + by_hand([0.0] * 61)[4:], "version"),
        (by_hand([0.0] * 61).replace(b"\x3d", b"\x34"), "52 channels"),
        (by_hand([0.0] * 60 + [math.nan]), "not finite"),
        (by_hand([math.inf] + [0.0] * 60), "not finite"),
        (by_hand([0.0] * 61).replace(b"iPhone", b"iPh\xffne"), "no text"),
        (by_hand([0.0] * 61)[:41] + struct.pack(">i", -1), "cut off"),
        (by_hand([0.0] * 61)[:41] + struct.pack(">i", 2**31 - 1), "cut off"),
    ],
)
def test_wrong_packets_are_named(content: bytes, words: str) -> None:
    with pytest.raises(LiveLinkError, match=words):
        decode_packet(content)


GOOD = by_hand([0.5] * 61)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255))))
def test_hostile_bytes_never_crash(attack) -> None:
    content = attack
    if isinstance(attack, tuple):
        content = bytearray(GOOD)
        content[attack[0]] = attack[1]
    try:
        packet = decode_packet(bytes(content))
    except LiveLinkError:
        return
    assert packet.channels is None or np.isfinite(packet.channels).all()


@given(st.binary(max_size=200))
def test_hostile_bytes_behind_a_good_beginning_never_crash(tail: bytes) -> None:
    try:
        decode_packet(GOOD[:45] + tail)
    except LiveLinkError:
        pass


def test_what_cannot_be_sent_is_named() -> None:
    values = np.zeros(61)
    for packet in (
        Packet("", ID, values),
        Packet("x" * 2000, ID, values),
        Packet("a", ID[:-1], values),
        Packet("a", ID, np.zeros(52)),
        Packet("a", ID, np.full(61, np.nan)),
        Packet("a", ID, values, 2**31),
    ):
        with pytest.raises(LiveLinkError):
            encode_packet(packet)


@pytest.mark.parametrize(
    ("axis", "sign", "channel", "nose"),
    [("y", -1, 0, (1, 0)), ("x", 1, 1, (0, 1)), ("z", -1, 2, (0, 0))],
)
def test_signs_of_the_head(axis: str, sign: int, channel: int, nose: tuple[int, int]) -> None:
    """About +y the nose goes to the picture's right (own left), about +x down; about +z the top leaves it."""
    R = turned(axis, 0.3)
    found = rotation_to_channels(R)
    expected = torch.zeros(3)
    expected[channel] = 0.3 * sign
    assert torch.allclose(found, expected, atol=1e-6)
    ahead = R @ torch.tensor([0.0, 0.0, 1.0])  # OpenCV: x right, y down
    for value, way in zip(ahead[:2].tolist(), nose, strict=True):
        assert abs(value) < 1e-6 if way == 0 else value * way > 0.2
    top = R @ torch.tensor([0.0, 1.0, 0.0])
    if axis == "z":
        assert float(top[0]) < -0.2  # to the picture's left is the person's right: a negative roll


def test_head_rotation_is_that_of_unreal() -> None:
    """FRotator of the rotated axes, with Unreal's x, y, z = -z, x, y of the phone's space."""
    gen = torch.Generator().manual_seed(0)
    head = (torch.rand(200, 3, generator=gen, dtype=torch.float64) * 2 - 1) * torch.tensor([1.5, 1.2, 1.5])
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0]).double()) @ channels_to_rotation(head)
    to_unreal = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    U = to_unreal @ R @ to_unreal.T
    yaw = torch.atan2(U[:, 1, 0], U[:, 0, 0])
    pitch = torch.asin(U[:, 2, 0])
    roll = torch.atan2(-U[:, 2, 1], U[:, 2, 2])
    assert torch.allclose(torch.stack([yaw, pitch, roll], dim=1), head, atol=1e-9)


def test_channels_go_there_and_back() -> None:
    gen = torch.Generator().manual_seed(1)
    expression = torch.rand(2, 5, 52, generator=gen)
    head = torch.rand(2, 5, 3, generator=gen) - 0.5
    yaw, pitch = torch.rand(2, 2, 5, 2, generator=gen) - 0.5
    channels = to_channels(expression, channels_to_rotation(head), (yaw, pitch))
    assert channels.shape == (2, 5, 61)
    said = from_channels(channels)
    assert torch.equal(said.expression, expression)
    assert torch.allclose(said.R_cam_head, channels_to_rotation(head), atol=1e-6)
    assert torch.equal(said.gaze[0], yaw) and torch.equal(said.gaze[1], pitch)
    names = channel_names()
    named = dict(zip(names, channels[0, 0].tolist(), strict=True))
    assert named["jawLeft"] == expression[0, 0, NAMES.index("jawLeft")]
    assert named["LeftEyeYaw"] == -yaw[0, 0, 0] and named["RightEyePitch"] == -pitch[0, 0, 1]
    assert named["LeftEyeRoll"] == 0 and names[52:55] == ("HeadYaw", "HeadPitch", "HeadRoll")
    assert not to_channels(expression)[..., 52:55].any()
    still = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert torch.allclose(from_channels(torch.zeros(61)).R_cam_head, still)


def test_eyes_follow_the_shapes() -> None:
    expression = torch.zeros(52)
    expression[NAMES.index("eyeLookInLeft")] = expression[NAMES.index("eyeLookOutRight")] = 0.5
    expression[NAMES.index("eyeLookDownLeft")] = expression[NAMES.index("eyeLookDownRight")] = 0.2
    named = dict(zip(channel_names(), to_channels(expression).tolist(), strict=True))
    for side in ("Left", "Right"):  # to the own right, and down: both positive
        assert named[f"{side}EyeYaw"] == pytest.approx(math.radians(15), abs=1e-6)
        assert named[f"{side}EyePitch"] == pytest.approx(math.radians(5), abs=1e-6)
    with pytest.raises(ShapeError):
        to_channels(torch.zeros(51))
    with pytest.raises(ShapeError):
        from_channels(torch.zeros(52))


def test_a_face_goes_over_loopback() -> None:
    expression = torch.rand(52, generator=torch.Generator().manual_seed(2))
    with LiveLinkReceiver(0, "127.0.0.1") as receiver:
        with LiveLinkSender("127.0.0.1", receiver.port, "Zoë", 29.97) as sender:
            first = sender.frame
            assert sender.send(expression, turned("y", 0.2)) and sender.send(None)
            assert sender.sent == 2 and sender.dropped == 0 and sender.frame == first + 2
        before = time.monotonic()
        (one, arrived), (two, _) = itertools.islice(receiver.frames(5.0), 2)
        assert before - 1 < arrived <= time.monotonic()
        assert one.subject == receiver.subject == "Zoë" and one.frame == first
        assert one.fps == pytest.approx(29.97, abs=1e-3)
        assert two.channels is None and one.channels is not None
        assert torch.equal(from_channels(torch.from_numpy(one.channels)).expression, expression)
        assert one.channels[52] == pytest.approx(-0.2, abs=1e-6)
        assert list(receiver.frames(0.05)) == []


def raw_sender(port: int):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(("127.0.0.1", port))
    return out


def test_losses_doubles_and_strangers_are_counted() -> None:
    values = [0.5] * 61
    with LiveLinkReceiver(0, "127.0.0.1") as receiver, raw_sender(receiver.port) as out:
        for number in (10, 11, 11, 14, 12, 15):
            out.send(by_hand(values, frame=number))
        out.send(b"nonsense")
        out.send(by_hand(values, b"other"))
        out.send(by_hand(values, frame=10_000))  # the clock of the phone was set
        out.send(by_hand(values, frame=3))  # and midnight
        out.send(by_hand(values, frame=4))
        numbers = [packet.frame for packet, _ in receiver.frames(0.3)]
        counts = receiver.counts
    assert numbers == [10, 11, 14, 15, 10_000, 3, 4]
    assert (counts.frames, counts.lost, counts.late, counts.malformed, counts.others) == (7, 2, 2, 1, 1)


def test_a_sender_that_counts_in_twos_loses_nothing() -> None:
    with LiveLinkReceiver(0, "127.0.0.1", "iPhone") as receiver, raw_sender(receiver.port) as out:
        for number in (0, 2, 4, 8):
            out.send(by_hand([0.0] * 61, frame=number))
        assert len(list(receiver.frames(0.2))) == 4
        assert receiver.counts.lost == 1


def test_ports_and_hosts_that_cannot_be_used() -> None:
    with LiveLinkReceiver(0, "127.0.0.1") as receiver:
        with pytest.raises(LiveLinkError, match=f"port {receiver.port} is taken.*--port"):
            LiveLinkReceiver(receiver.port, "127.0.0.1")
    LiveLinkReceiver(receiver.port, "127.0.0.1").close()  # closed, it is free again
    for port in (-1, 65536):
        with pytest.raises(LiveLinkError, match="65535"):
            LiveLinkReceiver(port)
        with pytest.raises(LiveLinkError, match="65535"):
            LiveLinkSender(port=port)
    with pytest.raises(LiveLinkError, match="cannot be reached"):
        LiveLinkSender("a" * 70 + "..", 11111)
    with pytest.raises(LiveLinkError, match="frames per second"):
        LiveLinkSender(fps=0)
    with pytest.raises(LiveLinkError, match="1 to 1024 bytes"):
        LiveLinkSender(subject="")
    assert address("studio") == ("studio", 11111) and address("10.0.0.2:9") == ("10.0.0.2", 9)
    assert address("[::1]:12") == ("::1", 12) and address("::1") == ("::1", 11111)
    assert address("fe80::1") == ("fe80::1", 11111)
    for text in ("", ":9", "a:b", "a:", "host:0", "host:65536", "h:123:4", "[h]:4:5", "[]:9"):
        with pytest.raises(OptionError):
            address(text)


class FakeSender:
    """Takes note of what is sent when, by a clock that only waiting moves."""

    def __init__(self, slow_s: float = 0.0) -> None:
        self.now, self.frame, self.slow_s = 100.0, 7, slow_s
        self.sent: list[tuple[float, int]] = []

    def send(self, expression, R_cam_head=None, gaze=None, frame=None) -> bool:
        self.sent.append((self.now - 100.0, -1 if frame is None else frame))
        self.now += self.slow_s
        return True

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 0.003  # a system wakes up late


def a_motion(n: int = 5, fps: float = 10.0) -> Motion:
    gen = torch.Generator().manual_seed(3)
    head = channels_to_rotation(torch.rand(n, 3, generator=gen) - 0.5)
    return Motion(torch.rand(n, 52, generator=gen), head, torch.arange(n) / fps)


def test_playing_does_not_drift() -> None:
    sender = FakeSender()
    player = play(a_motion(), sender, loop=True, clock=lambda: sender.now, sleep=sender.sleep)  # pyright: ignore
    assert list(itertools.islice(player, 12)) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    for i, (at, number) in enumerate(sender.sent):
        assert number == 7 + i and -1e-6 <= at - i / 10 <= 0.0031
    slow = FakeSender(slow_s=0.25)
    left = list(play(a_motion(), slow, clock=lambda: slow.now, sleep=slow.sleep))  # pyright: ignore
    assert left == [0, 2, 4] and [n for _, n in slow.sent] == [7, 9, 11]  # what is overdue is left out


def test_commands_record_what_they_send(tmp_path: Path, capsys) -> None:
    motion = a_motion(20, 50.0)
    write_motion_json(tmp_path / "in.json", motion)
    with LiveLinkReceiver(0, "127.0.0.1") as probe:
        port = probe.port

    def later() -> None:
        for _ in range(500):  # until the command has taken the port
            try:
                LiveLinkReceiver(port, "127.0.0.1").close()
                time.sleep(0.01)
            except LiveLinkError:
                break
        assert motion.R_cam_head is not None
        with LiveLinkSender("127.0.0.1", port, "Ann", 50.0) as sender:
            for expression, R in zip(motion.expression, motion.R_cam_head, strict=True):
                sender.send(expression, R)

    thread = threading.Thread(target=later)
    thread.start()
    options = ("--host", "127.0.0.1", "--port", port, "--seconds", "1.2")
    assert run("listen", "-o", tmp_path / "out.csv", *options) == 0
    thread.join()
    text = " ".join(capsys.readouterr().err.split())
    assert "20 frames of Ann" in text and "0 lost" in text
    took = read_motion(tmp_path / "out.csv")
    assert len(took) == 20 and torch.allclose(took.expression, motion.expression, atol=1e-6)
    assert took.R_cam_head is not None and motion.R_cam_head is not None
    assert torch.allclose(took.R_cam_head, motion.R_cam_head, atol=1e-5)
    assert torch.allclose(took.times.float(), motion.times, atol=1e-3)


def test_the_command_sends(tmp_path: Path, capsys) -> None:
    write_motion_json(tmp_path / "in.json", a_motion(4, 100.0))
    with LiveLinkReceiver(0, "127.0.0.1") as receiver:
        target = f"127.0.0.1:{receiver.port}"
        assert run("send", tmp_path / "in.json", "--to", target, "--name", "Bo", "--rate", "25") == 0
        came = [packet for packet, _ in receiver.frames(0.3)]
    assert 1 <= len(came) <= 4 and came[0].fps == pytest.approx(25)  # a busy system leaves some out
    assert {packet.subject for packet in came} == {"Bo"}
    assert f"{len(came)} frames sent" in " ".join(capsys.readouterr().err.split())


def test_an_interrupted_recording_is_kept(tmp_path: Path, capsys, monkeypatch) -> None:
    def cut(self, seconds=None):
        for i in range(3):
            channels = np.full(61, 0.25, np.float32) if i != 1 else None
            packet = Packet("Ann", ID, channels, 100 + 2 * i, 0.0, (60, 1))
            self.counts.frames += 1
            yield packet, 5.0 + i / 60
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveLinkReceiver, "frames", cut)
    assert run("listen", "-o", tmp_path / "out.json", "--port", 0, "--host", "127.0.0.1") == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["status"] == ["ok", "interpolated", "ok"] and content["fps"] == pytest.approx(30)
    assert {value for row in content["blendshapes"] for value in row} == {0.25}


def test_commands_that_cannot_do_their_work(tmp_path: Path, capsys) -> None:
    def said() -> str:
        return " ".join(capsys.readouterr().err.split())

    quiet = ("--host", "127.0.0.1", "--port", 0, "--seconds", "0.05")
    assert run("listen", "-o", tmp_path / "a.csv", *quiet) == 1 and "nothing came" in said()
    assert run("listen", "-o", tmp_path / "a.txt", *quiet) == 1 and ".csv or .json" in said()
    with LiveLinkReceiver(0, "127.0.0.1") as receiver:
        busy = ("--host", "127.0.0.1", "--port", receiver.port)
        assert run("listen", "-o", tmp_path / "a.csv", *busy) == 1
    assert f"port {receiver.port} is taken" in said()
    assert run("send", tmp_path / "none.csv") == 1 and "does not exist; check the path" in said()
    assert list(tmp_path.iterdir()) == []
