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
from hiface.tracking.motions import MotionSoFar, moved_expressions
from tracked_faces import identities, sighting

N_EVIDENCE, CHANNELS = 20, (3, 5, 8)


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
        found = made(traces, read, R, Means(traces.mean(1, keepdim=True), read.mean(1, keepdim=True)))
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


def test_without_network_or_traces_single_frames_count():
    made = network()
    seen, _ = sightings_of(made)
    plain = [s.read.expression for s in seen]
    blind = [replace(s, trace=None) for s in seen]
    for found in (moved_expressions(None, seen), moved_expressions(made, blind), moved_expressions(made, [])):
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=False))
    assert torch.equal(MotionSoFar(made).step(blind[0]), plain[0])


def test_weights_survive_their_file(tmp_path):
    made = network()
    save_weights(made, tmp_path / "motion.safetensors", {})
    again = load_motion(tmp_path / "motion.safetensors")
    assert again.config == made.config
    evidence, read, _, _ = people(1, 3)
    assert torch.allclose(again.trace(evidence, read), made.trace(evidence, read), atol=0.05)


@pytest.fixture(scope="module")
def reconstructor():
    return hiface.Reconstructor(device="cpu")


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
