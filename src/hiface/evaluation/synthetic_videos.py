# SPDX-License-Identifier: Apache-2.0
"""Videos of people who do not exist, made by a seed, with everything that is known about each frame.

    FOLDER/<clip>.mp4           H.264
    FOLDER/<clip>.safetensors   tensors of `VideoTruth`, [P, n, ...] for P people and n frames
    FOLDER/<clip>.json          kind, times, size, cuts, people; written last

Kinds take turns. Of the first seven, the first has a sound track, the third a varying rate, and the fifth is
stored lying on its side, with the mark that players turn it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError, OptionError
from hiface.evaluation.json_objects import read_json_object
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, open_model
from hiface.synthetic.generator import GENERATOR_VERSION, PICTURES_PER_PERSON
from hiface.synthetic.shots import sitter_of
from hiface.synthetic.video_encoding import Encoding, encode_video
from hiface.synthetic.video_kinds import PEOPLE_PER_VIDEO, VIDEO_KINDS, VideoStyle, make_video
from hiface.synthetic.videos import ABSENT, PERSON_FIELDS, FilmedFrame, Video, video_frames

VIDEO_VERSION = 1
_FIRST = (HOLDOUT_SEED + 7) * (SEED_STRIDE // PICTURES_PER_PERSON)
_PER_SEED = 10_000
_WITH_TONE, _UNEVEN, _LYING = 0, 2, 4
_CRF, _CRF_STILL = (18, 30), (12, 18)  # stronger compression takes all the noise away
_SHAPES: dict[str, tuple[int | None, ...]] = {  # of each frame; pose has as many joints as the model
    "presence": (),
    "expression": (52,),
    "pose": (None, 3),
    "K": (3, 3),
    "T_cam_object": (4, 4),
    "T_cam_head": (4, 4),
    "landmarks68_px": (68, 2),
    "visible68": (68,),
    "eye_closure": (2,),
}


@dataclass(frozen=True)
class VideoTruth:
    """All that is known of a video with P people and n frames; NaN where a person is not filmed at all.

    Attributes:
        name: Of the clip.
        kind: One of `VIDEO_KINDS`.
        fps: Nominal rate.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.
        cuts: Frames that another camera begins with.
        people: Numbers of the persons.
        times_s: [n] seconds.
        identity: [P, K] standard deviations.
        expression: [P, n, 52] ARKit weights, 0..1.
        pose: [P, n, J, 3] rotation vectors of the joints, radians.
        K: [P, n, 3, 3] pixels.
        T_cam_object: [P, n, 4, 4] metres.
        T_cam_head: [P, n, 4, 4] metres.
        landmarks68_px: [P, n, 68, 2].
        visible68: [P, n, 68] bool, inside the picture and behind nobody else.
        eye_closure: [P, n, 2] left and right, 0 as open as at rest, 1 shut.
        presence: [P, n] uint8: 0 absent, 1 there, 2 partly: finding the face is neither due nor wrong.
    """

    name: str
    kind: str
    fps: float
    width: int
    height: int
    cuts: tuple[int, ...]
    people: tuple[int, ...]
    times_s: Tensor
    identity: Tensor
    expression: Tensor
    pose: Tensor
    K: Tensor
    T_cam_object: Tensor
    T_cam_head: Tensor
    landmarks68_px: Tensor
    visible68: Tensor
    eye_closure: Tensor
    presence: Tensor


def write_videos(
    folder: Path,
    clips: int,
    seed: int = 0,
    style: VideoStyle | None = None,
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Makes the videos that are not there yet; each has people of its own.

    Args:
        folder: Where to.
        clips: Number of videos; kinds take turns, so that seven have all.
        seed: Other seeds show other people.
        style: Height, width, number of frames.
        advance: Called with the name of a video when it is there.

    Raises:
        OptionError: Numbers out of range.
        EvaluationDataError: The folder holds videos made otherwise, or more of them.
        MissingExtraError: PyAV is missing.
        OutputError: The folder cannot be written.
    """
    style = style or VideoStyle()
    height, frames = style.height_px, style.frames
    if not 1 <= clips <= _PER_SEED or seed < 0 or (frames is not None and frames < 8):
        raise OptionError(f"1 to {_PER_SEED} videos of 8 frames or more, with a seed of 0 or more")
    if not 128 <= height <= 1080 or height % 2:
        raise OptionError(f"videos are 128 to 1080 pixels high, an even number, got {height}")
    names = [f"v{seed}-{index + 1:04d}-{VIDEO_KINDS[index % len(VIDEO_KINDS)]}" for index in range(clips)]
    others = sorted({path.stem for path in folder.glob("v*-*-*.json")} - set(names))
    if others:
        raise EvaluationDataError(f"{folder} has {others[0]} too, which would count; choose another folder")
    for index, name in enumerate(names):
        made = {"videos": VIDEO_VERSION, "generator": GENERATOR_VERSION, "height_px": height}
        made |= {"wide": style.wide, "frames": frames, "effects": sorted(style.effects)}
        before = read_json_object(folder / f"{name}.json")
        if before is not None and before.get("made") != made:
            raise EvaluationDataError(f"{folder / name}.mp4 was made otherwise; choose another folder")
        if before is None:
            _write_one(folder / name, index, seed, style, made)
        advance(name)


def _write_one(path: Path, index: int, seed: int, style: VideoStyle, made: dict[str, Any]) -> None:
    model, kind = open_model(), VIDEO_KINDS[index % len(VIDEO_KINDS)]
    number = _FIRST + PEOPLE_PER_VIDEO * (_PER_SEED * seed + index)
    video = make_video(model, kind, number, replace(style, uneven=index == _UNEVEN))
    low, high = _CRF_STILL if kind == "still" else _CRF
    crf = int(np.random.default_rng([number, 53]).integers(low, high + 1))
    encoding = Encoding(video.fps, crf, index == _WITH_TONE, 90 if index == _LYING else 0)
    known: list[FilmedFrame] = []
    content = encode_video(_pictures(video_frames(model, video), known), video.times_s, encoding)
    persons = [sitter_of(model, number, style.effects).person for number in video.people]
    tensors = stack_people(video, known) | {"identity": torch.stack([p.identity for p in persons])}
    about = {
        "format": VIDEO_VERSION,
        "made": made,
        "kind": kind,
        "fps": video.fps,
        "width": video.width,
        "height": video.height,
        "n_frames": len(video.times_s),
        "cuts": video.cuts,
        "crf": crf,
        "sound": encoding.has_tone,
        "rotation_deg": encoding.rotation_deg,
        "names": list(model.data.expression_names),
        "people": [
            {"id": i + 1, "number": n, "sex": p.traits.sex, "years": round(p.traits.years, 1)}
            for i, (n, p) in enumerate(zip(video.people, persons, strict=True))
        ],
        "times_s": np.round(video.times_s, 6).tolist(),
    }
    atomic_write_bytes(path.with_name(path.name + ".mp4"), content)
    atomic_write_bytes(path.with_name(path.name + ".safetensors"), save(tensors))
    atomic_write_text(path.with_name(path.name + ".json"), json.dumps(about) + "\n")


def _pictures(frames: Iterator[FilmedFrame], known: list[FilmedFrame]) -> Iterator[np.ndarray]:
    """Pictures [H, W, 3] one after another; what is known of them is kept, the pixels are not."""
    for frame in frames:
        known.append(replace(frame, image_srgb=frame.image_srgb[:0]))
        yield frame.image_srgb.permute(1, 2, 0).contiguous().numpy()


def stack_people(video: Video, frames: list[FilmedFrame]) -> dict[str, Tensor]:
    """What is known of a video's frames, [P, n, ...] by name; NaN or 0 where a person is not filmed."""
    example = next(iter(next(frame for frame in frames if frame.people).people.values()))
    persons = sorted({person for frame in frames for person in frame.people})
    out = {}
    for name in PERSON_FIELDS:
        none = torch.full_like(example[name], torch.nan if example[name].is_floating_point() else ABSENT)
        rows = [[f.people[p][name] if p in f.people else none for f in frames] for p in persons]
        out[name] = torch.stack([torch.stack(row) for row in rows]).contiguous()
    return out | {"times_s": torch.from_numpy(video.times_s)}


def video_names(folder: Path) -> list[str]:
    """Names of all whole videos of a folder, in order.

    Raises:
        EvaluationDataError: There are none.
    """
    names = sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".safetensors").is_file())
    if not names:
        raise EvaluationDataError(
            f"{folder} holds no <clip>.json with .safetensors; make videos with --people"
        )
    return names


def video_path(folder: Path, name: str) -> Path:
    """The video's file."""
    return folder / f"{name}.mp4"


def read_truth(folder: Path, name: str) -> VideoTruth:
    """What is known of a video.

    Raises:
        EvaluationDataError: A file is missing, damaged or of another version.
    """
    path = folder / f"{name}.json"
    try:
        about = read_json_object(path)
    except RecursionError:
        about = None
    if about is None or about.get("format") != VIDEO_VERSION:
        raise EvaluationDataError(
            f"{path} is missing or of another version than {VIDEO_VERSION}; make it anew"
        )
    try:
        truth = VideoTruth(
            name,
            about["kind"],
            about["fps"],
            about["width"],
            about["height"],
            tuple(about["cuts"]),
            tuple(person["number"] for person in about["people"]),
            **load_file(path.with_suffix(".safetensors")),
        )
        _check_truth(truth, int(about["n_frames"]))
    except (OSError, KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        raise EvaluationDataError(
            f"{path} and its tensors cannot be read ({error}); make them anew"
        ) from error
    return truth


def _check_truth(truth: VideoTruth, n_frames: int) -> None:
    """Raises ValueError for shapes that do not fit, and for numbers that cannot be."""
    if min(truth.width, truth.height, n_frames) < 1 or not 0.0 < truth.fps < float("inf"):
        raise ValueError("width, height, fps or n_frames is not over 0")
    steps = truth.times_s.diff()
    if truth.times_s.shape != (n_frames,) or not bool(((steps > 0.0) & steps.isfinite()).all()):
        raise ValueError(f"times_s are not {n_frames} that increase")
    for name, shape in _SHAPES.items():
        values = getattr(truth, name)
        wanted = (len(truth.people), n_frames, *shape)
        fits = all(have == want or want is None for have, want in zip(values.shape, wanted, strict=False))
        if values.dim() != len(wanted) or not fits:
            raise ValueError(f"{name} has shape {tuple(values.shape)}")
        if not bool(values[truth.presence != ABSENT].isfinite().all()):
            raise ValueError(f"{name} is not finite in a frame in which a person is")
