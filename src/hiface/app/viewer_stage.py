# SPDX-License-Identifier: Apache-2.0
"""Draws the state for every open page: a draft at once, the whole picture when nothing moves."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import roma
import torch

from hiface.app.viewer_state import ViewerState
from hiface.errors import HifaceError
from hiface.types import Camera

DRAFT_S = 0.02
"""Drafts have the resolution that can be drawn in this time."""
REST_S = 0.2
"""When nothing has changed for this long, the whole picture is drawn."""
LARGEST_PX = 1600
_SMOOTH_PX = 2
_SMALLEST_SHARE = 0.3


def view_camera(position: np.ndarray, wxyz: np.ndarray, fov_rad: float, height: int, width: int) -> Camera:
    """The camera of a page.

    Args:
        position: [3] metres, world axes.
        wxyz: [4] unit quaternion, camera to world; the camera has OpenCV's axes.
        fov_rad: Vertical field of view, radians.
        height: Pixels.
        width: Pixels.

    Returns:
        The camera, with the world as its object space.
    """
    w, x, y, z = (float(v) for v in wxyz)
    R_cam_world = roma.unitquat_to_rotmat(torch.tensor([x, y, z, w])).T
    t = -R_cam_world @ torch.from_numpy(np.asarray(position, dtype=np.float32))
    return Camera.from_pose(R_cam_world, t, 0.5 * height / math.tan(0.5 * fov_rad), width, height)


@dataclass
class _Page:
    """An open page and how fast it is drawn."""

    client: Any
    share: float = 0.7


class Stage:
    """The thread that draws.

    Attributes:
        drawn: Number of pictures sent so far.
        rests: Whether the last of them was a whole one.
        fault: The last error of drawing, "" if there was none.
    """

    def __init__(self, state: ViewerState) -> None:
        self._state, self._pages = state, {}
        self._lock, self._stopped = threading.Lock(), False
        self.drawn, self.rests, self.fault = 0, False, ""
        self._thread = threading.Thread(target=self._run, name="viewer-stage", daemon=True)

    def start(self) -> None:
        """Begins to draw."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._state.changed.set()
        self._thread.join(timeout=5.0)

    def join(self, client: Any) -> None:
        """Draws for one more page; its camera is known by now."""
        with self._lock:
            self._pages[client.client_id] = _Page(client)
        client.camera.on_update(lambda _: self._state.changed.set())
        self._state.changed.set()

    def leave(self, client: Any) -> None:
        """Draws no more for a page."""
        with self._lock:
            self._pages.pop(client.client_id, None)

    @property
    def clients(self) -> list[Any]:
        """Pages that are drawn for."""
        with self._lock:
            return [page.client for page in self._pages.values()]

    def view_of(self, client: Any, share: float = 1.0) -> Camera:
        """What a page looks through, at a share of its resolution."""
        cam = client.camera
        share = min(share, LARGEST_PX / max(cam.image_width, cam.image_height))
        height, width = (max(2, round(share * side)) for side in (cam.image_height, cam.image_width))
        return view_camera(cam.position, cam.wxyz, cam.fov, height, width)

    def whole_picture(self, client: Any) -> np.ndarray:
        """[H, W, 3] uint8, what a page shows when nothing moves."""
        return self._state.picture(self.view_of(client), _SMOOTH_PX)

    def _run(self) -> None:
        whole = True
        while not self._stopped:
            moved = self._state.changed.wait(timeout=REST_S if not whole else None)
            if self._stopped:
                return
            self._state.changed.clear()
            with self._lock:
                pages = list(self._pages.values())
            for page in pages:
                self._draw(page, whole=not moved)
            whole = not moved

    def _draw(self, page: _Page, whole: bool) -> None:
        began = time.perf_counter()
        try:
            if whole:
                picture = self.whole_picture(page.client)
            else:
                picture = self._state.picture(self.view_of(page.client, page.share))
        except (HifaceError, RuntimeError, AssertionError) as error:  # the page may have gone meanwhile
            self.fault = f"{type(error).__name__}: {error}"
            return
        if not whole:
            taken = time.perf_counter() - began
            better = page.share * math.sqrt(DRAFT_S / max(taken, 1e-3))
            page.share = min(1.0, max(_SMALLEST_SHARE, 0.5 * (page.share + better)))
        if page.client not in self.clients:
            return
        page.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=93 if whole else 82)
        page.client.flush()
        self.drawn, self.rests = self.drawn + 1, whole
