"""Scores of tracked videos against cases with known answers: moved, shifted, swapped, lost, doubled."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from hiface.errors import EvaluationDataError
from hiface.evaluation.metrics.blinks import blink_scores, find_blinks
from hiface.evaluation.metrics.video import (
    GROUPS,
    blendshape_correlation,
    blendshape_errors,
    count_false,
    group_columns,
    identity_changes,
    match_people,
    rotation_degrees,
    second_differences,
    spread_over_time,
    video_scores,
)
from hiface.evaluation.protocols.video import summarise_videos
from hiface.evaluation.synthetic_videos import VideoTruth
from hiface.evaluation.track_files import (
    INTERPOLATED,
    MISSING,
    OK,
    Track,
    TrackedPerson,
    arkit_names,
    read_track,
    write_track,
)
from hiface.synthetic.speech import Blink, blink_values

FRAMES, HEIGHT = 60, 256
TIMES = torch.arange(FRAMES, dtype=torch.float64) / 25


def make_truth(kind="talk", people=2):
    """Two faces 100 px apart that move, blink three times and turn."""
    gen = torch.Generator().manual_seed(0)
    shapes = 0.3 + 0.2 * torch.sin(TIMES[:, None] * torch.rand(52, generator=gen) * 9).expand(people, -1, -1)
    shapes = shapes.float().clone()
    blinks = [Blink(at, 0.1, 0.02, 0.2, 1.0) for at in (0.5, 1.1, 1.8)]
    for name, curve in blink_values(blinks, TIMES.numpy()).items():
        shapes[..., arkit_names().index(name)] = torch.from_numpy(curve).float()
    face = torch.rand(68, 2, generator=gen) * 60
    way = torch.stack([torch.arange(FRAMES) * 0.5, torch.zeros(FRAMES)], dim=-1)
    points = torch.stack([face + torch.tensor([20.0 + 100 * p, 40.0]) + way[:, None] for p in range(people)])
    T = torch.eye(4).expand(people, FRAMES, 4, 4).clone()
    T[..., :3, :3] = roma.rotvec_to_rotmat(
        torch.linspace(-0.7, 0.7, FRAMES)[:, None] * torch.tensor([0.0, 1, 0])
    )
    return VideoTruth(
        "v",
        kind,
        25.0,
        320,
        HEIGHT,
        (),
        tuple(range(people)),
        TIMES,
        torch.zeros(people, 3),
        shapes,
        torch.zeros(people, FRAMES, 5, 3),
        torch.eye(3).expand(people, FRAMES, 3, 3),
        T,
        T,
        points,
        torch.ones(people, FRAMES, 68, dtype=torch.bool),
        torch.zeros(people, FRAMES, 2),
        torch.ones(people, FRAMES, dtype=torch.uint8),
    )


def make_track(truth):
    """The truth as a track."""
    people = [
        TrackedPerson(
            i + 1,
            torch.full((FRAMES,), OK, dtype=torch.uint8),
            truth.expression[i].double(),
            truth.T_cam_head[i, :, :3, :3].double(),
            truth.T_cam_head[i, :, :3, 3].double(),
            truth.landmarks68_px[i].double(),
            torch.full((FRAMES, 4), torch.nan).double(),
        )
        for i in range(len(truth.people))
    ]
    return Track(25.0, truth.width, truth.height, TIMES, tuple(people))


def changed(track, who, **values):
    people = list(track.people)
    people[who] = replace(people[who], **values)
    return replace(track, people=tuple(people))


def summary(truth, track):
    return summarise_videos([video_scores(truth, track)])


def test_the_truth_has_no_error():
    truth = make_truth()
    s = summary(truth, make_track(truth))
    zero = ("blendshape_error", "nme51_percent", "jitter_px", "blink_peak_frames", "blink_onset_frames")
    assert all(s[key] < 1e-4 for key in (*zero, "pose_error_deg")), s
    assert s["blendshape_correlation"] == pytest.approx(1) and s["blink_peak_ratio"] == pytest.approx(
        1, abs=1e-3
    )
    assert s["blinks"] == 12 and s["blinks_missed_percent"] == 0 and s["blinks_false"] == 0
    assert s["lost_percent"] == s["false"] == s["identity_changes"] == s["disordered"] == 0


def test_points_and_heads_that_are_off_by_a_known_amount():
    truth = make_truth(people=1)
    track = make_track(truth)
    eyes = (truth.landmarks68_px[0, :, 36] - truth.landmarks68_px[0, :, 45]).norm(dim=-1).double()
    moved = truth.landmarks68_px[0].double() + torch.tensor([3.0, 4.0])
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(7)], dtype=torch.float64))
    s = summary(truth, changed(track, 0, landmarks68_px=moved, rotation=track.people[0].rotation @ turn))
    assert s["nme51_percent"] == pytest.approx(float((500 / eyes).mean()), rel=1e-5)
    assert s["pose_error_deg"] == pytest.approx(7, abs=1e-4) and s["jitter_px"] < 1e-4


def test_jitter_is_the_second_difference_in_pixels_of_512():
    truth = make_truth("still", people=1)
    track = make_track(truth)
    shake = torch.tensor([1.5, 0.0]) * (torch.arange(FRAMES) % 2 * 2 - 1)[:, None, None]
    s = summary(truth, changed(track, 0, landmarks68_px=truth.landmarks68_px[0].double() + shake))
    assert s["jitter_px"] == pytest.approx(
        4 * 1.5 * 512 / HEIGHT, rel=1e-4
    )  # -1, 1, -1 has 4 as second difference
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(0, 0.4, (4000, 51, 2)))
    known = torch.ones(4000, dtype=torch.bool)
    # Second differences have 6 times the noise's variance; lengths of 2D normals have a mean of sqrt(pi / 2).
    assert float(second_differences(noise, known).mean()) == pytest.approx(
        0.4 * math.sqrt(6 * math.pi / 2), rel=0.01
    )
    assert spread_over_time(noise + 7) == pytest.approx(0.4 * math.sqrt(2), rel=0.01)
    known[10] = False
    assert len(second_differences(noise, known)) == 3998 - 3


def test_coefficients_by_group_and_channel():
    truth = torch.rand(40, 52)
    found = truth.clone()
    found[:, group_columns("jaw")] += 0.1
    errors = blendshape_errors(found, truth)
    assert errors["jaw"] == pytest.approx(0.1, abs=1e-6) and errors["mouth"] == 0
    assert errors["all"] == pytest.approx(0.1 * len(group_columns("jaw")) / 52, abs=1e-6)
    assert sorted(i for group in GROUPS for i in group_columns(group)) == list(range(52))
    found = 0.5 * truth + 0.1
    found[:, 3], found[:, 4], truth[:, 5] = 1 - truth[:, 3], 0.2, 0.7
    correlation = blendshape_correlation(found, truth)
    names = arkit_names()
    reference = np.corrcoef(found[:, 10].double(), truth[:, 10].double())[0, 1]
    assert correlation[names[10]] == pytest.approx(reference, abs=1e-9) == pytest.approx(1, abs=1e-6)
    assert correlation[names[3]] == pytest.approx(-1, abs=1e-6) and correlation[names[4]] == 0
    assert names[5] not in correlation
    assert blendshape_correlation(found[:5], truth[:5]) == {}


def test_what_is_off_by_a_constant_is_told_apart():
    truth = make_truth(people=1)
    shapes = truth.expression[0].double() + torch.linspace(-0.2, 0.2, 52)
    shapes[::10] += 0.3  # some frames, which a median leaves out
    s = summary(truth, changed(make_track(truth), 0, blendshapes=shapes))
    assert s["blendshape_error_offset_free"] == pytest.approx(0.3 / 10, abs=1e-6)
    assert s["blendshape_error"] > 0.1


@pytest.mark.parametrize("shift", [2.0, -3.0])
def test_blinks_that_come_late_or_early(shift):
    truth = make_truth(people=1)
    blinks = [Blink(at + shift / 25, 0.1, 0.02, 0.2, 0.7) for at in (0.5, 1.1, 1.8)]
    shapes = truth.expression[0].double().clone()
    for name, curve in blink_values(blinks, TIMES.numpy()).items():
        shapes[:, arkit_names().index(name)] = torch.from_numpy(curve)
    s = summary(truth, changed(make_track(truth), 0, blendshapes=shapes))
    assert s["blinks"] == 6 and s["blinks_missed_percent"] == 0 and s["blinks_false"] == 0
    assert s["blink_peak_bias_frames"] == pytest.approx(shift, abs=1e-3)
    assert s["blink_onset_frames"] == pytest.approx(abs(shift), abs=1e-3)


def test_missed_false_and_half_blinks_and_winks():
    t = np.arange(100) / 25
    true = [Blink(at, 0.1, 0.02, 0.2, depth) for at, depth in ((0.6, 1.0), (1.6, 0.4), (2.6, 0.9))]
    truth = blink_values(true, t)["eyeBlinkLeft"]
    found = blink_values([true[0], replace(true[1], depth=0.8), replace(true[2], at_s=3.4)], t)[
        "eyeBlinkLeft"
    ]
    all_there = np.ones(100, bool)
    s = blink_scores(truth, found, all_there, all_there)
    # The 0.4 is no blink that has to be found, and finding it is not wrong; the last is missed, one made up.
    assert (s["true"], s["missed"], s["false"]) == (2, 1, 1)
    gone = all_there.copy()
    gone[60:70] = False
    s = blink_scores(truth, found, gone, gone)
    assert (s["true"], s["missed"]) == (1, 0)
    left = blink_values([replace(true[0], sides=("Left",))], t)
    assert find_blinks(left["eyeBlinkRight"], 0.5, 0.3) == []
    nothing = blink_scores(truth, np.full(100, np.nan), all_there, ~all_there)
    assert (nothing["missed"], nothing["false"]) == (2, 0)


def test_noise_on_a_plateau_does_not_move_a_blink():
    t = np.arange(60) / 25
    long = blink_values([Blink(1.2, 0.1, 0.6, 0.1, 0.9)], t)["eyeBlinkLeft"]
    noisy = long + np.random.default_rng(1).normal(0, 0.02, 60)
    (one,), (other,) = find_blinks(long, 0.5, 0.3), find_blinks(noisy, 0.5, 0.3)
    assert one.peak == pytest.approx(30, abs=0.05) and other.peak == pytest.approx(30, abs=0.5)


def test_swapped_people_and_new_ids():
    truth = make_truth()
    track = make_track(truth)
    a, b = track.people
    half = torch.arange(FRAMES) < 30

    def mixed(name):
        x, y = getattr(a, name), getattr(b, name)
        mask = half.reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(mask, x, y), torch.where(mask, y, x)

    names = ("blendshapes", "rotation", "translation", "landmarks68_px")
    swapped = track
    for who in range(2):
        swapped = changed(swapped, who, **{name: mixed(name)[who] for name in names})
    scores = video_scores(truth, swapped)
    assert scores["identity"] == {"switches": 2, "mixes": 2}
    assert scores["frames"]["lost"] == 0 and summarise_videos([scores])["nme51_percent"] < 1e-4
    assert identity_changes(torch.tensor([[0, 0, -1, 1, 1]])) == (1, 0)  # back under another id
    assert identity_changes(torch.tensor([[0, 0, -1, -1], [-1, -1, 0, 0]])) == (
        0,
        1,
    )  # a cut that was not seen


def test_lost_frames_false_faces_and_order():
    truth = make_truth()
    presence = truth.presence.clone()
    presence[1, :20], presence[1, 20:30] = 0, 2
    truth = replace(truth, presence=presence)
    track = make_track(truth)
    status = track.people[0].status.clone()
    status[5:15], status[15:18] = MISSING, INTERPOLATED
    scores = video_scores(truth, changed(track, 0, status=status))
    assert scores["frames"] == {"due": FRAMES + 30, "lost": 10, "false": 20, "disordered": 0}
    other = track.people[1].status.clone()
    other[:20] = INTERPOLATED  # a guess is not said to be seen
    assert video_scores(truth, changed(track, 1, status=other))["frames"]["false"] == 0
    doubled = replace(track, people=(*track.people, replace(track.people[0], id=9)))
    assert video_scores(truth, doubled)["frames"]["false"] == 20 + FRAMES
    assert video_scores(truth, replace(track, people=()))["frames"]["lost"] == FRAMES + 30
    times = TIMES.clone()
    times[7], times[9] = times[7] + 0.019, times[9] + 0.021  # a frame is 0.04 s
    for shift in (0.0, 5.0):
        moved = video_scores(truth, replace(track, times_s=times + shift))
        assert moved["frames"]["disordered"] == 1
    assert video_scores(truth, replace(track, times_s=TIMES.flip(0)))["frames"]["disordered"] == FRAMES - 1
    short = replace(track, times_s=TIMES[:-4])
    assert video_scores(truth, short)["frames"]["disordered"] == 4


def test_matching_takes_boxes_where_there_are_no_points():
    truth = torch.tensor([[[0.0, 0, 10, 10]], [[100.0, 0, 110, 10]]])
    boxes = torch.tensor([[[99.0, 0, 111, 11]], [[0.0, 0, 9, 10]], [[50.0, 50, 60, 60]]])
    answered = torch.ones(3, 1, dtype=torch.bool)
    match = match_people(truth, torch.ones(2, 1), boxes, answered)
    assert match.tolist() == [[1], [0]]
    assert count_false(match, truth, torch.ones(2, 1), boxes, answered) == 1
    answered[1] = False
    assert match_people(truth, torch.ones(2, 1), boxes, answered).tolist() == [[-1], [0]]


def test_angles_are_exact_for_small_and_large_turns():
    for degrees in (1e-5, 3.0, 90.0, 179.0, 180.0):
        R = roma.rotvec_to_rotmat(math.radians(degrees) * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64))
        assert float(rotation_degrees(R, torch.eye(3))) == pytest.approx(degrees, rel=1e-4)


def test_tracks_are_read_as_they_were_written(tmp_path):
    truth = make_truth()
    track = make_track(truth)
    status = track.people[0].status.clone()
    status[7], status[8] = MISSING, INTERPOLATED
    track = changed(track, 0, status=status)
    path = tmp_path / "v" / "track.json"
    write_track(path, track)
    content = json.loads(path.read_text())
    assert content["people"][0]["frames"]["status"][6:9] == ["ok", "missing", "interpolated"]
    assert content["people"][0]["frames"]["rotation"][7] is None
    read = read_track(path)
    assert read.people[0].status.tolist() == status.tolist() and read.disordered == 0
    assert torch.allclose(read.people[1].blendshapes, track.people[1].blendshapes, atol=1e-6)
    assert read.people[0].landmarks68_px[7].isnan().all() and read.people[1].box.isnan().all()
    order = list(reversed(range(52)))
    content["names"] = [content["names"][i] for i in order]
    for person in content["people"]:
        person["frames"]["blendshapes"] = [
            None if row is None else [row[i] for i in order] for row in person["frames"]["blendshapes"]
        ]
    path.write_text(json.dumps(content))
    assert torch.equal(read_track(path).people[1].blendshapes, read.people[1].blendshapes)


def test_frames_out_of_order_are_counted(tmp_path):
    truth = make_truth(people=1)
    path = tmp_path / "track.json"
    write_track(path, make_track(truth))
    whole = json.loads(path.read_text())
    for change, faults in ((lambda rows: rows[:3] + rows[4:], 1), (lambda rows: [*rows, rows[-1]], 1)):
        content = json.loads(json.dumps(whole))
        lists = content["people"][0]["frames"]
        for name in lists:
            lists[name] = change(lists[name])
        path.write_text(json.dumps(content))
        assert read_track(path).disordered == faults
    content = json.loads(json.dumps(whole))
    for rows in content["people"][0]["frames"].values():
        rows[4], rows[5] = rows[5], rows[4]
    path.write_text(json.dumps(content))
    swapped = read_track(path)
    assert swapped.disordered == 1 and summary(truth, swapped)["blendshape_error"] < 1e-5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c: c.update(version=2), "version is 2"),
        (lambda c: c.pop("names"), "names"),
        (lambda c: c["names"].pop(), "ARKit"),
        (lambda c: c["times_s"].pop(), "times_s"),
        (lambda c: c["people"][0]["frames"].pop("box"), "box"),
        (lambda c: c["people"][0]["frames"]["status"].pop(), "status"),
        (lambda c: c["people"][0]["frames"]["status"].__setitem__(0, "found"), "found"),
        (lambda c: c["people"][0]["frames"]["rotation"].__setitem__(0, None), "not finite"),
        (
            lambda c: c["people"][0]["frames"]["rotation"].__setitem__(0, [[2, 0, 0], [0, 1, 0], [0, 0, 1]]),
            "none",
        ),
        (lambda c: c["people"][0]["frames"]["blendshapes"].__setitem__(0, [0.0]), "shape"),
        (lambda c: c["people"].append(c["people"][0]), "one id"),
        (lambda c: c.update(width=0), "not over 0"),
        (lambda c: c.update(fps=-25), "not over 0"),
    ],
)
def test_tracks_that_do_not_keep_the_format_are_refused(tmp_path, change, word):
    path = tmp_path / "track.json"
    write_track(path, make_track(make_truth(people=1)))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationDataError, match=word):
        read_track(path)
    path.write_text("[" * 200_000)
    with pytest.raises(EvaluationDataError, match="read"):
        read_track(path)
    path.write_text("{")
    with pytest.raises(EvaluationDataError, match="read"):
        read_track(path)
    with pytest.raises(EvaluationDataError, match="read"):
        read_track(tmp_path / "none.json")
