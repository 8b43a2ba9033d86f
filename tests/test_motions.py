"""Changes of expression: the network of traces, means over a clip and so far, the packaged weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.networks.motion_net import Means, MotionConfig, MotionNet
from hiface.networks.weights import load_motion, save_weights
from hiface.synthetic.clips import generate_clip
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE
from hiface.synthetic.generator import Style
from hiface.tracking import follow
from hiface.tracking.live import LiveTracker
from hiface.tracking.motions import MotionSoFar, moved_expressions
from hiface.tracking.video import TrackOptions, track_video
from tracked_faces import Scripted, identities, sighting, write_clip

N_EVIDENCE, CHANNELS = 20, (3, 5, 8)


@pytest.fixture(scope="module")
def reconstructor():
    return hiface.Reconstructor(device="cpu")


def people(count, seed):
    """Evidence that says exactly how channels change, beside a constant of each person."""
    gen = torch.Generator().manual_seed(seed)
    truth = 0.5 * torch.rand(count, 12, 52, generator=gen)
    mix = torch.randn(len(CHANNELS), N_EVIDENCE, generator=torch.Generator().manual_seed(99))
    evidence = truth[..., list(CHANNELS)] @ mix + 5 * torch.randn(count, 1, N_EVIDENCE, generator=gen)
    return evidence, torch.full((count, 12, 52), 0.1), torch.eye(3).expand(count, 12, 3, 3), truth


def network():
    torch.manual_seed(0)
    made = MotionNet(MotionConfig(N_EVIDENCE, 52, CHANNELS, hidden=8, strength=1.0)).eval()
    evidence, read, R, truth = people(200, 1)
    made.fit_linear(evidence, read, truth)
    with torch.no_grad():
        made.fit_spread(made.trace(evidence, read), read, R)
    return made


def sightings_of(made, person=0):
    evidence, read, _, truth = people(3, 2)
    with torch.no_grad():
        traces = made.trace(evidence[person], read[person])
    (who,) = identities(1)
    seen = [sighting(0, k, who, expression=read[person, k].clone()) for k in range(12)]
    seen = [replace(s, trace=trace) for s, trace in zip(seen, traces, strict=True)]
    return seen, truth[person]


def test_changes_are_read_whatever_the_persons_constant_is():
    made = network()
    evidence, read, R, truth = people(5, 2)
    with torch.no_grad():
        traces = made.trace(evidence, read)
        found = made(traces, read, R, Means.of(traces, read))
    goal = truth[..., list(CHANNELS)]
    goal = goal - goal.mean(1, keepdim=True)
    assert torch.allclose(found - found.mean(1, keepdim=True), goal, atol=0.02)


def test_of_a_clip_what_moves_is_moved_and_the_rest_stays():
    made = network()
    seen, truth = sightings_of(made)
    found = torch.stack(moved_expressions(made, seen))
    others = [i for i in range(52) if i not in CHANNELS]
    assert torch.equal(found[:, others], torch.full((12, 49), 0.1))
    goal, got = truth[:, list(CHANNELS)], found[:, list(CHANNELS)]
    assert float(got.min()) >= 0
    for channel in range(3):
        correlation = np.corrcoef(goal[:, channel].numpy(), got[:, channel].numpy())[0, 1]
        assert correlation > 0.9
    assert torch.equal(seen[0].read.expression, torch.full((52,), 0.1)), "what was read is left alone"


def test_frame_by_frame_it_comes_to_the_same():
    made = network()
    seen, _ = sightings_of(made)
    whole = torch.stack(moved_expressions(made, seen))
    so_far = MotionSoFar(made)
    assert torch.allclose(so_far.step(seen[0]), seen[0].read.expression), (
        "the first frame says nothing of changes"
    )
    for _ in range(20):
        again = torch.stack([so_far.step(s) for s in seen])
    assert torch.allclose(again, whole, atol=0.03)


def test_what_is_held_does_not_fade_faster_than_the_mean_rises():
    made = network()
    (who,) = identities(1)
    levels = [0.0] * 60 + [0.4] * 60
    seen = [sighting(0, k, who, expression=torch.full((52,), 0.3)) for k in range(120)]
    so_far = MotionSoFar(made)
    for k, (s, level) in enumerate(zip(seen, levels, strict=True)):
        moved = so_far.step(replace(s, trace=torch.full((3,), level)))[list(CHANNELS)]
        assert torch.allclose(
            moved, torch.full((3,), 0.3 + level - float(np.mean(levels[: k + 1]))), atol=1e-4
        )


def test_a_frame_without_a_finite_trace_stays_as_read_and_spoils_no_other():
    made = network()
    seen, _ = sightings_of(made)
    bad = torch.full((3,), torch.nan)
    mixed = [
        replace(s, trace=bad) if k == 4 else replace(s, trace=None) if k == 7 else s
        for k, s in enumerate(seen)
    ]
    rest = [s for k, s in enumerate(seen) if k not in (4, 7)]
    so_far, without = MotionSoFar(made), MotionSoFar(made)
    for found, others in (
        (moved_expressions(made, mixed), moved_expressions(made, rest)),
        ([so_far.step(s) for s in mixed], [without.step(s) for s in rest]),
    ):
        assert all(torch.equal(found[k], seen[k].read.expression) for k in (4, 7))
        kept = [value for k, value in enumerate(found) if k not in (4, 7)]
        assert all(torch.allclose(a, b) for a, b in zip(kept, others, strict=True))


def test_live_faces_move_by_their_traces(reconstructor, monkeypatch):
    """A jaw that single frames do not see open."""
    model = reconstructor.model
    jaw, config = (
        model.expression_index("jawOpen"),
        MotionConfig(N_EVIDENCE, 52, (model.expression_index("jawOpen"),)),
    )
    (who,) = identities(1)
    script = [[sighting(0, k, who, expression=torch.full((52,), 0.3))] for k in range(20)]
    detector = Scripted(script)

    def read_traced(image, detections, focal_px, with_detail):
        return [s.read for s in script[detector.frame]], torch.full(
            (1, 1), 0.6 if detector.frame > 15 else 0.0
        )

    def last(motion):
        monkeypatch.setattr(reconstructor.network, "motion", motion)
        tracker = LiveTracker(reconstructor)
        for frame in range(20):
            detector.frame = frame
            (face,) = tracker.step(np.full((256, 256, 3), 90, np.uint8), frame / 25)
        return float(face.params.expression[jaw])

    monkeypatch.setattr(reconstructor, "detector", detector)
    monkeypatch.setattr(reconstructor.network, "read_traced", read_traced)
    assert last(MotionNet(config).eval()) > last(None) + 0.1


def test_videos_are_fitted_about_what_the_traces_say(reconstructor, monkeypatch, tmp_path):
    jaw, given = reconstructor.model.expression_index("jawOpen"), []

    def wide_open(network, sightings):
        given.append((network, [s.trace is not None for s in sightings]))
        vector = torch.zeros(52)
        vector[jaw] = 1.0
        return [vector] * len(sightings)

    write_clip(tmp_path)
    options = TrackOptions(keyframes=1)
    plain = track_video(tmp_path, reconstructor, options).people[0].expression[:, jaw]
    monkeypatch.setattr(follow, "moved_expressions", wide_open)
    opened = track_video(tmp_path, reconstructor, options).people[0].expression[:, jaw]
    assert given[0][0] is reconstructor.network.motion and all(given[0][1])
    assert float(opened.nanmean()) > float(plain.nanmean()) + 0.2


def test_without_network_or_traces_single_frames_count():
    made = network()
    seen, _ = sightings_of(made)
    plain = [s.read.expression for s in seen]
    blind = [replace(s, trace=None) for s in seen]
    for found in (moved_expressions(None, seen), moved_expressions(made, blind)):
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
    assert moved_expressions(made, []) == []
    assert torch.equal(MotionSoFar(made).step(blind[0]), plain[0])


def test_weights_survive_their_file(tmp_path):
    made = network()
    save_weights(made, tmp_path / "motion.safetensors", {})
    again = load_motion(tmp_path / "motion.safetensors")
    assert again.config == made.config
    evidence, read, _, _ = people(1, 3)
    assert torch.allclose(again.trace(evidence, read), made.trace(evidence, read), atol=0.05)


def test_packaged_weights_belong_to_the_packaged_network(reconstructor, tmp_path):
    motion, network = reconstructor.network.motion, hiface.networks.weights.load_hiface()
    c = network.config
    assert motion.config.n_evidence == c.n_whitened + 3 * c.n_points
    names = reconstructor.model.data.expression_names
    left = {name for i, name in enumerate(names) if i not in motion.config.channels}
    assert all(name.startswith(("eyeLook", "eyeBlink", "eyeWide")) for name in left) and len(left) == 12
    save_weights(network, tmp_path / "own.safetensors", {})
    own = hiface.Reconstructor(device="cpu", weights=tmp_path / "own.safetensors")
    assert own.network.motion is None, "traces of another network mean nothing to it"


def test_packaged_weights_move_more_truly_than_single_frames(reconstructor):
    """Over channels that move in clips of people nobody was trained on."""
    network, before, after = reconstructor.network, [], []
    channels = list(network.motion.config.channels)
    for person in range(3):
        samples = generate_clip(
            reconstructor.model, (HOLDOUT_SEED + 70 + person) * SEED_STRIDE, Style(256), 64
        )[::4]
        images = [s.image_srgb.permute(1, 2, 0).contiguous().numpy() for s in samples]
        seen = []
        for k, (image, sample) in enumerate(zip(images, samples, strict=True)):
            places = sample.landmarks68_px.numpy()[None]
            face = reconstructor.detector.look_again(image, places, 300.0)[0]
            if face is not None:
                read, traces = network.read_traced(image, [face], 300.0)
                at = sighting(0, k, read.identity[0], expression=read.expression[0])
                seen.append(replace(at, read=read[0], trace=traces[0]))
        truth = torch.stack([samples[s.frame].params.expression for s in seen])[:, channels]
        goal = truth - truth.mean(0)
        single = torch.stack([s.read.expression for s in seen])[:, channels]
        moved = torch.stack(moved_expressions(network.motion, seen))[:, channels]
        active = goal.square().mean(0).sqrt() >= 0.05
        for found, into in ((single, before), (moved, after)):
            off = found - found.mean(0)
            both = (off * goal).mean(0) / (off.square().mean(0).sqrt() * goal.square().mean(0).sqrt() + 1e-9)
            into.append(both[active])
    assert float(torch.cat(after).mean()) > float(torch.cat(before).mean()) + 0.05
