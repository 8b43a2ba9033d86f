# SPDX-License-Identifier: Apache-2.0
"""Makes the packaged network that reads changes of expression: people, regression, training, scores.

    python tools/train_motion.py WORK --people 5000 --out src/hiface/assets/weights

Every person is shown in twelve moments of one recording. What the networks say of them is kept in WORK, a
file for each person; a run that was stopped goes on where it was, and several may make people at once. The
last tenth of the people are not trained on and give the scores in the file's metadata.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

import hiface
from hiface.atomic import atomic_write_bytes
from hiface.networks.detect import FaceDetector
from hiface.networks.motion_net import Means, MotionConfig, MotionNet
from hiface.networks.read_hiface import HifaceReader
from hiface.networks.weights import load_hiface, save_weights
from hiface.synthetic.clips import frame_shot, sample_motion
from hiface.synthetic.generator import Style, take_picture
from hiface.synthetic.shots import draw_shot, sitter_of

_FIRST_PERSON = 5_000_000
_SIZES = (256, 320, 384, 512)
_MOMENTS = 12
_APART = 16  # frames of a recording from which one is taken
_STEPS, _BATCH, _RATE = 6000, 24, 2e-3
_KEPT = ("eyeLook", "eyeBlink", "eyeWide")  # single frames say more of blinks, and changes too little of wide
_KEYS = ("evidence", "read", "R", "truth")


class Recorder:
    """What the packaged networks say of people in several moments."""

    def __init__(self) -> None:
        self.model, self.detector = hiface.load_model(), FaceDetector()
        self.reader = HifaceReader.of(load_hiface(), self.model, "cpu", {})

    def person(self, number: int) -> dict[str, np.ndarray]:
        """`_KEYS` of one person's moments: [n, D], [n, E], [n, 3, 3], [n, E]."""
        rng = np.random.default_rng([_FIRST_PERSON + number, 37])
        size = int(rng.choice(_SIZES))
        style = Style(size)
        sitter = sitter_of(self.model, _FIRST_PERSON + number, style.effects)
        first = draw_shot(self.model, sitter, rng, size, style.effects)
        away = float(first.picture.T_cam_head[2, 3])
        names = self.model.data.expression_names
        motion = sample_motion(names, first.act, _MOMENTS * _APART, away, rng)
        rows = []
        for moment in range(_MOMENTS):
            index = moment * _APART + int(rng.integers(_APART))
            shot = frame_shot(self.model, first, motion, index)
            own = np.random.default_rng([_FIRST_PERSON + number, 41 + moment])
            sample = take_picture(self.model, shot, own, style, _FIRST_PERSON + number, index).sample
            image = sample.image_srgb.permute(1, 2, 0).contiguous().numpy()
            seen = self.read(image, sample.landmarks68_px.numpy(), float(sample.params.camera.focal_px))
            if seen is not None:
                rows.append((*seen, sample.params.expression.numpy()))
        return {key: np.stack([row[i] for row in rows]) for i, key in enumerate(_KEYS) if rows}

    def read(self, image: np.ndarray, places: np.ndarray, focal_px: float) -> tuple[np.ndarray, ...] | None:
        """Evidence, expression and rotation of the face near the points [68, 2]; None if there is none."""
        face = self.detector.look_again(image, places[None].astype(np.float32), focal_px)[0]
        if face is None:
            return None
        params, evidence = self.reader.read_evidence(image, [face], focal_px, with_detail=False)
        assert evidence is not None
        return tuple(x[0].numpy() for x in (evidence, params.expression, params.camera.R))


def make_people(work: Path, numbers: Sequence[int]) -> None:
    """Writes the files that are not there yet."""
    missing = [number for number in numbers if not person_path(work, number).exists()]
    recorder = Recorder() if missing else None
    for number in track(missing, "making people"):
        assert recorder is not None
        path = person_path(work, number)
        if not path.exists():
            seen = {key: value.astype(np.float16) for key, value in recorder.person(number).items()}
            content = io.BytesIO()
            np.savez(content, **seen)  # pyright: ignore[reportArgumentType]
            atomic_write_bytes(path, content.getvalue())


def person_path(work: Path, number: int) -> Path:
    """File of one person."""
    return work / f"person{number:05d}.npz"


def read_people(work: Path, numbers: Sequence[int]) -> tuple[Tensor, ...]:
    """`_KEYS` of all people who were seen in all moments: [P, n, ...]."""
    parts = []
    for number in numbers:
        with np.load(person_path(work, number)) as file:
            if "truth" in file and len(file["truth"]) == _MOMENTS:
                parts.append([file[key].astype(np.float32) for key in _KEYS])
    return tuple(torch.from_numpy(np.stack(values)) for values in zip(*parts, strict=True))


def train(config: MotionConfig, people: tuple[Tensor, ...], seed: int = 0) -> MotionNet:
    """The linear map in one step, the small network with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    network = MotionNet(config)
    evidence, read, R, truth = people
    network.fit_linear(evidence, read, truth)
    with torch.no_grad():
        traces = network.trace(evidence, read)
    network.fit_spread(traces, read, R)
    network.linear.requires_grad_(False)
    goal = _changes(truth[..., list(config.channels)])
    optimizer = torch.optim.AdamW(network.mix.parameters(), lr=_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(_STEPS), "training"):
        rows = torch.randint(len(truth), (_BATCH,), generator=generator)
        error = changes(network, traces[rows], read[rows], R[rows]) - goal[rows]
        loss = (error.square() + 1e-4).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def changes(network: MotionNet, traces: Tensor, read: Tensor, R: Tensor) -> Tensor:
    """Changes [P, n, C] about each person's mean."""
    return _changes(network(traces, read, R, Means.of(traces, read)))


def _changes(values: Tensor) -> Tensor:
    return values - values.mean(dim=1, keepdim=True)


def scores(network: MotionNet, people: tuple[Tensor, ...]) -> dict[str, float]:
    """Errors and correlations of changes, and the same of what the HiFace network reads."""
    evidence, read, R, truth = people
    with torch.inference_mode():
        found = changes(network, network.trace(evidence, read), read, R)
    goal, before = (_changes(x[..., list(network.config.channels)]) for x in (truth, read))
    return {
        "error": float((found - goal).abs().mean()),
        "error_of_single_frames": float((before - goal).abs().mean()),
        "error_of_no_change": float(goal.abs().mean()),
        "correlation": _correlation(found, goal),
        "correlation_of_single_frames": _correlation(before, goal),
    }


def _correlation(found: Tensor, goal: Tensor) -> float:
    """Mean over the channels of people that move by 0.05 or more."""
    spread = goal.square().mean(1).sqrt()
    both = (found * goal).mean(1) / (found.square().mean(1).sqrt() * spread).clamp_min(1e-9)
    return float(both[spread >= 0.05].mean())


def main() -> None:
    """Makes people, trains, scores and writes the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=5000)
    parser.add_argument("--part", default="0/1", help="make only people of this part, such as 1/2, and stop")
    parser.add_argument("--out", type=Path, help="folder of the weights; only scores are printed without")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    make_people(args.work, range(part, args.people, parts))
    if parts > 1:
        return
    people = read_people(args.work, range(args.people))
    names = hiface.load_model().data.expression_names
    channels = tuple(i for i, name in enumerate(names) if not name.startswith(_KEPT))
    config = MotionConfig(people[0].shape[2], len(names), channels)
    trained = int(0.9 * len(people[0]))
    network = train(config, tuple(x[:trained] for x in people))
    unseen = scores(network, tuple(x[trained:] for x in people))
    found = {name: round(value, 4) for name, value in unseen.items()}
    print(json.dumps(found, indent=1))
    if args.out is not None:
        command = f"python tools/train_motion.py WORK --people {args.people}"
        save_weights(
            network, args.out / "motion.safetensors", {"command": command, "scores": json.dumps(found)}
        )


if __name__ == "__main__":
    main()
