"""`hiface models`: list, info and convert."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

import model_files as make
from hiface.cli.main import main
from hiface.cli.models import check_model
from hiface.morphable import load_model
from hiface.morphable.readers import FORMATS
from hiface.types import LandmarkSet


def run(capsys, monkeypatch, *args):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main(["models", *map(str, args)])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def test_list_names_every_format(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "list")
    assert code == 0
    for entry in FORMATS.values():
        assert entry.title.split(",")[0] in out
    assert "hiface[eval]" in out and "MIT" in out and "Apache-2.0" in out


def test_list_breaks_no_name_on_a_narrow_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["models", "list"])
    words = capsys.readouterr().out.split()
    for entry in FORMATS.values():
        assert set(entry.files.split()) <= set(words) and set(entry.source.replace(",", " ").split()) <= {
            word.strip(",") for word in words
        }


def test_a_folder_without_a_name_is_named(capsys, monkeypatch):
    code, _, err = run(capsys, monkeypatch, "info", "/")
    assert code == 1 and "hiface: /: expected a face model" in " ".join(err.split())


def test_info_of_the_open_model(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "info", "open")
    assert code == 0
    assert "4,823" in out and "52 coefficients 0..1" in out and "ibug68 (68)" in out and "all passed" in out
    assert check_model(load_model("open").data) == []


def test_info_tells_what_looks_wrong(capsys, monkeypatch, tmp_path):
    content = make.flame_content()
    content["v_template"] = 100 * content["v_template"]
    (tmp_path / "flame2023.pkl").write_bytes(make.flame_bytes(content))
    code, out, _ = run(capsys, monkeypatch, "info", tmp_path / "flame2023.pkl")
    assert code == 0
    assert "flame 2023" in out and "with pose correctives" in out and "in sigma" in out
    assert "98 vertices; the published mesh has 5,023" in out and "another unit" in out


def test_checks_of_the_eyes():
    data = load_model("open").data
    large = replace(data, template=1.3 * data.template)
    assert any("outer eye corners are" in problem for problem in check_model(large))
    points = data.landmark_sets["ibug68"]
    order = torch.arange(68)
    order[[36, 45]] = order[[45, 36]]
    swapped = LandmarkSet("ibug68", points.triangle_ids[order], points.barycentric[order])
    mirrored = replace(data, landmark_sets={"ibug68": swapped})
    assert check_model(mirrored) == ["the left eye is not at +X: the file may be mirrored or have other axes"]


def test_convert_keeps_the_licence(capsys, monkeypatch, tmp_path):
    make.write_bfm2009(tmp_path / "01_MorphableModel.mat")
    out = tmp_path / "new" / "bfm.safetensors"
    code, _, err = run(capsys, monkeypatch, "convert", tmp_path / "01_MorphableModel.mat", "-o", out)
    assert code == 0 and "non-commercial research only" in err
    with safe_open(out, "pt") as file:
        assert "University of Basel" in file.metadata()["licence"]
    code, said, _ = run(capsys, monkeypatch, "info", out)
    assert code == 0 and "bfm2009 2009" in said and "um (of the format)" in said
    before = load_model(tmp_path / "01_MorphableModel.mat")
    np.testing.assert_array_equal(load_model(out).template.numpy(), before.template.numpy())


def test_bad_input_is_one_line(capsys, monkeypatch, tmp_path):
    code, out, err = run(capsys, monkeypatch, "info", tmp_path / "nothing.pkl")
    assert code == 1 and not out and "unknown face model" in err
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'echo no'\ntR.")
    code, out, err = run(
        capsys, monkeypatch, "convert", tmp_path / "evil.pkl", "-o", tmp_path / "a.safetensors"
    )
    assert code == 1 and "os.system" in err and not (tmp_path / "a.safetensors").exists()
    code, _, err = run(capsys, monkeypatch, "convert", "open", "-o", tmp_path / "a.pkl")
    assert code == 1 and ".safetensors" in err
    code, _, _ = run(capsys, monkeypatch, "nonsense")
    assert code == 2
