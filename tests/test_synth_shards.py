"""Data sets on disk: whole or not at all, the same bytes again, readable by everyone who reads tar."""

import errno
import io
import json
import os
import signal
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hiface
from hiface.cli.main import main
from hiface.errors import AssetError, OptionError, OutputError
from hiface.render import visibility
from hiface.synthetic import shards, stream, streaming, tars
from hiface.synthetic import sheet as sheets
from hiface.synthetic.datasets import DataSpec, make_samples, make_spec
from hiface.synthetic.pixels import png_bytes, png_pixels
from hiface.synthetic.records import (
    decode_arrays,
    encode_arrays,
    npz_arrays,
    npz_bytes,
    sample_arrays,
    sample_from_arrays,
)
from hiface.training.shard_cache import CACHE_FOLDER, decoded_shard
from hiface.training.shards import ShardSet

SIZE = 48
SPEC = make_spec(size=SIZE, seed=2)


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_PICTURES", 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two shards of 3 and 2 pictures, made once."""
    folder = tmp_path_factory.mktemp("made")
    patch = pytest.MonkeyPatch()
    patch.setattr(shards, "SHARD_PICTURES", 3)
    shards.write_shards(folder, 5, SPEC)
    patch.undo()
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """A data set of one's own to spoil."""
    for path in made.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("shard-*.tar"))}


def no_leftovers(folder):
    return not [p.name for p in folder.iterdir() if p.name.endswith(".part")]


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main(["synth", *map(str, args)])
    return stop.value.code


def test_shards_are_plain_tar_files_with_a_sample_per_name(model, made):
    manifest = manifest_of(made)
    assert manifest["count"] == 5 and [s["samples"] for s in manifest["shards"]] == [3, 2]
    assert manifest["kind"] == "images" and manifest["landmark_sets"]["ibug68"] == 68
    samples = {}
    for entry in manifest["shards"]:
        path = made / entry["name"]
        assert path.stat().st_size == entry["bytes"] and tars.file_sha256(path) == entry["sha256"]
        with tarfile.open(path) as tar:
            for info in tar.getmembers():
                assert (info.mtime, info.uid, info.gid, info.uname, info.mode) == (0, 0, 0, "", 0o644)
                key, rest = info.name.split(".", 1)
                content = tar.extractfile(info)
                assert content is not None
                samples.setdefault(key, {})[rest] = content.read()
    assert sorted(samples) == [f"{i:09d}" for i in range(5)]
    expected = dict(make_samples(model, SPEC, [4]))[4][0]
    files = samples["000000004"]
    assert set(files) == {"image.png", "alpha.png", "mask.png", "labels.npz"}
    read = sample_from_arrays(decode_arrays(files))
    assert torch.equal(read.image_srgb, expected.image_srgb) and torch.equal(read.alpha, expected.alpha)
    assert torch.equal(read.segmentation, expected.segmentation) and read.person == expected.person
    assert torch.equal(read.dense_px, expected.dense_px) and read.seed == expected.seed
    assert torch.equal(read.params.expression, expected.params.expression)
    with np.load(io.BytesIO(files["labels.npz"])) as labels:
        assert {"landmarks68_px", "visible68", "identity", "K", "T_cam_head", "seed", "grey"} <= set(labels)


def test_bytes_do_not_depend_on_workers(made, tmp_path):
    steps = []
    shards.write_shards(tmp_path, 5, SPEC, workers=2, advance=lambda done, total: steps.append((done, total)))
    assert contents(tmp_path) == contents(made) and len(contents(made)) == 2
    assert manifest_of(tmp_path) == manifest_of(made)
    assert steps[0] == (0, 5) and steps[-1] == (5, 5) and no_leftovers(tmp_path)


def test_whole_shards_are_kept_and_others_made_again(made, copy):
    whole, cut = (copy / shards.shard_name(i) for i in (0, 1))
    before = whole.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:20_000])
    (copy / f".{cut.name}.99.part").write_text("left by a killed process")
    shards.write_shards(copy, 5, SPEC)
    assert whole.stat().st_mtime_ns == before
    assert contents(copy) == contents(made) and no_leftovers(copy)
    spoiled = bytearray(whole.read_bytes())
    spoiled[600] ^= 1  # the same length
    whole.write_bytes(bytes(spoiled))
    shards.write_shards(copy, 2, SPEC)  # a smaller count takes nothing away
    assert contents(copy) == contents(made) and manifest_of(copy) == manifest_of(made)


def test_a_shard_without_an_entry_is_not_done(made, copy):
    manifest = manifest_of(copy)
    (copy / "manifest.json").write_text(json.dumps({**manifest, "shards": manifest["shards"][:1]}))
    (copy / shards.shard_name(1)).write_bytes(b"half")
    assert len(ShardSet((copy,), validation=True)) == 3  # one person, kept for validation
    shards.write_shards(copy, 5, SPEC)
    assert contents(copy) == contents(made)


def test_a_larger_count_goes_on(made, copy):
    shards.write_shards(copy, 6, SPEC)
    assert contents(copy)[shards.shard_name(0)] == contents(made)[shards.shard_name(0)]
    assert [s["samples"] for s in manifest_of(copy)["shards"]] == [3, 3]


def test_other_settings_are_refused(copy):
    with pytest.raises(OutputError, match=r"other settings \(size\)"):
        shards.write_shards(copy, 5, make_spec(size=64, seed=2))
    with pytest.raises(OutputError, match="effects"):
        shards.write_shards(copy, 5, make_spec(size=SIZE, seed=2, effects="plain"))
    (copy / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="cannot use"):
        shards.write_shards(copy, 5, SPEC)
    with pytest.raises(OutputError, match="cannot use"):
        shards.write_shards(copy / "manifest.json", 5, SPEC)


def test_a_full_disk_leaves_nothing_half_written(made, tmp_path, monkeypatch):
    plain = tars._Hashing.write

    def full(self, content):
        if self.length > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, content)

    monkeypatch.setattr(tars._Hashing, "write", full)
    with pytest.raises(OutputError, match=r"No space left.*make room"):
        shards.write_shards(tmp_path, 5, SPEC)
    assert contents(tmp_path) == {} and no_leftovers(tmp_path) and manifest_of(tmp_path)["shards"] == []
    monkeypatch.setattr(tars._Hashing, "write", plain)
    shards.write_shards(tmp_path, 5, SPEC)
    assert contents(tmp_path) == contents(made)


def test_a_folder_belongs_to_one_run(made, tmp_path):
    pytest.importorskip("fcntl")
    with shards._alone(tmp_path), pytest.raises(OutputError, match="another run is writing"):
        shards.write_shards(tmp_path, 5, SPEC)
    assert list(tmp_path.iterdir()) == []
    shards.write_shards(tmp_path, 3, SPEC)
    assert contents(tmp_path)[shards.shard_name(0)] == contents(made)[shards.shard_name(0)]


def killed(out_dir, index, numbers, spec):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill signal")
def test_a_killed_worker_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_worker", killed)
    with pytest.raises(OutputError, match=r"worker process was killed.*same command"):
        shards.write_shards(tmp_path, 5, SPEC, workers=2)
    assert contents(tmp_path) == {} and manifest_of(tmp_path)["shards"] == []


def test_the_training_reader_decodes_once_and_notices_changes(made, copy):
    read = ShardSet((copy,))
    everyone = [*range(len(read))]
    first = read.take(np.asarray(everyone))
    assert first.images.shape[1:] == (4, SIZE, SIZE) and read.counts[0] == 68
    cache = sorted((copy / CACHE_FOLDER).iterdir())
    assert len(cache) == 6
    stamp = [p.stat().st_mtime_ns for p in cache]
    again = ShardSet((copy,)).take(np.asarray(everyone))
    assert [p.stat().st_mtime_ns for p in cache] == stamp
    assert torch.equal(first.images, again.images) and torch.equal(first.points_px, again.points_px)
    held = ShardSet((copy,), validation=True)
    assert len(held) + len(read) == 5
    entry = manifest_of(copy)["shards"][1]
    changed = {**entry, **dict(zip(("bytes", "sha256"), _rewrite(copy / entry["name"]), strict=True))}
    paths = decoded_shard(copy, changed)
    assert paths.images.is_file() and len(np.load(paths.images)) == 1
    assert len(list((copy / CACHE_FOLDER).glob("shard-000001.*"))) == 3


def _rewrite(path):
    """The shard with its first sample only."""
    key, files = next(tars.read_tar(path))
    return tars.write_tar(path, [(f"{key}.{name}", content) for name, content in files.items()])


def test_a_cut_shard_cannot_be_trained_on(copy):
    path = copy / shards.shard_name(0)
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(AssetError, match=r"shard-000000.tar has 5000 bytes.*makes this shard anew"):
        ShardSet((copy,))
    path.unlink()
    with pytest.raises(AssetError, match=r"cannot read shard-000000.tar"):
        ShardSet((copy,))
    assert not (copy / CACHE_FOLDER).exists()


@pytest.mark.parametrize("name", ["image.png", "labels.npz"])
def test_damaged_samples_are_named_errors(copy, name):
    _, files = next(tars.read_tar(copy / shards.shard_name(0)))
    for content in (b"", files[name][:40], files[name][: len(files[name]) // 2], b"no file" * 50):
        with pytest.raises(AssetError, match="make the data again"):
            decode_arrays(files | {name: content})


def test_bad_tar_files_are_named(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar file" * 200)
    with pytest.raises(AssetError, match="no whole shard"):
        list(tars.read_tar(path))
    tars.write_tar(path, [("0.a", b"a" * 3000)])
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(AssetError, match="no whole shard"):
        list(tars.read_tar(path))


def test_groups_are_one_sample_and_train_too(tmp_path):
    spec = make_spec("pairs", 32, labels=("maps", "vertices"))
    shards.write_shards(tmp_path, 3, spec)
    assert [s["samples"] for s in manifest_of(tmp_path)["shards"]] == [1, 1, 1]
    key, files = next(tars.read_tar(tmp_path / shards.shard_name(0)))
    assert key == "000000000" and {"view0.image.png", "view1.labels.npz", "view1.depth.png"} <= set(files)
    assert len(ShardSet((tmp_path,))) == 4  # person 0 is kept for validation


def test_maps_survive_their_files(model):
    spec = make_spec("clips", 32, labels=("maps", "vertices"), length=2)
    sample = dict(make_samples(model, spec, [1]))[1][0]
    read = sample_from_arrays(decode_arrays(encode_arrays(sample_arrays(sample))))
    assert set(read.maps) == set(sample.maps) and "flow" in read.maps
    tolerance = {"depth": 6e-5, "normals": 0.02, "uv": 5e-4, "shading": 0.01, "flow": 0.01}
    for name, values in sample.maps.items():
        if name == "albedo":
            close = (read.maps[name].sqrt() - values.clamp(0, 1).sqrt()).abs().max()
            assert close < 0.03
        else:
            torch.testing.assert_close(read.maps[name], values, atol=tolerance.get(name, 0), rtol=1e-3)


def test_options_are_checked(tmp_path):
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"effects": "hair,wings"}, r"unknown effect 'wings'.*glasses"),
        ({"labels": ("everything",)}, r"unknown group of labels.*vertices"),
        ({"kind": "films"}, r"unknown kind.*clips"),
        ({"size": 5}, "size must be"),
        ({"length": 4}, "no length"),
        ({"kind": "clips", "length": 1}, "length of 2 to"),
        ({"seed": -1}, "seed must be"),
    )
    for options, words in cases:
        with pytest.raises(OptionError, match=words):
            make_spec(**options)
    with pytest.raises(OptionError, match="1 or more"):
        shards.write_shards(tmp_path, 0, DataSpec())


def test_the_command(made, tmp_path, capsys, monkeypatch):
    out, sheet = tmp_path / "data", tmp_path / "sheet.png"
    assert run("-o", out, "--count", 3, "--size", SIZE, "--seed", 2, "--sheet", sheet) == 0
    assert contents(out)[shards.shard_name(0)] == contents(made)[shards.shard_name(0)]
    assert sheet.stat().st_size > 1000
    assert run("-o", tmp_path / "no", "--effects", "wings") == 1
    assert "unknown effect 'wings'" in capsys.readouterr().err
    assert run("--count", 3) == 1
    assert "nowhere to write" in capsys.readouterr().err
    monkeypatch.setattr(sheets, "contact_sheet", None)  # a name that cannot be written is refused first
    assert run("--sheet", tmp_path / "sheet.txt", "--count", 1, "--size", SIZE) == 1
    assert "name it .png" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_streamed_samples_are_those_of_the_shards(made, monkeypatch):
    files = dict(tars.read_tar(made / shards.shard_name(1)))
    streamed = stream(size=SIZE, seed=2, start=3)
    for key in ("000000003", "000000004"):
        assert encode_arrays(sample_arrays(next(streamed))) == files[key]
    assert len(streaming._render(SPEC, 0)) == 3
    monkeypatch.setattr(visibility, "visibility_table", None)  # takes long, so it is not made for every chunk
    assert len(streaming._render(SPEC, 3)) == 3
    ahead = stream(size=SIZE, seed=2, start=3, workers=1)
    assert encode_arrays(sample_arrays(next(ahead))) == files["000000003"]
    ahead.close()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["grey", "colour", "deep"]), st.integers(0, 99)
)
def test_pictures_and_labels_survive_their_files(height, width, kind, seed):
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if kind == "colour" else (height, width)
    dtype = np.uint16 if kind == "deep" else np.uint8
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    content = png_bytes(pixels)
    assert np.array_equal(png_pixels(content), pixels) and content == png_bytes(pixels.copy())
    arrays = {"pixels": pixels.swapaxes(0, 1), "one": np.asarray(seed), "flags": rng.random(height) < 0.5}
    packed = npz_bytes(arrays)
    assert packed == npz_bytes(arrays)
    for name, values in npz_arrays(packed).items():
        assert np.array_equal(values, arrays[name]) and values.dtype == arrays[name].dtype
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None and archive.namelist() == ["pixels.npy", "one.npy", "flags.npy"]
