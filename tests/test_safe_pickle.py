"""The reader of pickled files: it reads what face models hold and runs nothing of a hostile file."""

import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import model_files as make
from hiface.errors import ModelFormatError
from hiface.morphable.file_values import SparseMatrix
from hiface.morphable.numpy_files import read_npy, read_npz
from hiface.morphable.safe_pickle import load, loads

DENSE = np.array([[0.0, 1.5, 0.0], [2.0, 0.0, 0.0]])


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_this_python_writes(protocol):
    content = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "text": np.array(["jaw", "neck"]),
        "scalar": np.float32(2.5),
        "objects": np.array([1, "a", None, np.arange(2)], dtype=object),
        "tensor": torch.arange(6).reshape(2, 3).T,
        "csc": sp.csc_matrix(DENSE),
        "csr": sp.csr_matrix(DENSE),
        "coo": sp.coo_matrix(DENSE),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "raw": b"\x00\xff",
    }
    found = loads(pickle.dumps(content, protocol=protocol))
    for key in ("c", "fortran", "big", "empty", "bool", "text", "scalar"):
        np.testing.assert_array_equal(found[key], content[key])
        assert found[key].dtype == np.asarray(content[key]).dtype
    np.testing.assert_array_equal(found["tensor"], content["tensor"].numpy())
    assert list(found["objects"][:3]) == [1, "a", None] and found["objects"][3].tolist() == [0, 1]
    for key in ("csc", "csr", "coo"):
        assert isinstance(found[key], SparseMatrix)
        np.testing.assert_array_equal(found[key].to_dense(), DENSE)
    assert list(found["ordered"].items()) == [("b", 1), ("a", 2)] and found["raw"] == b"\x00\xff"


def test_reads_python_2_files_without_chumpy():
    assert "chumpy" not in sys.modules
    values = np.arange(24.0).reshape(2, 3, 4)
    inner = make.chumpy(values)
    reorder = "chumpy.reordering"
    content = {
        "plain": inner,
        "chosen": make.Instance(reorder, "Select", a=inner, idxs=np.arange(3), preferred_shape=(3, 1)),
        "shaped": make.Instance(reorder, "Reshape", a=inner, newshape=(6, 4)),
        "turned": make.Instance(reorder, "transpose", a=inner, axes=(2, 0, 1)),
        "joined": make.Instance(reorder, "Concatenate", dterms=("a", "b"), axis=2, a=inner, b=inner),
        "old coo": make.Instance(
            "scipy.sparse.coo",
            "coo_matrix",
            _shape=(2, 3),
            data=np.array([1.5, 2.0]),
            row=np.array([0, 1]),
            col=np.array([1, 0]),
        ),
        "matrix": make.sparse_csc(DENSE),
        "new path": make.sparse_csc(DENSE, "scipy.sparse._csc"),
        "text": "bs\xe9",
        "fortran": np.asfortranarray(values[0]),
    }
    found = loads(make.Python2Pickle().dump(content))
    np.testing.assert_array_equal(found["plain"], values)
    np.testing.assert_array_equal(found["chosen"], [[0], [1], [2]])
    np.testing.assert_array_equal(found["shaped"], values.reshape(6, 4))
    np.testing.assert_array_equal(found["turned"], values.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["joined"], np.concatenate([values, values], axis=2))
    np.testing.assert_array_equal(found["old coo"].to_dense(), DENSE)
    np.testing.assert_array_equal(found["matrix"].to_dense(), DENSE)
    np.testing.assert_array_equal(found["new path"].to_dense(), DENSE)
    np.testing.assert_array_equal(found["fortran"], values[0])
    assert found["text"] == "bs\xe9"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.parts = (function, args)

    def __reduce__(self):
        return self.parts


def stack_global(module: str, name: str, argument: str) -> bytes:
    """Protocol 4: the name is put together on the stack, where a search for GLOBAL does not see it."""

    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
STAND_IN = b"cchumpy.ch\nCh\n)\x81"
HOSTILE = {
    "os.system": pickle.dumps(Call(os.system, "touch ran")),
    "nested in an array": pickle.dumps({"v": np.array([1, Call(os.system, "touch ran")], dtype=object)}),
    "eval": pickle.dumps(Call(builtins.eval, "open('ran', 'w')"), protocol=2),
    "exec": pickle.dumps(Call(builtins.exec, "open('ran', 'w')"), protocol=0),
    "subprocess": pickle.dumps(Call(subprocess.Popen, ["touch", "ran"])),
    "getattr": pickle.dumps(Call(builtins.getattr, "text", "upper")),
    "import": pickle.dumps(Call(builtins.__import__, "antigravity")),
    "stack global": stack_global("os", "system", "touch ran"),
    "stack global with a path": stack_global("numpy", "load.__globals__", "x"),
    "python 2 instance": b"(S'touch ran'\nios\nsystem\n.",
    "state of a stand-in": STAND_IN + b"cos\nsystem\n(S'touch ran'\ntRb.",
    "state of an array": ARRAY + b"cos\nsystem\n(S'touch ran'\ntRb.",
    "numpy that runs": b"cnumpy.testing._private.utils\nrunstring\n(S'open(1)'\n}tR.",
    "numpy.load": b"cnumpy\nload\n(S'x.npy'\ntR.",
    "numpy core with a path": b"cnumpy.core.multiarray\nfromfile\n(S'ran'\ntR.",
    "runpy": b"crunpy\nrun_path\n(S'x.py'\ntR.",
    "chumpy that computes": b"cchumpy.ch\nMatVecMult\n)\x81.",
    "chumpy module": b"cchumpy.ch\nos\n.",
    "pathlib": b"cpathlib\nPath.write_text\n(S'ran'\nS''\ntR.",
    "rebuild by copyreg": b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.",
    "torch that loads": b"ctorch\nload\n(S'x.pt'\ntR.",
    "persistent id": b"Px\n.",
    "extension": b"\x80\x02\x82\x01.",
}


class Watch:
    """Notes what the interpreter does while a file is read; a hook cannot be taken off again."""

    def __init__(self):
        self.events = None
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.events is not None and event.split(".")[0] in ("os", "subprocess", "exec", "import", "open"):
            self.events.append((event, args[0]))


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_run_nothing(kind, tmp_path, monkeypatch, watch):
    monkeypatch.chdir(tmp_path)
    watch.events = []
    try:
        with pytest.raises(ModelFormatError):
            loads(HOSTILE[kind])
    finally:
        events, watch.events = watch.events, None
    assert not list(tmp_path.iterdir())
    assert not events


def test_the_watch_sees_what_the_plain_module_would_run(tmp_path, monkeypatch, watch):
    monkeypatch.chdir(tmp_path)
    watch.events = []
    try:
        pickle.loads(HOSTILE["os.system"])
    finally:
        events, watch.events = watch.events, None
    assert (tmp_path / "ran").exists() and "os.system" in [event for event, _ in events]


@pytest.mark.parametrize("kind", ["os.system", "stack global", "eval", "numpy.load"])
def test_the_refused_name_is_told(kind):
    told = {"os.system": "system", "stack global": "os.system", "eval": "eval", "numpy.load": "numpy.load"}
    with pytest.raises(ModelFormatError, match=told[kind]):
        loads(HOSTILE[kind], "model.pkl")


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_torch_storage_cannot_smuggle_a_call(tmp_path, monkeypatch, watch, as_zip):
    raw = io.BytesIO()
    torch.save(Call(os.system, "touch ran"), raw, _use_new_zipfile_serialization=as_zip)
    text = raw.getvalue()
    hostile = b"\x80\x04ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<i", len(text)) + text + b"tR."
    monkeypatch.chdir(tmp_path)
    watch.events = []
    try:
        with pytest.raises(ModelFormatError):
            loads(hostile)
    finally:
        events, watch.events = watch.events, None
    assert not list(tmp_path.iterdir())
    assert not [event for event, _ in events if event.startswith(("os.", "subprocess"))]


@pytest.mark.parametrize("as_zip", [False, True])
def test_torch_storages_are_as_torch_writes_them(as_zip):
    """Never an archive, which a small file could unpack from without end."""
    raw = io.BytesIO()
    torch.save(torch.arange(3).storage(), raw, _use_new_zipfile_serialization=as_zip)
    text = raw.getvalue()
    pickled = b"\x80\x04ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<i", len(text)) + text + b"tR."
    if as_zip:
        with pytest.raises(ModelFormatError, match="torch storage"):
            loads(pickled)
    else:
        assert loads(pickled).tolist() == [0, 1, 2]


F8 = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("kind", "raw"),
    {
        "huge shape": ARRAY + b"(I1\n(L1000000000000L\nt" + F8 + b"I00\nS'abcdefgh'\ntb.",
        "negative shape": ARRAY + b"(I1\n(I-1\nt" + F8 + b"I00\nS''\ntb.",
        "huge objects": ARRAY + b"(I1\n(L1000000000000L\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI00\n]tb.",
        "odd type": ARRAY + b"(I1\n(I1\ntcnumpy\ndtype\n(S'V100000000000'\nI0\nI1\ntRI00\nS'a'\ntb.",
        "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc.",
        "text that is not there": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "state of a function": b"cnumpy\ndtype\n}b.",
        "state of a class": b"cchumpy.ch\nCh\n}b.",
        "bare class": b"cnumpy\nndarray\n)\x81}b.",
        "contains itself": b"(lp0\ng0\na.",
        "matrix outside its shape": make.Python2Pickle().dump(
            make.Instance(
                "scipy.sparse.csc",
                "csc_matrix",
                _shape=(2, 2),
                data=np.ones(1),
                indices=np.array([5]),
                indptr=np.array([0, 1, 1]),
            )
        ),
        "tensor outside its storage": pickle.dumps(torch.arange(4.0), protocol=2).replace(
            b"K\x04\x85", b"K\x64\x85"
        ),
        "empty": b"",
        "no pickle": b"solid cube\n",
    }.items(),
)
def test_damaged_and_bloated_files_are_refused(kind, raw):
    with pytest.raises(ModelFormatError):
        loads(raw)


def test_the_memory_of_the_reader_stays_small():
    with pytest.raises(ModelFormatError, match="impossible place"):
        loads(b"\x80\x02Nr\xff\xff\xff\xff.")


def test_a_huge_sparse_matrix_is_not_made_dense():
    raw = make.Python2Pickle().dump(
        make.Instance(
            "scipy.sparse.coo",
            "coo_matrix",
            _shape=(10**6, 10**6),
            data=np.ones(1),
            row=np.array([3]),
            col=np.array([4]),
        )
    )
    with pytest.raises(ModelFormatError, match="too large"):
        loads(raw).to_dense()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files_say_so(tmp_path, share):
    raw = make.flame_bytes(make.flame_content())
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(
        ModelFormatError, match=r"generic_model.pkl: expected a whole pickled model.*download"
    ):
        load(path)
    with pytest.raises(ModelFormatError, match="check its name"):
        load(tmp_path / "nothing.pkl")


def test_npy_and_npz(tmp_path):
    plain = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "plain.npy", np.asfortranarray(plain))
    np.testing.assert_array_equal(read_npy(tmp_path / "plain.npy"), plain)
    np.save(tmp_path / "dict.npy", {"ids": np.arange(3), "t": torch.ones(2)}, allow_pickle=True)
    found = read_npy(tmp_path / "dict.npy")
    assert found["ids"].tolist() == [0, 1, 2] and found["t"].tolist() == [1, 1]
    np.savez_compressed(tmp_path / "both.npz", a=plain, o=np.array([{"x": plain}], dtype=object))
    found = read_npz(tmp_path / "both.npz", ("a", "o", "absent"))
    np.testing.assert_array_equal(found["a"], plain)
    np.testing.assert_array_equal(found["o"][0]["x"], plain)
    assert "absent" not in found


def test_hostile_and_damaged_npy_and_npz(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([Call(os.system, "touch ran")], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFormatError, match="system"):
        read_npy(tmp_path / "bad.npy")
    np.savez(tmp_path / "bad.npz", a=np.array([Call(os.system, "touch ran")], dtype=object))
    with pytest.raises(ModelFormatError, match="system"):
        read_npz(tmp_path / "bad.npz", ("a",))
    np.save(tmp_path / "cut.npy", np.arange(100.0))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    with pytest.raises(ModelFormatError, match=r"expected 800 bytes .* found 792"):
        read_npy(tmp_path / "cut.npy")
    huge = whole.replace(b"(100,), }      ", b"(100000000000,)").replace(
        b"(100000000000,)", b"(10000000000,)}"
    )
    (tmp_path / "huge.npy").write_bytes(huge)
    with pytest.raises(ModelFormatError):
        read_npy(tmp_path / "huge.npy")
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00__import__('os').system('touch ran')")
    with pytest.raises(ModelFormatError, match="damaged"):
        read_npz(tmp_path / "bad.npz", ("a",))
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ModelFormatError, match=r"no whole .npz"):
        read_npz(tmp_path / "bad.npz", ("a",))
