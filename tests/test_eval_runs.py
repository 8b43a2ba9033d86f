"""Predict, score, report: remembered, resumed, and clear about what is wrong with the data."""

import json

import numpy as np
import pytest
import torch

import hiface
from benchmark_data import Known, write_now, write_pts, write_realy, write_reference
from hiface.errors import EvaluationDataError, FitError, MeshFileError, TopologyError
from hiface.evaluation.protocols.landmarks import LandmarkBenchmark
from hiface.evaluation.protocols.now import NowBenchmark, read_landmarks, read_picked_points
from hiface.evaluation.protocols.realy import RealyBenchmark, read_template
from hiface.evaluation.runs import RunFolder, predict, score, write_result
from hiface.geometry.mesh_files import obj_text, read_mesh
from scans import shape


def run(benchmark, method, root, workers=1):
    folder = RunFolder(root)
    predict(benchmark, method, folder, lambda name: None)
    rows = score(benchmark, folder, workers, lambda name: None)
    return write_result(benchmark, method.name, rows, folder, "hiface eval")


def test_realy_from_pictures_to_a_table(tmp_path):
    data, images = write_realy(tmp_path)
    benchmark = RealyBenchmark(data, images, predicted=tmp_path / "run" / "predictions")
    exact = run(benchmark, Known(lambda v: 2 * v + 1), tmp_path / "run", workers=2)
    assert exact["statuses"] == {"ok": 2} and exact["summary"]["count"] == 2
    assert exact["summary"]["rigid"]["all"]["mean"] < 1e-3 and exact["summary"]["bent"]["all"]["mean"] < 0.05
    mean = run(benchmark, Known(lambda v: hiface.load_model().template), tmp_path / "mean")
    table = benchmark.table(mean["summary"])
    assert table[0] == ["mm", "all", "nose", "mouth", "forehead", "cheek"] and len(table) == 6
    assert mean["summary"]["bent"]["all"]["mean"] > 1.0
    nose = [row["scores"]["nose"]["bent"] for row in mean["rows"]]
    assert np.isclose(mean["summary"]["bent"]["nose"]["std"], np.std(nose, ddof=1))
    kept = json.loads((tmp_path / "mean" / "result.json").read_text())
    assert kept["rows"] == mean["rows"] and kept["machine"] and kept["command"] == "hiface eval"


def test_a_mask_of_the_template_says_where_the_mesh_is_measured(tmp_path):
    data, images = write_realy(tmp_path, people=(1,))
    model = hiface.load_model()
    nose_tip = model.landmarks("ibug68", model.template)[30]
    near_nose = (model.template - nose_tip).norm(dim=1) < 0.02
    mask, means = tmp_path / "mask.txt", {}
    for name, counts in (("all", torch.ones_like(near_nose)), ("without", ~near_nose)):
        mask.write_text(",".join(str(int(value)) for value in counts))
        benchmark = RealyBenchmark(data, images, mask=mask, predicted=tmp_path / name / "predictions")
        scores = run(benchmark, Known(), tmp_path / name)["rows"][0]["scores"]
        means[name] = {region: scores[region]["bent"] for region in ("nose", "forehead")}
    assert means["without"]["nose"] > 1.0 > 20 * means["all"]["nose"]
    assert means["without"]["forehead"] == pytest.approx(means["all"]["forehead"], abs=1e-3)
    mask.write_text("1,0,1")
    with pytest.raises(TopologyError, match="3 values"):
        benchmark.score(benchmark.items()[0], tmp_path / "all" / "predictions")


def test_a_second_run_does_nothing_anew_and_changed_meshes_are_scored_again(tmp_path):
    data = write_now(tmp_path)
    benchmark, method = NowBenchmark(data), Known()
    first = run(benchmark, method, tmp_path / "run")
    assert method.calls == 4 and method.loads == 1 and first["summary"]["all"]["mean"] < 0.02
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "scores").rglob("*.json")}
    again = run(benchmark, method, tmp_path / "run")
    assert method.calls == 4 and again["summary"] == first["summary"] and len(stamps) == 4
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    mesh = tmp_path / "run" / "predictions" / "P1" / "selfie" / "IMG_1.obj"
    mesh.write_text(obj_text(shape(9), hiface.load_model().triangles))
    third = run(benchmark, method, tmp_path / "run")
    changed = [
        a["name"] for a, b in zip(third["rows"], first["rows"], strict=True) if a["scores"] != b["scores"]
    ]
    assert changed == ["P1/selfie/IMG_1"] and method.calls == 4
    assert third["summary"]["selfie"]["mean"] > 10 * third["summary"]["multiview_neutral"]["mean"]


def test_now_pools_vertices_and_its_metrical_variant_sees_size(tmp_path):
    data = write_now(tmp_path)
    grown = run(NowBenchmark(data), Known(lambda v: 1.04 * v), tmp_path / "a")
    metrical = run(NowBenchmark(data, "m"), Known(lambda v: 1.04 * v), tmp_path / "b")
    assert grown["summary"]["all"]["mean"] < 0.02 and metrical["summary"]["all"]["mean"] > 0.4
    mean = run(NowBenchmark(data), Known(lambda v: hiface.load_model().template), tmp_path / "c")
    scores = [row["scores"] for row in mean["rows"]]
    weights = np.array([s["vertices"] for s in scores])
    assert np.isclose(
        mean["summary"]["all"]["mean"], np.average([s["mean"] for s in scores], weights=weights)
    )
    assert (
        min(s["median"] for s in scores)
        <= mean["summary"]["all"]["median"]
        <= max(s["median"] for s in scores)
    )


def test_pictures_without_a_face_are_rows(tmp_path):
    data, images = write_realy(tmp_path)
    (images / "2.png").write_bytes(b"no picture")
    from benchmark_data import picture

    picture(images / "1.png", 0)
    result = run(RealyBenchmark(data, images), Known(), tmp_path / "run")
    assert result["statuses"] == {"no_face": 1, "unreadable": 1} and result["summary"] == {"count": 0}


def test_what_was_mended_is_tried_again_and_what_is_gone_has_no_score(tmp_path):
    data = write_now(tmp_path, (1,))
    benchmark, root = NowBenchmark(data), tmp_path / "run"
    picked = next((data / "scans_lmks_onlypp" / "P1").glob("*.pp"))
    text = picked.read_text()
    picked.write_text("broken")
    assert run(benchmark, Known(), root)["statuses"] == {"mesh_file": 2}
    picked.write_text(text)
    assert run(benchmark, Known(), root)["statuses"] == {"ok": 2}
    other = run(NowBenchmark(data, "mm"), Known(), root)
    assert other["summary"]["all"]["mean"] > 10  # a unit is part of what was scored
    (root / "predictions" / "P1" / "selfie" / "IMG_1.npy").unlink()
    folder = RunFolder(root)
    rows = score(benchmark, folder, 1, lambda name: None)
    assert [row["status"] for row in rows] == ["ok", "missing"]
    picture = benchmark.items()[0].image
    content = picture.read_bytes()
    picture.write_bytes(b"no picture")
    assert run(benchmark, Known(), tmp_path / "b")["statuses"] == {"unreadable": 1, "ok": 1}
    picture.write_bytes(content)
    assert run(benchmark, Known(), tmp_path / "b")["statuses"] == {"ok": 2}


def test_few_open_files_are_enough_for_many_pictures(tmp_path):
    resource = pytest.importorskip("resource")
    for i in range(60):
        write_pts(tmp_path / str(i), [(10 + 0.3 * k, 10 + 0.2 * k) for k in range(68)])
    benchmark, folder = LandmarkBenchmark(tmp_path), RunFolder(tmp_path / "run")
    predict(benchmark, Known(), folder, lambda name: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        rows = score(benchmark, folder, 2, lambda name: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert {row["status"] for row in rows} == {"ok"} and len(rows) == 60


def test_faces_that_a_method_fails_on_count_as_not_found(tmp_path):
    points = [[10 + 0.3 * i, 10 + 0.2 * i] for i in range(68)]
    write_reference(tmp_path, [{"box": [10, 10, 30, 24], "landmarks68": points}], number=0)

    class Failing(Known):
        def reconstruct(self, photo):
            raise FitError("diverged")

    result = run(LandmarkBenchmark(tmp_path), Failing(), tmp_path / "run")
    assert result["summary"]["faces"] == 1 and result["summary"]["nme51"]["failures_percent"] == 100


@pytest.mark.parametrize("broken", ["order", "vertices", "nan_scan", "no_region", "keypoints", "scale"])
def test_what_is_wrong_with_realy_data_is_said(tmp_path, broken):
    data, images = write_realy(tmp_path, (1,))
    benchmark, folder = RealyBenchmark(data, images), RunFolder(tmp_path / "run")
    predict(benchmark, Known(), folder, lambda name: None)
    mesh = read_mesh(folder.predictions / "1.obj")
    if broken == "order":
        order = torch.randperm(len(mesh.vertices), generator=torch.Generator().manual_seed(0))
        (folder.predictions / "1.obj").write_text(
            obj_text(mesh.vertices[order], order.argsort()[mesh.triangles])
        )
    if broken == "vertices":
        (folder.predictions / "1.obj").write_text(obj_text(mesh.vertices[:-3], mesh.triangles[:100]))
    if broken == "nan_scan":
        path = data / "REALY_scan_region" / "1" / "nose.obj"
        path.write_text(path.read_text().replace("v ", "v nan ", 1))
    if broken == "no_region":
        (data / "REALY_scan_region" / "1" / "mouth.obj").unlink()
    if broken == "keypoints":
        path = data / "REALY_HIFI3D_keypoints" / "1.obj"
        path.write_text("\n".join(path.read_text().splitlines()[:70]))
    if broken == "scale":
        (data / "metrical_scale.txt").write_text("")
    row = score(benchmark, folder, 1, lambda name: None)[0]
    status, word = {
        "order": ("topology", "reordering"),
        "vertices": ("topology", "merging"),
        "nan_scan": ("mesh_file", "nose.obj"),
        "no_region": ("mesh_file", "mouth.obj"),
        "keypoints": ("evaluation_data", "70 keypoints"),
        "scale": ("evaluation_data", "no subject 1"),
    }[broken]
    assert row["status"] == status and word in row["reason"]


def test_layouts_are_checked_before_anything_runs(tmp_path):
    for benchmark, word in (
        (RealyBenchmark(tmp_path, tmp_path), "REALY_scan_region"),
        (NowBenchmark(tmp_path), "scans_lmks_onlypp"),
        (LandmarkBenchmark(tmp_path), "reference.json"),
    ):
        with pytest.raises(EvaluationDataError, match=word):
            benchmark.items()
    data, images = write_realy(tmp_path)
    with pytest.raises(EvaluationDataError, match=r"12_3\.jpg"):
        RealyBenchmark(data, tmp_path).items()
    assert [item.name for item in RealyBenchmark(data, images).items()] == ["1", "2"]


def test_landmarks_and_templates_of_predictions_are_checked(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 3)))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    (tmp_path / "b.txt").write_text("1 2 3\n" * 7)
    (tmp_path / "c.pp").write_text('<PickedPoints><point x="1" y="2"/></PickedPoints>')
    assert read_landmarks(tmp_path / "b.txt").shape == (7, 3)
    for path, read in (("a.npy", read_landmarks), ("o.npy", read_landmarks), ("c.pp", read_picked_points)):
        with pytest.raises(MeshFileError, match=path):
            read(tmp_path / path)
    (tmp_path / "t.obj").write_text(obj_text(torch.eye(3), torch.tensor([[0, 1, 2]])))
    for rows, error in (
        ([[0, 1, 0]] * 84, TopologyError),
        ([[7, 1, 0]] * 85, TopologyError),
        ("x", MeshFileError),
    ):
        (tmp_path / "t.txt").write_text(json.dumps(rows))
        with pytest.raises(error):
            read_template(tmp_path / "t.obj")


def test_landmarks_of_300w_count_pixels_from_one(tmp_path):
    write_pts(tmp_path, [(10 + 0.3 * i, 10 + 0.2 * i) for i in range(68)])
    result = run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "run")
    assert result["summary"]["nme68"]["mean_percent"] < 0.02 and result["summary"]["faces"] == 1


def test_landmark_errors_misses_and_false_finds(tmp_path):
    points = [[10 + 0.3 * i, 10 + 0.2 * i] for i in range(68)]
    eyes = float(np.hypot(0.3 * 9, 0.2 * 9))
    moved = [[x + 0.05 * eyes, y] for x, y in points]
    face = {"box": [10, 10, 30, 24], "landmarks68": moved}
    far = {"box": [50, 30, 60, 40], "landmarks68": [[55, 35]] * 68}
    write_reference(tmp_path, [face, far])
    summary = run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "a")["summary"]
    assert np.isclose(summary["nme51"]["mean_percent"], 5.0, atol=0.05)
    assert summary["found"] == 1 and summary["faces"] == 2 and summary["nme51"]["failures_percent"] == 50
    write_reference(tmp_path, [far])
    assert run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "b")["summary"]["false"] == 1
    write_reference(tmp_path, [far], other=[[9, 9, 31, 25]])
    assert run(LandmarkBenchmark(tmp_path), Known(), tmp_path / "c")["summary"]["false"] == 0
