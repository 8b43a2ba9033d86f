"""Measuring on people who do not exist: exact truth, groups, worst cases, clips, runs side by side."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.data import read_photo
from hiface.errors import EvaluationDataError, MeshFileError, OptionError
from hiface.evaluation import comparison, fairness
from hiface.evaluation.method import Prediction
from hiface.evaluation.prediction_files import read_prediction, write_prediction
from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
from hiface.evaluation.protocols.tracking import TrackingBenchmark, clip_scores
from hiface.evaluation.report import write_reliability
from hiface.evaluation.runs import RunFolder, predict, score, write_result
from hiface.evaluation.synthetic_clips import write_clips
from hiface.evaluation.synthetic_set import read_about, read_truth, typology_angle, write_set
from hiface.types import LandmarkSet


class Oracle:
    """Knows the truth of a set and gives it back, changed."""

    licence, description = "none", "truth"

    def __init__(self, data, name, change):
        self.data, self.name, self.change = data, name, change
        self.pictures = {}

    def load(self):
        for about in read_about(self.data):
            photo = read_photo(self.data / "pictures" / f"{about.name}.png")
            self.pictures[photo.image_srgb.tobytes()] = about

    def reconstruct(self, photo):
        about = self.pictures[photo.image_srgb.tobytes()]
        truth, model = read_truth(self.data, about.name), hiface.load_model()
        face = Prediction(
            torch.tensor(about.box),
            truth.landmarks68_px,
            truth.vertices,
            truth.neutral_vertices,
            model.triangles,
            {name: model.data.landmark_sets[name] for name in ("ibug68", "now7", "realy85")},
            "open",
            True,
            truth.displacement,
            lambda expression: truth.other_displacement,
        )
        return self.change(face, about)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_set(folder, 4, seed=3, size_px=160)
    return folder


def run(benchmark, method, root):
    folder = RunFolder(root)
    predict(benchmark, method, folder, lambda name: None)
    rows = score(benchmark, folder, 1, lambda name: None)
    return write_result(benchmark, method.name, rows, folder, "hiface eval")


def mean_face(face, about):
    model = hiface.load_model()
    shape = model.template
    other = torch.zeros_like(face.displacement)
    points = face.landmarks68_px + torch.tensor([0.05 * about.eyes_px, 0.0])
    return [
        replace(
            face,
            vertices=shape,
            neutral_vertices=shape,
            landmarks68_px=points,
            displacement=other,
            reexpress=lambda expression: other,
        )
    ]


def test_sets_are_made_once_and_alike(people, tmp_path):
    about = read_about(people)
    stamp = (people / "pictures" / "00002.png").stat().st_mtime_ns
    write_set(people, 4, seed=3, size_px=160)
    assert (people / "pictures" / "00002.png").stat().st_mtime_ns == stamp
    write_set(tmp_path / "again", 2, seed=3, size_px=160)
    assert read_about(tmp_path / "again") == about[:2]
    same = (tmp_path / "again" / "pictures" / "00001.png").read_bytes()
    assert same == (people / "pictures" / "00001.png").read_bytes()
    truth = read_truth(people, "00001")
    assert truth.displacement.shape == (1, 256, 256) and truth.landmarks68_px.shape == (68, 2)
    for options in ({"seed": 4}, {"size_px": 200}):
        with pytest.raises(EvaluationDataError, match="asked for"):
            write_set(people, 5, **({"seed": 3, "size_px": 160} | options))
    with pytest.raises(EvaluationDataError, match="4 people"):
        write_set(people, 3, seed=3, size_px=160)
    with pytest.raises(OptionError):
        write_set(tmp_path, 0)
    (people / "truth" / "00009.safetensors").write_bytes(b"x")
    with pytest.raises(EvaluationDataError, match="anew"):
        read_truth(people, "00009")


def test_the_truth_has_no_error_and_the_mean_face_that_of_the_mean_face(people, tmp_path):
    benchmark = SyntheticBenchmark(people)
    exact = run(benchmark, Oracle(people, "exact", lambda face, about: [face]), tmp_path / "a")
    summary = exact["summary"]
    assert exact["statuses"] == {"ok": 4} and summary["count"] == 4
    assert summary["true"]["all"] < 1e-3 and summary["rigid"]["all"] < 1e-3 and summary["now"]["all"] < 1e-2
    assert (
        summary["nme51_percent"] < 1e-3
        and summary["detail_um"]["other"] < 1e-3 < 1 < summary["detail_um"]["none"]
    )
    mean = run(benchmark, Oracle(people, "mean", mean_face), tmp_path / "b")["summary"]
    assert math.isclose(mean["over_mean_face"], 1.0, abs_tol=1e-5) and mean["true"]["all"] > 1.0
    assert math.isclose(mean["nme51_percent"], 5.0, abs_tol=0.05)
    assert math.isclose(mean["detail_um"]["other"], mean["detail_um"]["none"])
    table = benchmark.table(mean)
    assert all(len(row) == len(table[0]) for row in table)


def test_the_face_that_is_meant_is_scored_and_others_do_not_count(people, tmp_path):
    def far(face, about):
        return [replace(face, box=face.box + 1000.0)]

    def both(face, about):
        return [*far(face, about), face]

    benchmark = SyntheticBenchmark(people)
    assert run(benchmark, Oracle(people, "far", far), tmp_path / "a")["statuses"] == {"no_face": 4}
    assert run(benchmark, Oracle(people, "both", both), tmp_path / "b")["summary"]["true"]["all"] < 1e-3


def test_detail_alone(people, tmp_path):
    def kept(face, about):
        seen = face.displacement
        return [replace(face, reexpress=lambda expression: seen)]

    benchmark = SyntheticBenchmark(people, detail_only=True)
    result = run(benchmark, Oracle(people, "kept", kept), tmp_path)
    detail = result["summary"]["detail_um"]
    assert result["benchmark"] == "detail" and "true" not in result["summary"]
    assert detail["seen"] < 1e-3 and math.isclose(detail["other"], detail["kept"]) and detail["kept"] > 1


def test_groups_and_the_worst(people, tmp_path):
    benchmark, folder = SyntheticBenchmark(people), RunFolder(tmp_path)

    def one_bad(face, about):
        if about.name == "00002":
            return []
        return [face] if about.name != "00003" else mean_face(face, about)

    result = run(benchmark, Oracle(people, "x", one_bad), tmp_path)
    assert fairness.worst(result["rows"], 2) == ["00002", "00003"]
    groups = fairness.by_group(benchmark.about, result["rows"])
    for attribute in fairness.LIMITS:
        own = [row for row in groups if row.attribute == attribute]
        assert sum(row.count for row in own) == 4
        assert math.isclose(sum(row.count * row.found for row in own), 3)
    about = read_about(people)[0]
    assert fairness.group_of("skin", replace(about, skin_ita_deg=60.0)) == "very light"
    assert fairness.group_of("skin", replace(about, skin_ita_deg=-60.0)) == "dark"
    assert fairness.group_of("yaw", replace(about, yaw_deg=-50.0)) == "40 to 65"
    assert fairness.group_of("seen of the face", replace(about, visible=0.5)) == "below 60 %"
    paths = write_reliability(benchmark, result["rows"], folder)
    assert [path.name for path in paths] == ["groups.md", "worst.png"]
    assert paths[0].read_text().count("\n") == len(groups) + 2


def test_typology_angle_of_known_colours():
    light = torch.tensor([0.7, 0.48, 0.38])
    dark = torch.tensor([0.07, 0.035, 0.022])
    assert typology_angle(light) > 41 and typology_angle(dark) < -30


def test_saved_predictions_come_back(tmp_path):
    points = LandmarkSet("now7", torch.arange(7), torch.full((7, 3), 1 / 3))
    face = Prediction(
        torch.arange(4.0),
        None,
        torch.randn(9, 3),
        None,
        torch.zeros(8, 3).long(),
        {"now7": points},
        "t",
        True,
    )
    write_prediction(tmp_path / "a.safetensors", face, torch.ones(1, 2, 2))
    back, other = read_prediction(tmp_path / "a.safetensors")
    assert torch.equal(back.vertices, face.vertices) and back.neutral_vertices is None and back.metric
    assert torch.equal(back.keypoints["now7"].barycentric, points.barycentric) and back.topology == "t"
    assert other.shape == (1, 2, 2)
    for broken in (
        replace(face, triangles=face.triangles[:3]),
        replace(face, landmarks68_px=torch.zeros(51, 2)),
    ):
        write_prediction(tmp_path / "c.safetensors", broken)
        with pytest.raises(MeshFileError, match="whole"):
            read_prediction(tmp_path / "c.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(MeshFileError):
        read_prediction(tmp_path / "b.safetensors")


def test_tracking_counts_jitter_lost_frames_and_the_shape(tmp_path):
    write_clips(tmp_path / "clips", 1, frames=5)
    benchmark = TrackingBenchmark(tmp_path / "clips")
    items = benchmark.items()
    assert [item.name for item in items] == [f"s0-0001/{i:04d}" for i in range(5)]
    with pytest.raises(EvaluationDataError, match=r"is of generator .*, 5 frames .* asked for .*, 6 frames"):
        write_clips(tmp_path / "clips", 1, frames=6)
    shake = torch.tensor([[0.0, 0.0], [0.02, 0.0], [0.0, 0.0], [0.02, 0.0], [0.0, 0.0]]).double()
    model = hiface.load_model()

    class Shaking:
        name, licence, description = "shaking", "none", ""

        def load(self):
            pass

        def reconstruct(self, photo):
            i = next(k for k, item in enumerate(items) if item.image == photo.path)
            points = benchmark._frames[items[i].name].points
            eyes = float((points[36] - points[45]).norm())
            size = max(eyes, 0.12 * float((points.amax(0) - points.amin(0)).max()))
            shape = model.template + 1e-3 * float(i % 2) * model.identity_basis[0]
            sets = {"ibug68": model.data.landmark_sets["ibug68"]}
            return [
                Prediction(
                    items[i].box, points + shake[i] * size, shape, shape, model.triangles, sets, "open", True
                )
            ]

    summary = run(benchmark, Shaking(), tmp_path / "run")["summary"]
    assert math.isclose(summary["nme51_percent"], 0.8, abs_tol=0.01)
    assert math.isclose(summary["jitter_percent"], 4.0, abs_tol=0.01)
    assert summary["lost_percent"] == 0 and summary["shape_spread_mm"] > 0
    still = {"offsets": [[0.0, 0.0]] * 51}
    lost = clip_scores([still, None, still, still, still])
    assert lost["lost_percent"] == 20 and lost["jitter_percent"] == 0 and lost["shape_spread_mm"] is None
    assert len(benchmark.table(summary)) == 3
    with pytest.raises(EvaluationDataError, match="pts"):
        TrackingBenchmark(tmp_path / "run").items()


def test_runs_side_by_side(people, tmp_path):
    benchmark = SyntheticBenchmark(people)
    results = [
        run(benchmark, Oracle(people, "exact", lambda face, about: [face]), tmp_path / "a"),
        run(benchmark, Oracle(people, "mean", mean_face), tmp_path / "b"),
    ]
    table = comparison.markdown_table(results)
    assert table.splitlines()[2].startswith("| exact | 0.000 |") and "| 4 of 4 |" in table
    kept = json.loads((tmp_path / "b" / "result.json").read_text())
    assert comparison.figures_of(kept)["true, mm"] > 1
    with pytest.raises(EvaluationDataError, match="one benchmark"):
        comparison.markdown_table([results[0], {**results[1], "benchmark": "now"}])


def test_plots(people, tmp_path):
    pytest.importorskip("matplotlib")
    result = run(SyntheticBenchmark(people), Oracle(people, "mean", mean_face), tmp_path)
    curve = np.linspace(0, 1, 70).tolist()
    now = {**result, "benchmark": "now", "summary": {"all": {"below_tenths_of_mm": curve, "mean": 1.0}}}
    for results in ([result], [now, now]):
        assert comparison.plot(results).startswith(b"\x89PNG")
