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
