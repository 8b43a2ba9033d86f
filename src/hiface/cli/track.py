# SPDX-License-Identifier: Apache-2.0
"""`hiface track`: a video in, animated faces out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hiface.cli.bars import progress_bar
from hiface.cli.folders import prepare_folder
from hiface.errors import OptionError, VideoError
from hiface.optional import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from hiface.tracking.result import VideoTrack

_STAGES = {
    "watch": "looking at frames",
    "keyframes": "keyframes",
    "solve": "solving who it is",
    "fit": "fitting frames",
}


@dataclass(frozen=True)
class VideoOptions:
    """How a video is tracked.

    Attributes:
        people: Most people that are tracked; those whose faces fill most of the pictures.
        keyframes: Frames that a person's shape, texture and detail are solved from.
        smooth: both: steadied with frames before and after. none: every frame as it was fitted.
        focal_px: Focal length in pixels, if it is known.
        fps: Frames a second of a folder of pictures.
        overlay: Write overlay.mp4: original, fitted faces and relief side by side, with the sound.
        seconds: Length of a recording from a camera; until Ctrl-C when left out.
        wrinkles: Put what expressions fold into the morph targets of face.glb.
        weights: Weights of a network of your own (hiface train hiface).
    """

    people: int = 4
    keyframes: int = 6
    smooth: Literal["both", "none"] = "both"
    focal_px: float | None = None
    fps: float | None = None
    overlay: bool = True
    seconds: float | None = None
    wrinkles: bool = False
    weights: Path | None = None


_DEFAULT = VideoOptions()


def track(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("hiface_track"),
    options: tyro.conf.OmitArgPrefixes[VideoOptions] = _DEFAULT,
    resume: bool = False,
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None,
) -> int:
    """Tracks the faces of a video through all its frames.

    Writes OUT/person<N>/ with face.glb (52 morph targets and head motion, animated), blendshapes.csv (Live
    Link Face's layout), blendshapes.json, face.json and overview.png, OUT/overlay.mp4, and OUT/track.json
    with an answer for every frame and person: ok, interpolated or missing. A camera or stream is first
    recorded as OUT/recording.mp4.

    Args:
        source: Video file, folder of pictures, camera:0, or a stream's address.
        out: Output folder.
        options: How.
        resume: Go on where an earlier run in the same folder was stopped; a recording is not made anew.
        device: Device of the HiFace network, such as cpu or cuda. Chosen by itself when left out.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.reconstructor import Reconstructor
    from hiface.saving import SaveOptions
    from hiface.tracking.outputs import refuse_own_overlay, write_video_track
    from hiface.tracking.store import SightingStore

    console = Console(stderr=True, emoji=False)
    prepare_folder(out)
    if options.overlay and Path(source).is_dir():
        needed("av", "the overlay needs PyAV (--no-overlay leaves it out)", "video")
    refuse_own_overlay(source, out)
    video = _recorded(source, out, options, resume, console)
    if video != source:
        options = replace(options, fps=None)  # the camera's, not the recording's
    work = out / ".seen"
    if not resume:
        SightingStore(work, {}).remove()
    with console.status("loading the face model and the networks"):
        reconstructor = Reconstructor("hiface", device=device, weights=options.weights)
    with progress_bar(console) as progress:
        task = progress.add_task("looking at frames", total=None)
        rate = _Rate()

        def advance(stage: str, done: int, total: int | None) -> None:
            name = _STAGES.get(stage, stage) + rate.of(stage, done)
            progress.update(task, description=name, completed=done, total=total)

        found = _track(video, reconstructor, options, work, advance)
        save = SaveOptions(wrinkles=options.wrinkles)
        told, failed = [], None
        try:
            told = write_video_track(found, video, out, save, options.overlay, advance)
        except VideoError as error:
            failed = error
    SightingStore(work, {}).remove()
    _print_summary(found, out, console)
    warn(console, [*found.warnings, *told])
    if failed is not None:
        raise failed
    return 0


class _Rate:
    """Frames a second of the stage that runs."""

    def __init__(self) -> None:
        self._stage, self._since, self._first = "", 0.0, 0

    def of(self, stage: str, done: int) -> str:
        now = time.perf_counter()
        if stage != self._stage:
            self._stage, self._since, self._first = stage, now, done
        counted = done - self._first
        if stage not in ("watch", "fit", "overlay") or counted < 5:
            return ""
        return f", {counted / max(now - self._since, 1e-6):.0f} a second"


def _track(
    video: str | Path,
    reconstructor,
    options: VideoOptions,
    work: Path,
    advance: Callable[[str, int, int | None], None],
) -> VideoTrack:
    from hiface.tracking.follow import FollowOptions
    from hiface.tracking.video import TrackOptions, track_video

    follow = FollowOptions() if options.smooth == "both" else FollowOptions(noise=None)
    how = TrackOptions(options.people, options.keyframes, options.focal_px, options.fps, follow)
    return track_video(video, reconstructor, how, work, advance)


def _recorded(source: str, out: Path, options: VideoOptions, resume: bool, console: Console) -> str | Path:
    """The source itself; of a camera, a recording that is made first."""
    from hiface.data.cameras import is_live
    from hiface.data.video import open_video

    if options.seconds is not None and not options.seconds > 0:
        raise OptionError(f"--seconds must be over 0, got {options.seconds:g}")
    if not is_live(source):
        if options.seconds is not None:
            raise OptionError("--seconds is for cameras; files end by themselves")
        return source
    from hiface.export.video import VideoWriter

    path = out / "recording.mp4"
    if path.exists():
        if resume:
            return path
        raise OptionError(f"{path} is there already; track it with --resume or choose another folder")
    with open_video(source, options.fps) as camera:
        info = camera.info
        console.print(f"recording {info.name}; Ctrl-C ends it", markup=False, highlight=False)
        with VideoWriter(path, info.width, info.height, info.fps) as writer:
            try:
                for frame in camera:
                    writer.write(frame.image_srgb, frame.time_s)
                    if options.seconds is not None and frame.time_s >= options.seconds:
                        break
            except KeyboardInterrupt:
                console.print("recording ended", markup=False)
        dropped = [f"{camera.dropped} frames came too fast to be recorded"] if camera.dropped else []
        warn(console, [*camera.warnings, *dropped])
    return path


def warn(console: Console, lines: Sequence[str]) -> None:
    """Prints warnings."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False)


def _print_summary(found: VideoTrack, out: Path, console: Console) -> None:
    from rich.table import Table

    from hiface.tracking.measures import jitter_px

    table = Table(title=f"{len(found.times_s)} frames, {found.fps:.3g} a second, in {out}")
    for column in ("person", "ok", "interpolated", "missing", "jitter"):
        table.add_column(column)
    for person in found.people:
        counts = [person.status.count(word) for word in ("ok", "interpolated", "missing")]
        shake = jitter_px(person.landmarks68_px, found.times_s, found.height)
        table.add_row(
            str(person.number), *map(str, counts), "" if shake is None else f"{shake:.2f} px at 512"
        )
    console.print(table)
