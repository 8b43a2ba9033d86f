# SPDX-License-Identifier: Apache-2.0
"""What goes on beside the sliders: playing a motion, listening to Live Link, reconstructing photos."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hiface.animation.live_link import PORT, from_channels
from hiface.animation.live_link_udp import LiveLinkReceiver
from hiface.app.viewer_faces import ViewedFace, face_of_result
from hiface.app.viewer_state import ViewerState
from hiface.data.images import read_photo
from hiface.data.video import open_video
from hiface.errors import HifaceError, ImageError, NoFaceError
from hiface.reconstructor import Reconstructor

_MOST_FILM_FRAMES = 3000
_TICK_S = 0.01
_POLL_S = 0.25


class Film:
    """Frames of a tracked video, from the left third of its overlay.mp4; decoded once, in the background.

    Attributes:
        fault: Why there are no frames, "" if there are.
    """

    def __init__(self, path: Path) -> None:
        self._frames: list[bytes] = []
        self._stopped, self.fault = False, ""
        threading.Thread(target=self._read, args=(path,), name="viewer-film", daemon=True).start()

    def stop(self) -> None:
        """Ends the decoding."""
        self._stopped = True

    def frame(self, index: int) -> np.ndarray | None:
        """[h, w, 3] uint8 of a frame, or None where it is not there (yet)."""
        if not 0 <= index < len(self._frames):
            return None
        return np.array(Image.open(io.BytesIO(self._frames[index])).convert("RGB"))

    def _read(self, path: Path) -> None:
        try:
            with open_video(path) as video:
                for frame in video:
                    if self._stopped or len(self._frames) >= _MOST_FILM_FRAMES:
                        return
                    left = frame.image_srgb[:, : frame.image_srgb.shape[1] // 3].copy()
                    left[:, -2:] = left[:, -3:-2]  # colours of the next picture run over the border
                    stream = io.BytesIO()
                    Image.fromarray(left).save(stream, "JPEG", quality=88)
                    self._frames.append(stream.getvalue())
        except HifaceError as error:
            self.fault = str(error)


class Player:
    """Plays the motion of who is shown; a thread that ends with `stop`.

    Attributes:
        playing: Whether it runs.
        speed: Factor of the motion's own speed.
        film: Frames behind it, or None.
    """

    def __init__(self, state: ViewerState) -> None:
        self._state, self.playing, self.speed = state, False, 1.0
        self.film: Film | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="viewer-player", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self.film is not None:
            self.film.stop()
        self._thread.join(timeout=5.0)

    def show(self, frame: int) -> None:
        """Shows a frame with the picture that belongs to it."""
        film = self.film
        self._state.show_frame(frame, film.frame(frame) if film is not None else None)

    def catch_up(self) -> None:
        """Puts the frame of the video behind the head where it has been decoded since."""
        shown, film = self._state.snapshot(), self.film
        if shown.frame is None or self.playing or film is None or shown.film_frame is not None:
            return
        picture = film.frame(shown.frame)
        if picture is not None:
            self._state.put_film_frame(picture)

    def _run(self) -> None:
        while not self._stopped.wait(_TICK_S):
            shown = self._state.snapshot()
            motion, frame = shown.motion, shown.frame or 0
            if not self.playing or motion is None:
                continue
            times, start = motion.times.double().numpy(), time.monotonic()
            first = times[frame] if frame + 1 < len(times) else times[0]
            end = times[-1] + (times[-1] - times[0]) / max(len(times) - 1, 1)
            speed = self.speed
            while self.playing and speed == self.speed and self._state.motion is motion:
                at = first + speed * (time.monotonic() - start)
                if at >= end:
                    break
                index = int(np.searchsorted(times, at, side="right")) - 1
                if index != self._state.frame:
                    self.show(max(index, 0))
                if self._stopped.wait(_TICK_S):
                    return


class LiveDrive:
    """Moves the shown face by Live Link packets.

    Attributes:
        subject: Who sends, None until somebody does.
        frames: Packets that moved the face.
    """

    def __init__(self, state: ViewerState, host: str) -> None:
        self._state, self._host = state, host
        self._receiver: LiveLinkReceiver | None = None
        self._thread: threading.Thread | None = None
        self.subject: str | None = None
        self.frames = 0

    @property
    def port(self) -> int | None:
        """The port that it listens on, None while it does not."""
        return None if self._receiver is None else self._receiver.port

    def start(self, port: int = PORT) -> None:
        """Listens.

        Args:
            port: UDP port; 0 takes a free one.

        Raises:
            LiveLinkError: The port is taken or cannot be opened.
        """
        self.stop()
        self._receiver = LiveLinkReceiver(port, self._host)
        self.subject, self.frames = None, 0
        self._thread = threading.Thread(target=self._run, args=(self._receiver,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listens no more; the face keeps its last expression."""
        receiver, self._receiver = self._receiver, None
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        if receiver is not None:
            receiver.close()

    def _run(self, receiver: LiveLinkReceiver) -> None:
        while self._receiver is receiver:
            for packet, _ in receiver.frames(seconds=_POLL_S):
                if self._receiver is not receiver:
                    return
                if packet.channels is None:
                    continue
                said = from_channels(torch.from_numpy(np.array(packet.channels, dtype=np.float32)))
                self.subject, self.frames = packet.subject, self.frames + 1
                self._state.drive(said.expression, said.R_cam_head)


class Uploads:
    """Reconstructs photos one after the other, in a thread.

    Attributes:
        tell: Called with a text and the share that is done, 0..1.
        fail: Called with a text that names the fix.
        done: Called with the new people.
    """

    def __init__(
        self,
        tell: Callable[[str, float], None],
        fail: Callable[[str], None],
        done: Callable[[list[ViewedFace]], None],
    ) -> None:
        self.tell, self.fail, self.done = tell, fail, done
        self._reconstructor: Reconstructor | None = None
        self._stopped = False
        self._pool, self._work = ThreadPoolExecutor(1, "viewer-uploads"), set[Future[None]]()

    def put(self, name: str, content: bytes) -> None:
        """Takes a picture file; answers come through `tell`, `fail` and `done`."""
        self._work.add(self._pool.submit(self._take, name, content))

    def stop(self) -> None:
        """Ends the thread; waits for the step at hand, since Python must not end amid torch's work."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait({work for work in self._work if not work.cancelled()})  # joins are not safe from Ctrl-C

    def _take(self, name: str, content: bytes) -> None:
        try:
            faces = self._faces(name, content)
            if not self._stopped:
                self.done(faces)
        except HifaceError as error:
            self.fail(f"{name}: {error}")
        except Exception as error:  # a page must not wait for ever
            self.fail(f"{name}: {type(error).__name__}: {error}; try hiface reconstruct on it")

    def _faces(self, name: str, content: bytes) -> list[ViewedFace]:
        self.tell(f"{name}: reading", 0.05)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("photo" + Path(name).suffix.lower()[:8])
            path.write_bytes(content)
            try:
                photo = read_photo(path)
            except ImageError as error:
                raise ImageError(str(error).replace(path.name, "it", 1)) from error
        if self._reconstructor is None:
            self.tell("loading the networks", 0.1)
            self._reconstructor = Reconstructor()
        self.tell(f"{name}: looking for faces", 0.3)
        faces = self._reconstructor.reconstruct(photo)
        if not faces:
            raise NoFaceError("no face was found; use a picture in which one is larger and not turned away")
        out = []
        for number, face in enumerate(faces, start=1):
            if self._stopped:
                break
            self.tell(f"{name}: texture {number} of {len(faces)}", 0.6 + 0.4 * (number - 1) / len(faces))
            title = Path(name).stem + (f" person{number}" if len(faces) > 1 else "")
            out.append(face_of_result(face, title))
        return out
