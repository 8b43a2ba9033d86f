# SPDX-License-Identifier: Apache-2.0
"""The sound of one file for another: packets as they are, or AAC where the container cannot hold them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiface.optional import needed

_COPIED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le"),
    "matroska": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "opus", "vorbis", "flac"),
}
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_EVERYTHING_S = float("inf")
_SHORT_S = 0.5


class SoundCopy:
    """Adds a sound track to an open container and fills it bit by bit, so that it lies beside the pictures.

    Whatever is wrong with the sound ends it there and becomes a warning.

    Attributes:
        warnings: What went wrong, a line each.
    """

    def __init__(self, path: Path, target: Any, kind: str) -> None:
        """Opens the sound.

        Args:
            path: File with sound.
            target: PyAV output container without a packet yet.
            kind: Its format: "mp4", "mov" or "matroska".
        """
        self.warnings: list[str] = []
        av = needed("av", "sound needs PyAV", "video")
        self._av = av
        self._errors = (av.FFmpegError, ValueError, OSError)
        self._name = path.name
        self._target = target
        self._source: Any = None
        self._next: Any = None
        self._packets: Iterator[Any] = iter(())
        self._offset_s = 0.0
        self._stated_s = 0.0
        self._written_s = 0.0
        try:
            self._source = av.open(str(path.absolute()), metadata_errors="replace")
            stream = next((s for s in self._source.streams.audio if s.codec_context is not None), None)
            if stream is None:
                return
            _probe(self._source, stream)
            self._offset_s = _start_s(self._source, stream)
            if stream.duration:
                self._stated_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            else:
                self._stated_s = (self._source.duration or 0) / 1e6
            codec = stream.codec_context.name.removesuffix("float").removesuffix("_fixed")
            if codec in _COPIED[kind]:
                output = target.add_stream_from_template(stream)
                self._packets = self._copied(stream, output)
            else:
                rate = stream.codec_context.sample_rate
                output = target.add_stream("aac", rate=rate if rate in _AAC_RATES else 48000)
                output.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
                output.codec_context.bit_rate = 160_000
                self._packets = self._encoded(stream, output)
        except self._errors as error:
            self._give_up(error)

    def start_at(self, time_s: float) -> None:
        """Says which time of the source the video begins at, in seconds from its first picture."""
        self._offset_s += time_s

    def until(self, time_s: float, end_s: float = _EVERYTHING_S) -> None:
        """Writes what sounds before `time_s`.

        Args:
            time_s: Seconds in the video.
            end_s: End of the video in seconds; packets of which most lies behind it are left out.
        """
        try:
            while True:
                if self._next is None:
                    self._next = next(self._packets, None)
                if self._next is None:
                    self._tell_if_short(end_s)
                    return
                packet, start_s, length_s = self._next
                if start_s >= time_s or start_s + 0.5 * length_s > end_s:
                    return
                self._next = None
                self._written_s = start_s + length_s
                self._target.mux(packet)
        except self._errors as error:
            self._give_up(error)

    def close(self) -> None:
        """Frees the source."""
        self._packets = iter(())
        if self._source is not None:
            self._source.close()
            self._source = None

    def _tell_if_short(self, end_s: float) -> None:
        """Warns, once at the end of the video, when there is less sound than the source states."""
        stated_s = min(self._stated_s - self._offset_s, end_s)
        if end_s < _EVERYTHING_S and self._source is not None and self._written_s < stated_s - _SHORT_S:
            self.warnings.append(f"the sound of {self._name} is damaged; it ends at {self._written_s:.1f} s")

    def _give_up(self, error: Exception) -> None:
        reason = str(getattr(error, "strerror", None) or error).lower()
        self.warnings.append(f"the sound of {self._name} is damaged ({reason}); it ends there")
        self.close()

    def _copied(self, stream: Any, output: Any) -> Iterator[tuple[Any, float, float]]:
        """Packets as they are with their start and length in the video, seconds."""
        for packet in self._source.demux(stream):
            if packet.size and packet.dts is not None:
                yield from self._moved(packet, output)

    def _encoded(self, stream: Any, output: Any) -> Iterator[tuple[Any, float, float]]:
        """The same as AAC; the encoder resamples and cuts the sound into its frames."""
        for packet in self._source.demux(stream):
            for frame in packet.decode():
                for encoded in output.encode(frame):
                    yield from self._moved(encoded, output)
        for encoded in output.encode(None):
            yield from self._moved(encoded, output)

    def _moved(self, packet: Any, output: Any) -> Iterator[tuple[Any, float, float]]:
        """The packet on the video's clock; nothing when it ends before the video begins."""
        base = packet.time_base
        shift = round(self._offset_s / base)
        stamp = packet.dts if packet.pts is None else packet.pts
        start_s = float((stamp - shift) * base)
        length_s = float((packet.duration or 0) * base)
        if start_s + length_s < 0:
            return
        packet.stream = output
        packet.pts, packet.dts = stamp - shift, packet.dts - shift
        yield packet, start_s, length_s


def _probe(container: Any, stream: Any) -> None:
    """Raises what PyAV raises when not even the beginning can be decoded; goes back to the start."""
    for packet in container.demux(stream):
        if packet.decode():
            break
    container.seek(0)


def _start_s(container: Any, sound: Any) -> float:
    """When the first picture is shown, seconds; where there is none, when the sound begins."""
    pictures = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    stream = (pictures or [sound])[0]
    return 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base)
