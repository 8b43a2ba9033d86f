"""Times of methods in one run: who ran, in which order, what stands in the file, what a stop leaves."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.cli.bench import machine, parse_methods, rows
from hiface.cli.main import main
from hiface.errors import FitError, MissingExtraError, OptionError
from hiface.evaluation.method import Prediction
from hiface.methods.timing import Bench, MethodTimes, Timing
from portrait import portrait


class Clock:
    """Stands in for time.perf_counter; methods move it on."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class TimedMethod:
    licence, description = "none", "takes as long as it is told"

    def __init__(self, name, seconds, clock, log, fails_at=(), stops_at=None):
        self.name, self.seconds, self.clock, self.log = name, iter(seconds), clock, log
        self.fails_at, self.stops_at, self.calls = fails_at, stops_at, 0

    def load(self):
        self.log.append(("load", self.name))

    def reconstruct(self, photo):
        self.calls += 1
        if self.calls == self.stops_at:
            raise KeyboardInterrupt
        self.log.append((photo.path.name, self.name))
        if photo.path.name in self.fails_at:
            raise FitError("no pose")
        self.clock.now += next(self.seconds)
        return [Prediction(torch.zeros(4))] * 2


class AbsentMethod(TimedMethod):
    def load(self):
        raise MissingExtraError("type: pip install absent")


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("hiface.methods.timing.time", made)
    return made


@pytest.fixture
def photos(tmp_path):
    found = []
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
        found.append(tmp_path / name)
    return found


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *map(str, args)])
    return stop.value.code


def test_methods_take_turns_and_times_are_paired(clock, photos):
    """The second round is five times slower for all, which no ratio may show."""
    log = []
    slow = [9.0, *[2.0] * 3, *[10.0] * 3, *[4.0] * 3]
    fast = [5.0, *[1.0] * 3, *[5.0] * 3, *[1.0] * 3]
    bench = Bench([TimedMethod("slow", slow, clock, log), TimedMethod("hiface", fast, clock, log)], photos)
    said = []
    timing = bench.run(3, said.append)
    assert len(said) == bench.steps(3) == 2 * (2 + 9)
    assert log[:2] == [("load", "slow"), ("load", "hiface")]
    assert log[2:4] == [("1.png", "slow"), ("1.png", "hiface")]  # the warm-up
    first_round = [("1.png", "slow"), ("1.png", "hiface"), ("2.png", "hiface"), ("2.png", "slow")]
    assert log[4:8] == first_round and log[8:10] == [("3.png", "slow"), ("3.png", "hiface")]
    assert timing.finished and timing.photos == [str(p) for p in photos]
    one, two = rows(timing)
    assert one["name"] == "slow" and one["median_s"] == 4.0 and one["fastest_s"] == 2.0
    assert two["median_s"] == 1.0 and one["ratio"] == 2.0 and two["ratio"] == 1.0
    assert one["faces"] == 6 and one["faces_by_photo"][str(photos[0])] == 2
    assert len(one["rounds"]) == 3 and one["rounds"][1][str(photos[1])] == 10.0


def test_a_photo_on_which_one_fails_counts_for_none(clock, photos):
    log = []
    sound = TimedMethod("hiface", [1.0, 1.0, 50.0, 1.0], clock, log)
    broken = TimedMethod("other", [9.0, 3.0, 3.0], clock, log, fails_at=("2.png",))
    timing = Bench([sound, broken], photos).run(1, lambda _: None)
    own, other = rows(timing)
    assert own["median_s"] == 1.0 and other["median_s"] == 3.0 and other["ratio"] == 3.0
    assert other["errors"] == {str(photos[1]): "no pose"} and own["errors"] == {}
    assert own["faces"] == 6 and other["faces"] == 4


def test_absent_methods_become_rows(clock, photos):
    log = []
    methods = [AbsentMethod("hiface", [], clock, log), TimedMethod("b", [9.0, *[2.0] * 3], clock, log)]
    absent, there = rows(Bench(methods, photos).run(1, lambda _: None))
    assert absent["status"] == "missing_extra" and absent["reason"] == "type: pip install absent"
    assert absent["median_s"] is None and absent["ratio"] is None
    assert there["median_s"] == 2.0 and there["ratio"] == 1.0  # the first that ran is the measure


def test_a_stop_keeps_whole_rounds(clock, photos):
    log = []
    methods = [
        TimedMethod("hiface", [9.0, *[1.0] * 9], clock, log),
        TimedMethod("b", [9.0, *[2.0] * 9], clock, log, stops_at=6),  # warm-up, round 1, first of round 2
    ]
    bench = Bench(methods, photos)
    with pytest.raises(KeyboardInterrupt):
        bench.run(3, lambda _: None)
    assert not bench.timing.finished
    assert bench.timing.round_seconds(bench.timing.methods[1]) == [2.0]
    early = [
        TimedMethod("hiface", [9.0, 1.0, 7.0], clock, log),
        TimedMethod("b", [9.0, 2.0], clock, log, (), 3),
    ]
    bench = Bench(early, photos)
    with pytest.raises(KeyboardInterrupt):
        bench.run(3, lambda _: None)
    assert [bench.timing.round_seconds(m) for m in bench.timing.methods] == [[1.0], [2.0]]


def test_nothing_measured_has_no_numbers():
    timing = Timing([MethodTimes("a", "", "")])
    assert timing.round_seconds(timing.methods[0]) == [] and timing.ratio(timing.methods[0]) is None


def test_names_are_split_once_each():
    assert parse_methods(" hiface, eos,hiface,") == ["hiface", "eos"]
    with pytest.raises(OptionError):
        parse_methods(" , ")


def test_the_computer_is_described_but_not_named():
    about = machine()
    assert about["cpu"] and about["usable_cores"] >= 1 and about["torch"] == torch.__version__
    node = platform.node()
    assert not node or node not in json.dumps(about)


def test_command_writes_what_it_measured(tmp_path, capsys):
    Image.fromarray(portrait()).save(tmp_path / "anna.png")
    Image.new("RGB", (64, 48), (40, 120, 200)).save(tmp_path / "sky.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "anna.png").read_bytes()[:3000])
    names = "landmarks,mediapipe,hiface"
    out = tmp_path / "results" / "bench.json"
    files = [tmp_path / name for name in ("anna.png", "sky.png", "torn.png")]
    assert run(*files, "--methods", names, "--repeats", 2, "-o", out) == 1  # one is absent, one is torn
    content = json.loads(out.read_text())
    assert [row["name"] for row in content["methods"]] == names.split(",")
    assert content["photos"] == [str(p) for p in files[:2]] and list(content["unreadable"]) == [str(files[2])]
    assert content["finished"] and content["ratio_to"] == "hiface" and content["repeats"] == 2
    landmarks, mediapipe, own = content["methods"]
    assert mediapipe["status"] == "option" and "face_landmarker.task" in mediapipe["reason"]
    for row in (landmarks, own):
        assert row["faces"] == 1 and row["faces_by_photo"] == {str(files[0]): 1, str(files[1]): 0}
        assert len(row["rounds"]) == 2 and all(len(times) == 2 for times in row["rounds"])
        assert 0 < row["fastest_s"] <= row["median_s"] and row["load_s"] > 0
    paired = [
        np.mean(list(a.values())) / np.mean(list(b.values()))
        for a, b in zip(landmarks["rounds"], own["rounds"], strict=True)
    ]
    assert landmarks["ratio"] == pytest.approx(np.median(paired)) and own["ratio"] == 1.0
    assert content["machine"]["python"] == platform.python_version()
    said = capsys.readouterr()
    assert "landmarks" in said.out and "torn.png" in said.err


def test_command_refuses_what_it_cannot_do(tmp_path, capsys):
    Image.new("RGB", (64, 48)).save(tmp_path / "sky.png")
    photo, text = tmp_path / "sky.png", tmp_path / "torn.png"
    text.write_text("no picture")
    for args, message in (
        ((photo, "--methods", "deca"), "choose one of hiface"),
        ((photo, "--methods", ","), "one method at least"),
        ((photo, "--repeats", 0), "at least 1"),
        ((photo, "-o", tmp_path), "name a file"),
        ((text, "--methods", "mean"), "none of the photos"),
    ):
        assert run(*args) == 1
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_method_that_answers_nothing_has_no_time_and_spoils_none(clock, photos):
    log, all_of_them = [], ("1.png", "2.png", "3.png")
    lost = TimedMethod("lost", [], clock, log, fails_at=all_of_them)
    own = TimedMethod("hiface", [1.0] * 9, clock, log)
    timing = Bench([lost, own], photos).run(2, lambda what: None)
    first, second = rows(timing)
    assert first["status"] == "fit_failed" and first["reason"] == "no answer on any photo: no pose"
    assert first["median_s"] is None and second["median_s"] == 1.0 and second["ratio"] == 1.0
    partly = Bench([TimedMethod("partly", [1.0] * 9, clock, log, fails_at=("2.png",)), lost], photos).run(
        1, lambda what: None
    )
    assert [one.status for one in partly.methods] == ["ok", "fit_failed"]


def test_the_command_with_methods_that_cannot_run(tmp_path, capsys):
    Image.new("RGB", (64, 48)).save(tmp_path / "sky.png")
    photo, text = tmp_path / "sky.png", tmp_path / "torn.png"
    text.write_text("no picture")
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    assert run(photo, "--methods", "mean,mediapipe", "--repeats", 1) == 0  # what is absent is a row
    said = capsys.readouterr()
    assert (
        "option" in said.out and "mediapipe has no time: " in said.err and "face_landmarker.task" in said.err
    )
    assert run(photo, "--methods", "mediapipe", "--repeats", 1) == 1
    capsys.readouterr()
    assert run(photo, "--methods", f"mean,folder:{meshes}", "--repeats", 1) == 1
    said = capsys.readouterr()
    assert "missing" in said.out and "no answer on any photo" in " ".join(said.err.split())
    assert run(text, "--methods", "mean") == 1
    said = capsys.readouterr()
    assert said.out == "" and "none of the photos can be read" in " ".join(said.err.split())


def test_a_stopped_command_writes_its_times(tmp_path, monkeypatch):
    Image.fromarray(portrait()).save(tmp_path / "anna.png")
    out, calls = tmp_path / "bench.json", []
    from hiface.methods.mean_face import MeanFaceMethod

    real = MeanFaceMethod.reconstruct

    def third_stops(self, photo):
        calls.append(photo)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, photo)

    monkeypatch.setattr(MeanFaceMethod, "reconstruct", third_stops)
    assert run(tmp_path / "anna.png", "--methods", "mean", "--repeats", 5, "-o", out) == 130
    content = json.loads(out.read_text())
    assert not content["finished"] and content["methods"][0]["median_s"] > 0
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["anna.png", "bench.json"]
