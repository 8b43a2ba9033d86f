# SPDX-License-Identifier: Apache-2.0
"""Live Link over UDP: a sender that never waits, a receiver that counts losses, and playing a motion."""

from __future__ import annotations

import datetime
import errno
import math
import select
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor

from hiface.animation.live_link import PORT, Packet, decode_packet, encode_packet, to_channels
from hiface.animation.motion import Motion
from hiface.errors import LiveLinkError

_LARGEST = 65536
_RESTART_SECONDS = 5.0
_POLL_SECONDS = 0.1
_SILENT_SECONDS = 1.0  # after which another device may go on under the same name


class LiveLinkSender:
    """Sends frames to Unreal Engine or any other listener; a context manager.

    Sending never blocks: where the system cannot take a packet at once, it is dropped and counted.

    Attributes:
        subject: Name under which the listener shows the face.
        frame: Number of the next frame; the first one is the time of day, as from a phone.
        sent: Packets handed to the system.
        dropped: Packets that it could not take.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = PORT, subject: str = "hiface", fps: float = 60.0
    ) -> None:
        """Opens the socket.

        Args:
            host: Name or address of the listener.
            port: Its port.
            subject: Name under which the listener shows the face.
            fps: Frames per second, of which packets tell the listener.

        Raises:
            LiveLinkError: The host is not known, or a number is out of its range.
        """
        _check_port(port, smallest=1)
        if not 1.0 <= fps <= 1000.0:
            raise LiveLinkError(f"frames per second must be 1 to 1000, got {fps:g}; choose another rate")
        rate = Fraction(fps).limit_denominator(1001)
        self.subject, self.sent, self.dropped = subject, 0, 0
        self._rate = (rate.numerator, rate.denominator)
        self._id = f"${uuid.uuid4()}".upper()
        now = datetime.datetime.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self.frame = int((now - midnight).total_seconds() * fps)
        encode_packet(Packet(subject, self._id, None, self.frame, 0.0, self._rate))
        try:
            family, _, _, _, self._address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise LiveLinkError(f"{host!r} cannot be reached ({error}); check the name or address") from error
        self._socket.setblocking(False)

    def __enter__(self) -> LiveLinkSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; a second call does nothing."""
        self._socket.close()

    def send(
        self,
        expression: Tensor | None,
        R_cam_head: Tensor | None = None,
        gaze: tuple[Tensor, Tensor] | None = None,
        frame: int | None = None,
    ) -> bool:
        """Sends one frame.

        Args:
            expression: [52] 0..1 in alphabetical (ARKit) order; None says that no face is seen.
            R_cam_head: [3, 3] rotation of the head, object to camera.
            gaze: Yaw and pitch [2] of the left and right eye, radians; of the eyeLook shapes if None.
            frame: Number of the frame; the one after the last if None.

        Returns:
            Whether the system took the packet.

        Raises:
            LiveLinkError: A value is not finite, or the network refuses the address.
            ShapeError: An array has the wrong shape.
        """
        if expression is None:
            channels = None
        else:
            channels = to_channels(expression, R_cam_head, gaze).detach().cpu().numpy()
        number = self.frame if frame is None else frame
        content = encode_packet(Packet(self.subject, self._id, channels, number, 0.0, self._rate))
        self.frame = number + 1 if number < 2**31 - 1 else 0
        try:
            self._socket.sendto(content, self._address)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno == errno.ENOBUFS:
                self.dropped += 1
                return False
            raise LiveLinkError(
                f"{self._address[0]} port {self._address[1]} cannot be sent to ({error}); check the address"
            ) from error
        self.sent += 1
        return True


@dataclass
class Counts:
    """What came of one subject.

    Attributes:
        frames: Packets that were handed on, with and without a face.
        late: Packets that came twice or after a newer one, and were dropped.
        malformed: Datagrams that are no packets.
        others: Packets of other subjects, and of other devices that use the subject's name.
        steps: How often the frame number went on by how much.
    """

    frames: int = 0
    late: int = 0
    malformed: int = 0
    others: int = 0
    steps: Counter[int] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Frames that never came: gaps in the numbers, of which the commonest step is one frame."""
        usual = max(self.steps, key=lambda step: (self.steps[step], -step), default=1)
        return sum(times * max(0, round(step / usual) - 1) for step, times in self.steps.items())


class LiveLinkReceiver:
    """Listens for the packets of one subject; a context manager.

    Attributes:
        subject: Whose packets are handed on; the first one heard if None was given.
        port: Port that it listens on.
        counts: What came so far.
    """

    def __init__(self, port: int = PORT, host: str = "0.0.0.0", subject: str | None = None) -> None:
        """Opens the port.

        Args:
            port: Port to listen on; 0 takes a free one.
            host: Own address to listen on, all of them by default.
            subject: Name of the wanted subject; None takes the first one heard.

        Raises:
            LiveLinkError: The port is taken, or cannot be opened for another reason.
        """
        _check_port(port, smallest=0)
        self.subject, self.counts = subject, Counts()
        self._device: str | None = None
        self._heard = -math.inf
        self._last: float | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)):
                raise LiveLinkError(
                    f"port {port} is taken by another program, such as Unreal Engine or a second listener; "
                    "close it or choose another --port"
                ) from error
            if isinstance(error, socket.gaierror):
                raise LiveLinkError(f"{host!r} is no IPv4 address; use --host 0.0.0.0") from error
            raise LiveLinkError(
                f"port {port} of {host} cannot be opened ({error.strerror}); choose another --port or --host"
            ) from error
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> LiveLinkReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the port; a second call does nothing."""
        self._socket.close()

    def frames(self, seconds: float | None = None) -> Iterator[tuple[Packet, float]]:
        """Packets of the subject as they come, newest numbers only.

        Args:
            seconds: How long to listen; without end if None.

        Yields:
            Packet and time of arrival (`time.monotonic`, seconds).
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - time.monotonic())
            if left <= 0:
                return
            if not select.select([self._socket], [], [], left)[0]:
                continue
            try:
                content = self._socket.recv(_LARGEST)
            except OSError:  # a wrong checksum, or on Windows the answer to an earlier packet
                continue
            arrived = time.monotonic()
            packet = self._accepted(content, arrived)
            if packet is not None:
                yield packet, arrived

    def _accepted(self, content: bytes, arrived: float) -> Packet | None:
        try:
            packet = decode_packet(content)
        except LiveLinkError:
            self.counts.malformed += 1
            return None
        if self.subject is None:
            self.subject = packet.subject
        another = packet.device_id != self._device
        if packet.subject != self.subject or (another and arrived - self._heard < _SILENT_SECONDS):
            self.counts.others += 1
            return None
        if another:  # the same name after a restart: numbers begin anew
            self._device, self._last = packet.device_id, None
        self._heard = arrived
        if packet.frame is not None and not self._is_newer(packet):
            self.counts.late += 1
            return None
        self.counts.frames += 1
        return packet

    def _is_newer(self, packet: Packet) -> bool:
        number = (packet.frame or 0) + packet.part
        step = None if self._last is None else number - self._last
        restart = _RESTART_SECONDS * (packet.fps or 60.0)
        if step is not None and -restart < step < 0.5:
            return False
        if step is not None and 0 < step < restart:
            self.counts.steps[max(1, round(step))] += 1
        self._last = number
        return True


def play(
    motion: Motion,
    sender: LiveLinkSender,
    loop: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Sends a motion at its own pace; frames are due at times since the start, so that delays do not add up.

    Args:
        motion: Expressions in alphabetical (ARKit) order.
        sender: Where to.
        loop: Begin again after the last frame, without end.
        clock: Seconds.
        sleep: Waits for seconds.

    Yields:
        Number of the frame just sent. Frames whose successor is due already are left out.
    """
    due = (motion.times.double() - motion.times.double()[0]).tolist()
    period = due[-1] + (due[-1] / (len(due) - 1) if len(due) > 1 else 1 / 60)
    start, first = clock(), sender.frame
    rounds = 0
    while True:
        for i, seconds in enumerate(due):
            wait = start + rounds * period + seconds - clock()
            following = due[i + 1] if i + 1 < len(due) else period
            if wait < seconds - following and (loop or i + 1 < len(due)):
                continue
            if wait > 0:
                sleep(wait)
            rotation = None if motion.R_cam_head is None else motion.R_cam_head[i]
            seen = motion.status is None or motion.status[i] != "missing"
            number = (first + rounds * len(due) + i) % 2**31
            sender.send(motion.expression[i] if seen else None, rotation, frame=number)
            yield i
        if not loop:
            return
        rounds += 1


def _check_port(port: int, smallest: int) -> None:
    if not smallest <= port <= 65535:
        raise LiveLinkError(
            f"a port is a number from {smallest} to 65535, got {port}; the usual one is {PORT}"
        )
