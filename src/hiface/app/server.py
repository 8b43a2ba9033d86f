# SPDX-License-Identifier: Apache-2.0
"""The interactive viewer: a local web server that shows faces with sliders (viser)."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hiface.app.results import ResultFiles
from hiface.app.viewer_faces import ViewedFace, load_faces
from hiface.app.viewer_panel import FacePanel
from hiface.app.viewer_stage import Stage
from hiface.app.viewer_state import ViewerState
from hiface.app.viewer_tools import ToolsPanel
from hiface.errors import OptionError
from hiface.optional import needed

HOST, PORT = "127.0.0.1", 8080
_SYNC_S = 0.12
_MIDDLE_M = (0.0, -0.012, -0.03)
_DISTANCE_M = 0.8
_FOV_RAD = 0.46
_BRAND = (58, 110, 165)


class ViewerServer:
    """A running viewer; a context manager.

    Attributes:
        state: What is shown.
        face: Controls of the face.
        tools: Controls of time and files.
        stage: What draws.
        url: Address of the page.
        fault: The last error of bringing the controls up to date, "" if there was none.
    """

    def __init__(
        self,
        people: Sequence[ViewedFace] = (),
        host: str = HOST,
        port: int = PORT,
        live_host: str | None = None,
    ) -> None:
        """Starts the server.

        Args:
            people: Who can be shown at first.
            host: Own address to listen on; "0.0.0.0" lets other computers in.
            port: TCP port; 0 takes a free one.
            live_host: Own address on which Live Link is listened to when that is switched on; `host` if None.

        Raises:
            MissingExtraError: viser is not installed.
            OptionError: The port is taken, or the host is not an address of this computer.
        """
        viser = needed("viser", "the interactive viewer needs viser; --html does without", "view")
        port = _free_port(host, port)
        logging.getLogger("websockets").addHandler(logging.NullHandler())  # talks of stray visitors
        with contextlib.redirect_stdout(io.StringIO()):  # its banner
            self._server = viser.ViserServer(host=host, port=port, label="hiface", verbose=False)
        if self._server.get_port() != port:
            self._server.stop()
            raise OptionError(_taken(host, port))
        self._server.request_share_url = lambda *_, **__: None  # a tunnel through a stranger's server
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        self.state = ViewerState(people)
        self.stage = Stage(self.state)
        self.face = FacePanel(self._server, self.state)
        self.tools = ToolsPanel(self._server, self.state, self.stage, self.face, live_host or host)
        self._stopped, self.fault = threading.Event(), ""
        self._build()
        self.stage.start()
        self._syncing = threading.Thread(target=self._sync, name="viewer-sync", daemon=True)
        self._syncing.start()

    def __enter__(self) -> ViewerServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server and its threads; a second call does nothing."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._syncing.join(timeout=5.0)
        self.tools.stop()
        self.stage.stop()
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def wait(self) -> None:
        """Waits until `stop` or Ctrl-C."""
        while not self._stopped.wait(0.5):
            pass

    def _build(self) -> None:
        server = self._server
        server.scene.set_up_direction("+y")
        server.scene.world_axes.visible = False
        camera = server.initial_camera
        x, y, z = _MIDDLE_M
        camera.position, camera.look_at, camera.up = (x, y, z + _DISTANCE_M), _MIDDLE_M, (0.0, 1.0, 0.0)
        camera.fov, camera.near = _FOV_RAD, 0.01
        server.gui.configure_theme(
            show_logo=False, show_share_button=False, control_width="large", brand_color=_BRAND
        )
        server.gui.main_panel.dock_right()
        self.face.build_person()
        self.tools.build_files()
        tabs = server.gui.add_tab_group()
        with tabs.add_tab("Face"):
            self.face.build_expression()
        with tabs.add_tab("Look"):
            self.face.build_look()
            self.tools.build_save()
        with tabs.add_tab("Motion"):
            self.tools.build_motion()
        server.on_client_connect(lambda client: self.stage.join(client))
        server.on_client_disconnect(lambda client: self.stage.leave(client))

    def _sync(self) -> None:
        """Controls follow the state a few times a second."""
        while not self._stopped.wait(_SYNC_S):
            try:
                self.face.sync()
                self.tools.sync()
            except Exception as error:  # the next round may do; without this thread nothing follows any more
                self.fault = f"{type(error).__name__}: {error}"


def serve(
    people: Sequence[ResultFiles],
    host: str = HOST,
    port: int = PORT,
    say: Callable[[str], Any] = lambda url: None,
) -> int:
    """Serves the viewer until Ctrl-C.

    Args:
        people: Whose results are shown; an empty viewer takes photos.
        host: Own address to listen on.
        port: TCP port; 0 takes a free one.
        say: Called with the address when the page can be opened.

    Returns:
        Exit code 0.

    Raises:
        MissingExtraError: viser is not installed.
        OptionError: The port is taken, or a result cannot be shown.
        FaceFileError: A face.json is damaged.
        MeshFileError: A GLB file is damaged.
    """
    needed("viser", "the interactive viewer needs viser; --html does without", "view")
    try:
        with ViewerServer(load_faces(people), host, port) as viewer:
            say(viewer.url)
            viewer.wait()
    except KeyboardInterrupt:
        pass
    return 0


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; viser itself would silently take the next."""
    if not 0 <= port <= 65535:
        raise OptionError(f"a port is a number from 0 to 65535, got {port}; the usual --port is {PORT}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise OptionError(f"{host!r} is no IPv4 address; use --host 127.0.0.1") from error
        except OSError as error:
            raise OptionError(_taken(host, port, error)) from error
        return int(probe.getsockname()[1])


def _taken(host: str, port: int, error: OSError | None = None) -> str:
    why = "is taken by another program" if error is None else f"cannot be used ({error.strerror})"
    return f"port {port} of {host} {why}; choose another with --port"
