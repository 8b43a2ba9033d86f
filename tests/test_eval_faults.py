"""What is wrong with the data of an evaluation is said, counted and never an old score."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from benchmark_data import Known, picture, write_now, write_pts, write_realy, write_reference
from hiface.errors import EvaluationDataError, MeshFileError, OptionError, TopologyError
from hiface.evaluation import comparison, fairness
from hiface.evaluation.metrics import open_scans
from hiface.evaluation.metrics.realy import (
    LEFT_OUT,
    REGIONS,
    keypoint_groups,
    keypoints_near,
    realy_errors,
)
from hiface.evaluation.protocols.landmarks import LandmarkBenchmark, read_pts
from hiface.evaluation.protocols.now import NowBenchmark
from hiface.evaluation.protocols.realy import RealyBenchmark, read_template
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.protocols.tracking import UNKNOWN, TrackingBenchmark, clip_scores
from hiface.evaluation.report import read_result, write_reliability
from hiface.evaluation.runs import RunFolder, predict, score, write_result
from hiface.evaluation.synthetic_set import read_about, write_set
from hiface.geometry.mesh_files import PlainMesh, obj_text, read_mesh
from hiface.methods.folder import FolderMethod
from scans import UNIT_M, predicted, shape, subject


def run(benchmark, method, root):
    folder = RunFolder(root)
    predict(benchmark, method, folder, lambda name: None)
    rows = score(benchmark, folder, 1, lambda name: None)
    return write_result(benchmark, method.name, rows, folder, "hiface eval")


def cut_by_plain_masks(person, monkeypatch, steps=0):
    """A subject whose forehead ends above the eyes."""
    masks = hiface.load_model().data.vertex_masks
    monkeypatch.setattr(open_scans, "region_masks", lambda model: {r: masks[r] for r in REGIONS})
    return subject(person, steps)


@pytest.mark.parametrize("steps", [0, 1])
def test_keypoints_far_from_a_region_do_not_bend_a_perfect_prediction(monkeypatch, steps):
    person = shape(1)
    truth = cut_by_plain_masks(person, monkeypatch, steps)
    errors = realy_errors(predicted(person), truth)
    assert max(errors[region]["bent"] for region in REGIONS) < 0.05
    groups = keypoint_groups()["bent_by"]
    assert errors["forehead"][LEFT_OUT] == len(groups["forehead"]) == 22
    assert [errors[region][LEFT_OUT] for region in ("nose", "mouth", "cheek")] == [0, 0, 0]


def test_single_keypoints_are_left_out_and_the_others_pull():
    person = shape(1)
    truth = subject(person, 1)
    assert keypoints_near(truth, "forehead") == keypoint_groups()["bent_by"]["forehead"]
    keypoints = truth.keypoints.clone()
    keypoints[[40, 41]] += 6e-3 / UNIT_M * torch.tensor([0.0, 0.0, 1.0])
    moved = replace(truth, keypoints=keypoints)
    assert set(keypoint_groups()["bent_by"]["forehead"]) - set(keypoints_near(moved, "forehead")) == {40, 41}
    # brows alone lie in a line at the edge: what is a little wrong with them would grow over the forehead
    keypoints[36:48] += 0.1 / UNIT_M * torch.tensor([0.0, 0.0, 1.0])
    assert keypoints_near(replace(truth, keypoints=keypoints), "forehead") == []


@pytest.mark.parametrize("loose", [[100], [100, 101, 102, 103], list(range(0, 9000, 400))])
def test_loose_pieces_of_a_region_change_little_and_end(loose):
    person, other, model = shape(1), shape(4), hiface.load_model()
    truth = subject(person, 1)
    places, corners = torch.unique(model.triangles[loose], return_inverse=True)
    more = person.double()[places] / UNIT_M
    regions = {
        name: PlainMesh(
            torch.cat([mesh.vertices.double(), more]),
            torch.cat([mesh.triangles, corners.reshape(-1, 3) + len(mesh.vertices)]),
        )
        for name, mesh in truth.regions.items()
    }
    torn = replace(truth, regions=regions)
    exact, clean = realy_errors(predicted(person), torn), realy_errors(predicted(other), truth)
    found = realy_errors(predicted(other), torn)
    for region in REGIONS:
        assert exact[region]["bent"] < 0.05, region
        assert abs(found[region]["bent"] / clean[region]["bent"] - 1) < 0.12, region


def test_keypoints_that_were_left_out_are_told(tmp_path, monkeypatch):
    masks = hiface.load_model().data.vertex_masks
    monkeypatch.setattr(open_scans, "region_masks", lambda model: {r: masks[r] for r in REGIONS})
    data, images = write_realy(tmp_path)
    benchmark = RealyBenchmark(data, images)
    result = run(benchmark, Known(), tmp_path / "run")
    assert result["rows"][0]["scores"]["forehead"][LEFT_OUT] == 22
    assert result["summary"][LEFT_OUT] == {"nose": 0, "mouth": 0, "forehead": 44, "cheek": 0}
    assert benchmark.table(result["summary"])[-1] == ["keypoints left out, in all", "", "0", "0", "44", "0"]
    assert result["summary"]["bent"]["forehead"]["mean"] < 0.05


def test_corrected_ground_truth_of_realy_is_scored_again(tmp_path):
    data, images = write_realy(tmp_path)
    benchmark, root, method = RealyBenchmark(data, images), tmp_path / "run", Known(lambda v: 1.1 * v)
    first = run(benchmark, method, root)["rows"]
    lines = (data / "metrical_scale.txt").read_text().splitlines()
    (data / "metrical_scale.txt").write_text(f"{2 * float(lines[0])}\n{lines[1]}\n")
    stamp = (root / "scores" / "2.json").stat().st_mtime_ns
    second = run(benchmark, method, root)["rows"]
    assert second[0]["scores"]["nose"]["rigid"] == pytest.approx(2 * first[0]["scores"]["nose"]["rigid"])
    assert second[1] == first[1] and (root / "scores" / "2.json").stat().st_mtime_ns == stamp
    region = data / "REALY_scan_region" / "2" / "nose.obj"
    scan = read_mesh(region)
    region.write_text(obj_text(scan.vertices + 0.3, scan.triangles))
    third = run(benchmark, method, root)["rows"]
    assert third[0] == second[0] and third[1]["scores"]["nose"] != first[1]["scores"]["nose"]
    region.write_text("v 1 2 3\n")
    (data / "REALY_HIFI3D_keypoints" / "1.obj").unlink()
    last = run(benchmark, method, root)["rows"]
    assert [row["status"] for row in last] == ["mesh_file", "mesh_file"] and method.calls == 2
    assert "1.obj does not exist" in last[0]["reason"]


def test_corrected_ground_truth_of_now_and_points_is_scored_again(tmp_path):
    data = write_now(tmp_path, (1,))
    benchmark = NowBenchmark(data)
    before = run(benchmark, Known(), tmp_path / "run")["summary"]["all"]["mean"]
    scan = data / "scans" / "P1" / "scan.obj"
    mesh = read_mesh(scan)
    scan.write_text(obj_text(mesh.vertices * torch.tensor([1.0, 1.1, 1.0]), mesh.triangles))
    assert run(benchmark, Known(), tmp_path / "run")["summary"]["all"]["mean"] > 10 * before
    picked = next((data / "scans_lmks_onlypp" / "P1").glob("*.pp"))
    picked.write_text("cut short")
    assert run(benchmark, Known(), tmp_path / "run")["statuses"] == {"mesh_file": 2}
    points = [(10 + 0.3 * i, 10 + 0.2 * i) for i in range(68)]
    photos = write_pts(tmp_path / "photos", points)
    run(LandmarkBenchmark(photos), Known(), tmp_path / "b")
    write_pts(photos, [(x + 1, y) for x, y in points])
    again = run(LandmarkBenchmark(photos), Known(), tmp_path / "b")
    assert again["summary"]["nme51"]["mean_percent"] > 10


@pytest.mark.parametrize("line", ["1 8.95", "8.95 8.95", "eight", "nan", "-3", ""])
def test_lines_of_the_scale_that_are_no_number_are_named(tmp_path, line):
    data, images = write_realy(tmp_path)
    scales = data / "metrical_scale.txt"
    scales.write_text(f"8.95\n{line}\n8.95\n")
    with pytest.raises(EvaluationDataError, match=r"one number above 0 in each line.*line 2"):
        RealyBenchmark(data, images).items()


def test_templates_are_read_as_json_and_as_rows_and_before_anything_else(tmp_path):
    data, images = write_realy(tmp_path, (1,))
    made = RunFolder(tmp_path / "made")
    predict(RealyBenchmark(data, images), Known(), made, lambda name: None)
    template = made.predictions / "template.txt"
    rows = json.loads(template.read_text())
    _, wanted = read_template(template.with_suffix(".obj"))
    for text in (
        "\n".join(" ".join(map(str, row)) for row in rows),
        "\n".join(",".join(map(str, row)) for row in rows),
        "\n".join(str(row) for row in rows),
    ):
        template.write_text(text)
        _, found = read_template(template.with_suffix(".obj"))
        assert torch.equal(found.triangle_ids, wanted.triangle_ids)
        assert torch.equal(found.barycentric, wanted.barycentric)
    template.write_text("nose 1 2\n")
    mask = tmp_path / "mask.txt"
    elsewhere = RealyBenchmark(data, predicted=made.predictions)
    with pytest.raises(MeshFileError, match=r"template\.txt cannot be read as rows"):
        elsewhere.items()
    template.write_text(json.dumps(rows))
    for text, error, word in (
        ("1 0 1", TopologyError, "3 values"),
        ("1 0 x", MeshFileError, "0 and 1"),
        ("1 0 2", MeshFileError, "other numbers"),
    ):
        mask.write_text(text)
        with pytest.raises(error, match=word):
            replace(elsewhere, mask=mask).items()
    with pytest.raises(MeshFileError, match=r"nope\.obj with 85 keypoints in nope\.txt"):
        replace(elsewhere, template=tmp_path / "nope.obj").items()


def test_what_realy_lacks_is_named(tmp_path):
    data, _ = write_realy(tmp_path, (1,))
    with pytest.raises(EvaluationDataError, match=r"--images.*--predictions"):
        RealyBenchmark(data, predicted=tmp_path / "none").items()
    with pytest.raises(EvaluationDataError, match="--images is where"):
        RealyBenchmark(data, tmp_path / "none").items()


def test_capital_suffixes_of_predictions_are_found(tmp_path):
    data, images = write_realy(tmp_path, (1,))
    made = RunFolder(tmp_path / "made")
    predict(RealyBenchmark(data, images), Known(), made, lambda name: None)
    for name in ("1", "template"):
        (made.predictions / f"{name}.obj").rename(made.predictions / f"{name}.OBJ")
    benchmark = RealyBenchmark(data, predicted=made.predictions)
    folder = RunFolder(tmp_path / "run", made.predictions)
    assert [row["status"] for row in score(benchmark, folder, 1, lambda name: None)] == ["ok"]
    now = write_now(tmp_path, (1,))
    predict(NowBenchmark(now), Known(), made, lambda name: None)
    item = NowBenchmark(now).items()[0]
    path = made.predictions / f"{item.name}.obj"
    path.rename(path.with_suffix(".OBJ"))
    path.with_suffix(".npy").rename(path.with_suffix(".NPY"))
    assert len(NowBenchmark(now).saved(item, made.predictions)) == 2


def test_meshes_of_a_folder_that_are_missing_are_missing_until_they_are_there(tmp_path):
    write_reference(tmp_path, [{"box": [10, 10, 30, 24], "landmarks68": [[10 + k, 10] for k in range(68)]}])
    (tmp_path / "meshes").mkdir()
    benchmark = LandmarkBenchmark(tmp_path)
    result = run(benchmark, FolderMethod(tmp_path / "meshes"), tmp_path / "run")
    assert result["statuses"] == {"missing": 1} and "neither b.obj nor b.ply" in result["rows"][0]["reason"]
    assert result["summary"]["nme51"]["failures_percent"] == 100
    (tmp_path / "meshes" / "b.obj").write_text(obj_text(shape(1), hiface.load_model().triangles))
    notes = {"landmarks68": [[10 + k, 10] for k in range(68)]}
    (tmp_path / "meshes" / "b.json").write_text(json.dumps(notes))
    assert run(benchmark, FolderMethod(tmp_path / "meshes"), tmp_path / "run")["statuses"] == {"ok": 1}
    (tmp_path / "meshes" / "b.obj").unlink()
    assert run(benchmark, FolderMethod(tmp_path / "meshes"), tmp_path / "run")["statuses"] == {"missing": 1}


def test_now_names_the_files_that_a_folder_lacks(tmp_path):
    data = write_now(tmp_path, (1,))
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    rest, marks = shape(1), hiface.load_model().landmarks("now7", shape(1))
    for challenge in ("selfie", "multiview_neutral"):
        path = meshes / challenge / "IMG_1.obj"
        path.parent.mkdir()
        path.write_text(obj_text(rest, hiface.load_model().triangles))
    rows = run(NowBenchmark(data), FolderMethod(meshes), tmp_path / "run")["rows"]
    assert all("IMG_1.neutral.obj" in row["reason"] for row in rows)
    for challenge in ("selfie", "multiview_neutral"):
        path = meshes / challenge / "IMG_1.neutral.obj"
        path.write_text(obj_text(rest, hiface.load_model().triangles))
    rows = run(NowBenchmark(data), FolderMethod(meshes), tmp_path / "run")["rows"]
    assert all("IMG_1.npy" in row["reason"] for row in rows)
    np.save(meshes / "selfie" / "IMG_1.npy", marks.numpy())
    statuses = run(NowBenchmark(data), FolderMethod(meshes), tmp_path / "run")["statuses"]
    assert statuses == {"ok": 1, "topology": 1}


def test_the_median_of_now_is_no_bin(tmp_path):
    data = write_now(tmp_path, (1,))
    benchmark = NowBenchmark(data)
    result = run(benchmark, Known(), tmp_path / "a")
    rows, pooled = result["rows"], result["summary"]["all"]
    exact = [row["scores"]["median"] for row in rows]
    assert min(exact) <= pooled["median"] <= max(exact) < 1e-3
    other = run(benchmark, Known(lambda v: hiface.load_model().template), tmp_path / "b")["rows"]
    one = benchmark.summarise(other[:1])["all"]["median"]
    assert one == other[0]["scores"]["median"] > 0.1


def test_one_file_of_points_that_is_cut_short_is_one_row(tmp_path):
    points = [(10 + 0.3 * i, 10 + 0.2 * i) for i in range(68)]
    write_pts(tmp_path / "a", points)
    write_pts(tmp_path / "b", points)
    torn = tmp_path / "b" / "afw" / "a.pts"
    whole = torn.read_text()
    torn.write_text(whole[:200])
    result = run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "run")
    assert result["statuses"] == {"ok": 1, "evaluation_data": 1} and result["summary"]["faces"] == 1
    assert "cut short" in result["rows"][1]["reason"] and "substring" not in result["rows"][1]["reason"]
    torn.write_text(whole.replace("}", "1 2\n}"))
    with pytest.raises(EvaluationDataError, match="69 points"):
        read_pts(torn)
    torn.write_text(whole)
    assert run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "run")["statuses"] == {"ok": 2}


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"file": "b.png"}, "entry 2 has no 'faces'"),
        ({"faces": []}, "entry 2 has no 'file'"),
        ({"file": "b.png", "faces": [{"box": [0, 0, 1, 1]}]}, "has no 'landmarks68'"),
        ({"file": "b.png", "faces": [{"box": [0, 0, 1], "landmarks68": [[0, 0]] * 68}]}, r"box \(3,\)"),
        ({"file": "b.png", "faces": [{"box": [0, 0, 1, 1], "landmarks68": [[0, 0]] * 5}]}, r"\(5, 2\)"),
        ({"file": "a.png", "faces": []}, "named twice"),
        (["b.png"], "another form"),
    ],
)
def test_what_is_wrong_in_a_reference_is_named(tmp_path, entry, word):
    listed = tmp_path / "reference.json"
    listed.write_text(json.dumps([{"file": "a.png", "faces": []}, entry]))
    with pytest.raises(EvaluationDataError, match=word) as error:
        LandmarkBenchmark(tmp_path).items()
    assert "KeyError" not in str(error.value) and "Error(" not in str(error.value)
    listed.write_text(json.dumps(entry if isinstance(entry, dict) else "x"))
    with pytest.raises(EvaluationDataError, match="must hold a list"):
        LandmarkBenchmark(tmp_path).items()


def test_frames_without_points_are_unknown_and_not_bridged(tmp_path):
    shift = [0.0, 0.0, 1.0, 0.0, 0.0]
    offsets = [{"offsets": [[value, 0.0]] * 51} for value in shift]
    whole = clip_scores(offsets)
    bridged = clip_scores([*offsets[:2], *offsets[3:]])
    torn = clip_scores([*offsets[:2], UNKNOWN, *offsets[3:]])
    assert whole["jitter_percent"] == pytest.approx(400 / 3) and bridged["jitter_percent"] == 0
    assert torn["jitter_percent"] is None and torn["lost_percent"] == 0
    for i in range(5):
        picture(tmp_path / "clip" / f"{i}.png", 1)
        rows = "\n".join(f"{10.8 + 0.3 * k} {10.7 + 0.2 * k}" for k in range(68))
        (tmp_path / "clip" / f"{i}.pts").write_text(f"n_points: 68\n{{\n{rows}\n}}\n")

    class Close(Known):
        def reconstruct(self, photo):
            return [
                replace(face, box=torch.tensor([10.0, 10, 30, 24])) for face in super().reconstruct(photo)
            ]

    assert run(TrackingBenchmark(tmp_path), Close(), tmp_path / "a")["summary"]["jitter_percent"] == 0
    (tmp_path / "clip" / "2.pts").unlink()
    (tmp_path / "clip" / "4.pts").write_text("n_points: 68\n{\n1 2")
    benchmark = TrackingBenchmark(tmp_path)
    result = run(benchmark, Close(), tmp_path / "b")
    assert result["statuses"] == {"ok": 3, "evaluation_data": 1} and result["summary"]["unknown"] == 2
    assert result["summary"]["jitter_percent"] is None and result["summary"]["lost_percent"] == 0
    assert benchmark.table(result["summary"])[-1][0] == "frames without points"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_set(folder, 2, seed=3, size_px=96)
    return folder


def test_a_broken_portrait_is_a_grey_panel(people, tmp_path):
    shutil.copytree(people, tmp_path / "set")
    (tmp_path / "set" / "pictures" / "00001.png").write_bytes(b"no picture")

    class Nobody(Known):
        def reconstruct(self, photo):
            return []

    benchmark, folder = SyntheticBenchmark(tmp_path / "set"), RunFolder(tmp_path / "run")
    result = run(benchmark, Nobody(), tmp_path / "run")
    assert result["statuses"] == {"unreadable": 1, "no_face": 1}
    sheet = np.asarray(Image.open(write_reliability(benchmark, result["rows"], folder)[1]))
    assert (sheet[100:200, 50:200] == 128).all()


def test_sets_that_differ_or_are_not_whole_are_refused(people, tmp_path):
    with pytest.raises(
        EvaluationDataError, match="people of seed 3, pixels 96; asked for seed 5, pixels 320"
    ):
        write_set(people, 2, seed=5)
    with pytest.raises(EvaluationDataError, match="seed 3; asked for seed 5"):
        read_about(people, seed=5)
    assert len(read_about(people, seed=3)) == 2

    def stop(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path, 2, seed=3, size_px=96, advance=stop)
    with pytest.raises(EvaluationDataError, match=r"1 of 2 people.*--people 2 --seed 3"):
        read_about(tmp_path)
    write_set(tmp_path, 2, seed=3, size_px=96)
    assert read_about(tmp_path) == read_about(people)
    head = json.loads((tmp_path / "set.json").read_text())
    del head["people"]  # as older versions wrote it
    (tmp_path / "set.json").write_text(json.dumps(head))
    assert len(read_about(tmp_path)) == 2


def result_of(method, names, **summary):
    rows = [{"name": name, "status": "ok"} for name in names]
    return {
        "benchmark": "synthetic",
        "benchmark_version": 1,
        "method": method,
        "summary": summary,
        "rows": rows,
        "statuses": {"ok": len(rows)},
    }


def test_results_of_other_pictures_name_both_runs(tmp_path):
    one, two = result_of("mean", ["1", "2"]), result_of("eos", ["1", "2", "3"])
    with pytest.raises(EvaluationDataError, match="mean has 2, eos has 3, and 3 is in one"):
        comparison.markdown_table([one, two])
    with pytest.raises(EvaluationDataError, match="nope does not exist"):
        read_result(tmp_path / "nope")
    (tmp_path / "x.json").write_text('{"benchmark": "now"}')
    with pytest.raises(EvaluationDataError, match="it lacks method, summary, rows, statuses"):
        read_result(tmp_path / "x.json")


def test_plots_hold_every_tick_and_the_legend_lies_outside(monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    kept = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *args, **kwargs: kept.append(self))
    whole = result_of("a", "1", true={"all": 2.0}, detail_um={"other": 70.0})
    without = [result_of(name, "1", true={"all": 2.0}) for name in "bcdef"]
    comparison.plot([whole, *without])
    for axes in kept[0].axes:
        assert axes.get_xlim()[0] <= -0.5 and axes.get_xlim()[1] >= len(axes.get_xticks()) - 0.5
        assert axes.get_legend() is None
    assert len(kept[0].legends) == 1
    with pytest.raises(OptionError, match="png, svg, pdf"):
        comparison.plot([whole], "bmp")


def test_groups_of_one_have_no_standard_error(people):
    about = {one.name: one for one in read_about(people)}
    rows = [
        {"name": name, "status": "ok", "scores": {"mm": {"true": {"all": 2.4}, "mean_face": {"all": 3.0}}}}
        for name in about
    ]
    text = fairness.markdown(fairness.by_group(about, rows))
    assert "| 2.40 ± 0.00 |" in text  # both in one group
    assert "2.40 |" in fairness.markdown(fairness.by_group(about, rows[:1])) and "± |" not in text
    assert "±" not in fairness.markdown(fairness.by_group(about, rows[:1]))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py")), ids=lambda path: path.name
)
def test_benchmarks_do_not_write_what_the_documents_quote_unasked(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert "results" not in given.get("default", "") and "RESULT" not in given.get("default", "")


def test_detail_alone_has_one_column(people):
    table = SyntheticBenchmark(people, detail_only=True).table({"detail_um": {"seen": 1.0, "other": 2.0}})
    assert table[0] == ["detail", "all"] and all(len(row) == 2 for row in table)
