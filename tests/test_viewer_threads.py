"""The viewer's threads: controls that look while the state changes, and an end amid a reconstruction."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hiface.animation.motion import Motion
from hiface.app import viewer_workers
from hiface.app.viewer_faces import ViewedFace
from hiface.app.viewer_picture import Look
from hiface.app.viewer_state import ViewerState
from hiface.app.viewer_tools import ToolsPanel, note
from hiface.app.viewer_workers import Uploads


class Restless(ViewerState):
    """Slider and timeline take turns whenever nobody holds the lock."""

    def __init__(self, people) -> None:
        self._now: int | None = None
        super().__init__(people)

    @property
    def frame(self) -> int | None:
        if self._lock._is_owned():  # pyright: ignore
            return self._now
        self._now = 1 if self._now is None else None
        return self._now

    @frame.setter
    def frame(self, value: int | None) -> None:
        self._now = value


class Control:
    """Takes whatever is set, and makes more of its kind."""

    value = content = ""
    visible = False

    def __getattr__(self, name):
        return lambda *given, **more: Control()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        return None


def a_viewed_face() -> ViewedFace:
    motion = Motion(torch.zeros(3, 2), None, torch.arange(3) / 10)
    data = SimpleNamespace(expression_names=("a", "b"))
    face = SimpleNamespace(model=SimpleNamespace(data=data), params=None)
    empty = torch.zeros(3, 1, 1)
    return ViewedFace("clip", face, empty, empty, False, torch.ones(3), motion)  # pyright: ignore[reportArgumentType]


def test_the_timeline_looks_once():
    state, told = Restless([a_viewed_face()]), []
    handles: dict = {}
    face = SimpleNamespace(
        handles=handles,
        _add=lambda name, handle, _: handles.update({name: handle}),
        tell=lambda name, value: told.append((name, value)),
    )
    tools = ToolsPanel(SimpleNamespace(gui=Control()), state, None, face, "127.0.0.1")  # pyright: ignore
    try:
        tools.build_files()
        tools.build_motion()
        state.show_frame(1)
        tools.sync()
        tools.sync()
        assert told == [("frame", 1)] * 2 and "0.10 s of 0.20 s" in tools.handles["status"].content
    finally:
        tools.stop()


def test_a_snapshot_belongs_together():
    state = ViewerState([a_viewed_face()])
    shown = state.snapshot()
    state.drive(torch.ones(2))
    assert (shown.frame, shown.status, shown.weights) == (0, "ok", {"a": 0.0, "b": 0.0})
    later = state.snapshot()
    assert (later.frame, later.status, later.weights) == (None, "", {"a": 1.0, "b": 1.0})
    assert later.titles == ("clip",) and later.motion is shown.motion and later.look == Look()
    assert ViewerState().snapshot().viewed is None


def test_an_end_amid_a_reconstruction_waits_for_one_step(monkeypatch):
    begun, go_on, ended, done = threading.Event(), threading.Event(), [], []

    def face_of_result(face, title):
        begun.set()
        go_on.wait(10)
        ended.append(title)

    class Reconstructor:
        def reconstruct(self, photo):
            return [0, 1, 2]

    monkeypatch.setattr(viewer_workers, "Reconstructor", Reconstructor)
    monkeypatch.setattr(viewer_workers, "face_of_result", face_of_result)
    monkeypatch.setattr(viewer_workers, "read_photo", lambda path: np.zeros((4, 4, 3)))
    uploads = Uploads(lambda *_: None, lambda text: pytest.fail(text), done.append)
    uploads.put("crowd.png", b"")
    uploads.put("second.png", b"")
    assert begun.wait(5)
    threading.Timer(1.5, go_on.set).start()
    uploads.stop()
    assert ended == ["crowd person1"] and done == [], "the step at hand ends, and no other begins"
    uploads._pool.shutdown()


def test_a_dropped_file_is_named_once():
    failed = []
    uploads = Uploads(lambda *_: None, failed.append, lambda _: None)
    uploads.put("notes.txt", b"no picture")
    uploads._pool.shutdown()
    (said,) = failed
    assert said.startswith("notes.txt: it is not a picture") and "photo" not in said


def test_notes_hold_text_alone():
    assert note("Zoë 2").endswith(">Zoë 2</div>") and note("<b>&").endswith(">&lt;b&gt;&amp;</div>")
