"""Model files that would crash the reader, fill the memory or read other files: each is refused at once."""

import collections
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.io import savemat

import model_files as make
from hiface.errors import ModelFormatError
from hiface.morphable import read_model
from hiface.morphable.numpy_files import read_npz
from hiface.morphable.readers import matlab
from hiface.morphable.readers.parts import indices, numbers
from hiface.morphable.safe_pickle import loads

U1 = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"


def sparse(state, kind="csc_matrix", module="scipy.sparse.csc"):
    return make.Python2Pickle().dump(make.Instance(module, kind, **state))


def compressed(starts, shape=(4, 4), count=0):
    return {
        "_shape": shape,
        "data": np.zeros(count),
        "indices": np.zeros(count, np.int32),
        "indptr": np.array(starts, dtype=np.int64),
    }


def shared_tuple(levels: int) -> bytes:
    """Leaves a tuple on the stack that holds another twice, and so on."""
    raw = b")q\x00"
    for level in range(levels):
        raw += b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    return raw


# Whatever crashes or hangs would take the tests along, so these run in another process.
DEADLY = {
    "counts that add up only modulo 2**64": sparse(compressed([0, 2**62, -(2**63), -(2**62), 0])),
    "deep tuple as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * 200_000 + b"\x90.",
    "deep tuple in a list for a set": b"\x80\x02c__builtin__\nset\n])" + b"\x85" * 200_000 + b"a\x85R.",
    "deep tuple in an array as a key": b"\x80\x02}"
    + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    + b"(I1\n)cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI00\n]"
    + b")" + b"\x85" * 200 + b"atbNs.",
    "shared tuple as a key": b"\x80\x02}" + shared_tuple(90) + b"Ns.",
    "shared tuple as a key after a state": b"\x80\x02}" + shared_tuple(90) + b"NbNs.",
    "shared tuple as a key from the memo": b"\x80\x02" + shared_tuple(90) + b"0}hZNs.",
    "shared tuple in an ordered dictionary": b"\x80\x02ccollections\nOrderedDict\n]"
    + shared_tuple(90) + b"N\x86a\x85R.",
    "shared tuple as a type": b"\x80\x02cnumpy\ndtype\n" + shared_tuple(90) + b"\x85R.",
    "a number instead of bytes": b"cnumpy.core.numeric\n_frombuffer\n(L400000000L\n"
    + U1 + b"(L400000000L\ntS'C'\ntR.",
    "deep list": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
}  # fmt: skip


def test_deadly_pickles_are_refused_without_memory_or_time():
    script = """
        import resource, sys
        from pathlib import Path
        from hiface.errors import ModelFormatError
        from hiface.morphable.safe_pickle import loads
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loads(b'N.')
        before = peak()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            print(path.name, flush=True)
            try:
                loads(path.read_bytes())
            except ModelFormatError:
                continue
            sys.exit('was read')
        print('grown by', (peak() - before) // 1024)
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, raw in DEADLY.items():
            (Path(folder) / name.replace("**", " to the ")).write_bytes(raw)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), folder],
            capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) < 200  # MiB


def test_tuples_may_be_values_and_members():
    content = {"a": (1, (2, 3)), "b": [(), ((4,),)], 5: {"x", "y"}, None: collections.OrderedDict(c=(1,))}
    for protocol in range(6):
        found = loads(pickle.dumps(content, protocol=protocol))
        assert found == {"a": (1, (2, 3)), "b": [(), ((4,),)], 5: {"x", "y"}, None: {"c": (1,)}}


@pytest.mark.parametrize(
    "starts",
    [
        [1, 0, 0, 0, 0],
        [0, 0, 2, 1, 2],
        [0, 2, 2],
        [0, 0, 0, 0, 3],
        [0, 5, 5, 5, 2],
        [0, -1, 0, 0, 2],
        [1, 1, 1, 1, 2],
        [-(2**63), 0, 0, 0, 2],
        [],
    ],
)
@pytest.mark.parametrize("kind", ["csc", "csr"])
def test_line_starts_of_matrices_are_checked(kind, starts):
    state = compressed(starts, count=2)
    with pytest.raises(ModelFormatError, match="line starts"):
        loads(sparse(state, f"{kind}_matrix", f"scipy.sparse.{kind}"))
    state = compressed([0, 0, 1, 1, 2], count=2)
    whole = loads(sparse(state, f"{kind}_matrix", f"scipy.sparse.{kind}"))
    outer = whole.columns if kind == "csc" else whole.rows
    assert outer.tolist() == [1, 3]


def test_matrices_of_other_shapes_and_types_are_refused():
    changes = ({"_shape": (4, -1)}, {"_shape": (4,)}, {"_shape": (4, 2**31 - 1)}, {"indices": np.zeros(2)})
    for change in changes:
        with pytest.raises(ModelFormatError):
            loads(sparse(compressed([0, 0, 1, 1, 2], count=2) | change))
    with pytest.raises(ModelFormatError, match=r"asks for scipy.linalg.csc_matrix"):
        loads(sparse(compressed([0, 0, 0, 0, 0]), module="scipy.linalg"))


def doubled(levels: int) -> bytes:
    """An array of 1000 numbers, put after itself again and again: each level takes some 60 bytes."""
    made = make.Python2Pickle()
    made._put(make.chumpy(np.zeros(1000)))
    out = made.out + b"q\x000"
    for level in range(levels):
        out += b"cchumpy.reordering\nConcatenate\n)\x81}(U\x06dterms(U\x01aU\x01btU\x04axisK\x00"
        out += b"U\x01ah" + bytes([level]) + b"U\x01bh" + bytes([level]) + b"ubq" + bytes([level + 1]) + b"0"
    return bytes(out + b"h" + bytes([levels]) + b".")


def repeated(function: bytes, argument: bytes, times: int) -> bytes:
    """A list of what a function gives for one argument, which is in the file only once."""
    call = function + b"h\x00\x85R"
    return b"\x80\x02" + argument + b"q\x000](" + call * times + b"e."


def shared_matrices(count: int) -> bytes:
    """Matrices that have their arrays in common."""
    first = sp.csc_matrix(np.eye(300))
    found = [sp.csc_matrix((300, 300)) for _ in range(count)]
    for matrix in found:
        matrix.data, matrix.indices, matrix.indptr = first.data, first.indices, first.indptr
    return pickle.dumps(found, protocol=2)


TEXT = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000


@pytest.mark.parametrize(
    "raw",
    {
        "arrays put together": doubled(16),
        "encoded text": repeated(b"c_codecs\nencode\n", TEXT, 500),
        "sets": repeated(b"c__builtin__\nset\n", b"](" + b"K\x01" * 10_000 + b"e", 500),
        "matrices": shared_matrices(100),
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_small_files_do_not_unfold_to_large_ones(raw):
    with pytest.raises(ModelFormatError, match="unfolds to more than 1,000,000 bytes"):
        loads(raw[1], largest_bytes=10**6)


def test_what_is_shared_is_turned_once():
    found = loads(doubled(3), largest_bytes=10**6)
    assert found.shape == (8000,)
    text = repeated(b"c_codecs\nencode\n", TEXT, 5)
    assert [len(item) for item in loads(text, largest_bytes=10**6)] == [10_000] * 5


def test_lists_within_lists_are_no_arrays():
    shared = [1.0, 2.0]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(ModelFormatError, match="v_template: expected an array, found list"):
        numbers(shared, (None, 3), "v_template")
    with pytest.raises(ModelFormatError, match="f: expected an array, found list"):
        indices(shared, 3, 9, "f")
    np.testing.assert_array_equal(numbers([1, 2, 3], (3,), "x"), [1, 2, 3])


def test_a_class_that_is_not_known_is_an_error_only_where_it_is_needed(tmp_path):
    path = tmp_path / "generic_model.pkl"
    content = make.flame_content()
    total = make.Instance("chumpy.ch_ops", "add", a=make.chumpy(np.zeros(3)), b=2)
    stored = content | {"shapedirs": make.chumpy(content["shapedirs"])}
    path.write_bytes(make.Python2Pickle().dump(stored | {"J": total, "K": make.chumpy(total)}))
    assert read_model(path).n_identity == 300
    path.write_bytes(make.Python2Pickle().dump(stored | {"shapedirs": make.chumpy(total)}))
    with pytest.raises(ModelFormatError, match=r"generic_model.pkl: shapedirs: .*chumpy.ch_ops.add"):
        read_model(path)


# -- HDF5 ---------------------------------------------------------------------------------------------


@pytest.fixture
def basel(tmp_path):
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    make.write_bfm_h5(path)
    return path


def spoil(path, key, function):
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        function(file)


def test_only_the_data_of_the_format_are_read(basel):
    for key in ("shape/extra", "metadata/extra"):
        spoil(basel, key, lambda file, key=key: file.create_dataset(key, shape=(10**13,), dtype="f4"))
    assert read_model(basel).n_vertices == 98
    mean = "shape/model/mean"
    spoil(basel, mean, lambda file: file.create_dataset(mean, shape=(10**13,), dtype="f4"))
    with pytest.raises(ModelFormatError, match=r"shape/model/mean has 40,000,000,000,000 bytes"):
        read_model(basel)


@pytest.mark.parametrize("kind", ["external", "virtual", "link", "soft link", "group"])
def test_no_other_file_is_read(basel, tmp_path, kind):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["m/model/mean"] = np.ones(294, "f4")
    (tmp_path / "secret.bin").write_bytes(np.ones(294, "f4").tobytes())
    mean = "shape/model/mean"

    def write(file):
        if kind == "external":
            at = [(str(tmp_path / "secret.bin"), 0, 294 * 4)]
            file.create_dataset(mean, shape=(294,), dtype="f4", external=at)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(294,), dtype="f4")
            layout[:] = h5py.VirtualSource(secret, "m/model/mean", shape=(294,))
            file.create_virtual_dataset(mean, layout)
        elif kind == "group":
            del file["shape/model"]
            file["shape/model"] = h5py.ExternalLink(secret, "m/model")
        else:
            soft = h5py.SoftLink("/expression/model/mean")
            file[mean] = soft if kind == "soft link" else h5py.ExternalLink(secret, "m/model/mean")

    spoil(basel, mean, write)
    told = "lies in another file" if kind in ("external", "virtual") else "is a link"
    with pytest.raises(ModelFormatError, match=told):
        read_model(basel)


# -- Archives -----------------------------------------------------------------------------------------


def test_archives_may_not_unpack_to_more_than_a_model(tmp_path):
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "a.npz", a=rng.random(300), b=rng.random(300))
    assert read_npz(tmp_path / "a.npz", ("a", "b"), 2 * 2528)["b"].shape == (300,)
    with pytest.raises(ModelFormatError, match="b has 2,528 bytes, more than a face model has"):
        read_npz(tmp_path / "a.npz", ("a", "b"), 2 * 2528 - 1)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**20))
    with pytest.raises(ModelFormatError, match="more than a face model has"):
        read_npz(tmp_path / "bomb.npz", ("a",))


def test_matlab_variables_are_measured_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "01_MorphableModel.mat"
    make.write_bfm2009(path)
    savemat(path, make.write_bfm2009(path) | {"other": np.zeros(100_000)}, do_compression=True)
    monkeypatch.setattr(matlab, "_LARGEST_BYTES", 98 * 3 * 6 * 8)
    assert read_model(path).n_vertices == 98
    monkeypatch.setattr(matlab, "_LARGEST_BYTES", 98 * 3 * 6 * 8 - 1)
    with pytest.raises(ModelFormatError, match=r"shapePC of .* is larger than any part"):
        read_model(path)


def test_a_model_larger_than_the_memory_is_an_error(tmp_path, monkeypatch):
    from hiface.morphable.readers import flame

    def full(*args):
        raise MemoryError

    (tmp_path / "a.pkl").write_bytes(make.flame_bytes(make.flame_content()))
    monkeypatch.setattr(flame, "assemble", full)
    with pytest.raises(ModelFormatError, match="memory of this computer"):
        read_model(tmp_path / "a.pkl")
