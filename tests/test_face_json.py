# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hiface.errors import FaceFileError, OutputError, ShapeError
from hiface.export.json_params import SCHEMA, FaceRecord, read_face_json, write_face_json
from hiface.types import Camera, FaceParams
from toy import toy_model


def a_record(static: bool = True) -> FaceRecord:
    torch.manual_seed(0)
    camera = Camera.from_pose(torch.eye(3), torch.tensor([0.1, 0.2, 0.7]), 800.0, 640, 480)
    params = FaceParams(
        torch.randn(8),
        torch.rand(52),
        torch.randn(5, 3) * 0.1,
        torch.randn(3),
        torch.randn(9, 3),
        camera,
        torch.randn(4) if static else None,
    )
    return FaceRecord.of(
        params,
        toy_model().data,
        landmarks_px={"ibug68": torch.rand(68, 2) * 400},
        box_px=(10.0, 20.0, 110.0, 150.0),
        score=0.97,
        scale_source="iris",
        provenance={"photo": "a.jpg"},
    )


def written(path: Path) -> dict[str, Any]:
    return json.loads(write_face_json(path / "face.json", a_record()).read_text())


@pytest.mark.parametrize("static", [True, False])
def test_round_trip(tmp_path: Path, static: bool) -> None:
    record = a_record(static)
    back = read_face_json(write_face_json(tmp_path / "face.json", record))
    for name in ("identity", "expression", "pose", "albedo", "light"):
        assert torch.equal(getattr(back.params, name), getattr(record.params, name)), name
    if static:
        assert back.params.static is not None and record.params.static is not None
        assert torch.equal(back.params.static, record.params.static)
    else:
        assert back.params.static is None
    for name in ("K", "T_cam_object"):
        assert torch.equal(getattr(back.params.camera, name), getattr(record.params.camera, name))
    assert (back.params.camera.width, back.params.camera.height) == (640, 480)
    assert torch.equal(back.landmarks_px["ibug68"], record.landmarks_px["ibug68"])
    for name in (
        "model",
        "expression_names",
        "joint_names",
        "albedo_names",
        "box_px",
        "score",
        "scale_source",
        "software",
        "provenance",
    ):
        assert getattr(back, name) == getattr(record, name), name


def test_coefficients_are_named(tmp_path: Path) -> None:
    content, record = written(tmp_path), a_record()
    assert content["schema"] == SCHEMA == "hiface.face/1"
    index = record.expression_names.index("jawOpen")
    assert content["expression"]["jawOpen"] == pytest.approx(float(record.params.expression[index]))
    assert list(content["pose_rotvec"]) == ["neck", "head", "jaw", "eye_left", "eye_right"]
    assert content["units"] == {"length": "m", "angle": "rad", "image": "px"}
    assert content["software"]["name"] == "hiface" and content["model"] == {"name": "toy", "version": "1"}


def test_optional_facts_may_be_missing(tmp_path: Path) -> None:
    record = FaceRecord.of(a_record().params, toy_model().data)
    back = read_face_json(write_face_json(tmp_path / "face.json", record))
    assert back.box_px is None and back.score is None and not back.landmarks_px


def _without(key: str) -> dict[str, Any]:
    return {"__drop__": key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "hiface.face/2"}, "update hiface"),
        ({"schema": None}, "not a face written by hiface"),
        (_without("schema"), "not a face written by hiface"),
        (_without("camera"), "incomplete or damaged"),
        ({"identity": "many"}, "incomplete or damaged"),
        ({"light_sh": [[1, 2, 3]]}, "incomplete or damaged"),
        ({"expression": {"jawOpen": "wide"}}, "incomplete or damaged"),
        ({"pose_rotvec": {"neck": [0, 0]}}, "incomplete or damaged"),
        ({"camera": [1, 2]}, "incomplete or damaged"),
        ({"expression": {"jawOpen": float("nan")}}, "incomplete or damaged"),
    ],
)
def test_wrong_files_are_typed_errors(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = written(tmp_path)
    content.pop(change.get("__drop__", ""), None)
    content.update({k: v for k, v in change.items() if k != "__drop__"})
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FaceFileError, match=message):
        read_face_json(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe\x00", b'{"a": 1}'])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(FaceFileError):
        read_face_json(path)
    with pytest.raises(FaceFileError, match="check the path"):
        read_face_json(tmp_path / "missing.json")
    with pytest.raises(FaceFileError):
        read_face_json(tmp_path)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    record = a_record()
    bad = FaceRecord.of(record.params.replace(identity=torch.full((8,), float("nan"))), toy_model().data)
    with pytest.raises(FaceFileError, match="fit it again"):
        write_face_json(tmp_path / "a.json", bad)
    batch = FaceRecord.of(record.params.replace(identity=torch.zeros(1, 8)), toy_model().data)
    with pytest.raises(ShapeError, match="one face"):
        write_face_json(tmp_path / "a.json", batch)
    short = FaceRecord.of(record.params.replace(expression=torch.zeros(51)), toy_model().data)
    with pytest.raises(FaceFileError, match="names"):
        write_face_json(tmp_path / "a.json", short)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_face_json(tmp_path / "file" / "a.json", record)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
