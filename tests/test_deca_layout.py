# SPDX-License-Identifier: Apache-2.0
"""DECA's file names: all there, read by other libraries, agreeing with each other and the truth."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from PIL import Image
from scipy.io import loadmat

from hiface.cli import batch
from hiface.cli.main import main
from hiface.morphable import load_model
from portrait import portrait, truth
from test_obj_ply import read_obj

FILES = (
    ".obj",
    ".mtl",
    ".png",
    "_normals.png",
    "_detail.obj",
    "_depth.jpg",
    "_kpt2d.txt",
    "_kpt3d.txt",
    ".mat",
    "_inputs.jpg",
    "_rendered_images.jpg",
    "_albedo_images.jpg",
    "_shape_images.jpg",
    "_shape_detail_images.jpg",
    "_landmarks2d.jpg",
)
LARGE, SMALL = 448, 288


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", *map(str, args)])
    return stop.value.code


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """Two people, the larger one at the right."""
    path = tmp_path_factory.mktemp("photo") / "pair.png"
    both = np.full((LARGE, SMALL + LARGE, 3), 128, np.uint8)
    both[LARGE - SMALL :, :SMALL], both[:, SMALL:] = portrait(SMALL, 5), portrait(LARGE)
    Image.fromarray(both).save(path)
    return path


@pytest.fixture(scope="module")
def written(photo: Path) -> Path:
    out = photo.parent / "out"
    assert run(photo, "-o", out, "--layout", "deca", "--texture-size", "256") == 0
    return out


@pytest.fixture(scope="module")
def mat(written: Path) -> dict[str, np.ndarray]:
    return {k: v for k, v in loadmat(written / "pair" / "pair.mat").items() if not k.startswith("__")}


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")).astype(int)


def test_every_file_is_there_and_nothing_else(written):
    for name in ("pair", "pair_2"):
        names = {p.name for p in (written / name).iterdir()} - {"photo.json"}
        assert names == {name + ending for ending in FILES}
        for path in (written / name).glob("*.jpg"):
            assert Image.open(path).size == (512, 512)
    folders = {"pair", "pair_2", "pair_vis.jpg", "pair_2_vis.jpg", "summary.json"}
    assert {p.name for p in written.iterdir()} == folders
    assert (written / "pair" / "photo.json").is_file() and not (written / "pair_2" / "photo.json").exists()


def test_the_largest_face_has_the_photos_name(written):
    x = [np.loadtxt(written / n / f"{n}_kpt2d.txt")[:, 0].mean() for n in ("pair", "pair_2")]
    assert x[0] > SMALL > x[1]


def test_landmarks_are_where_the_faces_are(written, mat):
    model = load_model("open")
    for name, size, seed, corner in (
        ("pair", LARGE, 3, (SMALL, 0)),
        ("pair_2", SMALL, 5, (0, LARGE - SMALL)),
    ):
        p = truth(size=size, seed=seed)
        cam = p.camera.to_cam(model.vertices(p.identity, p.expression, p.pose))
        wanted = p.camera.cam_to_px(model.landmarks_cam("ibug68", cam)).numpy() + corner
        points = np.loadtxt(written / name / f"{name}_kpt2d.txt")
        assert points.shape == (68, 2)
        assert np.linalg.norm(points - wanted, axis=1).mean() < 0.03 * size
    space = np.loadtxt(written / "pair" / "pair_kpt3d.txt")
    seen = space @ mat["K"][0].T
    flat = np.loadtxt(written / "pair" / "pair_kpt2d.txt")
    assert space.shape == (68, 3) and np.abs(seen[:, :2] / seen[:, 2:] - flat).max() < 0.01
    assert np.allclose(mat["landmarks2d"][0], flat, atol=1e-4)
    assert np.allclose(mat["landmarks3d"][0], space, atol=1e-5)


def test_meshes_agree_with_the_mat_file(written, mat):
    verts, T = mat["verts"][0], mat["T_cam_object"][0]
    obj = read_obj(written / "pair" / "pair.obj")
    assert np.allclose(obj["v"], verts, atol=1e-6)
    assert np.allclose(verts @ T[:3, :3].T + T[:3, 3], mat["trans_verts"][0], atol=1e-5)
    world = mat["landmarks3d_world"][0]
    assert np.allclose(world @ T[:3, :3].T + T[:3, 3], mat["landmarks3d"][0], atol=1e-5)
    lines = (written / "pair" / "pair_detail.obj").read_text().splitlines()
    rows = np.array([line.split()[1:] for line in lines if line.startswith("v ")], dtype=float)
    triangles = np.array([line.split()[1:] for line in lines if line.startswith("f ")], dtype=int) - 1
    assert rows.shape[1] == 6 and 0 <= rows[:, 3:].min() and rows[:, 3:].max() <= 1
    away = np.linalg.norm(rows[: len(verts), :3] - verts, axis=1)  # the coarse vertices come first
    assert 0 < away.max() < 0.005
    assert len(triangles) > 100_000 and triangles.max() == len(rows) - 1
    a, b, c = (rows[triangles[:, k], :3] for k in range(3))
    assert np.einsum("ni,ni->n", a, np.cross(b, c)).sum() > 0  # seen from outside, counter-clockwise
    skin = rows[np.abs(rows[:, :3] - verts[verts[:, 2].argmax()]).sum(axis=1).argmin(), 3:]
    assert skin[0] > skin[2]  # the tip of the nose is redder than blue


def test_the_material_names_pictures_by_keys_that_programs_know(written):
    folder = written / "pair"
    library = (folder / "pair.mtl").read_text()
    assert read_obj(folder / "pair.obj")["mtllib"] == ["pair.mtl"] and "disp" not in library
    by_name = {block.split()[0]: block for block in library.split("newmtl ")[1:]}
    for name, block in by_name.items():
        assert "map_Kd pair.png\n" in block
        assert ("norm pair_normals.png\n" in block) == (name == "skin")
        assert ("map_Bump -bm 1 pair_normals.png\n" in block) == (name == "skin")
    normals = np.asarray(Image.open(folder / "pair_normals.png")) / 127.5 - 1
    assert np.abs(np.linalg.norm(normals, axis=2) - 1).max() < 0.02 and normals[..., 2].mean() > 0.9
    assert Image.open(folder / "pair.png").size == (256, 256)


def test_depth_covers_the_head_and_nothing_else(written, mat):
    depth, mask = mat["depth_images"][0, 0], mat["alpha_images"][0, 0] > 0.5
    assert np.array_equal(depth > 0, mask) and 0.1 < mask.mean() < 0.8
    picture = grey(written / "pair" / "pair_depth.jpg")
    assert ((picture > 32) != mask).mean() < 0.002  # 8 bits of a JPEG, apart from its edges
    assert np.corrcoef(picture[mask], depth[mask])[0, 1] < -0.99
    K = mat["K_view"][0]
    for point in mat["landmarks3d"][0, [27, 28, 29, 30]]:  # the bridge of the nose: nothing is before it
        x, y, w = K @ point
        assert abs(depth[int(y / w), int(x / w)] - point[2]) < 0.003
    corners = mat["trans_verts"][0] @ K.T
    column, row = (corners[:, :2] / corners[:, 2:]).astype(int).T
    assert mask[row, column].mean() > 0.95
    drawn = grey(written / "pair" / "pair_rendered_images.jpg") > 24
    assert (drawn != mask).mean() < 0.05
    assert (grey(written / "pair" / "pair_shape_images.jpg") > 16)[~mask].mean() < 0.02


def test_pictures_show_different_things(written):
    names = ("inputs", "landmarks2d", "albedo_images", "shape_images", "shape_detail_images")
    views = {n: grey(written / "pair" / f"pair_{n}.jpg") for n in names}
    assert 0.5 < np.abs(views["inputs"] - views["landmarks2d"]).mean() < 20
    assert 0.05 < np.abs(views["shape_images"] - views["shape_detail_images"]).mean() < 10
    colour = np.asarray(Image.open(written / "pair" / "pair_shape_images.jpg")).astype(int)
    assert np.abs(colour[..., 0] - colour[..., 2]).mean() < 3  # clay is grey
    assert Image.open(written / "pair_vis.jpg").width > 3 * 512


def test_codes_have_the_shapes_and_meanings_of_the_page(mat):
    p = truth(size=LARGE)
    shapes = {"exp": (1, 52), "pose": (1, 6), "cam": (1, 3), "light": (1, 9, 3), "landmarks2d": (1, 68, 2)}
    shapes |= {"albedo": (1, 3, 256, 256), "displacement_map": (1, 1, 256, 256)}
    shapes |= {"uv_detail_normals": (1, 3, 256, 256), "normal_images": (1, 3, 512, 512)}
    assert {k: mat[k].shape for k in shapes} == shapes
    assert mat["shape"].shape == (1, len(p.identity)) and mat["tex"].shape == (1, len(p.albedo))
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    # Each portrait looks straight at its person, the picture of both does not.
    ray = torch.from_numpy(mat["T_cam_object"][0, :3, 3])
    axis = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), ray / ray.norm())
    aside = roma.rotvec_to_rotmat(axis / axis.norm() * axis.norm().asin())
    turn = roma.rotmat_to_rotvec(flip @ aside @ p.camera.R).numpy()
    assert float(axis.norm()) > 0.1
    assert np.abs(mat["pose"][0, :3] - turn).max() < 0.12
    scale, x, y = mat["cam"][0]
    turned = mat["verts"][0] @ (flip.numpy() @ mat["T_cam_object"][0, :3, :3]).T
    weak = scale * (turned[:, :2] + [x, y])
    corners = mat["trans_verts"][0] @ mat["K_view"][0].T
    exact = (corners[:, :2] / corners[:, 2:] / 256 - 1) * [1, -1]
    assert np.abs(weak - exact).max() < 0.25  # an orthographic camera is not a perspective one
    assert np.abs(weak - exact)[np.abs(turned[:, 2]) < 0.01].max() < 0.02  # but at the origin's depth
    assert 0 < np.abs(mat["displacement_map"]).max() < 0.01


def test_resume_redoes_what_is_not_whole(written, photo, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(written, out)
    options = (photo, "-o", out, "--layout", "deca", "--texture-size", "256", "--resume")
    stamp = (out / "pair" / "pair.obj").stat().st_mtime_ns
    assert run(*options) == 0 and (out / "pair" / "pair.obj").stat().st_mtime_ns == stamp
    assert "done before" in json.loads((out / "summary.json").read_text())[0]["detail"]
    shutil.rmtree(out / "pair_2")
    assert run(*options) == 0
    assert (out / "pair_2" / "pair_2.mat").is_file()
    assert (out / "pair" / "pair.obj").stat().st_mtime_ns != stamp


def test_options_that_mean_nothing_here_are_refused(photo, tmp_path, capsys, monkeypatch):
    for extra in (("--format", "glb"), ("--wrinkles",)):
        assert run(photo, "-o", tmp_path / "out", "--layout", "deca", *extra) == 1
        assert "leave --format and --wrinkles out" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert run(photo, "-o", tmp_path / "out", "--layout", "deca") == 1
    assert "pip install 'hiface[deca]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_names_pass_by_other_photos_and_old_faces_go(tmp_path, monkeypatch):
    def save(face, out, name, options):
        (out / name).mkdir()
        (out / name / f"{name}.obj").write_text(face)
        (out / f"{name}_vis.jpg").write_text(face)

    monkeypatch.setattr(batch, "save_deca", save)
    options = batch.BatchOptions(tmp_path, (batch.DECA,), taken=frozenset({"a", "a_2"}))
    (tmp_path / "a_2").mkdir()
    (tmp_path / "a_3").mkdir()
    (tmp_path / "a_3" / "photo.json").write_text("{}")  # of a photo of an earlier run
    folder = tmp_path / "a"
    batch._write_photo(["first", "second", "third"], folder, options)
    assert {p.name for p in tmp_path.glob("*.jpg")} == {"a_vis.jpg", "a_4_vis.jpg", "a_5_vis.jpg"}
    assert (tmp_path / "a_4" / "a_4.obj").read_text() == "second" and not any((tmp_path / "a_2").iterdir())
    (folder / "photo.json").write_text(json.dumps({"faces": 3, "made_with": {"formats": ["deca"]}}))
    batch._write_photo(["new"], folder, options)
    assert {p.name for p in tmp_path.iterdir()} == {"a", "a_vis.jpg", "a_2", "a_3"}
    assert (folder / "a.obj").read_text() == "new"
