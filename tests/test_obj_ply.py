# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import OutputError, ShapeError
from hiface.export.obj import write_obj
from hiface.export.parts import quad_corners, split_by_material
from hiface.export.pictures import to_array
from hiface.export.ply import vertex_colours, write_ply
from hiface.export.units import ExportInfo
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel, MorphableModelData
from toy import toy_model


def read_obj(path: Path) -> dict[str, list]:
    out: dict[str, list] = {"v": [], "vt": [], "vn": [], "f": [], "usemtl": [], "mtllib": [], "#": []}
    for line in path.read_text().splitlines():
        key, *words = line.split()
        if key in ("v", "vt", "vn"):
            out[key].append([float(w) for w in words])
        elif key == "f":
            out["f"].append(([[int(i) - 1 for i in w.split("/")] for w in words], out["usemtl"][-1]))
        elif key in out:
            out[key].append(" ".join(words))
    return out


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = {"float": "<f4", "uchar": "u1"}
    vertex = [(w[2], kinds[w[1]]) for w in (x.split() for x in lines) if w[0] == "property" and w[1] in kinds]
    count = {w[1]: int(w[2]) for w in (x.split() for x in lines) if w[0] == "element"}
    table = np.frombuffer(body, vertex, count["vertex"])
    faces = np.frombuffer(body[table.nbytes :], [("n", "u1"), ("ids", "<i4", (3,))])
    assert len(faces) == count["face"] and (faces["n"] == 3).all()
    return table, faces["ids"], lines


def model_with_quads() -> MorphableModel:
    """A grid of quads: the toy has triangle fans at its poles."""
    n = 6
    y, x = torch.meshgrid(torch.linspace(-0.1, 0.1, n), torch.linspace(-0.08, 0.08, n), indexing="ij")
    template = torch.stack([x, y, 0.05 - 3 * x * x], -1).reshape(-1, 3)
    a = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    quads = torch.stack([a, a + 1, a + n + 1, a + n], 1)
    even = torch.stack([quads[:, 0], quads[:, 1], quads[:, 2], quads[:, 0], quads[:, 2], quads[:, 3]], 1)
    odd = torch.stack([quads[:, 1], quads[:, 2], quads[:, 3], quads[:, 1], quads[:, 3], quads[:, 0]], 1)
    triangles = torch.where((torch.arange(len(a)) % 2 == 0)[:, None], even, odd).reshape(-1, 3)
    base = toy_model().data
    v = len(template)
    parts = (torch.arange(len(triangles)) >= len(triangles) // 2 // 2 * 2).long()
    changes = {
        "template": template,
        "triangles": triangles,
        "quads": quads,
        "uv": template[:, :2] * torch.tensor([5.0, -4.0]) + 0.5,
        "uv_triangles": triangles,
        "identity_basis": torch.zeros(8, v, 3),
        "expression_basis": torch.zeros(52, v, 3),
        "skin_weights": torch.eye(5)[torch.ones(v, dtype=torch.int64)],
        "triangle_parts": parts,
        "part_names": ("skin", "teeth_upper"),
        "mirror_vertices": torch.arange(v),
        "vertex_masks": {},
        "landmark_sets": {},
    }
    return MorphableModel(replace(base, **changes))


def gradient() -> torch.Tensor:
    c = (torch.arange(64) + 0.5) / 64
    v, u = torch.meshgrid(c, c, indexing="ij")
    return torch.stack([u, v, torch.full_like(u, 9 / 255)])


def test_obj_holds_quads_uv_and_normals(tmp_path: Path) -> None:
    model = model_with_quads()
    files = write_obj(tmp_path / "face.obj", model, model.template, gradient(), info=ExportInfo("user"))
    assert [f.name for f in files] == ["face.png", "face.mtl", "face.obj"] and all(f.is_file() for f in files)
    obj = read_obj(files[-1])
    assert np.allclose(obj["v"], model.template, atol=1e-7)
    uv = np.array(obj["vt"]) * [1, -1] + [0, 1]
    assert np.allclose(uv, model.uv, atol=1e-6)
    assert np.allclose(obj["vn"], vertex_normals(model.template, model.triangles), atol=1e-4)
    assert model.data.quads is not None and len(obj["f"]) == len(model.data.quads)
    for corners, _ in obj["f"]:
        assert len(corners) == 4 and all(v == n == t for v, t, n in corners)
    assert [[c[0] for c in f] for f, _ in obj["f"]] == model.data.quads.tolist()
    assert {m for _, m in obj["f"]} == {"skin", "teeth"} == set(obj["usemtl"])
    assert obj["mtllib"] == ["face.mtl"] and "units m" in obj["#"][1] and "user" in obj["#"][1]
    library = (tmp_path / "face.mtl").read_text()
    assert library.count("newmtl") == 2 and library.count("map_Kd face.png") == 2
    assert np.array_equal(np.asarray(Image.open(tmp_path / "face.png")), to_array(gradient()))


def test_obj_without_quads_and_texture(tmp_path: Path) -> None:
    model = toy_model()
    files = write_obj(tmp_path / "deep" / "a.obj", model, model.template, None, units="mm")
    assert [f.name for f in files] == ["a.mtl", "a.obj"]
    obj = read_obj(files[-1])
    assert np.allclose(np.array(obj["v"]) / 1000, model.template, atol=1e-6)
    assert [[c[0] for c in f] for f, _ in obj["f"]] == model.triangles.tolist()
    assert [[c[1] for c in f] for f, _ in obj["f"]] == model.uv_triangles.tolist()
    assert "map_Kd" not in (tmp_path / "deep" / "a.mtl").read_text()


def test_obj_winding_is_outward(tmp_path: Path) -> None:
    model = toy_model()
    obj = read_obj(write_obj(tmp_path / "a.obj", model, model.template, None)[-1])
    v = np.array(obj["v"])
    a, b, c = (v[[f[k][0] for f, _ in obj["f"]]] for k in range(3))
    assert ((np.cross(b - a, c - a) * (a + b + c)).sum(axis=1) > 0).all()


def test_quads_that_do_not_match_the_triangles_are_not_used() -> None:
    data = model_with_quads().data
    assert quad_corners(data) is not None
    assert data.quads is not None
    assert quad_corners(replace(data, quads=data.quads.flip(0))) is None
    assert quad_corners(replace(data, quads=None)) is None


def test_split_parts_cover_every_triangle_once() -> None:
    for data in (model_with_quads().data, toy_model().data):
        parts = split_by_material(data)
        ids = np.concatenate([p.triangle_ids for p in parts])
        assert sorted(ids.tolist()) == list(range(len(data.triangles)))
        for part in parts:
            assert np.array_equal(part.vertex_ids[part.triangles], data.triangles.numpy()[part.triangle_ids])
            assert np.array_equal(part.uv_ids[part.triangles], data.uv_triangles.numpy()[part.triangle_ids])


def test_unknown_parts_get_their_own_material() -> None:
    data: MorphableModelData = replace(toy_model().data, part_names=("helmet",))
    assert [p.material.name for p in split_by_material(data)] == ["helmet"]


@pytest.mark.parametrize(("units", "factor"), [("m", 1.0), ("cm", 100.0), ("mm", 1000.0)])
def test_ply_holds_positions_normals_and_colours(tmp_path: Path, units: str, factor: float) -> None:
    model = model_with_quads()
    colours = vertex_colours(model, gradient())
    path = write_ply(tmp_path / "face.ply", model.template, model.triangles, colours, units=units)
    table, triangles, lines = read_ply(path)
    assert np.allclose(np.stack([table[k] for k in "xyz"], 1), model.template * factor, rtol=1e-6)
    normals = np.stack([table[k] for k in ("nx", "ny", "nz")], 1)
    assert np.allclose(normals, vertex_normals(model.template, model.triangles), atol=1e-6)
    assert np.array_equal(np.stack([table[k] for k in ("red", "green", "blue")], 1), colours)
    assert np.array_equal(triangles, model.triangles)
    assert any(f"units {units}" in line for line in lines)


def test_ply_without_colours(tmp_path: Path) -> None:
    model = toy_model()
    table, _, _ = read_ply(write_ply(tmp_path / "face.ply", model.template, model.triangles))
    assert table.dtype.names == ("x", "y", "z", "nx", "ny", "nz")


def test_vertex_colours_follow_the_texture() -> None:
    model = model_with_quads()
    colours = vertex_colours(model, gradient()).astype(float) / 255
    assert np.abs(colours[:, :2] - model.uv.numpy()).max() < 0.02
    assert (colours[:, 2] * 255 == 9).all()


def test_bad_output_places_and_arrays(tmp_path: Path) -> None:
    model = toy_model()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_ply(tmp_path / "file" / "a.ply", model.template, model.triangles)
    with pytest.raises(OutputError, match="choose one of m, cm, mm"):
        write_obj(tmp_path / "a.obj", model, model.template, None, units="furlong")
    with pytest.raises(ShapeError):
        write_ply(tmp_path / "a.ply", model.template[None], model.triangles)
    with pytest.raises(ShapeError):
        write_ply(tmp_path / "a.ply", model.template, model.triangles, np.zeros((3, 3), np.uint8))
    with pytest.raises(ShapeError):
        write_obj(tmp_path / "a.obj", model, model.template[:5], None)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_atomic_writing_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = atomic_write_text(tmp_path / "a.txt", "one\n")
    assert atomic_write_bytes(path, b"two\n") == path
    assert path.read_bytes() == b"two\n" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        atomic_write_text(tmp_path / "folder", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "folder"]
