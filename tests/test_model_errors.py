"""Model files that are cut short, damaged, of another version or of another mesh: one helpful error each."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import model_files as make
from hiface.errors import ModelFormatError, OutputError
from hiface.morphable import load_model, read_model, write_model
from hiface.morphable.readers import detect_format, read_bfm2009, read_flame


def without(key):
    return lambda content: content.pop(key)


def change(key, function):
    def apply(content):
        content[key] = function(content[key])

    return apply


def with_nan(array):
    array = array.copy()
    array.flat[3] = np.nan
    return array


FLAME_FAULTS = {
    "missing key": (without("posedirs"), r"expected FLAME with .*posedirs is missing"),
    "not finite": (change("v_template", with_nan), r"v_template has entries that are not finite"),
    "infinite": (change("shapedirs", lambda a: a + np.inf), r"shapedirs has entries that are not finite"),
    "first release": (change("shapedirs", lambda a: a[..., :310]), r"300 identity and 100 expression .*310"),
    "other mesh": (change("f", lambda a: a + 40), r"triangles point at 40..137, the mesh has 98"),
    "other weights": (
        change("weights", lambda a: a[:-1]),
        r"weights: expected numbers of shape 98 x 5.*97, 5",
    ),
    "weights that do not add up": (change("weights", lambda a: 2 * a), r"do not add up to 1"),
    "other correctives": (change("posedirs", lambda a: a[..., :27]), r"posedirs: expected .* 98 x 3 x 36"),
    "joints in another order": (change("kintree_table", lambda a: a[:, ::-1]), r"before its parent"),
}


@pytest.mark.parametrize("fault", FLAME_FAULTS)
def test_faults_of_flame(tmp_path, fault):
    spoil, told = FLAME_FAULTS[fault]
    content = make.flame_content()
    spoil(content)
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(content))
    with pytest.raises(ModelFormatError, match=told) as error:
        read_model(path)
    assert "generic_model.pkl" in str(error.value) or "flame" in str(error.value)


def test_a_body_model_is_no_flame(tmp_path):
    content = make.flame_content()
    parents = np.array([[2**32 - 1, *range(23)], range(24)], dtype=np.int64)
    (tmp_path / "SMPL.pkl").write_bytes(make.flame_bytes(content | {"kintree_table": parents}))
    with pytest.raises(ModelFormatError, match=r"found 24; this is a body model such as SMPL"):
        read_model(tmp_path / "SMPL.pkl")


def test_a_pickle_of_something_else(tmp_path):
    (tmp_path / "a.pkl").write_bytes(make.Python2Pickle().dump((1, 2)))
    with pytest.raises(ModelFormatError, match="expected a pickled dictionary, found tuple"):
        read_flame(tmp_path / "a.pkl")


@pytest.mark.parametrize("name", ["landmark_embedding.npy", "FLAME_texture.npz", "FLAME_masks.pkl"])
def test_files_beside_flame_are_checked_too(tmp_path, name):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(make.flame_bytes(make.flame_content()))
    if name.endswith("npy"):
        ids = {"full_lmk_faces_idx": np.full(68, 9976), "full_lmk_bary_coords": np.full((68, 3), 1 / 3)}
        np.save(tmp_path / name, np.array(ids, dtype=object), allow_pickle=True)
        told = r"landmarks 'ibug68' point at 9976"
    elif name.endswith("npz"):
        np.savez(tmp_path / name, mean=np.zeros((512, 512, 3)), vt=np.zeros((3, 2)))
        told = r"tex_dir, ft are missing"
    else:
        (tmp_path / name).write_bytes(make.Python2Pickle().dump({"face": np.array([5000])}))
        told = r"vertices of 'face' point at 5000"
    with pytest.raises(ModelFormatError, match=told):
        read_model(path)


def test_faults_of_matlab_files(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "01_MorphableModel.mat"
    content = make.write_bfm2009(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelFormatError, match="expected a whole MATLAB file, found a damaged one"):
        read_model(path)
    savemat(path, {k: v for k, v in content.items() if k != "shapeEV"})
    with pytest.raises(
        ModelFormatError, match=r"expected the Basel Face Model 2009 with .*shapeEV is missing"
    ):
        read_model(path)
    savemat(path, content | {"tl": content["tl"] + 50})
    with pytest.raises(ModelFormatError, match=r"tl point at 50..147, the mesh has 98"):
        read_model(path)
    savemat(path, content | {"shapePC": content["shapePC"][:-3]})
    with pytest.raises(ModelFormatError, match=r"shapePC: expected numbers of shape 294 x any"):
        read_bfm2009(path)
    savemat(path, {"w": np.ones(3)})
    with pytest.raises(ModelFormatError, match="found a MATLAB file with w"):
        read_model(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 400 + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelFormatError, match=re.escape("save it in MATLAB with save(..., '-v7')")):
        read_model(path)


def test_faults_of_hdf5_files(tmp_path):
    import h5py

    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    make.write_bfm_h5(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelFormatError, match="expected a whole HDF5 file"):
        read_model(path)
    make.write_bfm_h5(path)
    with h5py.File(path, "a") as file:
        del file["shape/model/pcaVariance"]
    with pytest.raises(ModelFormatError, match="pcaVariance is missing"):
        read_model(path)
    make.write_bfm_h5(path)
    with h5py.File(path, "a") as file:
        file["color/model/mean"][0] = np.nan
    with pytest.raises(ModelFormatError, match="colour mean has entries that are not finite"):
        read_model(path)


def test_an_old_statismo_file_has_scaled_axes(tmp_path):
    import h5py

    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    content = make.write_bfm_h5(path)
    with h5py.File(path, "a") as file:
        file["shape/version/minorVersion"][()] = 8
        file["shape/model/pcaBasis"][()] = content["shape_basis"] * np.sqrt(content["shape_variance"])
    old = read_model(path, torch.float64).identity_basis
    make.write_bfm_h5(path)
    torch.testing.assert_close(old, read_model(path, torch.float64).identity_basis, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.obj", b"v 0 0 0\n", "found bytes"),
        ("a.pkl", b"", "an empty file of 0 bytes"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "damaged"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "hiface models list"),
    ],
)
def test_other_files_are_no_models(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFormatError, match=told):
        load_model(tmp_path / name)


def test_other_arrays_and_folders_are_no_models(tmp_path):
    np.savez(tmp_path / "a.npz", mean=np.zeros(3), tex_dir=np.zeros(3))
    with pytest.raises(ModelFormatError, match="belongs beside the model"):
        read_model(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ModelFormatError, match="without a core tensor"):
        read_model(tmp_path / "a.npy")
    with pytest.raises(ModelFormatError, match=r"a folder without FaceXModel/generic_neutral_mesh.obj"):
        read_model(tmp_path)
    with pytest.raises(ModelFormatError, match="check its name"):
        read_model(tmp_path / "nothing.pkl")


def test_formats_are_told_by_content_not_by_name(tmp_path):
    (tmp_path / "renamed.bin").write_bytes(make.flame_bytes(make.flame_content()))
    make.write_bfm2009(tmp_path / "renamed.txt")
    make.write_bfm_h5(tmp_path / "renamed.mat")
    make.write_hifi3dpp(tmp_path / "renamed.h5")
    make.write_ict(tmp_path / "any")
    keys = [detect_format(tmp_path / f"renamed.{s}").key for s in ("bin", "txt", "mat", "h5")]
    assert keys == ["flame", "bfm2009", "bfm_h5", "hifi3dpp"]
    assert detect_format(tmp_path / "any" / "generic_neutral_mesh.obj").key == "ict"


def test_faults_of_our_own_file(tmp_path):
    path = write_model(load_model("open").data, tmp_path / "open.safetensors")
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        meta = file.metadata()
    assert meta["licence"] == load_model("open").data.licence
    save_file(tensors, path, meta | {"format_version": "9"})
    with pytest.raises(ModelFormatError, match=r"expected version 1 .* found 9; convert the original again"):
        read_model(path)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelFormatError, match="safetensors file of another kind"):
        read_model(path)
    save_file({k: v for k, v in tensors.items() if k != "template"}, path, meta)
    with pytest.raises(ModelFormatError, match="missing or damaged"):
        read_model(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFormatError, match="expected a whole face-model file"):
        read_model(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another"):
        write_model(load_model("open").data, tmp_path / "file" / "a.safetensors")
