"""`hiface eval` and `hiface compare` from the command line."""

import json

import pytest

from benchmark_data import Known, write_now, write_realy, write_reference
from hiface.cli.main import main


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


def test_predictions_made_elsewhere_are_scored_and_compared(tmp_path, capsys):
    from hiface.evaluation.protocols.realy import RealyBenchmark
    from hiface.evaluation.runs import RunFolder, predict

    data, images = write_realy(tmp_path)
    made = RunFolder(tmp_path / "made")
    predict(RealyBenchmark(data, images), Known(), made, lambda name: None)
    out = tmp_path / "out"
    options = "--data", data, "--predictions", made.predictions, "-o", out, "--workers", "1"
    assert run("eval", "realy", *options) == 0
    assert "REALY" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["statuses"] == {"ok": 2} and result["summary"]["rigid"]["all"]["mean"] < 1e-3
    template = made.predictions / "template.obj"
    assert (
        run("eval", "realy", *options[:4], "-o", tmp_path / "b", "--template", template, "--workers", "1")
        == 0
    )
    assert run("compare", out, tmp_path / "b", "--table", tmp_path / "t.md") == 0
    assert (tmp_path / "t.md").read_text() in capsys.readouterr().out


def test_our_own_method_on_landmarks_and_synthetic_people(tmp_path, capsys):
    people = tmp_path / "people"
    options = "--data", people, "--people", "2", "--method", "mean", "-o", tmp_path / "out", "--workers", "1"
    code = run("eval", "synthetic", *options)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert code == (0 if result["statuses"] == {"ok": 2} else 1)
    assert (tmp_path / "out" / "groups.md").is_file() and (tmp_path / "out" / "worst.png").is_file()
    assert result["summary"]["over_mean_face"] == pytest.approx(1.0, abs=1e-4)
    write_reference(tmp_path, [])
    assert run("eval", "landmarks", "--data", tmp_path, "--method", "mean", "-o", tmp_path / "c") == 0


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_options_that_would_not_be_looked_at_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    write_reference(tmp_path, [])
    template = tmp_path / "nope.obj"
    for args, word in (
        (("landmarks", "--data", tmp_path, "--template", template), "--template is for folder:PATH"),
        (("landmarks", "--data", tmp_path, "--seed", "3"), "--people and --seed are for synthetic"),
        (("tracking", "--data", tmp_path, "--seed", "3"), "give both"),
        (
            ("landmarks", "--data", tmp_path, "--template", template, "--predictions", tmp_path),
            "--template with --predictions is for realy",
        ),
    ):
        assert run("eval", *args, "-o", out) == 1
        assert word in said(capsys)


def test_a_mistyped_option_leaves_the_folder_free(tmp_path, capsys, monkeypatch):
    write_reference(tmp_path, [])
    out = tmp_path / "out"
    options = "eval", "landmarks", "--data", tmp_path, "-o", out
    assert run(*options, "--method", "mediapipe", "--mediapipe-model", tmp_path / "nope.task") == 1
    assert not (out / "run.json").exists() and "nope.task" in said(capsys)
    assert run(*options, "--method", "mean") == 0
    monkeypatch.chdir(tmp_path)
    assert run("eval", "landmarks", "--data", ".", "-o", "out", "--method", "mean") == 0
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    assert run(*options[:3], tmp_path, "-o", "f", "--method", f"folder:{meshes}") == 1
    capsys.readouterr()
    assert run(*options[:3], ".", "-o", "f", "--method", "folder:meshes") == 1
    assert "another run" not in said(capsys)
    assert run(*options[:3], ".", "-o", "f", "--method", "mean") == 1
    assert f"method folder:{meshes}, not mean" in said(capsys)


def test_a_missing_extra_is_told_before_people_are_made(tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "qdldl", None)
    people = tmp_path / "people"
    for protocol in ("synthetic", "realy"):
        assert run("eval", protocol, "--data", people, *(("--people", "1") * (protocol == "synthetic"))) == 1
        assert "pip install 'hiface[eval]'" in said(capsys)
    assert not people.exists()


def test_plots_have_the_kind_that_their_name_says(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    rows = [{"name": "1", "status": "ok"}]
    result = {"benchmark": "now", "benchmark_version": 1, "method": "a", "statuses": {"ok": 1}, "rows": rows}
    result["summary"] = {"all": {"median": 1.0, "below_tenths_of_mm": [0.0, 1.0]}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    for ending, start in (("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")):
        path = tmp_path / f"plot.{ending}"
        assert run("compare", tmp_path, "--plot", path) == 0
        assert path.read_bytes().startswith(start)
    assert run("compare", tmp_path, "--plot", tmp_path / "plot.bmp") == 1
    assert "must end in .png, .svg, .pdf" in said(capsys) and not (tmp_path / "plot.bmp").exists()


def test_names_are_printed_as_they_are(tmp_path, capsys):
    assert run("eval", "realy", "--data", tmp_path / "a:x:b[red]") == 1
    assert "a:x:b[red]" in said(capsys).replace(" ", "")
    meshes = tmp_path / ":x:[b]"
    meshes.mkdir()
    write_reference(tmp_path, [])
    assert (
        run("eval", "landmarks", "--data", tmp_path, "-o", tmp_path / "o", "--method", f"folder:{meshes}")
        == 1
    )
    both = capsys.readouterr()
    assert ":x:[b]" in "".join(both.out.split()) and ":x:[b]" in "".join(both.err.split())


def test_errors_are_one_line(tmp_path, capsys):
    for args, word in (
        (("realy", "--data", tmp_path / "none"), "own copy"),
        (("now", "--data", tmp_path), "scans_lmks_onlypp"),
        (("synthetic", "--data", tmp_path), "--people"),
        (("now", "--data", tmp_path, "--images", tmp_path), "for realy"),
        (("landmarks", "--data", tmp_path, "--metrical", "m"), "for now"),
        (("now", "--data", tmp_path, "--people", "3"), "synthetic"),
    ):
        assert run("eval", *args, "-o", tmp_path / "out") == 1
        assert word in " ".join(capsys.readouterr().err.split())
    write_reference(tmp_path, [])
    assert run("eval", "landmarks", "--data", tmp_path, "--method", "mean", "-o", tmp_path / "m") == 0
    assert run("eval", "landmarks", "--data", tmp_path, "--method", "landmarks", "-o", tmp_path / "m") == 1
    assert "method mean" in " ".join(capsys.readouterr().err.split())
    data = write_now(tmp_path / "n", (1,))
    assert run("eval", "now", "--data", data, "--method", "nobody", "-o", tmp_path / "out") == 1
    assert "unknown method" in " ".join(capsys.readouterr().err.split())
    assert run("compare", tmp_path / "none") == 1
    assert "hiface eval first" in " ".join(capsys.readouterr().err.split())
