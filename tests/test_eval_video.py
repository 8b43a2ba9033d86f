"""`hiface eval video`: tracks made elsewhere, methods that see single frames, the command."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hiface.cli.main import main
from hiface.errors import EvaluationDataError, TopologyError
from hiface.evaluation.method import Prediction
from hiface.evaluation.protocols.video import VideoBenchmark, predict_videos, track_frames
from hiface.evaluation.runs import RunFolder, score, write_result
from hiface.evaluation.synthetic_videos import read_truth, video_names, video_path, write_videos
from hiface.evaluation.track_files import OK, Track, TrackedPerson, read_track, write_track
from hiface.synthetic.video_kinds import VIDEO_FRAMES, VideoStyle
from hiface.synthetic.videos import ABSENT

FRAMES = 10


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, 7, 1, VideoStyle(128, frames=FRAMES, effects=frozenset({"camera"})))
    return folder


class Oracle:
    """Knows the truth of a video's frames in order; the surer face is the first person."""

    name, licence, description = "oracle", "none", "truth"

    def __init__(self, data, names, shift_px=0.0):
        self.frames = [(read_truth(data, name), i) for name in names for i in range(FRAMES)]
        self.shift_px, self.loaded = shift_px, 0

    def load(self):
        self.loaded += 1

    def reconstruct(self, photo):
        truth, i = self.frames.pop(0)
        assert (photo.width, photo.height) == (truth.width, truth.height)
        found = []
        for p in range(len(truth.people)):
            if truth.presence[p, i] != ABSENT:
                points = truth.landmarks68_px[p, i] + self.shift_px
                box = torch.cat([points.amin(dim=0), points.amax(dim=0)])
                T, shapes = truth.T_cam_head[p, i], truth.expression[p, i]
                found.append(Prediction(box, points, blendshapes=shapes, T_cam_head=T))
        return found


def run(data, method, root):
    benchmark, folder = VideoBenchmark(data), RunFolder(root)
    predict_videos(benchmark, method, folder, lambda name: None)
    rows = score(benchmark, folder, 1, lambda name: None)
    return write_result(benchmark, method.name, rows, folder, "hiface eval")


def test_the_truth_has_no_error_frame_by_frame(videos, tmp_path):
    names = video_names(videos)
    method = Oracle(videos, names)
    result = run(videos, method, tmp_path)
    summary = result["summary"]
    assert result["statuses"] == {"ok": 7} and not method.frames and method.loaded == 1
    assert summary["blendshape_error"] < 1e-5 and summary["nme51_percent"] < 1e-3
    assert summary["pose_error_deg"] < 1e-3 and summary["spread_px"] < 1e-3
    assert summary["lost_percent"] == summary["disordered"] == summary["blinks_false"] == 0
    # Nobody is followed: after the cut to another person, that one is the surest, and so has the same number.
    assert (
        summary["videos"][names[6]]["identity_changes"] == 2
        and summary["kinds"]["talk"]["identity_changes"] == 0
    )
    table = VideoBenchmark(videos).table(summary)
    assert len(table[0]) == 9 and all(len(row) == 9 for row in table)
    method.frames = None  # what is there is not predicted again
    assert run(videos, method, tmp_path)["summary"] == summary


def test_points_that_are_off_show(videos, tmp_path):
    names = video_names(videos)
    summary = run(videos, Oracle(videos, names, 3.0), tmp_path)["summary"]
    truth = read_truth(videos, names[3])
    eyes = (truth.landmarks68_px[0, :, 36] - truth.landmarks68_px[0, :, 45]).norm(dim=-1)
    expected = float((300 * 2**0.5 / eyes).mean())
    assert summary["videos"][names[3]]["nme51_percent"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda about, tensors: about.update(height=0), "not over 0"),
        (lambda about, tensors: about.update(fps="x"), "fps|'<'"),
        (lambda about, tensors: about.update(n_frames=FRAMES + 1), "times_s"),
        (lambda about, tensors: tensors.update(times_s=tensors["times_s"].flip(0)), "times_s"),
        (
            lambda about, tensors: tensors.update(expression=tensors["expression"][:, 1:]),
            "expression has shape",
        ),
        (lambda about, tensors: tensors.update(K=tensors["K"][0]), "K has shape"),
        (lambda about, tensors: tensors["landmarks68_px"].fill_(torch.nan), "landmarks68_px is not finite"),
        (lambda about, tensors: tensors.pop("pose"), "pose"),
    ],
)
def test_a_truth_that_cannot_be_is_refused(videos, tmp_path, change, word):
    name = video_names(videos)[0]
    about, tensors = (
        json.loads((videos / f"{name}.json").read_text()),
        load_file(videos / f"{name}.safetensors"),
    )
    change(about, tensors)
    (tmp_path / f"{name}.json").write_text(json.dumps(about))
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    with pytest.raises(EvaluationDataError, match=word) as caught:
        read_truth(tmp_path, name)
    assert "\n" not in str(caught.value)
    (tmp_path / f"{name}.json").write_text("[" * 200_000)
    with pytest.raises(EvaluationDataError, match="make it anew"):
        read_truth(tmp_path, name)


def test_methods_without_coefficients_are_refused(videos):
    class Points(Oracle):
        def reconstruct(self, photo):
            return [Prediction(torch.zeros(4), torch.zeros(68, 2))]

    names = video_names(videos)
    with pytest.raises(TopologyError, match="oracle"):
        track_frames(video_path(videos, names[0]), Points(videos, names))


def test_tracks_of_another_program_from_the_command_line(videos, tmp_path, capsys):
    for name in video_names(videos):
        truth = read_truth(videos, name)
        people = tuple(
            TrackedPerson(
                p + 1,
                torch.where(truth.presence[p] == ABSENT, 0, OK).to(torch.uint8),
                truth.expression[p],
                truth.T_cam_head[p, :, :3, :3],
                truth.T_cam_head[p, :, :3, 3],
                truth.landmarks68_px[p],
                torch.full((FRAMES, 4), torch.nan),
            )
            for p in range(len(truth.people))
        )
        track = Track(truth.fps, truth.width, truth.height, truth.times_s, people)
        write_track(tmp_path / "made" / name / "track.json", track)
        assert len(read_track(tmp_path / "made" / name / "track.json").people) == len(people)
    out = tmp_path / "out"
    args = (
        "eval",
        "video",
        "--data",
        videos,
        "--predictions",
        tmp_path / "made",
        "-o",
        out,
        "--workers",
        "1",
    )
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    assert stop.value.code == 0 and "coefficients" in capsys.readouterr().out
    summary = json.loads((out / "result.json").read_text())["summary"]
    assert summary["identity_changes"] == 0 and summary["blendshape_error"] < 1e-5 and summary["false"] == 0
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(out), "--table", str(tmp_path / "t.md")])
    assert stop.value.code == 0 and "| predictions | 0.000 |" in (tmp_path / "t.md").read_text()


def test_videos_that_cannot_be_read_are_rows_with_a_reason(videos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    names = video_names(data)
    video_path(data, names[2]).write_bytes(b"no video")
    method = Oracle(data, [name for name in names if name != names[2]])
    result = run(data, method, tmp_path / "out")
    assert result["statuses"] == {"ok": 6, "bad_video": 1} and names[2] in result["rows"][2]["reason"]


def test_videos_are_made_and_our_method_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(VIDEO_FRAMES, "talk", 16)
    data = tmp_path / "data"
    args = ("--data", data, "--method", "mean", "-o", tmp_path / "out", "--workers", "1")
    for extra, code, word in (
        ((), 1, "--people"),
        (("--people", "0"), 1, "1 to"),
        (("--people", "1", "--height", "99"), 1, "128 to"),
        (("--people", "1", "--height", "128"), 0, ""),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in ("eval", "video", *args, *extra)])
        assert stop.value.code == code and word in " ".join(capsys.readouterr().err.split())
    summary = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    # The mean face keeps still: its error is that of a face at rest.
    assert summary["blendshape_error"] == pytest.approx(summary["blendshape_error_of_rest"], rel=1e-4)
    assert summary["lost_percent"] < 20 and summary["pose_error_deg"] < 15
    with pytest.raises(SystemExit):
        main(["eval", "tracking", "--data", str(data), "--height", "256"])
    assert "for video" in capsys.readouterr().err
