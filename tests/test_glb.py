# SPDX-License-Identifier: Apache-2.0
"""The file is read back with struct and json alone, by code that shares nothing with the writer."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch

from hiface.animation.gaze import eyelook_angle
from hiface.assets import load_json_asset
from hiface.detail.basis import load_detail_basis
from hiface.errors import OutputError, ShapeError
from hiface.export.clips import Clip, expression_clip
from hiface.export.glb import write_glb
from hiface.export.glb_mesh import GlbDetail
from hiface.export.units import ExportInfo
from hiface.export.wrinkles import Wrinkles, wrinkles_of
from hiface.geometry.subdivide import subdivide
from hiface.morphable import MorphableModel, load_model
from hiface.networks.dynamic_codes import DynamicCodes
from hiface.networks.sd_detail import SdDetail
from hiface.types import Camera, FaceParams
from toy import toy_model

NAMES = load_json_asset("expressions/arkit52.json")["names"]
TOOLS = Path(__file__).resolve().parent.parent / "tools"
DTYPES = {5121: np.uint8, 5123: np.dtype("<u2"), 5125: np.dtype("<u4"), 5126: np.dtype("<f4")}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    """A second, independent reader."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        magic, version, total = struct.unpack_from("<4sII", content)
        assert (magic, version, total) == (b"glTF", 2, len(content))
        n, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON"
        self.json: dict[str, Any] = json.loads(content[20 : 20 + n])
        m, kind = struct.unpack_from("<I4s", content, 20 + n)
        assert kind == b"BIN\0" and 28 + n + m == len(content)
        self.binary = content[28 + n :]
        assert self.json["buffers"] == [{"byteLength": m}]

    def _read(self, view: int, offset: int, component: int, width: int, count: int) -> np.ndarray:
        v = self.json["bufferViews"][view]
        dtype = np.dtype(DTYPES[component])
        n = count * width * dtype.itemsize
        assert offset + n <= v["byteLength"], "accessor reaches past its buffer view"
        assert v["byteOffset"] + v["byteLength"] <= len(self.binary), "view reaches past the buffer"
        assert (v["byteOffset"] + offset) % dtype.itemsize == 0
        return np.frombuffer(self.binary, dtype, count * width, v["byteOffset"] + offset).reshape(
            count, width
        )

    def accessor(self, index: int) -> np.ndarray:
        a = self.json["accessors"][index]
        width = WIDTHS[a["type"]]
        if "bufferView" in a:
            out = self._read(
                a["bufferView"], a.get("byteOffset", 0), a["componentType"], width, a["count"]
            ).copy()
        else:
            out = np.zeros((a["count"], width), DTYPES[a["componentType"]])
        if "sparse" in a:
            s = a["sparse"]
            i, v = s["indices"], s["values"]
            rows = self._read(i["bufferView"], i["byteOffset"], i["componentType"], 1, s["count"])[:, 0]
            assert (np.diff(rows.astype(int)) > 0).all() and rows.max() < a["count"]
            out[rows] = self._read(v["bufferView"], v["byteOffset"], a["componentType"], width, s["count"])
        if "min" in a:
            assert np.array_equal(out.min(axis=0), np.array(a["min"], out.dtype))
            assert np.array_equal(out.max(axis=0), np.array(a["max"], out.dtype))
        return out

    def node(self, name: str) -> dict[str, Any]:
        return next(n for n in self.json["nodes"] if n["name"] == name)


def with_eyes(model: MorphableModel) -> MorphableModel:
    """Two patches of the ellipsoid become eyeballs, a third a part that hardly moves."""
    data = model.data
    weights = data.skin_weights.clone()
    basis = data.expression_basis.clone()
    parts = data.triangle_parts.clone()
    for joint, part in ((3, 1), (4, 2)):
        near = (data.template - data.joints_template[joint]).norm(dim=1) < 0.035
        weights[near] = torch.eye(5)[joint]
        basis[:, near] = 0.0
        parts[near[data.triangles].all(dim=1)] = part
    low = data.template[:, 1] < -0.07
    weights[low] = torch.tensor([0.3, 0.5, 0.2, 0.0, 0.0])
    parts[low[data.triangles].all(dim=1)] = 3
    basis[1:, low] = 0.0
    names = ("skin", "eye_left", "eye_right", "tongue")
    return MorphableModel(
        replace(data, skin_weights=weights, expression_basis=basis, triangle_parts=parts, part_names=names)
    )


def a_face(seed: int = 0) -> tuple[MorphableModel, FaceParams]:
    torch.manual_seed(seed)
    model = with_eyes(toy_model())
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ roma.rotvec_to_rotmat(torch.tensor([0.2, 0.4, -0.1]))
    camera = Camera.from_pose(R, torch.tensor([0.03, -0.02, 0.8]), 1100.0, 640, 480)
    pose = torch.zeros(5, 3)
    pose[2, 0], pose[3, 1], pose[4, 1] = 0.2, 0.3, 0.2
    params = FaceParams(torch.randn(8), torch.rand(52), pose, torch.randn(3), torch.zeros(9, 3), camera)
    return model, params


def texture(size: int = 32) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Glb, MorphableModel, FaceParams, Path, Clip]:
    model, params = a_face()
    rng = np.random.default_rng(1)
    times = np.array([0.0, 0.1, 0.3, 0.6])
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, :3, :3] = roma.rotvec_to_rotmat(torch.tensor(rng.normal(size=(4, 3)))).numpy()
    T[:, :3, 3] = rng.normal(size=(4, 3))
    clip = Clip("take", times, rng.random((4, 52)), {"jaw": rng.normal(size=(4, 3))}, T)
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    info = ExportInfo("iris", {"photo": "portrait.jpg"})
    clips = [expression_clip(params.expression.numpy(), NAMES), clip]
    write_glb(path, model, params, texture(), animations=clips, info=info)
    return Glb(path), model, params, path, clip


def test_every_primitive_has_the_52_named_targets(written) -> None:
    glb = written[0]
    (mesh,) = glb.json["meshes"]
    assert mesh["extras"]["targetNames"] == NAMES
    assert len(mesh["weights"]) == 52
    assert [glb.json["materials"][p["material"]]["name"] for p in mesh["primitives"]] == [
        "skin",
        "eye_left",
        "eye_right",
        "tongue",
    ]
    for primitive in mesh["primitives"]:
        assert len(primitive["targets"]) == 52
        count = glb.json["accessors"][primitive["attributes"]["POSITION"]]["count"]
        for target in primitive["targets"]:
            assert set(target) == {"POSITION", "NORMAL"}
            for accessor in target.values():
                entry = glb.json["accessors"][accessor]
                assert entry["count"] == count and "bufferView" not in entry
                glb.accessor(accessor)


def test_all_accessors_stay_inside_their_views(written) -> None:
    glb = written[0]
    for index in range(len(glb.json["accessors"])):
        assert np.isfinite(glb.accessor(index)).all()


def test_morphed_vertices_equal_the_model(written) -> None:
    """The file's skin vertices are found again by their texture coordinates."""
    glb, model, params, _, _ = written
    weights = np.random.default_rng(3).random(52)
    vertices = model.shape(params.identity, torch.tensor(weights, dtype=torch.float32)).numpy()
    skin = glb.json["meshes"][0]["primitives"][0]
    attributes = skin["attributes"]
    corners = model.data.triangle_parts == 0
    by_uv = {
        tuple(np.round(model.uv[u].numpy(), 5)): v
        for v, u in zip(
            model.triangles[corners].flatten().tolist(),
            model.uv_triangles[corners].flatten().tolist(),
            strict=True,
        )
    }
    uv = glb.accessor(attributes["TEXCOORD_0"])
    ids = np.array([by_uv[tuple(np.round(c, 5))] for c in uv])
    assert len(set(ids.tolist())) == int(torch.unique(model.triangles[corners]).numel())
    position = glb.accessor(attributes["POSITION"]).astype(np.float64)
    neutral = model.shape(params.identity, torch.zeros(52)).numpy()
    assert np.abs(position - neutral[ids]).max() < 1e-7
    for weight, target in zip(weights, skin["targets"], strict=True):
        position = position + weight * glb.accessor(target["POSITION"])
    off_eyes = (model.skin_weights[:, 3:].sum(dim=1) == 0).numpy()[ids]
    assert off_eyes.mean() > 0.8
    assert np.abs(position - vertices[ids])[off_eyes].max() < 1e-6
    assert np.abs(np.linalg.norm(glb.accessor(attributes["NORMAL"]), axis=1) - 1).max() < 1e-5
    triangles = glb.accessor(skin["indices"]).reshape(-1, 3)
    assert np.array_equal(ids[triangles], model.triangles[corners].numpy())


def test_eyelook_targets_turn_the_eyeball_by_the_documented_angle(written) -> None:
    glb, model, params, _, _ = written
    centre = model.joints(params.identity)[3].numpy()
    eye = glb.json["meshes"][0]["primitives"][1]
    rest = glb.accessor(eye["attributes"]["POSITION"]).astype(np.float64) - centre
    for name in ("eyeLookOutLeft", "eyeLookUpLeft"):
        moved = rest + glb.accessor(eye["targets"][NAMES.index(name)]["POSITION"])
        assert np.allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(rest, axis=1), atol=1e-6)
        R = roma.rigid_vectors_registration(torch.tensor(rest), torch.tensor(moved)).numpy()
        yaw, pitch = eyelook_angle(name)
        ahead = R @ np.array([0.0, 0.0, 1.0])
        assert math.atan2(ahead[0], ahead[2]) == pytest.approx(yaw, abs=1e-4)
        assert math.asin(ahead[1]) == pytest.approx(pitch, abs=1e-4)
    other = eye["targets"][NAMES.index("eyeLookUpRight")]["POSITION"]
    assert not glb.accessor(other).any()


def test_weights_carry_the_gaze_and_the_eye_joints_rest(written) -> None:
    glb, _, params, _, _ = written
    weights = dict(zip(NAMES, glb.json["meshes"][0]["weights"], strict=True))
    limit = eyelook_angle("eyeLookOutLeft")[0]
    assert weights["eyeLookOutLeft"] == pytest.approx(0.3 / limit, abs=1e-5)
    assert weights["eyeLookInLeft"] == 0 and weights["eyeLookUpRight"] == 0
    assert weights["eyeLookInRight"] == pytest.approx(0.2 / limit, abs=1e-5)
    assert weights["jawOpen"] == pytest.approx(float(params.expression[NAMES.index("jawOpen")]), abs=1e-5)
    for name in ("eye_left", "eye_right"):
        assert glb.node(name).get("rotation", [0, 0, 0, 1]) == [0, 0, 0, 1]
    assert glb.node("jaw")["rotation"] == pytest.approx([math.sin(0.1), 0, 0, math.cos(0.1)], abs=1e-6)


def test_skin_binds_every_vertex(written) -> None:
    glb, model, params, _, _ = written
    (skin,) = glb.json["skins"]
    assert [glb.json["nodes"][j]["name"] for j in skin["joints"]] == list(model.data.joint_names)
    inverse = glb.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    rest = model.joints(params.identity).numpy()
    assert np.abs(inverse[:, :3, 3] + rest).max() < 1e-6
    world, parents = {}, model.data.joint_parents
    for j, name in enumerate(model.data.joint_names):
        world[j] = np.array(glb.node(name)["translation"]) + (world[parents[j]] if parents[j] >= 0 else 0)
    assert np.abs(np.stack(list(world.values())) - rest).max() < 1e-6
    for primitive in glb.json["meshes"][0]["primitives"]:
        weights = glb.accessor(primitive["attributes"]["WEIGHTS_0"])
        joints = glb.accessor(primitive["attributes"]["JOINTS_0"])
        assert np.abs(weights.sum(axis=1) - 1).max() < 2e-7 and weights.min() >= 0
        assert joints.max() < 5 and (joints[weights == 0] == 0).all()


def test_camera_node_sees_the_head_as_in_the_photo(written) -> None:
    glb, model, params, _, _ = written
    node, camera = glb.node("photo_camera"), glb.json["cameras"][0]["perspective"]
    R = roma.unitquat_to_rotmat(torch.tensor(node["rotation"], dtype=torch.float64)).numpy()
    points = model.template.double().numpy()
    local = (points - np.array(node["translation"])) @ R
    assert (local[:, 2] < 0).all()
    f = params.camera.height / 2 / math.tan(camera["yfov"] / 2)
    px = np.stack([320 - f * local[:, 0] / local[:, 2], 240 + f * local[:, 1] / local[:, 2]], axis=1)
    assert np.abs(px - params.camera.project(model.template).numpy()).max() < 1e-2
    assert camera["aspectRatio"] == pytest.approx(640 / 480)


def test_animations(written) -> None:
    glb, _, params, _, clip = written
    assert [a["name"] for a in glb.json["animations"]] == ["expression", "take"]
    shipped, take = glb.json["animations"]
    (channel,) = shipped["channels"]
    assert (
        glb.json["nodes"][channel["target"]["node"]]["name"] == "head_mesh"
        and channel["target"]["path"] == "weights"
    )
    sampler = shipped["samplers"][channel["sampler"]]
    times = glb.accessor(sampler["input"])[:, 0]
    values = glb.accessor(sampler["output"]).reshape(len(times), 52)
    assert not values[0].any() and not values[-1].any()
    assert np.allclose(
        values.max(axis=0)[NAMES.index("jawOpen")], params.expression[NAMES.index("jawOpen")], atol=1e-6
    )
    assert values[:, NAMES.index("eyeBlinkLeft")].max() > 0.95
    targets = {
        (glb.json["nodes"][c["target"]["node"]]["name"], c["target"]["path"]): c for c in take["channels"]
    }
    assert set(targets) == {
        ("head_mesh", "weights"),
        ("jaw", "rotation"),
        ("head_rig", "translation"),
        ("head_rig", "rotation"),
    }

    def output(name: str, path: str) -> np.ndarray:
        return glb.accessor(take["samplers"][targets[name, path]["sampler"]]["output"])

    assert np.allclose(output("head_mesh", "weights").reshape(4, 52), clip.weights, atol=1e-6)
    R = roma.unitquat_to_rotmat(torch.tensor(output("jaw", "rotation"), dtype=torch.float64))
    assert torch.allclose(R, roma.rotvec_to_rotmat(torch.tensor(clip.rotations["jaw"])), atol=1e-6)
    R = roma.unitquat_to_rotmat(torch.tensor(output("head_rig", "rotation"), dtype=torch.float64))
    assert clip.T_head is not None
    assert np.allclose(R.numpy(), clip.T_head[:, :3, :3], atol=1e-6)
    assert np.allclose(output("head_rig", "translation"), clip.T_head[:, :3, 3], atol=1e-6)


def test_extras_tell_where_the_file_came_from(written) -> None:
    glb, model, params, _, _ = written
    extras = glb.json["asset"]["extras"]
    assert extras["software"]["name"] == "hiface" and extras["model"]["name"] == model.data.name
    assert extras["model"]["licence"] == model.data.licence
    assert extras["units"] == "m" and extras["scale_source"] == "iris"
    assert extras["provenance"] == {"photo": "portrait.jpg"}
    assert np.allclose(extras["camera"]["K"], params.camera.K)
    assert np.allclose(extras["camera"]["T_cam_object"], params.camera.T_cam_object)


def test_texture_is_embedded(written) -> None:
    glb = written[0]
    (image,) = glb.json["images"]
    view = glb.json["bufferViews"][image["bufferView"]]
    assert image["mimeType"] == "image/jpeg"
    assert glb.binary[view["byteOffset"] : view["byteOffset"] + 2] == b"\xff\xd8"


def test_tiny_displacements_are_left_out(tmp_path: Path) -> None:
    model, params = a_face()
    basis = model.data.expression_basis.clone()
    basis[0] = 4e-7
    basis[1] = 0.0
    basis[1, 100:105] = 2e-6
    model = MorphableModel(replace(model.data, expression_basis=basis))
    glb = Glb(write_glb(tmp_path / "a.glb", model, params, None))
    first, second = glb.json["meshes"][0]["primitives"][0]["targets"][:2]
    assert "sparse" not in glb.json["accessors"][first["POSITION"]]
    assert glb.json["accessors"][second["POSITION"]]["sparse"]["count"] == 5


def test_units_scale_everything_only_when_asked(tmp_path: Path) -> None:
    model, params = a_face()
    metres = Glb(write_glb(tmp_path / "m.glb", model, params, None))
    mm = Glb(write_glb(tmp_path / "mm.glb", model, params, None, units="mm"))
    position = [
        g.accessor(g.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"]) for g in (metres, mm)
    ]
    assert np.allclose(position[0] * 1000, position[1], rtol=1e-5)
    assert np.allclose(np.array(metres.node("jaw")["translation"]) * 1000, mm.node("jaw")["translation"])
    assert mm.json["asset"]["extras"]["units"] == "mm"
    with pytest.raises(OutputError, match="unknown unit"):
        write_glb(tmp_path / "x.glb", model, params, None, units="inch")


def test_bad_input_is_a_typed_error_and_leaves_no_file(tmp_path: Path) -> None:
    model, params = a_face()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_glb(tmp_path / "file" / "face.glb", model, params, None)
    with pytest.raises(ShapeError, match="floating"):
        write_glb(tmp_path / "face.glb", model, params, texture().to(torch.uint8))
    with pytest.raises(ShapeError, match="one face"):
        write_glb(tmp_path / "face.glb", model, params.replace(identity=params.identity[None]), None)
    with pytest.raises(OutputError, match="turns 'nose'"):
        clip = Clip("c", np.zeros(1), np.zeros((1, 52)), {"nose": np.zeros((1, 3))})
        write_glb(tmp_path / "face.glb", model, params, None, animations=[clip])
    with pytest.raises(ShapeError, match="increase"):
        Clip("c", np.array([0.0, 0.0]), np.zeros((2, 52)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def _validator_folder() -> Path | None:
    """Installs the validator once into a cache folder; None where that is not possible."""
    folder = Path(
        os.environ.get("HIFACE_GLTF_VALIDATOR", Path(tempfile.gettempdir()) / "hiface-gltf-validator")
    )
    if not (folder / "node_modules" / "gltf-validator").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--silent",
            "--no-fund",
            "--prefix",
            str(folder),
            "gltf-validator@2.0.0-dev.3.10",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError):
            return None
    return folder


def test_khronos_validator_finds_nothing(written, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    folder = _validator_folder()
    if folder is None:
        pytest.skip("npm cannot install gltf-validator here")
    plain = write_glb(tmp_path / "plain.glb", written[1], written[2], None)
    command = ["node", str(TOOLS / "validate_glb.mjs"), str(folder), str(written[3]), str(plain)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(reports) == 2, result.stderr
    for report in reports:
        assert report["numErrors"] == 0 and report["numWarnings"] == 0, report["messages"]


def test_a_normal_map_comes_with_tangents_of_the_skin(tmp_path: Path) -> None:
    model, params = a_face()
    flat = torch.tensor([0.5, 0.5, 1.0])[:, None, None].expand(3, 16, 16)
    glb = Glb(write_glb(tmp_path / "a.glb", model, params, texture(), detail=GlbDetail(flat)))
    skin = next(m for m in glb.json["materials"] if m["name"] == "skin")
    image = glb.json["images"][glb.json["textures"][skin["normalTexture"]["index"]]["source"]]
    assert image["mimeType"] == "image/png" and image["name"] == "normals"
    assert skin["pbrMetallicRoughness"]["baseColorTexture"]["index"] == 0
    for primitive in glb.json["meshes"][0]["primitives"]:
        attributes = primitive["attributes"]
        is_skin = glb.json["materials"][primitive["material"]]["name"] == "skin"
        assert ("TANGENT" in attributes) == is_skin
        if is_skin:
            tangents, normals = glb.accessor(attributes["TANGENT"]), glb.accessor(attributes["NORMAL"])
            assert np.allclose(np.linalg.norm(tangents[:, :3], axis=1), 1, atol=1e-5)
            assert set(tangents[:, 3].tolist()) <= {-1.0, 1.0}
            assert np.abs((tangents[:, :3] * normals).sum(1)).max() < 1e-3
    assert "normalTexture" not in str(Glb(write_glb(tmp_path / "b.glb", model, params, texture())).json)


def test_subdivision_keeps_the_surface_and_shares_edges() -> None:
    triangles = np.array([[0, 1, 2], [2, 1, 3]])
    corners = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 1]])
    finer = subdivide(triangles, 4)
    assert finer.triangles.shape == (8, 3) and len(finer.parents) == 5  # one edge is shared
    points = finer.middles(corners)
    assert np.array_equal(points[:4], corners) and points.shape == (9, 3)

    def areas(vertices: np.ndarray, corner_ids: np.ndarray) -> np.ndarray:
        a, b, c = vertices[corner_ids].transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    before, after = areas(corners, triangles), areas(points, finer.triangles)
    assert np.allclose(after.reshape(2, 4, 3), before[:, None] / 4)


def test_wrinkles_are_in_the_targets_of_a_finer_skin(tmp_path: Path) -> None:
    """A target holds the coarse movement and the folds along the normals; the rest is as before."""
    model, params = a_face()
    S = 32

    def folds(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        depth = torch.zeros(1, S, S) if number else torch.full((1, S, S), 2e-4)
        return depth, torch.zeros(3, S, S) if number else torch.full((3, S, S), 0.1)

    flat = torch.tensor([0.5, 0.5, 1.0])[:, None, None].expand(3, 16, 16)
    paths = [tmp_path / "plain.glb", tmp_path / "folded.glb"]
    plain, folded = (
        Glb(write_glb(path, model, params, texture(), detail=GlbDetail(flat, wrinkles)))
        for path, wrinkles in zip(paths, (None, Wrinkles(folds)), strict=True)
    )
    names = [m["name"] for m in plain.json["materials"]]
    for coarse, fine in zip(
        plain.json["meshes"][0]["primitives"], folded.json["meshes"][0]["primitives"], strict=True
    ):
        sizes = [g.json["accessors"][p["indices"]]["count"] for g, p in ((plain, coarse), (folded, fine))]
        if names[coarse["material"]] != "skin":
            assert sizes[0] == sizes[1]
            continue
        assert sizes[1] == 16 * sizes[0]
        rest, normals = (folded.accessor(fine["attributes"][k]) for k in ("POSITION", "NORMAL"))
        n = plain.json["accessors"][coarse["attributes"]["POSITION"]]["count"]
        assert np.allclose(rest[:n], plain.accessor(coarse["attributes"]["POSITION"]), atol=1e-6)
        assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        for number in (0, 1):
            coarse_target, target = coarse["targets"][number], fine["targets"][number]
            moved = folded.accessor(target["POSITION"])[:n] - plain.accessor(coarse_target["POSITION"])
            bent = folded.accessor(target["NORMAL"])[:n] - plain.accessor(coarse_target["NORMAL"])
            if number:
                assert np.abs(moved).max() < 1e-5 and np.abs(bent).max() < 2e-3
            else:
                rest_normals = plain.accessor(coarse["attributes"]["NORMAL"])
                turned = rest_normals + plain.accessor(coarse_target["NORMAL"])
                outward = turned / np.linalg.norm(turned, axis=1, keepdims=True)
                assert np.allclose((moved * outward).sum(1), 2e-4, atol=1e-5)
                assert np.allclose(bent, 0.1, atol=2e-3)


def test_wrinkles_of_a_person_follow_sd_detail() -> None:
    basis = load_detail_basis().first(10, 8, 6)
    codes = DynamicCodes(10, 52, 14, 8, "style", linear=True).eval()
    model = load_model("open")
    gen = torch.Generator().manual_seed(0)
    codes.linear.weight.data.normal_(generator=gen)
    detail, static = SdDetail(basis, codes), torch.randn(10, generator=gen)
    identity = torch.zeros(model.data.n_identity)
    folds = wrinkles_of(model, detail, identity, static)
    number = model.data.expression_names.index("browInnerUp")
    relief, change = folds.expression(number)
    one = torch.eye(52)[number]
    with torch.no_grad():
        wanted = detail.maps(model, identity, one, static, "dynamic").displacement
    assert torch.equal(relief, wanted) and float(relief.abs().max()) > 1e-5
    still = relief[0] == 0
    kernel = torch.nn.functional.max_pool2d((~still).float()[None, None], 3, 1, 1)[0, 0] == 0
    assert float(change[:, kernel].abs().max()) < 1e-5  # normals change where there is relief only
    assert float(change.norm(dim=0).max()) > 0.02
    row, column = divmod(int(relief[0].abs().argmax()), 256)
    uv = (np.array([[column, row]]) + 0.5) / 256
    depth, _ = folds.at(uv, np.array([[0.0, 0.0, 1.0]]), number)
    assert np.allclose(depth, [[0.0, 0.0, float(relief[0, row, column])]], atol=1e-9)
