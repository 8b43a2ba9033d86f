# SPDX-License-Identifier: Apache-2.0
"""Faces through videos: `python benchmarks/tracking.py WORK_DIR [--videos 14] [--record]`.

Accuracy on videos of people who do not exist, with exact truth: the whole clip (`hiface track`) and frame by
frame without the future (`hiface live`). Then the speed of the live tracker on a 720p video of one person,
with and without composed detail maps, and how late its answers are when frames come at their own rate. Tracks
are kept in the folder, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from hiface.data.video import open_video
from hiface.evaluation.metrics.video import video_scores
from hiface.evaluation.protocols.video import summarise_videos
from hiface.evaluation.runs import commit, machine
from hiface.evaluation.synthetic_videos import read_truth, video_names, video_path, write_videos
from hiface.evaluation.track_files import (
    MISSING,
    OK,
    TRACK_FILE,
    Track,
    TrackedPerson,
    read_track,
    write_track,
)
from hiface.reconstructor import Reconstructor
from hiface.synthetic.video_kinds import VideoStyle
from hiface.tracking.live import LiveFace, LiveTracker
from hiface.tracking.outputs import as_track
from hiface.tracking.streaming import Latencies, LiveStream
from hiface.tracking.video import TrackOptions, track_video

RESULT = Path(__file__).parent / "results" / "tracking.json"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--videos", type=int, default=14)
    parser.add_argument("--keyframes", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write the result beside the others")
    options = parser.parse_args()
    clips, wide = options.work / "clips", options.work / "wide"
    with Progress() as progress:
        task = progress.add_task("making videos", total=options.videos + 1)
        write_videos(clips, options.videos, advance=lambda name: progress.advance(task))
        write_videos(wide, 1, 1, VideoStyle(720), advance=lambda name: progress.advance(task))
        reconstructor = Reconstructor("hiface", device="cpu")
        scores: dict[str, list[dict[str, Any]]] = {"clip": [], "live": []}
        task = progress.add_task("tracking", total=2 * options.videos)
        for name in video_names(clips):
            truth = read_truth(clips, name)
            for kind in scores:
                path = options.work / kind / name / TRACK_FILE
                if not path.is_file():
                    source = video_path(clips, name)
                    track = (
                        whole_clip(source, reconstructor, options.keyframes, path.parent)
                        if kind == "clip"
                        else frame_by_frame(source, reconstructor)
                    )
                    write_track(path, track)
                scores[kind].append(video_scores(truth, read_track(path)))
                progress.advance(task)
        (name,) = video_names(wide)
        speed = [speeds(video_path(wide, name), reconstructor) for _ in range(options.repeats)]
    result = {
        "command": f"python benchmarks/tracking.py WORK_DIR --videos {options.videos}",
        "commit": commit(),
        "machine": f"{machine()}, {torch.get_num_threads()} threads of torch",
        "accuracy": {kind: summarise_videos(each) for kind, each in scores.items()},
        "speed": {key: best(key, speed) for key in speed[0]},
    }
    text = json.dumps(result, indent=1) + "\n"
    if options.record:
        RESULT.write_text(text, encoding="utf-8")
    print(text)


def whole_clip(source: Path, reconstructor: Reconstructor, keyframes: int, work: Path) -> Track:
    """With what comes before and after."""
    return as_track(track_video(source, reconstructor, TrackOptions(keyframes=keyframes), work / "seen"))


def frame_by_frame(source: Path, reconstructor: Reconstructor) -> Track:
    """Without the future."""
    tracker = LiveTracker(reconstructor)
    answers: list[dict[int, tuple[LiveFace, torch.Tensor]]] = []
    times = []
    with open_video(source) as video:
        for frame in video:
            faces = tracker.step(frame.image_srgb, frame.time_s)
            answers.append({face.person: (face, tracker.landmarks(face)) for face in faces})
            times.append(frame.time_s)
        info = video.info
    numbers = sorted({number for answer in answers for number in answer})
    people = tuple(_person(number, answers) for number in numbers)
    return Track(info.fps, info.width, info.height, torch.tensor(times, dtype=torch.float64), people)


def _person(number: int, answers: list[dict[int, tuple[LiveFace, torch.Tensor]]]) -> TrackedPerson:
    n, nan = len(answers), torch.nan
    status = torch.full((n,), MISSING, dtype=torch.uint8)
    blendshapes, rotation = torch.full((n, 52), nan), torch.full((n, 3, 3), nan)
    translation, points, box = torch.full((n, 3), nan), torch.full((n, 68, 2), nan), torch.full((n, 4), nan)
    for frame, answer in enumerate(answers):
        if number not in answer:
            continue
        face, points[frame] = answer[number]
        status[frame] = OK
        blendshapes[frame] = face.blendshapes
        rotation[frame], translation[frame] = face.params.camera.R, face.params.camera.t
        box[frame] = torch.cat([points[frame].amin(0), points[frame].amax(0)])
    return TrackedPerson(number, status, blendshapes, rotation, translation, points, box)


def speeds(source: Path, reconstructor: Reconstructor) -> dict[str, float]:
    """Frames a second as fast as it goes, decoding included, and latencies at the video's own rate."""
    found: dict[str, float] = {}
    for key, with_detail in (("frames_per_s", False), ("frames_per_s_with_detail_maps", True)):
        tracker = LiveTracker(reconstructor)
        with open_video(source) as video:
            tracker.warm_up(video.info.width, video.info.height)
            started, count = time.perf_counter(), 0
            for frame in video:
                for face in tracker.step(frame.image_srgb, frame.time_s):
                    if with_detail:
                        tracker.detail_maps(face)
                count += 1
        found[key] = count / (time.perf_counter() - started)
    latencies = Latencies()
    with open_video(source) as video:
        stream = LiveStream(video, LiveTracker(reconstructor))
        for answer in stream:
            latencies.add(answer)
        found["rate_of_the_video"] = video.info.fps
        found["passed_over_percent"] = 100.0 * stream.passed_over / (len(latencies) + stream.passed_over)
    found["latency_median_ms"] = latencies.percentile_ms(50)
    found["latency_p95_ms"] = latencies.percentile_ms(95)
    return found


def best(key: str, runs: list[dict[str, float]]) -> dict[str, float]:
    """The best of the repeats and their median."""
    values = [run[key] for run in runs]
    return {"best": max(values) if "frames_per_s" in key else min(values), "median": float(np.median(values))}


if __name__ == "__main__":
    main()
