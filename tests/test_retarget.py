# SPDX-License-Identifier: Apache-2.0
"""Motions in files (tables as the app writes them, JSON) and the retarget command on them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import roma
import torch

from hiface.animation.live_link import channels_to_rotation
from hiface.animation.motion import Motion, fill_missing
from hiface.animation.motion_files import read_motion, read_motion_csv, write_live_link_csv, write_motion_csv
from hiface.animation.motion_json import read_motion_json, write_motion_json
from hiface.animation.orders import expression_order
from hiface.animation.timecode import from_timecodes, to_timecode
from hiface.cli.main import main
from hiface.errors import FaceFileError, OptionError, ShapeError

NAMES = expression_order("arkit52")
# Columns as the app writes them; jaw and mouth have the right side first.
APP_HEADER = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,"
    "EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,"
    "EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,"
    "MouthRight,MouthLeft,MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,"
    "MouthDimpleRight,MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,"
    "MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,"
    "CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,HeadYaw,HeadPitch,HeadRoll,"
    "LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["retarget", *map(str, words)])
    return int(done.value.code or 0)


def a_motion(n: int = 6, fps: float = 30.0, seed: int = 0) -> Motion:
    gen = torch.Generator().manual_seed(seed)
    head = torch.rand(n, 3, generator=gen, dtype=torch.float64) - 0.5
    return Motion(
        torch.rand(n, 52, generator=gen),
        channels_to_rotation(head).float(),
        torch.arange(n) / fps,
        torch.rand(n, 3, generator=gen),
    )


def app_rows(rows: list[list[float]], codes: list[str]) -> str:
    lines = [
        f"{code},61," + ",".join(f"{v:.10f}" for v in row) for code, row in zip(codes, rows, strict=True)
    ]
    return "\r\n".join([APP_HEADER, *lines]) + "\r\n"


@pytest.mark.parametrize("case", [str, str.upper, str.lower])
def test_a_recording_of_the_app_is_read(tmp_path: Path, case) -> None:
    """Times count in 60ths of a second over the end of a second; BOM and CRLF are passed over."""
    row = [i / 100 for i in range(52)] + [0.1, -0.2, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    codes = ["11:54:29:58.804", "11:54:29:59.805", "11:54:30:00.806", "11:54:30:02.806"]
    text = app_rows([row, row, row, [0.5] * 52 + row[52:]], codes).replace(APP_HEADER, case(APP_HEADER))
    (tmp_path / "take.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    motion = read_motion(tmp_path / "take.csv")
    expected = torch.tensor([0.0, 1.001, 2.002, 4.002]) / 60
    assert torch.allclose(motion.times.float(), expected, atol=1e-6) and motion.status is None
    columns = [str(name) for name in APP_HEADER.lower().split(",")[2:]]
    for i, name in enumerate(NAMES):
        assert motion.expression[0, i] == pytest.approx(row[columns.index(name.lower())], abs=1e-6)
    Ry, Rx, Rz = (roma.rotvec_to_rotmat(torch.tensor(v)) for v in ([0, -0.1, 0], [-0.2, 0, 0], [0, 0, -0.3]))
    assert motion.R_cam_head is not None
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert torch.allclose(motion.R_cam_head[0], upright @ Ry @ Rx @ Rz, atol=1e-6)


def test_frames_without_a_face_are_filled_in(tmp_path: Path) -> None:
    codes = [f"00:00:01:{i:02d}.000" for i in range(6)]
    lines = app_rows([[v] * 52 + [0.0] * 9 for v in (0, 0.2, 0, 0, 0.8, 0)], codes).split("\r\n")
    for i in (0, 2, 3, 5):
        lines[1 + i] = f"{codes[i]},0"
    (tmp_path / "take.csv").write_text("\r\n".join(lines))
    motion = read_motion(tmp_path / "take.csv")
    assert motion.status == ("missing", "ok", "interpolated", "interpolated", "ok", "missing")
    assert torch.allclose(motion.expression[:, 3], torch.tensor([0.2, 0.2, 0.4, 0.6, 0.8, 0.8]))
    assert motion.R_cam_head is None  # all zero: it was switched off
    (tmp_path / "none.csv").write_text("\r\n".join([lines[0], f"{codes[0]},0"]))
    with pytest.raises(FaceFileError, match="no frame with a face"):
        read_motion(tmp_path / "none.csv")


def test_filling_in_needs_a_seen_frame() -> None:
    with pytest.raises(ShapeError):
        fill_missing(torch.zeros(2, 3), [False, False])
    same, status = fill_missing(torch.tensor([[1.0], [2.0]]), [True, True])
    assert same.tolist() == [[1], [2]] and status == ("ok", "ok")


@pytest.mark.parametrize("fps", [24.0, 29.97, 30.0, 59.94, 60.0, 120.0, 12.5])
def test_timecodes_go_there_and_back(fps: float) -> None:
    times = [3661.5 + i / fps for i in range(round(2.5 * fps))]
    codes = [to_timecode(seconds, fps) for seconds in times]
    found = from_timecodes(codes)
    assert found is not None
    assert max(abs(a - (b - times[0])) for a, b in zip(found, times, strict=True)) < 2e-3 / fps
    assert all(float(code.split(":")[3]) < fps for code in codes)


def test_timecodes_by_hand() -> None:
    assert to_timecode(0.0, 60) == "00:00:00:00.000" and to_timecode(3723.25, 60) == "01:02:03:15.000"
    assert to_timecode(0.99999999, 30) == "00:00:01:00.000"
    found = from_timecodes(["23:59:59:58.000", "23:59:59:59.000", "00:00:00:00.000"])
    assert found is not None and found.tolist() == pytest.approx([0, 1 / 60, 2 / 60])
    short = from_timecodes(["00:00:00:00.000", "00:00:00:01.000"], 25)
    assert short is not None and short.tolist() == pytest.approx([0, 1 / 25])
    for texts in ([], ["1"], ["a:b:c:d"]):
        assert from_timecodes(texts) is None


def test_live_link_tables_go_there_and_back(tmp_path: Path) -> None:
    motion = a_motion(50, 29.97)
    write_live_link_csv(tmp_path / "a.csv", motion)
    content = (tmp_path / "a.csv").read_bytes()
    assert content.startswith(APP_HEADER.encode() + b"\r\n00:00:00:00.000,61,")
    assert {len(line.split(b",")) for line in content.splitlines()} == {63}
    back = read_motion(tmp_path / "a.csv")
    assert float((back.expression - motion.expression).abs().max()) <= 1e-6
    assert back.R_cam_head is not None and motion.R_cam_head is not None
    assert float((back.R_cam_head - motion.R_cam_head).abs().max()) <= 1e-6
    assert float((back.times - motion.times).abs().max()) < 1e-4


@pytest.mark.parametrize("order", ["arkit52", "mediapipe", "ict", "live_link"])
def test_plain_tables_go_there_and_back(tmp_path: Path, order: str) -> None:
    motion = a_motion()
    write_motion_csv(tmp_path / "a.csv", motion, order)
    header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert tuple(header[1:-3]) == expression_order(order)
    back = read_motion(tmp_path / "a.csv")
    kept = [i for i, name in enumerate(NAMES) if name != "tongueOut" or order in ("arkit52", "live_link")]
    assert torch.allclose(back.expression[:, kept], motion.expression[:, kept], atol=1e-6)
    assert torch.allclose(back.times.float(), motion.times, atol=1e-6)
    assert back.R_cam_head is not None and motion.R_cam_head is not None
    assert torch.allclose(back.R_cam_head, motion.R_cam_head, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "fps"), [(20, 50.0), (5, 24.0), (100, 25.0), (90, 59.94), (1, 60.0), (40, 12.0)]
)
def test_times_of_live_link_tables_survive_without_a_rate(tmp_path: Path, n: int, fps: float) -> None:
    write_live_link_csv(tmp_path / "a.csv", a_motion(n, fps))
    assert read_motion(tmp_path / "a.csv").times.tolist() == pytest.approx(
        [i / fps for i in range(n)], abs=1e-3
    )
    write_live_link_csv(tmp_path / "b.csv", a_motion(3, 30.0), 30.0)
    assert "\r\n00:00:00:02.000," in (tmp_path / "b.csv").read_bytes().decode()


def test_numbers_that_cannot_be_written(tmp_path: Path) -> None:
    bad = Motion(torch.full((1, 52), math.nan), None, torch.zeros(1))
    for write in (write_live_link_csv, write_motion_csv):
        with pytest.raises(ShapeError, match="finite"):
            write(tmp_path / "a.csv", bad)
    with pytest.raises(FaceFileError):
        write_motion_json(tmp_path / "a.json", bad)
    with pytest.raises(ShapeError, match="52"):
        write_live_link_csv(tmp_path / "a.csv", Motion(torch.zeros(1, 3), None, torch.zeros(1)))
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_everything(tmp_path: Path) -> None:
    motion = a_motion(4)
    motion = Motion(
        motion.expression,
        motion.R_cam_head,
        torch.tensor([0.5, 0.6, 0.9, 1.0]),
        motion.t_cam_head,
        ("ok", "interpolated", "ok", "missing"),
    )
    write_motion_json(tmp_path / "a.json", motion)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["schema"] == "hiface.motion/1" and "fps" not in content
    x, y, z, w = content["head"]["rotation_xyzw"][0]
    R = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    assert motion.R_cam_head is not None and torch.allclose(R, motion.R_cam_head[0], atol=1e-6)
    back = read_motion(tmp_path / "a.json")
    assert torch.allclose(back.expression, motion.expression, atol=1e-7) and back.status == motion.status
    assert back.R_cam_head is not None and torch.allclose(back.R_cam_head, motion.R_cam_head, atol=1e-6)
    assert back.t_cam_head is not None and motion.t_cam_head is not None
    assert torch.allclose(back.t_cam_head, motion.t_cam_head, atol=1e-7)
    assert back.times.tolist() == pytest.approx(motion.times.tolist())
    even = Motion(torch.zeros(3, 52), None, torch.arange(3) / 25)
    write_motion_json(tmp_path / "b.json", even)
    content = json.loads((tmp_path / "b.json").read_text())
    assert (
        content["fps"] == pytest.approx(25, rel=1e-5) and content["head"] is None and "times_s" not in content
    )
    assert read_motion(tmp_path / "b.json").times.tolist() == pytest.approx([0, 0.04, 0.08], rel=1e-5)


GOOD = {"schema": "hiface.motion/1", "names": ["jawOpen"], "fps": 30, "blendshapes": [[0.5], [1.2]]}


def test_small_json_of_others_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    motion = read_motion(tmp_path / "a.json")
    assert motion.expression[:, NAMES.index("jawOpen")].tolist() == [0.5, 1.0]
    assert motion.expression.sum() == 1.5 and motion.status is None
    (tmp_path / "b.json").write_text(json.dumps(GOOD | {"names": ["eyeBlink_L"]}))
    assert read_motion(tmp_path / "b.json").expression[1, NAMES.index("eyeBlinkLeft")] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "hiface.motion/2"}, "hiface.motion/2"),
        ({"schema": "other"}, "not a face|schema"),
        ({"names": []}, "names"),
        ({"names": ["jawOpen", "jawOpen"]}, "twice"),
        ({"names": ["nose"]}, "no name is that of a blendshape"),
        ({"names": [3]}, "texts"),
        ({"blendshapes": [[0.5, 0.5], [1.0]]}, "no whole motion"),
        ({"blendshapes": [[0.5, 0.5]]}, "shape"),
        ({"blendshapes": []}, "shape"),
        ({"blendshapes": "wide"}, "no whole motion"),
        ({"blendshapes": [["a"], ["b"]]}, "no whole motion"),
        ({"blendshapes": [[1e60], [0.0]]}, "no whole motion"),
        ({"fps": 0}, "fps must"),
        ({"fps": "fast"}, "no whole motion"),
        ({"fps": None, "times_s": [0, 1]}, "either fps or times_s"),
        ({"status": ["ok", "gone"]}, "status"),
        ({"status": ["ok"]}, "status"),
        ({"head": {"rotation_xyzw": [[0, 0, 0, 0], [0, 0, 0, 1]]}}, "unit quaternions"),
        ({"head": {"rotation_xyzw": [[0, 0, 0, 1]]}}, "shape"),
        ({"head": {"translation_m": [[0, 0]] * 2}}, "shape"),
        ({"head": [1]}, "no whole motion"),
    ],
)
def test_json_that_is_no_motion_is_named(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(FaceFileError, match=words):
        read_motion(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"schema": NaN}', json.dumps(GOOD).replace("0.5", "NaN"), "[" * 99999]
)
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FaceFileError):
        read_motion(tmp_path / "a.json")
    with pytest.raises(FaceFileError):
        read_motion_json(tmp_path / "a.json")


def test_times_that_do_not_increase_and_files_that_are_not_there(tmp_path: Path) -> None:
    falling = {k: v for k, v in GOOD.items() if k != "fps"} | {"times_s": [1.0, 0.5]}
    (tmp_path / "a.json").write_text(json.dumps(falling))
    with pytest.raises(FaceFileError, match="increase"):
        read_motion(tmp_path / "a.json")
    for name in ("none.json", "none.csv"):
        with pytest.raises(FaceFileError, match="does not exist; check the path"):
            read_motion(tmp_path / name)
    with pytest.raises(FaceFileError, match="cannot be read"):
        read_motion_json(tmp_path / "none.json")
    with pytest.raises(OptionError, match=r"csv or \.json"):
        read_motion(tmp_path / "none.txt")
    with pytest.raises(ShapeError):
        Motion(torch.zeros(2, 52), None, torch.zeros(2), None, ("ok", "gone"))
    with pytest.raises(ShapeError):
        Motion(torch.zeros(2, 52), None, torch.zeros(2), torch.zeros(2, 2))


def test_the_command_changes_layouts(tmp_path: Path, capsys) -> None:
    motion = a_motion(5)
    write_motion_json(tmp_path / "in.json", motion)
    assert run(tmp_path / "in.json", "-o", tmp_path / "live.csv") == 0
    assert (tmp_path / "live.csv").read_text().startswith("Timecode,BlendshapeCount,EyeBlinkLeft")
    assert run(tmp_path / "live.csv", "-o", tmp_path / "ict.json", "--to", "ict") == 0
    assert tuple(json.loads((tmp_path / "ict.json").read_text())["names"]) == expression_order("ict")
    assert run(tmp_path / "ict.json", "-o", tmp_path / "mp.csv", "--to", "mediapipe") == 0
    back = read_motion_csv(tmp_path / "mp.csv", NAMES)
    assert torch.allclose(back.expression[:, :-1], motion.expression[:, :-1], atol=1e-6)
    assert "5 frames in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "a.txt"], ".csv, .json or .glb"),
        (["-o", "a.glb"], "--onto"),
        (["-o", "a.csv", "--onto", "b.glb"], "--onto"),
        (["-o", "a.glb", "--onto", "b.glb", "--to", "ict"], "--to"),
        (["-o", "a.glb", "--onto", "none.glb"], "cannot be read"),
        (["-o", "a.csv", "--full-range"], "--neutral"),
        (["-o", "a.csv", "--neutral", "99"], "neutral frames"),
        (["-o", "a.csv", "--calibration", "none.json"], "cannot be read"),
    ],
)
def test_the_command_names_what_is_wrong(tmp_path: Path, monkeypatch, capsys, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    write_motion_json(tmp_path / "in.json", a_motion())
    assert run("in.json", *words) == 1
    assert said in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["in.json"]


def test_a_face_is_a_motion_of_one_frame(tmp_path: Path) -> None:
    from hiface.export.json_params import FaceRecord, write_face_json
    from hiface.types import Camera, FaceParams
    from toy import toy_model

    model = toy_model()
    R = channels_to_rotation(torch.tensor([0.2, 0.0, 0.0]))
    expression = torch.rand(52)
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.5]), 500.0, 64, 64)
    params = FaceParams(
        torch.zeros(8), expression, torch.zeros(5, 3), torch.zeros(3), torch.zeros(9, 3), camera
    )
    record = FaceRecord(
        params,
        (model.data.name, model.data.version),
        model.data.expression_names,
        model.data.joint_names,
        model.data.albedo_names,
    )
    write_face_json(tmp_path / "face.json", record)
    motion = read_motion(tmp_path / "face.json")
    assert len(motion) == 1 and torch.allclose(motion.expression[0], expression)
    assert motion.R_cam_head is not None and torch.allclose(motion.R_cam_head[0], R)
    assert run(tmp_path / "face.json", "-o", tmp_path / "out.csv") == 0


def test_animate_takes_motions(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from rich.console import Console

    from hiface.cli.animate import read_driver
    from toy import toy_model

    motion = a_motion(5)
    write_motion_json(tmp_path / "a.json", motion)
    write_live_link_csv(tmp_path / "a.csv", motion)
    for name in ("a.json", "a.csv"):
        reconstructor = SimpleNamespace(model=toy_model())
        read, pictures = read_driver(reconstructor, tmp_path / name, None, Console())  # pyright: ignore
        assert pictures == [None] * 5 and torch.allclose(read.expression, motion.expression, atol=1e-6)
        assert read.R_cam_head is not None and motion.R_cam_head is not None
        assert torch.allclose(read.R_cam_head, motion.R_cam_head, atol=1e-5)
        assert torch.allclose(read.times.float(), motion.times, atol=1e-4)
