# SPDX-License-Identifier: Apache-2.0
"""`hiface live-link`: records what Live Link Face sends, and sends motions as it does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hiface.errors import LiveLinkError, OptionError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from hiface.animation.live_link import Packet
    from hiface.animation.live_link_udp import Counts
    from hiface.animation.motion import Motion

_REPORT_S = 0.5


@dataclass(frozen=True)
class Listen:
    """Records the packets of Live Link Face, Unreal or hiface; Ctrl-C ends it and keeps what came.

    Attributes:
        out: File to write: .csv in Live Link Face's layout, or .json.
        port: Port to listen on.
        host: Own address to listen on; all of them by default.
        name: Subject to record; the first one heard when left out.
        seconds: How long; until Ctrl-C when left out.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    port: int = 11111
    host: str = "0.0.0.0"
    name: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Send:
    """Plays a motion to Unreal Engine, or to any listener of Live Link Face's packets.

    Attributes:
        motion: A .csv table, a motion in .json, or a face.json.
        to: Host, or host:port, of the listener.
        name: Name under which it shows the face.
        loop: Begin again at the end, until Ctrl-C.
        rate: Frames per second; the motion's own times when left out.
    """

    motion: tyro.conf.Positional[Path]
    to: str = "127.0.0.1:11111"
    name: str = "hiface"
    loop: bool = False
    rate: float | None = None


def live_link(
    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Listen, tyro.conf.subcommand("listen")] | Annotated[Send, tyro.conf.subcommand("send")]
    ],
) -> int:
    """Records and plays face motion over the network, in Live Link Face's packets.

    Args:
        action: What to do.

    Returns:
        Exit code.
    """
    return _listen(action) if isinstance(action, Listen) else _send(action)


def _listen(options: Listen) -> int:
    from rich.console import Console

    from hiface.animation.live_link_udp import LiveLinkReceiver
    from hiface.cli.folders import prepare_folder

    if options.out.suffix.lower() not in (".csv", ".json"):
        raise OptionError(f"-o must end in .csv or .json, got {options.out.name}")
    if options.seconds is not None and not options.seconds > 0:
        raise OptionError(f"--seconds must be more than 0, got {options.seconds:g}")
    prepare_folder(options.out.parent)
    console = Console(stderr=True, emoji=False)
    came: list[tuple[Packet, float]] = []
    with LiveLinkReceiver(options.port, options.host, options.name) as receiver:
        with console.status(f"listening on port {receiver.port}; Ctrl-C ends") as line:
            reported = time.monotonic()
            try:
                for packet, arrived in receiver.frames(options.seconds):
                    came.append((packet, arrived))
                    if arrived - reported >= _REPORT_S:
                        line.update(_report(came, receiver.counts))
                        reported = arrived
            except KeyboardInterrupt:
                pass
        if not came:
            raise LiveLinkError(
                f"nothing came on port {receiver.port}; tell the sender this computer's address and that port"
            )
    _keep(options.out, _recorded(came))
    counts = receiver.counts
    console.print(
        f"{len(came)} frames of {receiver.subject} in {options.out}; {counts.lost} lost, {counts.late} late "
        f"or double, {counts.malformed} malformed, {counts.others} of other subjects",
        highlight=False,
        markup=False,
    )
    return 0


def _keep(out: Path, motion: Motion) -> None:
    """Writes a recording, which cannot be made again: where `out` fails now, into the system's own folder."""
    import tempfile

    from hiface.animation.motion_files import write_motion

    try:
        write_motion(out, motion)
    except OutputError as error:
        kept = write_motion(Path(tempfile.mkdtemp(prefix="hiface-")) / out.name, motion)
        raise OutputError(f"{error}; the recording is kept in {kept}") from error


def _report(came: Sequence[tuple[Packet, float]], counts: Counts) -> str:
    latest = came[-1][1]
    recent = [arrived for _, arrived in came[-240:] if latest - arrived <= 1.0]
    rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0
    return f"{len(came)} frames, {rate:.1f} frames/s, {counts.lost} lost; Ctrl-C ends"


def _recorded(came: Sequence[tuple[Packet, float]]) -> Motion:
    """Packets as a motion; times are those of the sender where they increase, else those of arrival."""
    import numpy as np
    import torch

    from hiface.animation.live_link import CHANNELS, from_channels
    from hiface.animation.motion import Motion, fill_missing

    seen = [packet.channels is not None for packet, _ in came]
    if not any(seen):
        raise LiveLinkError("packets came, but none with a face; look into the phone's camera")
    empty = np.zeros(CHANNELS, np.float32)
    channels = torch.from_numpy(np.stack([empty if p.channels is None else p.channels for p, _ in came]))
    filled, status = fill_missing(channels, seen)
    said = from_channels(filled)
    times = torch.from_numpy(_times(came))
    head = said.R_cam_head if bool(filled[:, 52:55].any()) else None
    return Motion(said.expression, head, times, None, None if all(seen) else status)


def _times(came: Sequence[tuple[Packet, float]]) -> np.ndarray:
    import numpy as np

    rate = came[0][0].fps
    if rate is not None and all(p.frame is not None and p.fps == rate for p, _ in came):
        sent = np.array([(p.frame or 0) + p.part for p, _ in came]) / rate
        if (np.diff(sent) > 0).all():
            return sent - sent[0]
    arrived = np.array([arrived for _, arrived in came])
    least = 1e-5 * np.arange(len(came))  # two packets can be read at one tick of the clock
    return np.maximum.accumulate(arrived - arrived[0]) + least


def _send(options: Send) -> int:
    from dataclasses import replace

    import torch
    from rich.console import Console

    from hiface.animation.live_link_udp import LiveLinkSender, play
    from hiface.animation.motion_files import read_motion

    if options.rate is not None and not 1 <= options.rate <= 1000:
        raise OptionError(f"--rate must be 1 to 1000 frames per second, got {options.rate:g}")
    motion = read_motion(options.motion)
    if options.rate is not None:
        motion = replace(motion, times=torch.arange(len(motion)).double() / options.rate)
    host, port = address(options.to)
    fps = min(max(motion.fps or 60.0, 1.0), 1000.0)
    console = Console(stderr=True, emoji=False)
    with LiveLinkSender(host, port, options.name, fps) as sender:
        with console.status(f"sending {options.motion.name} to {host} port {port}; Ctrl-C ends"):
            try:
                for _ in play(motion, sender, options.loop):
                    pass
            except KeyboardInterrupt:
                pass
        console.print(
            f"{sender.sent} frames sent to {host} port {port} as {options.name}, {sender.dropped} dropped",
            highlight=False,
            markup=False,
        )
    return 0


def address(text: str) -> tuple[str, int]:
    """Host and port of "host", "host:port" or "[IPv6]:port"; the port is 11111 when left out.

    Raises:
        OptionError: There is no host, the port is no number from 1 to 65535, or an IPv6 address has no
            brackets around it before the port.
    """
    from hiface.animation.live_link import PORT

    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    host = host.strip("[]")
    if not colon:
        port = str(PORT)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535) or not _is_host(host):
        raise OptionError(f"--to must be a host, host:port or [IPv6]:port, ports 1 to 65535, got {text!r}")
    return host, int(port)


def _is_host(text: str) -> bool:
    """Whether it can be a name or an address: what has a colon must be of IPv6."""
    import ipaddress

    if ":" not in text:
        return bool(text)
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
