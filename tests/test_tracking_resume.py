# SPDX-License-Identifier: Apache-2.0
"""A run that was stopped goes on as if it had not been; what was seen of anything else is not used."""

import os
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.data.video import VideoFrame
from hiface.networks.detect import Detection
from hiface.tracking import video as video_module
from hiface.tracking.sightings import Followed, WatchState
from hiface.tracking.store import Seen, SightingStore, content_mark
from hiface.tracking.video import TrackOptions, track_video, watch
from hiface.types import Camera
from tracked_faces import SIZE, Scripted, identities, sighting, write_clip


class Stop(Exception):
    """In place of Ctrl-C."""


@pytest.fixture(scope="module")
def reconstructor():
    return hiface.Reconstructor(device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return folder


def until(frame):
    def progress(stage, done, total):
        if (stage, done) == ("watch", frame):
            raise Stop

    return progress


def test_what_was_seen_is_stored_and_read_back(tmp_path):
    (anna,) = identities(1)
    seen = Seen()
    store = SightingStore(tmp_path / "w", {"source": "a"})
    assert store.load().times_s == []
    for frame in range(230):
        found = [sighting(frame // 50, frame, anna + frame)] if frame % 2 else []
        followed = [Followed(s, np.array([frame, 0.1], np.float32), anna / 3, frame, 2) for s in found]
        seen.add(frame / 25, found, WatchState(followed, frame // 50 + 1, frame / 30, idle=frame))
        store.keep(seen)
    assert len(list((tmp_path / "w").iterdir())) == 2
    store.keep(seen, last=True)
    again = SightingStore(tmp_path / "w", {"source": "a"}).load()
    assert again.times_s == seen.times_s
    assert [s.frame for s in again.sightings] == [s.frame for s in seen.sightings]
    one, two = again.sightings[70], seen.sightings[70]
    assert torch.equal(one.detection.dense_px, two.detection.dense_px)
    assert torch.equal(one.read.identity, two.read.identity) and one.detection.score == two.detection.score
    assert torch.equal(one.read.camera.T_cam_object, two.read.camera.T_cam_object)
    for name in ("tracklets", "searched_s", "lost_s", "idle"):
        assert getattr(again.state, name) == getattr(seen.state, name)
    (old,), (new,) = seen.state.followed, again.state.followed
    assert new.sighting is again.sightings[-1] and (new.count, new.strikes) == (old.count, old.strikes)
    assert torch.equal(new.likeness, old.likeness) and np.array_equal(new.velocity_px, old.velocity_px)
    (tmp_path / "w" / "seen_00001.safetensors").write_bytes(b"torn")
    assert len(SightingStore(tmp_path / "w", {"source": "a"}).load().times_s) == 100
    assert len(list((tmp_path / "w").iterdir())) == 1  # what came after it does not come back
    assert SightingStore(tmp_path / "w", {"source": "b"}).load().times_s == []
    store.remove()
    assert not (tmp_path / "w").exists()


def test_a_run_that_was_stopped_goes_on_where_it_was(clip, reconstructor, tmp_path, monkeypatch):
    options = TrackOptions(keyframes=1, fps=25)
    whole = track_video(clip, reconstructor, options)
    with pytest.raises(Stop):
        track_video(clip, reconstructor, options, tmp_path, until(12))
    looked = []
    step = video_module.FaceWatcher.step
    monkeypatch.setattr(
        video_module.FaceWatcher, "step", lambda self, *a: looked.append(a[1]) or step(self, *a)
    )
    again = track_video(clip, reconstructor, options, tmp_path)
    assert looked == list(range(12, 30))
    assert again.people[0].status == whole.people[0].status
    off = again.people[0].blendshapes - whole.people[0].blendshapes
    assert float(off.nan_to_num().abs().max()) < 1e-5


@pytest.mark.parametrize("stop", [1, 7, 9, 10, 11, 12, 15, 19, 23])
def test_wherever_it_was_stopped_the_rest_is_the_same(tmp_path, stop):
    """A cut at 10, a flash at 18, somebody else in the same place at 22, faces that move and are lost."""
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 255, (9, 16, 3), dtype=np.uint8) for _ in range(3)]
    scenes = [np.asarray(Image.fromarray(scene).resize((320, 180))) for scene in scenes]
    pictures = [scenes[2 if k == 18 else k >= 10] for k in range(30)]
    anna, boris, carla = identities(1, 2, 3)
    script = [[sighting(0, k, anna if k < 22 else carla, place=4.0 * k)] for k in range(30)]
    for k in range(13, 30):
        script[k].append(sighting(0, k, boris, place=250.0))
    script[14] = script[14][:1]
    whole, cuts = watched_video(pictures, script, SightingStore(None, {}))
    assert cuts == [10] and len({s.tracklet for s in whole.sightings}) > 3
    with pytest.raises(Stop):
        watched_video(pictures, script, SightingStore(tmp_path, {}), until(stop))
    again, cuts_again = watched_video(pictures, script, SightingStore(tmp_path, {}))
    assert cuts_again == cuts and again.times_s == whole.times_s
    said = [[(s.tracklet, s.frame, s.time_s) for s in seen.sightings] for seen in (again, whole)]
    assert said[0] == said[1]
    for name in (f.name for f in fields(Detection) if f.name != "score"):
        pairs = zip(again.sightings, whole.sightings, strict=True)
        assert all(torch.equal(getattr(a.detection, name), getattr(b.detection, name)) for a, b in pairs)
    assert all(torch.equal(a.trace, b.trace) for a, b in zip(again.sightings, whole.sightings, strict=True))


def watched_video(pictures, script, store, progress=lambda *a: None):
    detector = Scripted(script)
    by_detection = {id(s.detection): s.read for frame in script for s in frame}

    class Video:
        info = SimpleNamespace(n_frames=len(pictures))

        def __iter__(self):
            for k, picture in enumerate(pictures):
                detector.frame = k
                yield VideoFrame(k, k / 25, picture)

    def read_traced(image, detections, focal_px):
        faces = [by_detection[id(d)] for d in detections]
        return faces, torch.stack([face.identity[:5] + detector.frame for face in faces])

    network = SimpleNamespace(identity_sigma=torch.ones(150), read_traced=read_traced)
    reconstructor = SimpleNamespace(detector=detector, network=network)
    camera = Camera.from_pose(torch.eye(3), torch.tensor([0.0, 0, 1]), 300.0, SIZE, SIZE)
    return watch(Video(), reconstructor, camera, store, progress)


def test_the_store_of_anything_else_is_not_used(clip, reconstructor, tmp_path, monkeypatch):
    """Another focal length, rate, network or picture under the same name begins anew; the same does not."""
    looked = []
    monkeypatch.setattr(video_module, "people_of", lambda *a: ([], 0))
    step = video_module.FaceWatcher.step
    monkeypatch.setattr(
        video_module.FaceWatcher, "step", lambda self, *a: looked.append(a[1]) or step(self, *a)
    )

    def frames_looked_at(options):
        looked.clear()
        with pytest.raises(hiface.errors.NoFaceError):
            track_video(clip, reconstructor, options, tmp_path / "w")
        return len(looked)

    assert frames_looked_at(TrackOptions(fps=25)) == 30 and frames_looked_at(TrackOptions(fps=25)) == 0
    assert frames_looked_at(TrackOptions(fps=24)) == 30
    assert frames_looked_at(TrackOptions(fps=24, focal_px=900.0)) == 30
    assert frames_looked_at(TrackOptions(fps=24, focal_px=900.0)) == 0
    monkeypatch.setattr(video_module, "networks_digest", lambda: "others")
    assert frames_looked_at(TrackOptions(fps=24, focal_px=900.0)) == 30
    read = reconstructor.coefficients
    shifted = lambda *a: (p := read(*a)).replace(identity=p.identity + 0.01)  # noqa: E731
    monkeypatch.setattr(reconstructor, "coefficients", shifted)  # weights of one's own
    assert frames_looked_at(TrackOptions(fps=24, focal_px=900.0)) == 30
    os.utime(clip / "007.png", ns=(1, 1))
    assert frames_looked_at(TrackOptions(fps=24, focal_px=900.0)) == 30


def test_files_are_told_apart_by_place_size_and_change(tmp_path):
    one, two = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"1234")
    two.write_bytes(b"1234")
    os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    mark = content_mark(one)
    assert (
        content_mark(str(one)) == content_mark(tmp_path / "x" / ".." / "a.mp4") == mark != content_mark(two)
    )
    two.replace(one)
    assert content_mark(one) == mark
    os.utime(one, ns=(5, 5))
    assert content_mark(one) != mark
    folder = content_mark(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert content_mark(tmp_path) == folder
    (tmp_path / "1.png").touch()
    assert content_mark(tmp_path) != folder
