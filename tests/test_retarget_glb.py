# SPDX-License-Identifier: Apache-2.0
"""Motions onto GLB files, read back with struct and json alone: ours, a foreign one, ones that do not fit."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiface.animation.live_link import channels_to_rotation
from hiface.animation.motion import Motion
from hiface.animation.motion_json import write_motion_json
from hiface.animation.onto_glb import animate_glb
from hiface.animation.orders import expression_order
from hiface.cli.main import main
from hiface.errors import HifaceError, MeshFileError, OptionError, ShapeError
from hiface.export.clips import expression_clip
from hiface.export.glb import write_glb
from hiface.types import Camera, FaceParams
from toy import toy_model

NAMES = expression_order("arkit52")
TOOLS = Path(__file__).resolve().parent.parent / "tools"


def a_motion(n: int = 4) -> Motion:
    gen = torch.Generator().manual_seed(0)
    head = channels_to_rotation(torch.rand(n, 3, generator=gen) - 0.5)
    return Motion(torch.rand(n, 52, generator=gen), head, 2.0 + torch.arange(n) / 10)


def glb(document: dict[str, Any], binary: bytes | None, *others: tuple[bytes, bytes]) -> bytes:
    text = json.dumps(document).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4))]
    chunks += [] if binary is None else [(b"BIN\0", binary + b"\0" * (-len(binary) % 4))]
    body = b"".join(struct.pack("<I", len(c)) + kind + c for kind, c in [*chunks, *others])
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def chunks(content: bytes) -> tuple[dict[str, Any], bytes, list[tuple[bytes, bytes]]]:
    magic, version, total = struct.unpack_from("<4sII", content)
    assert (magic, version, total) == (b"glTF", 2, len(content))
    found, at = [], 12
    while at < total:
        length, kind = struct.unpack_from("<I4s", content, at)
        assert length % 4 == 0
        found.append((kind, content[at + 8 : at + 8 + length]))
        at += 8 + length
    assert found[0][0] == b"JSON"
    binary = found[1][1] if len(found) > 1 and found[1][0] == b"BIN\0" else b""
    return json.loads(found[0][1]), binary, [c for c in found[1:] if c[0] != b"BIN\0"]


def numbers(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    entry = document["accessors"][index]
    view = document["bufferViews"][entry["bufferView"]]
    buffer = document["buffers"][view["buffer"]]
    data = base64.b64decode(buffer["uri"].split(",")[1]) if "uri" in buffer else binary
    assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= buffer["byteLength"]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[entry["type"]]
    out = np.frombuffer(data, "<f4", entry["count"] * width, view["byteOffset"]).reshape(-1, width)
    if "min" in entry:
        assert out.min() == np.float32(entry["min"][0]) and out.max() == np.float32(entry["max"][0])
    return out


def foreign(names: list[str], second: list[str], **more: Any) -> bytes:
    """Two meshes with targets of their own, a bone mixamorig:Head in a turned armature, an odd extension."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    moved = np.array([[0, 0, 0.1]] * 3, "<f4")
    binary = corners.tobytes() + moved.tobytes() + b"\7"  # one byte that no view needs
    target = {"POSITION": 1}

    def mesh(count: int, **extra: Any) -> dict[str, Any]:
        targets = {"targets": [target] * count} if count else {}
        return {"primitives": [{"attributes": {"POSITION": 0}, **targets, **extra}]}

    half = 0.5**0.5
    document = {
        "asset": {"version": "2.0", "extras": {"by": "Zoë", "tiny": 1e-7}},
        "extensionsUsed": ["VENDOR_odd"],
        "extensions": {"VENDOR_odd": {"keep": [1, 2.5, None, "x"]}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "Armature", "rotation": [-half, 0, 0, half], "children": [1, 3, 4]},
            {"name": "mixamorig:Head", "rotation": [half, 0, 0, half], "children": [2]},
            {"name": "face", "mesh": 0, "weights": [0.0] * (len(names) - 1) + [0.25]},
            {"name": "teeth", "mesh": 1},
            {"name": "plain", "mesh": 2},
        ],
        "meshes": [
            {**mesh(len(names)), "extras": {"targetNames": names}},
            {**mesh(len(second), extras={"targetNames": second}), "weights": [0.0] * len(second)},
            mesh(0),
        ],
        "accessors": [
            {
                "bufferView": i,
                "componentType": 5126,
                "count": 3,
                "type": "VEC3",
                "min": values.min(0).tolist(),
                "max": values.max(0).tolist(),
            }
            for i, values in enumerate((corners, moved))
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 36, "target": 34962},
            {"buffer": 0, "byteOffset": 36, "byteLength": 36, "target": 34962},
        ],
        "buffers": [{"byteLength": 73}],
        **more,
    }
    for accessor in document["accessors"]:
        accessor["min"], accessor["max"] = (
            [float(np.float32(v)) for v in accessor[k]] for k in ("min", "max")
        )
    return glb(document, binary)


FOREIGN = ["Fcl_EYE_Close_L", "JAWOPEN", "eyeBlink_L", "head.mouthSmileRight", "browInnerUp_R", "glasses"]


def test_a_foreign_head_gets_the_motion() -> None:
    before = foreign(FOREIGN, ["tongueOut", "jawOpen"])
    motion = a_motion()
    old, old_binary, _ = chunks(before)
    new, binary, _ = chunks(animate_glb(before, motion, title="take 1"))
    for key, value in old.items():  # nothing but the ends of three lists is new
        if key in ("accessors", "bufferViews"):
            assert new[key][: len(value)] == value
        elif key != "buffers":
            assert new[key] == value, key
    assert binary[: len(old_binary)] == old_binary and new["buffers"] == [{"byteLength": len(binary)}]
    (animation,) = new["animations"]
    assert animation["name"] == "take 1"
    assert [c["target"] for c in animation["channels"]] == [
        {"node": 2, "path": "weights"},
        {"node": 3, "path": "weights"},
    ]

    def track(i: int) -> np.ndarray:
        return numbers(new, binary, animation["samplers"][animation["channels"][i]["sampler"]]["output"])

    def of(name: str) -> np.ndarray:
        return motion.expression[:, NAMES.index(name)].numpy()

    face, teeth = track(0).reshape(4, 6), track(1).reshape(4, 2)
    for column, name in enumerate((None, "jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUp", None)):
        if name is not None:
            assert np.array_equal(face[:, column], of(name))
    assert not face[:, 0].any() and (face[:, 5] == 0.25).all()  # what has other names keeps its weight
    assert np.array_equal(teeth, np.stack([of("tongueOut"), of("jawOpen")], 1))
    times = numbers(new, binary, animation["samplers"][0]["input"])[:, 0]
    assert np.allclose(times, [0, 0.1, 0.2, 0.3], atol=1e-6)


def rotation(q: Any) -> np.ndarray:
    x, y, z, w = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.mark.parametrize("as_matrix", [False, True])
def test_the_head_turns_as_seen_from_outside(as_matrix: bool) -> None:
    """Whatever the bones' axes are, the head's rotation in the scene is that of the motion."""
    content = foreign(["jawOpen", "x"], ["jawOpen"])
    if as_matrix:
        document, binary, _ = chunks(content)
        R = 3 * rotation(document["nodes"][0].pop("rotation"))
        document["nodes"][0]["matrix"] = [*R[:, 0], 0, *R[:, 1], 0, *R[:, 2], 0, 0.5, 0, 0, 1]
        content = glb(document, binary)
    motion = a_motion()
    new, binary, _ = chunks(animate_glb(content, motion, with_head=True))
    channel = new["animations"][0]["channels"][-1]
    assert channel["target"] == {"node": 1, "path": "rotation"}
    keys = numbers(new, binary, new["animations"][0]["samplers"][channel["sampler"]]["output"])
    assert np.allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-6)
    half = 0.5**0.5
    above, rest = rotation([-half, 0, 0, half]), rotation([half, 0, 0, half])
    assert motion.R_cam_head is not None
    for key, R in zip(keys, motion.R_cam_head.numpy(), strict=True):
        in_scene = above @ rotation(key) @ (above @ rest).T  # from the rest pose on
        assert np.allclose(in_scene, np.diag([1, -1, -1]) @ R, atol=1e-6)


def our_head(path: Path) -> Path:
    torch.manual_seed(0)
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.8]), 500.0, 64, 64)
    params = FaceParams(
        torch.randn(8), torch.rand(52), torch.zeros(5, 3), torch.randn(3), torch.zeros(9, 3), camera
    )
    clip = expression_clip(params.expression.numpy(), NAMES)
    return write_glb(path, toy_model(), params, torch.rand(3, 16, 16), animations=[clip])


def test_our_head_gets_one_more_animation(tmp_path: Path) -> None:
    before = our_head(tmp_path / "face.glb").read_bytes()
    motion = a_motion()
    new, binary, _ = chunks(animate_glb(before, motion, with_head=True))
    assert [a["name"] for a in new["animations"]] == ["expression", "hiface motion"]
    paths = [(c["target"]["node"], c["target"]["path"]) for c in new["animations"][1]["channels"]]
    names = [node["name"] for node in new["nodes"]]
    assert [(names[n], path) for n, path in paths] == [("head_mesh", "weights"), ("head", "rotation")]
    values = numbers(new, binary, new["animations"][1]["samplers"][0]["output"]).reshape(4, -1)
    assert np.array_equal(values, motion.expression.numpy())


def test_what_other_clips_move_is_at_rest_in_the_new_one() -> None:
    """Moved by older clips: the armature, the tongue's mesh, and the head, which the motion may turn."""
    document, binary, _ = chunks(foreign(["jawOpen"], ["x", "y"]))
    document["nodes"][0]["translation"] = [1.0, 2.0, 3.0]
    document["meshes"][1]["weights"] = [0.5, 0.25]
    moved = [(0, "translation"), (0, "rotation"), (0, "scale"), (1, "rotation"), (3, "weights")]
    channels = [{"sampler": 0, "target": {"node": n, "path": path}} for n, path in moved]
    channels.append({"sampler": 0, "target": {"path": "pointer"}})  # as extensions have it
    document["animations"] = [{"samplers": [{"input": 0, "output": 0}], "channels": channels}] * 2
    for with_head in (True, False):
        new, binary, _ = chunks(animate_glb(glb(document, binary), a_motion(), with_head=with_head))
        assert new["animations"][:2] == document["animations"]
        added, found = new["animations"][2], {}
        for channel in added["channels"]:
            sampler = added["samplers"][channel["sampler"]]
            values = numbers(new, binary, sampler["output"])
            count = new["accessors"][sampler["input"]]["count"]
            found[channel["target"]["node"], channel["target"]["path"]] = count, values.ravel().tolist()
        assert len(found) == len(added["channels"]) == 6
        half = float(np.float32(0.5**0.5))
        assert found[0, "translation"] == (1, [1, 2, 3]) and found[0, "scale"] == (1, [1, 1, 1])
        assert found[0, "rotation"] == (1, [-half, 0, 0, half]) and found[3, "weights"] == (1, [0.5, 0.25])
        if with_head:
            assert found[1, "rotation"][0] == 4, "turned by the motion"
        else:
            assert found[1, "rotation"] == (1, [half, 0, 0, half])


def test_weights_that_are_too_few_are_zero() -> None:
    document, binary, _ = chunks(foreign(["x", "y", "jawOpen"], ["z"]))
    document["nodes"][2]["weights"] = [0.5]
    new, binary, _ = chunks(animate_glb(glb(document, binary), a_motion()))
    values = numbers(new, binary, new["animations"][0]["samplers"][0]["output"]).reshape(4, 3)
    assert (values[:, :2] == [0.5, 0.0]).all()


def test_a_head_under_thousands_of_nodes_takes_no_minute() -> None:
    document, binary, _ = chunks(foreign(["jawOpen"], ["x"]))
    document["nodes"] += [{"children": [len(document["nodes"]) - 1 + i]} for i in range(20000)]
    document["nodes"][5]["children"] = [0]
    started = time.perf_counter()
    new, _, _ = chunks(animate_glb(glb(document, binary), a_motion(), with_head=True))
    assert len(new["animations"][0]["channels"]) == 2 and time.perf_counter() - started < 8.0


def test_other_layouts_of_the_container() -> None:
    """No binary chunk, an external first buffer, further chunks, motions in other orders."""
    document, binary, _ = chunks(foreign(["jawOpen"], ["jawOpen"]))
    uri = "data:application/octet-stream;base64," + base64.b64encode(binary[:73]).decode()
    outside = document | {"buffers": [{"byteLength": 73, "uri": uri}]}
    odd = (b"ODD\0", b"12345678")
    new, chunk, others = chunks(animate_glb(glb(outside, None, odd), a_motion()))
    assert new["buffers"][0] == outside["buffers"][0] and len(new["buffers"]) == 2 and not chunk
    assert others == [odd]
    sampler = new["animations"][0]["samplers"][0]
    assert np.array_equal(
        numbers(new, b"", sampler["output"])[:, 0], a_motion().expression[:, NAMES.index("jawOpen")].numpy()
    )
    few = Motion(torch.tensor([[0.5], [0.25]]), None, torch.arange(2.0))
    new, chunk, _ = chunks(animate_glb(foreign(["jawOpen"], ["tongueOut"]), few, ["jawOpen"]))
    assert len(new["animations"][0]["channels"]) == 1  # nothing is known of the tongue
    assert numbers(new, chunk, new["animations"][0]["samplers"][0]["output"])[:, 0].tolist() == [0.5, 0.25]


def test_heads_that_cannot_take_it_are_named() -> None:
    with pytest.raises(MeshFileError, match=r"A, B, Basis2.*rename"):
        animate_glb(foreign(["B", "A"], ["Basis2"]), a_motion())
    document, binary, _ = chunks(foreign(["jawOpen"], ["x"]))
    for mesh in document["meshes"]:
        mesh.pop("extras", None)
    with pytest.raises(MeshFileError, match="no morph targets with names"):
        animate_glb(glb({**document, "meshes": document["meshes"][:1], "nodes": []}, binary), a_motion())
    with pytest.raises(ShapeError, match="no head rotation"):
        still = Motion(torch.zeros(1, 52), None, torch.zeros(1))
        animate_glb(foreign(["jawOpen"], ["x"]), still, with_head=True)
    document["meshes"][0]["extras"] = {"targetNames": ["jawOpen"]}
    document["nodes"][1]["name"] = "Skull"
    with pytest.raises(OptionError, match="Skull"):
        animate_glb(glb(document, binary), a_motion(), with_head=True)
    document["nodes"][1] = {"name": "HEAD", "matrix": np.eye(4).ravel().tolist(), "children": [2]}
    with pytest.raises(OptionError, match="matrix"):
        animate_glb(glb(document, binary), a_motion(), with_head=True)
    with pytest.raises(ShapeError, match="names"):
        animate_glb(foreign(["jawOpen"], ["x"]), a_motion(), ["jawOpen"])


GOOD = foreign(["jawOpen"], ["x"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no GLB"),
        (b"solid nothing but some text here", "no GLB"),
        (GOOD[:4] + struct.pack("<I", 1) + GOOD[8:], "version 1"),
        (GOOD[:-10], "cut off"),
        (GOOD[:12] + struct.pack("<I", 10**6) + GOOD[16:], "damaged"),
        (GOOD[:16] + b"ODD\0" + GOOD[20:], "begin with JSON"),
        (GOOD[:20] + b"~" + GOOD[21:], "JSON cannot be read"),
        (glb([], b""), "no object"),  # pyright: ignore
        (glb({"meshes": 3}, b""), "damaged"),
        (glb({"nodes": [3]}, b""), "damaged"),
        (glb({"nodes": [{"mesh": [1]}], "meshes": []}, b""), "damaged"),
        (glb({"meshes": [{"primitives": 5}]}, b""), "damaged"),
        (glb({}, None), "no morph targets"),
    ],
)
def test_damaged_files_are_named(content: bytes, words: str) -> None:
    with pytest.raises(MeshFileError, match=words):
        animate_glb(content, a_motion())


def test_any_flipped_byte_is_read_or_named() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(GOOD)
        content[rng.integers(len(content))] = rng.integers(256)
        try:
            animate_glb(bytes(content), a_motion(2), with_head=True)
        except HifaceError:
            pass


def test_the_command_writes_a_glb(tmp_path: Path, capsys) -> None:
    write_motion_json(tmp_path / "in.json", a_motion())
    (tmp_path / "her.glb").write_bytes(foreign(FOREIGN, ["x"]))
    with pytest.raises(SystemExit) as done:
        words = ["retarget", "in.json", "--onto", "her.glb", "-o", "out.glb", "--head"]
        main([str(tmp_path / w) if "." in w else w for w in words])
    assert done.value.code == 0, capsys.readouterr().err
    document, _, _ = chunks((tmp_path / "out.glb").read_bytes())
    assert len(document["animations"][0]["channels"]) == 2
    assert (tmp_path / "her.glb").read_bytes() == foreign(FOREIGN, ["x"])


def test_khronos_validator_finds_nothing(tmp_path: Path) -> None:
    folder = Path(
        os.environ.get("HIFACE_GLTF_VALIDATOR", Path(tempfile.gettempdir()) / "hiface-gltf-validator")
    )
    if shutil.which("node") is None or not (folder / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("gltf-validator is not installed; test_glb.py installs it")
    document, binary, _ = chunks(foreign(FOREIGN, ["tongueOut", "x"]))
    for key in ("extensionsUsed", "extensions"):  # the validator notes what it does not know
        del document[key]
    ours = our_head(tmp_path / "face.glb").read_bytes()
    files = {"ours.glb": ours, "foreign.glb": glb(document, binary)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(animate_glb(content, a_motion(), with_head=True))
    command = ["node", str(TOOLS / "validate_glb.mjs"), str(folder), *(str(tmp_path / n) for n in files)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(reports) == 2, result.stderr
    for report in reports:
        assert report["numErrors"] == 0 and report["numWarnings"] == 0, report["messages"]
