"""Videos of people who do not exist: what happens in them, exact truth, files that are whole or not there."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from hiface.data.video import open_video
from hiface.errors import EvaluationDataError, OptionError
from hiface.evaluation.holdout import head_yaw
from hiface.evaluation.metrics.blinks import find_blinks
from hiface.evaluation.synthetic_videos import read_truth, stack_people, video_names, write_videos
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, held_out, open_model
from hiface.synthetic.performances import blinking
from hiface.synthetic.shots import sitter_of
from hiface.synthetic.speech import (
    SILENCE,
    Phone,
    blink_values,
    eased,
    fixations,
    sample_blink,
    sample_phones,
    speech_values,
    viseme_ranges,
)
from hiface.synthetic.video_encoding import Encoding, encode_video
from hiface.synthetic.video_kinds import VIDEO_KINDS, VideoStyle, frame_times, make_video
from hiface.synthetic.videos import ABSENT, PRESENT, video_frames

NUMBER = (HOLDOUT_SEED + 7) * (SEED_STRIDE // 3) + 2_000_000
SMALL = VideoStyle(128, effects=frozenset({"hair", "camera", "background"}))


def whole(frames, effects=SMALL.effects, **options):
    return VideoStyle(128, frames=frames, effects=effects, **options)


def known(kind, frames, number=NUMBER):
    """Truth of a video whose pictures are not drawn."""
    model = open_model()
    video = make_video(model, kind, number, whole(frames))
    return video, stack_people(video, list(video_frames(model, video)))


def test_blinks_close_and_open_in_the_time_that_they_say():
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 2001)
    for _ in range(20):
        blink = sample_blink(rng, 0.5)
        assert 0.08 <= blink.closing_s <= 0.12 and 0.12 <= blink.opening_s <= 0.25
        curve = blink_values([blink], t)["eyeBlinkLeft"]
        moving = t[(curve > 1e-9)]
        assert moving[-1] - moving[0] == pytest.approx(
            blink.closing_s + blink.hold_s + blink.opening_s, abs=2e-3
        )
        shut = t[curve > blink.depth - 1e-9]
        assert 0.5 * (shut[0] + shut[-1]) == pytest.approx(0.5, abs=1e-3) and curve.max() == blink.depth


def test_winks_and_half_blinks_are_among_the_blinks():
    t = np.arange(128) / 25
    for seed in range(5):
        curves = blinking(np.random.default_rng(seed), t).curves
        left, right = curves["eyeBlinkLeft"], curves["eyeBlinkRight"]
        assert ((left > 0.8) & (right < 0.05)).any() and ((right > 0.8) & (left < 0.05)).any()
        peaks = [event.value for event in find_blinks(left, 0.3, 0.3)]
        assert any(value < 0.7 for value in peaks) and sum(value > 0.85 for value in peaks) >= 3


def test_speech_reaches_its_sounds_and_lets_neighbours_colour_them():
    rng = np.random.default_rng(3)
    phones = sample_phones(rng, 0.0, 60.0)
    spoken = [p for p in phones if p.viseme != SILENCE]
    seconds = sum(p.length_s for p in spoken)
    assert 8.0 <= len(spoken) / seconds <= 14.0 and len(phones) > len(spoken) + 10
    t = np.arange(0, 60, 1 / 25)
    values = speech_values(phones, t, rng)
    assert np.abs(np.diff(np.stack(list(values.values())), axis=1)).max() < 0.45
    assert {f"viseme_{x}" for x in ("pp", "aa", "ou")} <= set(viseme_ranges())
    row = [Phone(0.0, 0.1, "viseme_aa"), Phone(0.1, 0.1, "viseme_pp"), Phone(0.2, 0.1, "viseme_aa")]
    jaw, alone = (
        speech_values(some, np.array([0.1, 0.0]), np.random.default_rng(1))["jawOpen"]
        for some in (row, row[:1])
    )
    assert 0 < jaw[0] < 0.4 * alone[1]  # the lips close between two open vowels, though not all the way


def test_eyes_hold_on_while_the_head_turns():
    t = np.arange(0, 2, 1 / 25)
    turn = np.zeros((len(t), 3))
    turn[:, 0] = 0.3 * eased(t, 0.5, 1.5)
    gaze = fixations(t, turn, np.random.default_rng(0), wander=0.0)
    mean = np.array([(g.yaw[0] + g.yaw[1]) / 2 for g in gaze])
    assert np.allclose(mean, -turn[:, 0], atol=1e-9)
    step = np.diff(eased(t, 0.0, 2.0))
    assert step.argmax() == pytest.approx(len(step) / 2, abs=2) and step[0] < 0.1 * step.max()


def test_uneven_times_grow_in_whole_milliseconds():
    times = frame_times(np.random.default_rng(0), 100, 30.0, True)
    gaps = np.diff(times)
    assert gaps.min() > 0.02 and gaps.max() > 0.06 and np.allclose(times * 1000, np.round(times * 1000))
    assert np.allclose(np.diff(frame_times(np.random.default_rng(0), 10, 30.0, False)), 1 / 30)


def test_still_videos_change_by_noise_alone():
    model = open_model()
    video = make_video(model, "still", NUMBER, whole(8))
    frames = list(video_frames(model, video))
    truth = stack_people(video, frames)
    assert all(
        torch.equal(truth[key], truth[key][:, :1].expand_as(truth[key]))
        for key in ("expression", "T_cam_head")
    )
    difference = (frames[0].image_srgb.int() - frames[1].image_srgb.int()).abs().float().mean()
    assert 0.3 < float(difference) < 12
    assert (truth["presence"] == PRESENT).all()


def test_heads_turn_as_far_as_said_without_a_jump():
    _, truth = known("turn", 48)
    yaw = torch.rad2deg(torch.stack([head_yaw(T) for T in truth["T_cam_head"][0]]))
    assert 40 < yaw.max() < 60 and -60 < yaw.min() < -40
    moved = truth["landmarks68_px"][0].diff(dim=0).norm(dim=-1).mean(dim=-1)
    assert 0.2 < float(moved.max()) < 12  # pixels of 128 in a frame: a turn, no jump


def test_landmarks_are_the_projected_model():
    model = open_model()
    video = make_video(model, "cross", NUMBER, whole(8))
    truth = stack_people(video, list(video_frames(model, video)))
    for p, number in enumerate(video.people):
        identity = sitter_of(model, number, SMALL.effects).person.identity
        for i in (0, 7):
            vertices = model.vertices(identity, truth["expression"][p, i], truth["pose"][p, i])
            T = truth["T_cam_object"][p, i]
            cam = model.landmarks("ibug68", vertices) @ T[:3, :3].T + T[:3, 3]
            px = cam @ truth["K"][p, i].T
            inner = (px[:, :2] / px[:, 2:] - truth["landmarks68_px"][p, i])[17:]
            assert inner.abs().max() < 0.02


def test_blinks_are_in_coefficients_and_in_lids():
    _, truth = known("blink", 60)
    names = list(open_model().data.expression_names)
    for side, column in (("Left", 0), ("Right", 1)):
        curve, closure = (
            truth["expression"][0, :, names.index(f"eyeBlink{side}")],
            truth["eye_closure"][0, :, column],
        )
        assert curve.max() > 0.5 and closure[curve.argmax()] > 0.95
        assert closure[curve < 0.05].max() < 0.2
    others = truth["T_cam_head"][0, :, :3, 3]
    assert (others - others.mean(dim=0)).norm(dim=-1).max() < 0.01


def test_people_leave_and_come_back():
    video, truth = known("leave", 60)
    gone = (truth["presence"][0] == ABSENT).numpy()
    assert 0.08 <= gone.mean() <= 0.3 and not gone[0] and not gone[-1]
    assert (np.diff(gone.astype(int)) == 1).sum() == 2 and len(video.cuts) == 2
    assert truth["expression"].isfinite().all(dim=-1)[0].logical_not().sum() == sum(
        1 for i in video.of_frame if i == 1
    )


def test_two_people_pass_each_other_and_one_is_hidden():
    model = open_model()
    for number in range(NUMBER, NUMBER + 40, 2):
        video = make_video(model, "cross", number, whole(24))
        first, second = (p.motion.shift_m for p in video.recordings[0].cast)
        if abs(second[-1, 0] - second[0, 0]) > 0.2:
            break
    truth = stack_people(video, list(video_frames(model, video)))
    x = truth["landmarks68_px"][..., 0].mean(dim=-1)
    assert x[0, 0] < x[1, 0] and x[0, -1] > x[1, -1] and (first[-1, 0] - first[0, 0]) > 0.2
    assert video.width > 1.7 * video.height
    visible = truth["visible68"].float().mean(dim=-1)
    assert visible[0].min() == 1 and visible[1].min() < 0.5 and visible[1, 0] == 1
    near, far = truth["T_cam_head"][:, 0, 2, 3]
    assert near < far and (truth["presence"][0] == PRESENT).all()


def test_cuts_show_one_person_at_a_time():
    video, truth = known("cut", 24)
    there = truth["presence"] == PRESENT
    assert (there.sum(dim=0) == 1).all() and len(video.cuts) == 2
    assert there[0, 0] and there[1, 12] and there[0, -1]


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("tone", [False, True])
def test_files_keep_pictures_times_and_orientation(tmp_path, rotation, tone):
    rng = np.random.default_rng(0)
    frames = [
        np.kron(rng.integers(30, 220, (4, 6, 3)), np.ones((32, 32, 1))).astype(np.uint8) for _ in range(6)
    ]
    times = np.array([0.0, 0.033, 0.1, 0.121, 0.2, 0.233])
    path = tmp_path / "v.mp4"
    path.write_bytes(encode_video(frames, times, Encoding(30.0, 12, tone, rotation)))
    with open_video(path) as source:
        read = list(source)
        assert source.info.has_audio == tone and (source.info.width, source.info.height) == (192, 128)
    assert np.allclose([frame.time_s for frame in read], times, atol=1e-3)
    for frame, truth in zip(read, frames, strict=True):
        inside = np.zeros((128, 192), bool)
        inside.reshape(4, 32, 6, 32)[:, 8:24, :, 8:24] = True
        difference = np.abs(frame.image_srgb.astype(int) - truth)[inside]
        assert difference.mean() < 4  # colours too
    with pytest.raises(OptionError):
        encode_video(frames, times, Encoding(30.0, rotation_deg=45))
    with pytest.raises(OptionError):
        encode_video([], times[:0], Encoding(30.0))


def test_sets_are_made_once_and_alike(tmp_path):
    told = []
    style = whole(8)
    write_videos(tmp_path / "a", 5, 3, style, told.append)
    assert told == video_names(tmp_path / "a") and [name.split("-")[2] for name in told] == list(
        VIDEO_KINDS[:5]
    )
    stamp = (tmp_path / "a" / f"{told[1]}.mp4").stat().st_mtime_ns
    (tmp_path / "a" / f"{told[3]}.json").unlink()  # was stopped before the last file
    write_videos(tmp_path / "a", 5, 3, style)
    assert (tmp_path / "a" / f"{told[1]}.mp4").stat().st_mtime_ns == stamp
    write_videos(tmp_path / "b", 2, 3, style)
    same, again = (read_truth(tmp_path / x, told[1]) for x in ("a", "b"))
    assert all(
        torch.equal(getattr(same, f.name), getattr(again, f.name))
        for f in fields(same)
        if isinstance(getattr(same, f.name), torch.Tensor)
    )
    files = [tmp_path / x / f"{told[1]}.mp4" for x in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for name in told:
        truth = read_truth(tmp_path / "a", name)
        with open_video(tmp_path / "a" / f"{name}.mp4") as source:
            times = [frame.time_s for frame in source]
        assert np.allclose(times, truth.times_s, atol=1e-3)
        assert held_out(np.array(truth.people)).all() and truth.expression.shape[-1] == 52
    assert np.ptp(np.diff(read_truth(tmp_path / "a", told[2]).times_s)) > 0.005
    about = json.loads((tmp_path / "a" / f"{told[4]}.json").read_text())
    assert (
        about["rotation_deg"] == 90 and json.loads((tmp_path / "a" / f"{told[0]}.json").read_text())["sound"]
    )


def test_folders_that_hold_something_else_are_refused(tmp_path):
    write_videos(tmp_path, 1, 0, whole(8))
    with pytest.raises(EvaluationDataError, match="otherwise"):
        write_videos(tmp_path, 1, 0, whole(9))
    with pytest.raises(EvaluationDataError, match="count"):
        write_videos(tmp_path, 1, 1, whole(8))
    with pytest.raises(OptionError):
        write_videos(tmp_path, 0)
    with pytest.raises(OptionError):
        write_videos(tmp_path, 1, 0, VideoStyle(131))
    with pytest.raises(EvaluationDataError, match="--people"):
        video_names(tmp_path / "none")
    (name,) = video_names(tmp_path)
    (tmp_path / f"{name}.safetensors").write_bytes(b"x")
    with pytest.raises(EvaluationDataError, match="anew"):
        read_truth(tmp_path, name)
