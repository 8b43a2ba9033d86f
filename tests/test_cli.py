"""The command on good and bad input: every case ends in whole files or one clear line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiface.cli.folders import unique_names
from hiface.cli.main import main
from hiface.cli.reconstruct import MethodOptions, expand_photos, parse_formats
from hiface.errors import HifaceError, UnreadableImageError
from hiface.export.texture import ALBEDO_BLEND
from portrait import portrait


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", *map(str, args)])
    return stop.value.code


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "anna.png"
    Image.fromarray(portrait()).save(path)
    return path


def rows(out):
    return {Path(r["photo"]).name: r for r in json.loads((out / "summary.json").read_text())}


def test_one_photo_gives_a_whole_folder(photo, tmp_path):
    out = tmp_path / "out"
    assert run(photo, "-o", out, "--format", "glb,obj,ply,json,overview", "--texture-size", "256") == 0
    names = {p.name for p in (out / "anna" / "person1").iterdir()}
    assert {"face.glb", "face.obj", "face.mtl", "face.ply", "face.json", "overview.png"} <= names
    assert rows(out)["anna.png"]["status"] == "ok"
    content = json.loads((out / "anna" / "person1" / "face.json").read_text())
    assert len(content["expression"]) == 52 and content["scale_source"] == "model_prior"


def test_bad_photos_do_not_stop_the_others(photo, tmp_path, capsys):
    Image.new("RGB", (320, 200), (40, 120, 200)).save(tmp_path / "sky.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    Image.new("RGB", (4000, 8)).save(tmp_path / "strip.png")
    Image.new("L", (12_000, 12_000)).save(tmp_path / "bomb.png")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:5000])
    out = tmp_path / "out"
    assert run(tmp_path, "-o", out, "--format", "json") == 1
    status = {name: row["status"] for name, row in rows(out).items()}
    assert status == {
        "anna.png": "ok",
        "sky.png": "no_face",
        "dot.png": "too_small",
        "tiny.png": "no_face",
        "strip.png": "no_face",
        "bomb.png": "too_large",
        "cut.png": "unreadable",
    }
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("no_face", "too_large", "unreadable"))


def test_resume_skips_what_is_done(photo, tmp_path):
    out = tmp_path / "out"
    assert run(photo, "-o", out, "--format", "json") == 0
    stamp = (out / "anna" / "person1" / "face.json").stat().st_mtime_ns
    assert run(photo, "-o", out, "--format", "json", "--resume") == 0
    assert (out / "anna" / "person1" / "face.json").stat().st_mtime_ns == stamp
    assert run(photo, "-o", out, "--format", "json", "--no-align", "--resume") == 0
    assert "done before" not in rows(out)["anna.png"]["detail"]
    assert (out / "anna" / "person1" / "face.json").stat().st_mtime_ns != stamp


def test_unwritable_output_is_one_line(photo, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(photo, "-o", tmp_path / "file" / "out") == 1
    assert "choose another folder with -o" in " ".join(capsys.readouterr().err.split())


def test_usage_errors(tmp_path, capsys):
    assert run(tmp_path / "missing*.jpg") == 1
    assert run("a.jpg", "--format", "fbx") == 1
    assert "comma-separated" in " ".join(capsys.readouterr().err.split())
    assert run("a.jpg", "--units", "inch") == 2


def test_names_patterns_and_formats(tmp_path):
    for name in ("b.jpg", "a.JPG", "c.txt"):
        (tmp_path / name).write_text("")
    assert [p.name for p in expand_photos((str(tmp_path),))] == ["a.JPG", "b.jpg"]
    assert [p.name for p in expand_photos((str(tmp_path / "*.jpg"), str(tmp_path / "b.jpg")))] == ["b.jpg"]
    assert unique_names([Path("x/a.jpg"), Path("y/a.png"), Path("b.png")]) == ["a", "a-2", "b"]
    clashing = [Path(name) for name in ("a.jpg", "A.png", "a.png", "a-2.jpg")]
    assert unique_names(clashing) == ["a", "A-3", "a-4", "a-2"]
    assert parse_formats("glb, obj,glb") == ("glb", "obj")
    (tmp_path / "empty").mkdir()
    for bad in [(), (str(tmp_path / "empty"),)]:
        with pytest.raises(UnreadableImageError):
            expand_photos(bad)
    with pytest.raises(HifaceError):
        parse_formats("")


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_interrupt_leaves_whole_folders_only(tmp_path):
    for i in range(30):
        Image.fromarray(np.roll(portrait(256), i, axis=1)).save(tmp_path / f"p{i:02d}.png")
    out = tmp_path / "out"
    # A test run may itself stand in the background, where SIGINT is ignored and would stay so.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from hiface.cli.main import main; main()"
    command = [sys.executable, "-c", code, "reconstruct", str(tmp_path / "p*.png"), "-o", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "200"}
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and len(list(out.glob("p*/photo.json"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130, printed
    assert "interrupted" in printed
    done = [p for p in out.iterdir() if p.is_dir()]
    assert 2 <= len(done) < 30
    for folder in done:
        assert not folder.name.startswith(".")
        assert {"face.glb", "face.json", "overview.png"} <= {p.name for p in (folder / "person1").iterdir()}
    assert len(json.loads((out / "summary.json").read_text())) in (len(done), len(done) + 1, len(done) - 1)


def test_photos_of_one_person_are_fitted_together(photo, tmp_path, capsys):
    Image.fromarray(portrait()[:, ::-1]).resize((300, 300)).save(tmp_path / "bella.png")
    Image.new("RGB", (320, 200), (40, 120, 200)).save(tmp_path / "sky.png")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:5000])
    out = tmp_path / "out"
    options = "--same-person", "--format", "json,maps,glb", "--texture-size", "256"
    assert run(*sorted(tmp_path.glob("*.png")), "-o", out, *options) == 1
    status = {name: row["status"] for name, row in rows(out).items()}
    assert status == {"anna.png": "ok", "bella.png": "ok", "cut.png": "unreadable", "sky.png": "no_face"}
    like = {name: row["likeness"] for name, row in rows(out).items()}
    assert like["anna.png"] == pytest.approx(like["bella.png"], abs=1e-5) and 0.3 <= like["anna.png"] <= 1
    assert like["cut.png"] is None and like["sky.png"] is None
    assert "likeness" in capsys.readouterr().out
    people = [out / name / "person1" for name in ("anna", "bella")]
    first, second = (json.loads((p / "face.json").read_text()) for p in people)
    assert first["identity"] == second["identity"] and first["albedo"] == second["albedo"]
    assert first["camera"] != second["camera"]
    static = [(p / "displacement_static.png").read_bytes() for p in people]
    assert static[0] == static[1]
    everything = sorted(tmp_path.glob("*.png"))
    assert run(*everything, "-o", out, *options, "--resume") == 1
    assert all("done before" in row["detail"] for row in rows(out).values())
    assert run(everything[0], "-o", out, *options[1:], "--resume") == 0
    assert "done before" not in rows(out)["anna.png"]["detail"]
    assert run(*everything, "-o", out, *options, "--resume") == 1
    assert not any("done before" in row["detail"] for row in rows(out).values())


def test_a_fine_mesh_larger_maps_and_the_photos_own_colour(photo, tmp_path, capsys):
    out = tmp_path / "out"
    options = "--refine", "--detail-size", "512", "--albedo-blend", "0", "--format", "dense,maps"
    assert run(photo, "-o", out, *options, "--texture-size", "256") == 0
    person = out / "anna" / "person1"
    assert Image.open(person / "displacement.png").size == (512, 512)
    lines = (person / "dense.obj").read_text().splitlines()
    assert sum(line.startswith("f ") for line in lines) > 100_000
    assert run(photo, "-o", out, "--detail-size", "512") == 1
    assert "--refine" in capsys.readouterr().err
    assert run(photo, "-o", out, "--refine", "--albedo-blend", "2") == 1
    assert "0..1" in capsys.readouterr().err


def test_same_person_without_a_face_or_with_other_options(tmp_path, capsys):
    Image.new("RGB", (320, 200), (40, 120, 200)).save(tmp_path / "sky.png")
    assert run(tmp_path / "sky.png", "-o", tmp_path / "out", "--same-person") == 1
    assert rows(tmp_path / "out")["sky.png"]["status"] == "no_face"
    assert run(tmp_path / "sky.png", "-o", tmp_path / "out", "--same-person", "--refine") == 1
    assert "--same-person fits by itself" in capsys.readouterr().err


def test_the_default_blend_is_the_texture_s():
    assert MethodOptions().albedo_blend == ALBEDO_BLEND
