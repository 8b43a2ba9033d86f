# SPDX-License-Identifier: Apache-2.0
"""The controls of the interactive viewer for time and files: timeline, Live Link, dropped photos, saving."""

from __future__ import annotations

import html
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from hiface.animation.live_link import PORT
from hiface.app.viewer_faces import ViewedFace
from hiface.app.viewer_panel import FacePanel
from hiface.app.viewer_stage import Stage
from hiface.app.viewer_state import ViewerState
from hiface.app.viewer_workers import Film, LiveDrive, Player, Uploads
from hiface.errors import HifaceError, LiveLinkError
from hiface.export.pictures import pil_png

_IMAGES = "image/*"
_MESSAGE_S = 12.0
_NOTE = '<div style="padding: 0 14px 10px; font: {} 14px sans-serif; overflow-wrap: anywhere">{}</div>'
_SPEEDS = ("0.25", "0.5", "1", "2")


class ToolsPanel:
    """Handles of controls, and the threads behind them.

    Attributes:
        handles: The controls by name.
        player: Plays motions.
        live: Listens to Live Link.
        uploads: Reconstructs dropped photos.
        message: The last message shown.
    """

    def __init__(
        self, server: Any, state: ViewerState, stage: Stage, face: FacePanel, live_host: str
    ) -> None:
        self._server, self._state, self._stage, self._face = server, state, stage, face
        self.handles = face.handles
        self.player, self.live = Player(state), LiveDrive(state, live_host)
        self.uploads = Uploads(self._progress, self._failed, self._arrived)
        self.message = ""
        self._shown: ViewedFace | None = None

    def stop(self) -> None:
        """Ends the threads."""
        self.player.stop()
        self.live.stop()
        self.uploads.stop()

    def build_files(self) -> None:
        """A button for photos, and buttons that save."""
        gui = self._server.gui
        upload = gui.add_upload_button("Add a photo", mime_type=_IMAGES, hint="or drop one on this button")
        upload.on_upload(lambda event: self.uploads.put(event.target.value.name, event.target.value.content))
        self.handles["upload"] = upload
        self.handles["progress"] = gui.add_progress_bar(0.0, visible=False, animated=True)
        self.handles["message"] = gui.add_html("", visible=False)

    def build_save(self) -> None:
        """Buttons that download what is shown."""
        gui = self._server.gui
        save = gui.add_button_group("Save", ("picture", "GLB"), hint="what is seen, or the head as a file")
        save.on_click(lambda event: self._save(event.client, event.target.value))
        self.handles["save"] = save

    def build_motion(self) -> None:
        """The timeline of a tracked video, and Live Link."""
        gui, player = self._server.gui, self.player
        with gui.add_folder("Timeline", visible=False) as folder:
            self.handles["timeline"] = folder
            frame = gui.add_slider("Frame", min=0, max=1, step=1, initial_value=0)
            self._face._add("frame", frame, self._scrubbed)
            play = gui.add_button_group("Play", ("play", "pause"))
            play.on_click(lambda event: self._play(event.target.value == "play"))
            speed = gui.add_dropdown("Speed", _SPEEDS, initial_value="1")
            self._face._add("speed", speed, lambda value: setattr(player, "speed", float(value)))
            head = gui.add_checkbox("Head moves", True)
            self._face._add("head_moves", head, lambda value: self._state.put(head_moves=value))
            self.handles["play"], self.handles["status"] = play, gui.add_html("")
        with gui.add_folder("Live Link"):
            port = gui.add_number("Port", initial_value=PORT, min=0, max=65535, step=1)
            self.handles["port"] = port
            listen = gui.add_checkbox("Listen", False, hint="move the face by Live Link Face or hiface live")
            self._face._add("listen", listen, self._listen)
            self.handles["live"] = gui.add_html("")

    def _scrubbed(self, value: float) -> None:
        self._play(False)
        self.player.show(int(value))

    def _play(self, on: bool) -> None:
        self.player.playing = on

    def _listen(self, on: bool) -> None:
        self._play(False)
        if not on:
            self.live.stop()
            return
        try:
            self.live.start(int(self.handles["port"].value))
        except LiveLinkError as error:
            self._face.tell("listen", False)
            self._failed(str(error).replace("--port", "port"))

    def _progress(self, text: str, share: float) -> None:
        self._say(text)
        self.handles["progress"].visible = True
        self.handles["progress"].value = 100.0 * share

    def _failed(self, text: str) -> None:
        self._say(text, "bold")
        self.handles["progress"].visible = False
        for client in self._server.get_clients().values():
            client.add_notification("That did not work", text, color="red", auto_close_seconds=_MESSAGE_S)

    def _arrived(self, people: list[ViewedFace]) -> None:
        self._state.add(people)
        self.handles["progress"].visible = False
        more = f"; {len(people)} faces, choose under Person" if len(people) > 1 else ""
        self._say(f"{people[0].title} is shown{more}")

    def _say(self, text: str, weight: str = "normal") -> None:
        self.message = text
        self.handles["message"].content = note(text, weight)
        self.handles["message"].visible = bool(text)

    def _save(self, client: Any, what: str) -> None:
        if client is None or self._state.viewed is None:
            return
        try:
            name, content = self._picture(client) if what == "picture" else self.glb()
        except HifaceError as error:
            self._failed(str(error))
            return
        client.send_file_download(name, content, save_immediately=True)

    def _picture(self, client: Any) -> tuple[str, bytes]:
        title = self._state.viewed.title if self._state.viewed else "face"
        return f"{title}.png", pil_png(Image.fromarray(self._stage.whole_picture(client)))

    def glb(self) -> tuple[str, bytes]:
        """Name and content of a GLB file of who is shown, with the present expression.

        Raises:
            HifaceError: Nobody is shown, or it cannot be written.
        """
        face, viewed = self._state.face(), self._state.viewed
        if face is None or viewed is None:
            raise HifaceError("nobody is shown; add a photo first")
        if self._state.look.parts in ("none", "dynamic"):  # files hold the person's own relief
            face = replace(face, detail=None, relief=None)
        with tempfile.TemporaryDirectory() as folder:
            return f"{viewed.title}.glb", face.save(Path(folder) / "face.glb").read_bytes()

    def sync(self) -> None:
        """Shows in the controls what the state is."""
        shown = self._state.snapshot()
        if shown.viewed is not self._shown:
            self._shown = shown.viewed
            self._new_person(shown.viewed)
        self.player.catch_up()
        if shown.motion is not None and shown.frame is not None:
            self._face.tell("frame", shown.frame)
            at = float(shown.motion.times[shown.frame])
            text = f"{at:.2f} s of {float(shown.motion.times[-1]):.2f} s, {shown.status}"
            if self.player.film is not None and self.player.film.fault:
                text += f"; no frames behind it: {self.player.film.fault}"
            _set_text(self.handles["status"], text)
        _set_text(self.handles["live"], self._live_text())

    def _live_text(self) -> str:
        port, subject = self.live.port, self.live.subject
        if port is None:
            return ""
        if subject is None:
            return f"waiting for packets on UDP port {port}"
        return f"{subject}: {self.live.frames} frames"

    def _new_person(self, viewed: ViewedFace | None) -> None:
        """The timeline and the film of who is shown now."""
        self._play(False)
        motion = None if viewed is None else viewed.motion
        if self.player.film is not None:
            self.player.film.stop()
        self.player.film = Film(viewed.film) if viewed is not None and viewed.film is not None else None
        self.handles["timeline"].visible = motion is not None
        if motion is not None:
            self.handles["frame"].max = len(motion) - 1


def note(text: str, weight: str = "normal") -> str:
    """Text of anybody, such as a name in a packet, as HTML that shows it letter by letter.

    Args:
        text: Whatever came; what looks like HTML in it is shown, too.
        weight: Of the font, as CSS names it.

    Returns:
        One element.
    """
    return _NOTE.format(weight, html.escape(text))


def _set_text(handle: Any, text: str) -> None:
    content = note(text)
    if handle.content != content:
        handle.content = content
