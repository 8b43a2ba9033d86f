"""Bare meshes: the order of vertices survives whatever else a file holds."""

import numpy as np
import pytest
import torch

from hiface.errors import MeshFileError
from hiface.geometry.mesh_files import obj_text, read_mesh, read_points

TEXTURED = """# comment
mtllib a.mtl
v 0 0 0 0.5 0.5 0.5
v 1 0 0 0.5 0.5 0.5
v 1 1 0 0.5 0.5 0.5
v 0 1 0 0.5 0.5 0.5
v 2 2 1 0.1 0.1 0.1
vt 0 0
vn 0 0 1
usemtl skin
f 1/1/1 2/1/1 3/1/1 4/1/1
f -1//1 1//1 2//1
"""


def test_obj_with_quads_colours_and_negative_corners(tmp_path):
    (tmp_path / "a.obj").write_text(TEXTURED)
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.vertices.tolist()[4] == [2, 2, 1]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 0, 1]]
    assert read_points(tmp_path / "a.obj").shape == (5, 3)


def test_written_meshes_come_back(tmp_path):
    gen = torch.Generator().manual_seed(0)
    vertices = torch.randn(50, 3, generator=gen)
    triangles = torch.randint(0, 50, (20, 3), generator=gen)
    (tmp_path / "a.obj").write_text(obj_text(vertices, triangles))
    mesh = read_mesh(tmp_path / "a.obj")
    assert torch.equal(mesh.vertices.float(), vertices) and torch.equal(mesh.triangles, triangles)


def test_negative_corners_count_back_from_where_they_stand(tmp_path):
    part = "v 0 0 0\nv 1 0 0 # a comment\n  v 0 1 0\nvt 0 0\nf -3/-1 -2/-1 -1/-1\n"
    (tmp_path / "a.obj").write_text("\ufeff" + part + part, encoding="utf-8")
    assert read_mesh(tmp_path / "a.obj").triangles.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_ply_with_polygons_colours_and_other_elements(tmp_path, order):
    kind = "binary_little_endian" if order == "<" else "binary_big_endian"
    header = (
        f"ply\nformat {kind} 1.0\ncomment made here\nelement vertex 5\nproperty double x\nproperty double y\n"
    )
    header += "property double z\nproperty uchar red\nelement face 2\nproperty uchar flag\n"
    header += "property list uchar uint vertex_index\nelement edge 1\nproperty int a\nend_header\n"
    row = np.dtype([("p", order + "f8", 3), ("c", "u1")])
    rows = np.zeros(5, row)
    rows["p"] = np.arange(15).reshape(5, 3)
    faces = b"".join(
        b"\x01" + bytes([len(p)]) + np.array(p, order + "u4").tobytes() for p in ([0, 1, 2, 3], [2, 3, 4])
    )
    (tmp_path / "a.ply").write_bytes(header.encode() + rows.tobytes() + faces + b"\0\0\0\0")
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [2, 3, 4]] and mesh.vertices[4].tolist() == [
        12,
        13,
        14,
    ]
    for cut in (60, len(header) + 30, len(header) + rows.nbytes + 7):
        (tmp_path / "b.ply").write_bytes((header.encode() + rows.tobytes() + faces)[:cut])
        with pytest.raises(MeshFileError):
            read_mesh(tmp_path / "b.ply")


@pytest.mark.parametrize("binary", [False, True])
def test_ply(tmp_path, binary):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype="<f4")
    triangles = np.array([[0, 1, 2], [3, 2, 1]], dtype="<i4")
    kind = "binary_little_endian" if binary else "ascii"
    header = (
        f"ply\nformat {kind} 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    if binary:
        body = vertices.tobytes() + b"".join(b"\x03" + row.tobytes() for row in triangles)
    else:
        rows = [" ".join(map(str, row)) for row in vertices] + [
            "3 " + " ".join(map(str, r)) for r in triangles
        ]
        body = ("\n".join(rows) + "\n").encode()
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.vertices.tolist() == vertices.tolist() and mesh.triangles.tolist() == triangles.tolist()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("v 0 0 0\n", "0 triangles"),
        ("", "0 vertices"),
        ("v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n", "vertex 1"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 7\n", "past its 3"),
        ("v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "damaged"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "count from 1"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n", "damaged"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, text, expected):
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(MeshFileError, match=expected):
        read_mesh(tmp_path / "a.obj")


def test_missing_and_foreign_files(tmp_path):
    for name in ("a.obj", "a.stl", "a.ply"):
        with pytest.raises(MeshFileError):
            read_mesh(tmp_path / name)
    (tmp_path / "b.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\n")
    with pytest.raises(MeshFileError):
        read_mesh(tmp_path / "b.ply")
