"""Tracking of videos: cuts, tracklets, people, following a known person, and a whole clip."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.errors import NoFaceError, OptionError
from hiface.evaluation.track_files import read_track
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import align_to_landmarks, default_focal_px
from hiface.fitting.follow import PersonFollower
from hiface.fitting.initialise import mean_face
from hiface.fitting.observe import landmark_observation
from hiface.fitting.priors import Start
from hiface.networks.detect import Detection
from hiface.synthetic.clips import generate_clip
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, open_model
from hiface.synthetic.generator import Style
from hiface.tracking.cuts import CutDetector
from hiface.tracking.follow import pieces
from hiface.tracking.keyframes import choose_keyframes
from hiface.tracking.live import LiveTracker, drawn_face
from hiface.tracking.outputs import write_video_track
from hiface.tracking.people import Acquaintances, people_of
from hiface.tracking.result import held_frames
from hiface.tracking.sightings import FaceWatcher, Sighting, WatchConfig
from hiface.tracking.store import Seen, SightingStore
from hiface.tracking.streaming import LiveStream
from hiface.tracking.video import TrackOptions, track_video

SIZE = 256
GAP = range(14, 19)
PERSON = (HOLDOUT_SEED + 17) * SEED_STRIDE + 9


@pytest.fixture(scope="module")
def reconstructor():
    return hiface.Reconstructor(device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder of 30 frames of a person with an empty stretch, and the samples."""
    folder = tmp_path_factory.mktemp("clip")
    samples = generate_clip(open_model(), PERSON, Style(SIZE), 30)
    for k, sample in enumerate(samples):
        picture = sample.image_srgb.permute(1, 2, 0).numpy()
        picture = np.full_like(picture, 90) if k in GAP else picture
        Image.fromarray(picture).save(folder / f"{k:03d}.png")
    return folder, samples


@pytest.fixture(scope="module")
def tracked(clip, reconstructor):
    return track_video(clip[0], reconstructor, TrackOptions(keyframes=1, fps=25))


def sighting(tracklet, frame, identity, expression=None, yaw=0.0, score=0.9, place=0.0):
    model = hiface.load_model()
    person = mean_face(model, SIZE, SIZE, 300.0)
    person = person.replace(identity=identity, static=torch.zeros(4))
    if expression is not None:
        person = person.replace(expression=expression)
    turn = torch.tensor([[np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0], [np.sin(yaw), 0, -np.cos(yaw)]])
    seen = replace(drawn_face(model, person), score=score, R_cam_object=turn.float())
    moved = {name: getattr(seen, name) + place for name in ("landmarks68_px", "dense_px", "iris_px", "box")}
    return Sighting(tracklet, frame, frame / 25, replace(seen, **moved), person)


def identities(*seeds):
    return [torch.from_numpy(np.random.default_rng(seed).normal(0, 1, 150)).float() for seed in seeds]


def test_cuts_are_seen_and_motion_light_and_noise_are_not():
    rng = np.random.default_rng(0)
    scenes = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)).resize((320, 180)))
        for _ in range(2)
    ]
    cuts = CutDetector()
    frames = [scenes[0], np.roll(scenes[0], 4, axis=1), scenes[0] // 2, scenes[1], scenes[1]]
    assert [cuts.step(frame) for frame in frames] == [False, False, False, True, False]
    dark = np.zeros_like(scenes[0])
    noisy = dark + rng.integers(0, 4, dark.shape, dtype=np.uint8)
    assert [cuts.step(frame) for frame in (dark, noisy, dark, scenes[0])] == [True, False, False, True]


def test_tracklets_become_people():
    sigma = torch.ones(150)
    anna, boris = identities(1, 2)
    noise = lambda k: 0.2 * identities(100 + k)[0]  # noqa: E731
    frames = [sighting(0, k, anna + noise(k)) for k in range(10)]
    frames += [sighting(1, k, boris + noise(50 + k)) for k in range(5, 12)]
    frames += [sighting(2, k, anna + noise(k)) for k in range(20, 26)]
    frames += [sighting(3, 30, identities(7)[0])]  # a flicker on a poster
    people = people_of(frames, sigma, 40)
    assert [len(p.sightings) for p in people] == [16, 7]
    assert {s.tracklet for s in people[0].sightings} == {0, 2}
    assert [s.frame for s in people[0].sightings] == sorted(s.frame for s in people[0].sightings)
    twins = [sighting(0, k, anna) for k in range(6)] + [sighting(1, k, anna) for k in range(6)]
    assert len(people_of(twins, sigma, 6)) == 2  # nobody is in a frame twice
    assert len(people_of(frames[-1:], sigma, 40)) == 1 and people_of([], sigma, 40) == []


def test_whoever_comes_back_keeps_the_number():
    sigma = torch.ones(150)
    anna, boris = identities(1, 2)
    known = Acquaintances(sigma)
    assert known.person_of(sighting(0, 0, anna), {}) == 1
    assert known.person_of(sighting(1, 0, boris), {0: 1}) == 2
    assert known.person_of(sighting(2, 9, anna + 0.1 * boris), {}) == 1
    assert known.person_of(sighting(3, 9, anna), {2: 1}) == 3  # 1 is in the picture already
    assert known.person_of(sighting(1, 10, boris), {}) == 2


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


class Scripted:
    """Says who is where in each frame: a detector without pictures."""

    config = hiface.Reconstructor.__init__.__globals__["FaceDetector"](threads=1).config

    def __init__(self, script):
        self.script, self.frame, self.searches = script, 0, 0

    def with_config(self, config):
        return self

    def detect(self, image, focal):
        self.searches += 1
        return [s.detection for s in self.script[self.frame]]

    def look_again(self, image, places, focal):
        """The nearest face within half a face of each place."""
        out: list[Detection | None] = []
        for place in places:
            near = [
                (float((s.detection.landmarks68_px.mean(0) - torch.from_numpy(place).mean(0)).norm()), k)
                for k, s in enumerate(self.script[self.frame])
            ]
            best = min(near, default=(np.inf, 0))
            out.append(self.script[self.frame][best[1]].detection if best[0] < 60 else None)
        return out


def watched(script, config=None):
    detector = Scripted(script)
    by_detection = {id(s.detection): s.read for frame in script for s in frame}

    def read(image, detections):
        people = [by_detection[id(d)] for d in detections]
        return [p for p in people]

    watcher = FaceWatcher(detector, read, torch.ones(150), config or WatchConfig())
    grey, found = np.full((64, 64, 3), 90, np.uint8), []
    for frame in range(len(script)):
        detector.frame = frame
        found.append([s.tracklet for s in watcher.step(grey, frame, frame / 25, 300.0)])
    return found, detector


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


def test_what_was_seen_is_stored_and_read_back(tmp_path):
    (anna,) = identities(1)
    seen = Seen([], [3], [])
    store = SightingStore(tmp_path / "w", {"source": "a"})
    assert store.load().times_s == []
    for frame in range(230):
        seen.times_s.append(frame / 25)
        if frame % 2:
            seen.sightings.append(sighting(frame // 50, frame, anna + frame))
        seen.tracklets = frame // 50 + 1
        store.keep(seen)
    assert len(list((tmp_path / "w").iterdir())) == 2
    store.keep(seen, last=True)
    again = SightingStore(tmp_path / "w", {"source": "a"}).load()
    assert again.times_s == seen.times_s and again.cuts == [3] and again.tracklets == 5
    assert [s.frame for s in again.sightings] == [s.frame for s in seen.sightings]
    one, two = again.sightings[70], seen.sightings[70]
    assert torch.equal(one.detection.dense_px, two.detection.dense_px)
    assert torch.equal(one.read.identity, two.read.identity) and one.detection.score == two.detection.score
    assert torch.equal(one.read.camera.T_cam_object, two.read.camera.T_cam_object)
    assert SightingStore(tmp_path / "w", {"source": "b"}).load().times_s == []
    (tmp_path / "w" / "seen_00001.safetensors").write_bytes(b"torn")
    assert len(SightingStore(tmp_path / "w", {"source": "a"}).load().times_s) == 100
    store.remove()
    assert not (tmp_path / "w").exists()


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
    assert float((person.blendshapes - truth)[there].abs().mean()) < 0.1
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


def test_a_run_that_was_stopped_goes_on_where_it_was(clip, reconstructor, tracked, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def until(frame):
        def progress(stage, done, total):
            if (stage, done) == ("watch", frame):
                raise Stop

        return progress

    options = TrackOptions(keyframes=1, fps=25)
    with pytest.raises(Stop):
        track_video(clip[0], reconstructor, options, tmp_path, until(12))
    looked = []
    step = FaceWatcher.step
    monkeypatch.setattr(FaceWatcher, "step", lambda self, *a: looked.append(a[1]) or step(self, *a))
    again = track_video(clip[0], reconstructor, options, tmp_path)
    assert looked == list(range(12, 30))
    assert again.people[0].status == tracked.people[0].status
    off = again.people[0].blendshapes - tracked.people[0].blendshapes
    assert float(off.nan_to_num().abs().mean()) < 0.01


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


def test_the_command(clip, tmp_path, capsys):
    from hiface.cli.main import main

    out = tmp_path / "out"
    arguments = ["track", str(clip[0]), "-o", str(out), "--fps", "25", "--keyframes", "1", "--no-overlay"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert json.loads((out / "track.json").read_text())["n_frames"] == 30
    assert not (out / ".seen").exists() and not (out / "overlay.mp4").exists()
    said = capsys.readouterr().err
    assert "interpolated" in said and "px at 512" in said
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--seconds", "3"])
    assert ended.value.code == 1 and "cameras" in capsys.readouterr().err


def test_the_live_command_sends_and_keeps_a_motion(clip, tmp_path, capsys):
    import socket

    from hiface.animation.live_link import decode_packet
    from hiface.animation.motion_json import read_motion_json
    from hiface.cli.main import main

    out = tmp_path / "motion.json"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended:
            main(["live", str(clip[0]), "--fps", "5", "--to", to, "--name", "anna", "-o", str(out)])
        assert ended.value.code == 0
        packets = [decode_packet(listener.recv(4096)) for _ in range(10)]
    assert {packet.subject for packet in packets} == {"anna"}
    assert all(packet.channels is not None and len(packet.channels) == 61 for packet in packets)
    motion = read_motion_json(out)
    assert len(motion) > 10 and "packets" in capsys.readouterr().err
    for wrong in (["-o", "motion.txt"], ["--seconds", "0"], ["--to", ":x"]):
        with pytest.raises(SystemExit) as ended:
            main(["live", str(clip[0]), *wrong])
        assert ended.value.code == 1
