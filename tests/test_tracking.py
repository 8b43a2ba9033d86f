"""Tracking of videos: cuts, tracklets, people, following a known person, and a whole clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.animation.motion import fill_missing, held_frames
from hiface.errors import NoFaceError, OptionError, ShapeError
from hiface.evaluation.track_files import read_track
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import align_to_landmarks, default_focal_px
from hiface.fitting.follow import PersonFollower
from hiface.fitting.observe import landmark_observation
from hiface.fitting.priors import Start
from hiface.tracking.cuts import CutDetector
from hiface.tracking.follow import pieces
from hiface.tracking.keyframes import choose_keyframes
from hiface.tracking.live import LiveTracker
from hiface.tracking.outputs import write_video_track
from hiface.tracking.sightings import WatchConfig
from hiface.tracking.streaming import LiveStream
from hiface.tracking.video import TrackOptions, track_video
from tracked_faces import GAP, SIZE, identities, sighting, watched, write_clip


@pytest.fixture(scope="module")
def reconstructor():
    return hiface.Reconstructor(device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return folder, write_clip(folder)


@pytest.fixture(scope="module")
def tracked(clip, reconstructor):
    return track_video(clip[0], reconstructor, TrackOptions(keyframes=1, fps=25))


def test_cuts_are_seen_and_motion_light_and_noise_are_not():
    rng = np.random.default_rng(0)
    scenes = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)).resize((320, 180)))
        for _ in range(2)
    ]
    one, two = scenes
    assert cuts_of([one, np.roll(one, 4, axis=1), one // 2, two, two]) == [3]
    dark, white = np.zeros_like(one), np.full_like(one, 255)
    noisy = dark + rng.integers(0, 4, dark.shape, dtype=np.uint8)
    assert cuts_of([dark, noisy, one, dark, noisy, one]) == []  # nothing is to be seen
    assert cuts_of([one, dark, dark, two]) == [3]  # a cut through black
    half = np.concatenate([white[:90], one[90:]])
    for flash in (white, half):
        assert cuts_of([one, flash, one, one]) == [] and cuts_of([one, flash, two, two]) != []
        assert cuts_of([one, flash, one, flash, one, two]) == [5]
    assert cuts_of([one, two, two, one]) == [1, 3]
    live = CutDetector()
    assert [live.step(frame, k) for k, frame in enumerate([one, half, one])] == [False, True, False]


def cuts_of(frames):
    cuts = CutDetector()
    for number, frame in enumerate(frames):
        cuts.step(frame, number)
    return cuts.cuts


def test_missing_frames_hold_the_last_one_and_short_gaps_are_filled_in():
    seen = [False, True, False, False, True, False, False, False, True, False]
    assert held_frames(seen).tolist() == [1, 1, 1, 1, 4, 4, 4, 4, 8, 8]
    times = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) / 10
    times[3] = 0.35
    values = torch.arange(10.0)[:, None].where(torch.tensor(seen)[:, None], torch.nan)
    filled, status = fill_missing(values, seen, times.tolist(), 0.3)
    assert torch.allclose(filled[:, 0], torch.tensor([1, 1, 2, 3.5, 4, 4, 4, 4, 8, 8]))
    words = {"o": "ok", "m": "missing", "i": "interpolated"}
    assert status == tuple(words[letter] for letter in "moiiommmom")
    assert fill_missing(values, seen)[1] == tuple(words[letter] for letter in "moiioiiiom")
    with pytest.raises(ShapeError):
        held_frames([False])


def test_pieces_end_at_long_gaps_and_cuts():
    seen = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0], bool)
    times = np.arange(11) / 10
    assert pieces(seen, times, [], 0.3) == [range(1, 10)]
    assert pieces(seen, times, [], 0.2) == [range(1, 3), range(5, 10)]
    assert pieces(seen, times, [6, 9], 0.3) == [range(1, 6), range(6, 8), range(9, 10)]
    assert held_frames(seen).tolist() == [1, 1, 2, 2, 2, 5, 6, 7, 7, 9, 9]


def test_keyframes_are_calm_sharp_and_from_all_sides():
    (anna,) = identities(1)
    wild = torch.full((52,), 0.6)
    frames = [sighting(0, k, anna, expression=wild if k < 20 else torch.zeros(52)) for k in range(40)]
    frames += [sighting(0, 40 + k, anna, yaw=0.6) for k in range(10)]
    chosen = choose_keyframes(frames, 4)
    assert len(chosen) == 4 and all(s.frame >= 20 for s in chosen)
    assert any(s.frame >= 40 for s in chosen)
    times = [s.time_s for s in chosen]
    assert times == sorted(times) and min(np.diff(times)) >= 0.2
    assert len(choose_keyframes(frames[:1], 4)) == 1


def test_a_face_is_followed_and_a_newcomer_found():
    anna, boris = identities(1, 2)
    script = [[sighting(0, k, anna, place=3.0 * k)] for k in range(20)]
    for k in range(10, 20):
        script[k].append(sighting(0, k, boris, place=150.0))
    found, detector = watched(script)
    assert all(0 in tracklets for tracklets in found)
    assert found[-1] == [0, 1] and detector.searches <= 4


def test_somebody_else_in_the_same_place_is_a_new_tracklet():
    anna, boris = identities(1, 2)
    script = [[sighting(0, k, anna if k < 10 else boris)] for k in range(20)]
    found, _ = watched(script)
    assert found[:10] == [[0]] * 10 and found[-1] == [1]
    first = next(k for k, tracklets in enumerate(found) if tracklets == [1])
    assert first <= 10 + WatchConfig().strikes


def test_two_that_meet_on_one_face_leave_it_to_whom_it_is_like():
    anna, boris = identities(1, 2)
    script = []
    for k in range(30):
        a, b = sighting(0, k, anna, place=8.0 * k), sighting(0, k, boris, place=120.0)
        hidden = abs(8.0 * k - 120.0) < 40
        script.append([a] if hidden else [a, b])
    found, _ = watched(script)
    assert all(len(set(tracklets)) == len(tracklets) for tracklets in found)
    behind = [tracklets for k, tracklets in enumerate(found) if abs(8.0 * k - 120.0) < 40]
    assert all(tracklets == [0] for tracklets in behind) and len(found[-1]) == 2


def test_following_gives_what_aligning_gives(clip, reconstructor):
    model, folder = reconstructor.model, clip[0]
    photo = hiface.data.read_photo(folder / "005.png")
    (face,) = reconstructor.read(photo, reconstructor.detector.detect(photo.image_srgb)[:1])
    focal = default_focal_px(SIZE, SIZE)
    observation = landmark_observation(face.detection, SIZE, SIZE, focal)
    sigma = torch.ones(150)
    slow = align_to_landmarks(
        model, observation, Start(face.params, sigma, 0.05, 1.0), FitConfig(focal_sigma_known=1e-4)
    )
    fast = PersonFollower(model, face.params, 0.05).follow(observation, face.params)
    assert float((slow.expression - fast.expression).abs().max()) < 0.02
    assert float((slow.camera.R - fast.camera.R).abs().max()) < 0.01
    off = face.with_params(slow).landmarks() - face.with_params(fast).landmarks()
    assert float(off.norm(dim=1).max()) < 0.3


def test_a_clip_has_an_answer_for_every_frame(clip, tracked):
    _, samples = clip
    assert len(tracked.times_s) == 30 and len(tracked.people) == 1
    person = tracked.people[0]
    assert [k for k, status in enumerate(person.status) if status == "missing"] == list(GAP)
    assert all(status == "ok" for k, status in enumerate(person.status) if k not in GAP)
    truth = torch.stack([sample.params.expression for sample in samples])
    there = torch.from_numpy(person.there)
    off, rest = (person.blendshapes - truth)[there].abs().mean(), truth[there].abs().mean()
    assert float(off) < 0.8 * float(rest)  # what an answer of always 0 is off by
    a, b = (x[there].flatten() - x[there].mean() for x in (person.blendshapes, truth))
    assert float(a @ b / (a.norm() * b.norm())) > 0.7
    points = torch.stack([sample.landmarks68_px for sample in samples])
    assert float((person.landmarks68_px - points)[there][:, 17:].norm(dim=-1).mean()) < 0.02 * SIZE
    assert bool(torch.isnan(person.blendshapes[~there]).all())


def test_files_of_a_clip(clip, tracked, tmp_path):
    from hiface.animation.motion_json import read_motion_json
    from hiface.export.glb_container import unpack_glb
    from hiface.saving import SaveOptions

    write_video_track(tracked, clip[0], tmp_path, SaveOptions(texture_size=256))
    track = read_track(tmp_path / "track.json")
    assert track.disordered == 0 and len(track.people) == 1
    there = torch.from_numpy(tracked.people[0].there)
    assert float((track.people[0].blendshapes - tracked.people[0].blendshapes)[there].abs().max()) < 1e-4
    motion = read_motion_json(tmp_path / "person1" / "blendshapes.json")
    assert len(motion) == 30 and motion.status.count("missing") == len(GAP)
    content = unpack_glb((tmp_path / "person1" / "face.glb").read_bytes()).document
    (animation,) = content["animations"]
    paths = {channel["target"]["path"] for channel in animation["channels"]}
    assert {"weights", "rotation", "translation"} <= paths
    with hiface.data.video.open_video(tmp_path / "overlay.mp4") as video:
        frames = [frame.image_srgb for frame in video]
    assert len(frames) == 30 and frames[0].shape == (SIZE, 3 * SIZE, 3)
    first, second = frames[2][:, :SIZE].astype(int), frames[2][:, SIZE : 2 * SIZE].astype(int)
    assert np.abs(first - second).mean() > 1.0  # a face is drawn over it
    gap = frames[GAP[2]]
    assert np.abs(gap[:, :SIZE].astype(int) - gap[:, SIZE : 2 * SIZE].astype(int)).mean() < 1.0


def test_nobody_and_no_network(reconstructor, tmp_path):
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "1.png")
    with pytest.raises(NoFaceError, match="no frame"):
        track_video(tmp_path, reconstructor)
    with pytest.raises(OptionError, match="network"):
        track_video(tmp_path, hiface.Reconstructor("fit"))
    for wrong in ({"people": 0}, {"keyframes": 99}, {"focal_px": -1.0}):
        with pytest.raises(OptionError):
            TrackOptions(**wrong)


def test_live_answers_are_near_those_of_the_whole_clip(clip, reconstructor, tracked):
    tracker = LiveTracker(reconstructor)
    with hiface.data.video.open_video(clip[0], 25) as video:
        faces = [tracker.step(frame.image_srgb, frame.time_s) for frame in video]
    assert [len(found) for found in faces] == [0 if k in GAP else 1 for k in range(30)]
    assert {face.person for found in faces for face in found} == {1}
    there = [k for k in range(30) if k not in GAP]
    live = torch.stack([faces[k][0].blendshapes for k in there])
    assert float((live - tracked.people[0].blendshapes[there]).abs().mean()) < 0.05
    displacement, normals = tracker.detail_maps(faces[0][0])
    still = replace(tracked.people[0].face, params=faces[0][0].params, relief=None)
    assert torch.allclose(displacement, still.displacement(), atol=1e-6) and bool(displacement.any())
    assert torch.allclose(normals, still.normals(), atol=1e-5)


def test_recorded_frames_come_at_their_times_and_late_ones_are_passed_over(clip):
    import time

    class Slow:
        def warm_up(self, width, height):
            self.warm = (width, height)

        def step(self, image, time_s):
            time.sleep(0.1)
            return []

    tracker = Slow()
    with hiface.data.video.open_video(clip[0], 25) as video:
        stream = LiveStream(video, tracker)
        shown = [(answer.frame.index, answer.shown_s) for answer in stream]
    assert tracker.warm == (SIZE, SIZE)
    numbers = [number for number, _ in shown]
    assert numbers[0] == 0 and stream.passed_over == 30 - len(numbers) > 10
    start = shown[0][1]
    assert all(at - start == pytest.approx(number / 25, abs=1e-6) for number, at in shown)
