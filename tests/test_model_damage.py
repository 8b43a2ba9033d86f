"""Parts of model files of another shape or type than the format's: one typed error, or read as meant."""

import json
import struct

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.io import savemat

import model_files as make
from hiface.cli.models import check_model
from hiface.errors import ModelFormatError
from hiface.morphable import load_model, read_model, write_model
from hiface.morphable.numpy_files import read_npy

CELL = np.array([[1, 2, "a"]], dtype=object)
BFM2009 = {
    "mean of 293 numbers": {"shapeMU": np.ones((293, 1)), "shapePC": np.ones((293, 6))},
    "mean of text": {"shapeMU": "abc"},
    "no mean": {"shapeMU": np.zeros((0, 1)), "shapePC": np.zeros((0, 6))},
    "colour of 293 numbers": {"texMU": np.ones((293, 1))},
    "colours of text": {"texMU": "abc"},
    "triangles of cells": {"tl": CELL},
    "triangles of text": {"tl": "abc"},
    "fractions of triangles": {"tl": np.full((5, 3), 1.5)},
    "triangles that are not finite": {"tl": np.full((5, 3), np.nan)},
    "deviations of text": {"shapeEV": "abc"},
}
HIFI3D = {
    "mean of 293 numbers": {"mu_shape": np.ones((1, 293)), "basis_shape": np.ones((7, 293))},
    "triangles of cells": {"tri": CELL},
    "fractions of triangles": {"tri": np.full((5, 3), 0.5)},
    "fractions of points": {"keypoints": np.full(86, 0.5)},
    "mask of text": {"mask_face": "abc"},
    "mask of cells": {"mask_face": CELL},
    "negative variances": {"basis_shape": np.eye(7, 294), "EVs": -np.ones((7, 1))},
    "triangles of text in the layout": {"tri_vt": "abc"},
}


@pytest.mark.parametrize("fault", BFM2009)
def test_parts_of_bfm2009(tmp_path, fault):
    path = tmp_path / "01_MorphableModel.mat"
    savemat(path, make.write_bfm2009(path) | BFM2009[fault])
    with pytest.raises(ModelFormatError, match=r"01_MorphableModel.mat"):
        read_model(path)


@pytest.mark.parametrize("fault", HIFI3D)
def test_parts_of_hifi3d(tmp_path, fault):
    path = tmp_path / "HIFI3D++.mat"
    savemat(path, make.write_hifi3dpp(path) | HIFI3D[fault])
    with pytest.raises(ModelFormatError, match=r"HIFI3D\+\+.mat"):
        read_model(path)


BFM_H5 = {
    "mean of 295 numbers": {"shape/model/mean": np.zeros(295), "shape/model/pcaBasis": np.zeros((295, 6))},
    "mean of text": {"shape/model/mean": "abc"},
    "colours of 295 numbers": {"color/model/mean": np.zeros(295)},
    "expressions of 295 numbers": {"expression/model/mean": np.zeros(295)},
    "no version": {"shape/version/majorVersion": np.zeros(0)},
    "version of text": {"shape/version/majorVersion": "x"},
    "triangles of text": {"shape/representer/cells": "x"},
    "variance of text": {"shape/model/pcaVariance": "x"},
}


def change_h5(path, changes):
    make.write_bfm_h5(path)
    with h5py.File(path, "a") as file:
        for key, value in changes.items():
            del file[key]
            file[key] = value


@pytest.mark.parametrize("fault", BFM_H5)
def test_parts_of_statismo_files(tmp_path, fault):
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    change_h5(path, BFM_H5[fault])
    with pytest.raises(ModelFormatError, match=r"model2017-1_bfm_nomouth.h5"):
        read_model(path)


def landmark_text():
    rows = [{"id": f"p{i}", "coordinates": make.head(1000.0)[0][i].tolist()} for i in (3, 50)]
    return json.dumps(rows)


STORED = {
    "text": lambda text: text,
    "fixed text": lambda text: np.bytes_(text),
    "array of one text": lambda text: np.array([text], dtype=h5py.string_dtype()),
    "array of one fixed text": lambda text: np.array([text.encode()]),
    "with zeros at its end": lambda text: np.array([text.encode()], dtype=f"S{len(text) + 9}"),
    "bytes": lambda text: np.frombuffer(text.encode() + b"\0\0", np.int8),
}


@pytest.mark.parametrize("kind", STORED)
def test_landmarks_of_statismo_files_are_text_of_any_kind(tmp_path, kind):
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    change_h5(path, {"metadata/landmarks/json": STORED[kind](landmark_text())})
    data = read_model(path, torch.float64)
    points = data.landmark_sets["bfm"].positions(data.template, data.triangles)
    np.testing.assert_allclose(points.numpy(), make.head()[0][[3, 50]], atol=1e-7)
    assert json.loads(data.metadata["landmark_names.bfm"]) == ["p3", "p50"]


@pytest.mark.parametrize("value", [3.0, "5", "[1", '[{"id": "a", "coordinates": [1, 2]}]', np.zeros(0)])
def test_a_model_is_whole_without_its_landmarks(tmp_path, value):
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    change_h5(path, {"metadata/landmarks/json": value})
    data = read_model(path)
    assert "bfm" not in data.landmark_sets and "cannot be read" in data.metadata["landmarks_left_out.bfm"]


def test_landmarks_far_from_the_mesh_are_left_out(tmp_path):
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    places = make.head(1000.0)[0]
    away = {"near": (places[3] * 1.05).tolist(), "far": (places[50] * 1.4).tolist(), "nowhere": [np.nan] * 3}
    change_h5(path, {"metadata/landmarks/json": json.dumps(away)})
    assert json.loads(read_model(path).metadata["landmark_names.bfm"]) == ["near"]


FACESCAPE = {
    "core of 293 numbers": ("shape_bm_core", lambda a: a[:-1]),
    "no expressions": ("shape_bm_core", lambda a: a[:, :0]),
    "triangles of objects": ("fv_indices", lambda a: CELL),
    "fractions of triangles": ("fv_indices", lambda a: a + 0.5),
    "points of text": ("lm_list_v16", lambda a: np.array(["a"] * 68)),
    "mean of objects": ("id_mean", lambda a: np.array([{"a": 1}], dtype=object)),
    "one mean": ("id_mean", lambda a: np.array(3.0)),
    "fractions of the layout": ("ft_indices", lambda a: a + 0.5),
}


@pytest.mark.parametrize("fault", FACESCAPE)
def test_parts_of_facescape(tmp_path, fault):
    path = tmp_path / "facescape_bm_v1.6_847_50_52_id.npz"
    make.write_facescape(path, make.facescape_core())
    content = {key: value for key, value in np.load(path, allow_pickle=True).items() if "contour" not in key}
    key, spoil = FACESCAPE[fault]
    np.savez(path, **content | {key: spoil(content[key])})
    with pytest.raises(ModelFormatError, match=r"facescape_bm_v1.6_847_50_52_id.npz"):
        read_model(path)


def test_a_folder_in_the_place_of_shapes(tmp_path):
    make.write_facewarehouse(tmp_path / "FW")
    (tmp_path / "FW" / "Tester_9" / "Blendshape" / "shape.bs").mkdir(parents=True)
    with pytest.raises(ModelFormatError, match=r"shape.bs cannot be read"):
        read_model(tmp_path / "FW")


THIRDS = np.ones((68, 3)) / 3
EMBEDDINGS = {
    "weights of 200 numbers": {"full_lmk_faces_idx": np.arange(68), "full_lmk_bary_coords": np.zeros(200)},
    "triangles of text": {"full_lmk_faces_idx": np.array(["a"] * 68), "full_lmk_bary_coords": THIRDS},
    "fractions of triangles": {"full_lmk_faces_idx": np.arange(68) + 0.5, "full_lmk_bary_coords": THIRDS},
    "67 points": {"full_lmk_faces_idx": np.arange(67), "full_lmk_bary_coords": THIRDS[1:]},
    "numbers": {
        f"{kind}_lmk_{what}": 3 for kind in ("static", "dynamic") for what in ("faces_idx", "bary_coords")
    },
    "two weights": {
        "static_lmk_faces_idx": np.arange(51),
        "static_lmk_bary_coords": np.zeros((51, 2)),
        "dynamic_lmk_faces_idx": np.zeros((79, 17), int),
        "dynamic_lmk_bary_coords": np.zeros((79, 17, 3)),
    },
}  # fmt: skip


@pytest.mark.parametrize("fault", EMBEDDINGS)
def test_landmarks_beside_flame(tmp_path, fault):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(make.flame_content()))
    np.save(tmp_path / "landmark_embedding.npy", np.array(EMBEDDINGS[fault], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFormatError, match=r"landmark_embedding.npy"):
        read_model(path)


def test_parents_of_flame_are_numbers(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(make.flame_content() | {"kintree_table": np.full((2, 5), np.nan)}))
    with pytest.raises(ModelFormatError, match="kintree_table has entries that are not finite"):
        read_model(path)


@pytest.mark.parametrize(
    ("shape", "kind", "count"),
    [
        ("(-1,-8)", "'<f8'", 64),
        (f"({'1,' * 100})", "'<f8'", 8),
        ("(True,)", "'<f8'", 8),
        (f"(0,{10**30})", "'<f8'", 0),
        (f"(0,{2**62},{2**62})", "'<f8'", 0),
        ("(1,)", "('<f8',(2,))", 16),
        ("(1,)", "'|V8'", 8),
    ],
)
def test_heads_of_npy_files(tmp_path, shape, kind, count):
    head = f"{{'descr':{kind},'fortran_order':False,'shape':{shape}}}\n".encode()
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(count)
    (tmp_path / "a.npy").write_bytes(raw)
    with pytest.raises(ModelFormatError, match=r"a\.npy"):
        read_npy(tmp_path / "a.npy")


def test_corners_of_obj_files(tmp_path):
    make.write_ict(tmp_path / "ICT")
    path = tmp_path / "ICT" / "generic_neutral_mesh.obj"
    path.write_text(path.read_text() + "f 99999999999999999999/1/1 2/1/1 3/1/1 4/1/1\n")
    with pytest.raises(ModelFormatError, match="damaged"):
        read_model(tmp_path / "ICT")


# -- hiface's own file --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "model.safetensors"
    make.write_bfm_h5(path.with_suffix(".h5"))
    write_model(read_model(path.with_suffix(".h5")), path)
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    return load_file(path), meta


NOTHING = torch.zeros(0, 3, dtype=torch.int64)
OWN_TENSORS = {
    "template": lambda t: t * torch.nan,
    "albedo_mean": lambda t: t / 0,
    "triangles": lambda t: t - 1,
    "uv_triangles": lambda t: t.float(),
    "quads": lambda t: t,
    "mirror_vertices": lambda t: t + 1,
    "triangle_parts": lambda t: t + 1,
    "vertex_masks.face": lambda t: torch.ones(98),
    "pairs.lips": lambda t: torch.full((2, 2), 98),
    "landmark_sets.bfm.triangle_ids": lambda t: t + 999,
    "landmark_sets.bfm.barycentric": lambda t: t * torch.inf,
}
OWN_NAMES = {
    "list": [],
    "no parents": {"joint_parents": []},
    "a circle": {"joint_parents": [0]},
    "too many parents": {"joint_parents": [-1, 0]},
    "a kind": {"expression_kind": "zzz"},
    "numbers": {"expression_names": list(range(7))},
    "a letter each": {"expression_names": "abcdefg"},
    "no name": {"name": 5},
}


@pytest.mark.parametrize("key", OWN_TENSORS)
def test_tensors_of_our_own_file(tmp_path, own, key):
    tensors, meta = own
    broken = OWN_TENSORS[key](tensors.get(key, torch.full((2, 4), 98)))
    save_file({**tensors, key: broken.contiguous()}, tmp_path / "a.safetensors", meta)
    with pytest.raises(ModelFormatError):
        read_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", OWN_NAMES)
def test_names_of_our_own_file(tmp_path, own, kind):
    tensors, meta = own
    names = OWN_NAMES[kind] and json.loads(meta["names"]) | OWN_NAMES[kind]
    save_file(tensors, tmp_path / "a.safetensors", meta | {"names": json.dumps(names)})
    with pytest.raises(ModelFormatError):
        read_model(tmp_path / "a.safetensors")


def test_other_damage_of_our_own_file(tmp_path, own):
    tensors, meta = own
    path = tmp_path / "a.safetensors"
    none = dict.fromkeys(("triangles", "uv_triangles"), NOTHING) | {"triangle_parts": NOTHING[:, 0]}
    save_file({**tensors, **none}, path, meta)
    with pytest.raises(ModelFormatError, match="there is none"):
        read_model(path)
    for metadata in ("[]", '{"published_vertices": 5}', "[" * 10**5):
        save_file(tensors, path, meta | {"metadata": metadata})
        with pytest.raises(ModelFormatError):
            read_model(path)
    save_file(tensors, path, meta | {"metadata": '{"published_vertices": "x"}'})
    assert all("published" not in problem for problem in check_model(load_model(path).data))
