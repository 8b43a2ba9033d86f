# SPDX-License-Identifier: Apache-2.0
"""`hiface live`: a camera's faces to Unreal Engine while they move."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hiface.cli.folders import prepare_folder
from hiface.cli.track import warn
from hiface.errors import NoFaceError, OptionError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from hiface.animation.live_link_udp import LiveLinkSender
    from hiface.animation.motion import Motion
    from hiface.tracking.streaming import LiveAnswer

_REPORT_S = 0.5
_AWAY_S = 5.0


@dataclass(frozen=True)
class LiveOptions:
    """What is sent and kept.

    Attributes:
        to: Host, or host:port, of the listener; nothing is sent when it is "none".
        name: Name under which the listener shows the first person; the others are NAME-2, NAME-3, ...
        calibration: File of hiface retarget with the person's rest values.
        seconds: How long; to the end of the video, or until Ctrl-C, when left out.
        fps: Frames a second that a camera is asked for, or of a folder of pictures.
        focal_px: Focal length in pixels, if it is known.
        weights: Weights of a network of your own (hiface train hiface).
    """

    to: str = "127.0.0.1:11111"
    name: str = "hiface"
    calibration: Path | None = None
    seconds: float | None = None
    fps: float | None = None
    focal_px: float | None = None
    weights: Path | None = None


_DEFAULT = LiveOptions()


def live(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CAMERA|VIDEO")] = "camera:0",
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    options: tyro.conf.OmitArgPrefixes[LiveOptions] = _DEFAULT,
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None,
) -> int:
    """Sends the faces of a camera, or of a video at its own speed, as Live Link packets.

    Every answer is made from the frames up to then. The line below shows frames a second and how late packets
    leave after their frame was captured. Ctrl-C ends it and keeps what was recorded.

    Args:
        source: camera:0, camera:/dev/video0, a stream's address, or a video.
        out: File for the first person's motion: .csv in Live Link Face's layout, or .json.
        options: What is sent and kept.
        device: Device of the HiFace network, such as cpu or cuda. Chosen by itself when left out.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.animation.calibration import read_calibration
    from hiface.data.video import open_video
    from hiface.reconstructor import Reconstructor
    from hiface.tracking.live import LiveTracker
    from hiface.tracking.streaming import Latencies, LiveStream

    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise OptionError(f"-o must end in .csv or .json, got {out.name}")
    if options.seconds is not None and not options.seconds > 0:
        raise OptionError(f"--seconds must be over 0, got {options.seconds:g}")
    if out is not None:
        prepare_folder(out.parent)
        if out.is_dir():
            raise OutputError(f"{out} is a folder; name a file with -o")
    console = Console(stderr=True, emoji=False)
    calibration = None if options.calibration is None else read_calibration(options.calibration)
    latencies = Latencies()
    with ExitStack() as stack:
        kept = stack.enter_context(_Recorder(out))
        video = stack.enter_context(open_video(source, options.fps))
        with console.status("loading the face model and the networks"):
            reconstructor = Reconstructor("hiface", device=device, weights=options.weights)
            tracker = LiveTracker(reconstructor, options.focal_px)
        stream = LiveStream(video, tracker)
        outlet = stack.enter_context(_Outlet(options, video.info.fps, calibration))
        line = stack.enter_context(console.status(f"tracking {video.info.name}; Ctrl-C ends"))
        reported = began = time.monotonic()
        try:
            for answer in stream:
                outlet.send(answer)
                latencies.add(answer)
                kept.add(answer)
                now = time.monotonic()
                if now - reported >= _REPORT_S:
                    line.update(
                        f"{latencies.rate():.1f} frames/s, {latencies.percentile_ms(95):.0f} ms late at the "
                        f"95th percentile, {len(answer.faces)} faces; Ctrl-C ends"
                    )
                    reported = now
                if options.seconds is not None and now - began >= options.seconds:
                    break
        except KeyboardInterrupt:
            pass
    warn(console, video.warnings)
    console.print(
        f"{len(latencies)} frames, {stream.passed_over} passed over, {outlet.sent} packets; late by "
        f"{latencies.percentile_ms(50):.0f} ms (median), {latencies.percentile_ms(95):.0f} ms (95 %)",
        highlight=False,
        markup=False,
    )
    return 0


class _Outlet:
    """A sender for each person; those of people who are away for some seconds are closed."""

    def __init__(self, options: LiveOptions, fps: float, calibration) -> None:
        from hiface.cli.live_link import address

        self._host, self._port = ("", 0) if options.to == "none" else address(options.to)
        self._name, self._fps, self._calibration = options.name, min(max(fps, 1.0), 1000.0), calibration
        self._senders: dict[int, LiveLinkSender] = {}
        self._seen_s: dict[int, float] = {}
        self._sent = 0
        if self._host:
            self._sender(1)

    def __enter__(self) -> _Outlet:
        return self

    def __exit__(self, *_: object) -> None:
        for sender in self._senders.values():
            sender.close()

    @property
    def sent(self) -> int:
        """Packets so far."""
        return self._sent + sum(sender.sent for sender in self._senders.values())

    def send(self, answer: LiveAnswer) -> None:
        """A packet for each person; who went away is sent as not seen for a while, the first one always."""
        if not self._host:
            return
        for face in answer.faces:
            values = face.blendshapes
            if self._calibration is not None:
                values = self._calibration.apply(values)
            self._sender(face.person).send(values, face.params.camera.R)
            self._seen_s[face.person] = answer.frame.time_s
        present = {face.person for face in answer.faces}
        for number in self._senders.keys() - present:
            sender = self._senders[number]
            if number == 1 or answer.frame.time_s - self._seen_s[number] <= _AWAY_S:
                sender.send(None)
            else:
                sender.close()
                self._sent += sender.sent
                del self._senders[number], self._seen_s[number]

    def _sender(self, person: int) -> LiveLinkSender:
        from hiface.animation.live_link_udp import LiveLinkSender

        if person not in self._senders:
            name = self._name if person == 1 else f"{self._name}-{person}"
            self._senders[person] = LiveLinkSender(self._host, self._port, name, self._fps)
        return self._senders[person]


class _Recorder:
    """Keeps the first person's motion and writes it in the end, however it ends."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._times: list[float] = []
        self._faces: list[tuple[Tensor, Tensor] | None] = []

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from hiface.animation.motion_files import write_motion

        if self._out is None:
            return
        if any(face is not None for face in self._faces):
            write_motion(self._out, self._motion())
        elif kind is None:
            raise NoFaceError("no face was seen; look into the camera, in more light")

    def add(self, answer: LiveAnswer) -> None:
        """Keeps an answer's numbers, not its picture."""
        if self._out is None:
            return
        face = next((face for face in answer.faces if face.person == 1), None)
        self._times.append(answer.frame.time_s)
        self._faces.append(None if face is None else (face.blendshapes, face.params.camera.T_cam_object))

    def _motion(self) -> Motion:
        """The motion; as in videos, short gaps are filled in, and longer ones are missing."""
        import roma
        import torch

        from hiface.animation.motion import Motion, fill_missing
        from hiface.tracking.follow import FollowOptions

        nothing = next(face for face in self._faces if face is not None)
        shapes, T = (torch.stack(part) for part in zip(*(f or nothing for f in self._faces), strict=True))
        seen, gap_s = [face is not None for face in self._faces], FollowOptions().gap_s
        filled, status = fill_missing(torch.cat([shapes, T.flatten(1)], 1), seen, self._times, gap_s)
        shapes, T = filled[:, : shapes.shape[1]], filled[:, shapes.shape[1] :].unflatten(1, (4, 4))
        times = torch.tensor(self._times, dtype=torch.float64) - self._times[0]
        R = torch.as_tensor(roma.special_procrustes(T[:, :3, :3]))
        return Motion(shapes, R, times, T[:, :3, 3], status)
