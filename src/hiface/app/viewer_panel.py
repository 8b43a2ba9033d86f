# SPDX-License-Identifier: Apache-2.0
"""The controls of the interactive viewer for the face: people, sliders, presets, surface, light, photo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from hiface.animation.orders import expression_order
from hiface.app.viewer_picture import LAMP, LIGHTS, PARTS, SHADINGS, Look
from hiface.app.viewer_state import ViewerState, grouped
from hiface.assets import load_json_asset

NOBODY = "nobody yet"
_OPEN_GROUPS = ("Jaw", "Mouth")
_LAMP_SIZE_M = 0.045
_BULB_M = 0.009
_NEAR = 0.004  # slider values closer than this are the same


class FacePanel:
    """Handles of controls, and what they do to the state.

    Attributes:
        sliders: By expression name.
        handles: The other controls by name.
    """

    def __init__(self, server: Any, state: ViewerState) -> None:
        self._server, self._state, self._gui = server, state, server.gui
        self.sliders: dict[str, Any] = {}
        self.handles: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._titles: list[str] = []

    def _add(self, name: str, handle: Any, react: Callable[[Any], None]) -> Any:
        """Remembers a control; `react` gets its value when a person or a program changes it."""
        self.handles[name] = handle
        self._told[name] = handle.value

        @handle.on_update
        def _(event: Any) -> None:
            with self._lock:
                value = event.target.value
                if value != self._told[name]:
                    self._told[name] = value
                    react(value)

        return handle

    def tell(self, name: str, value: Any) -> None:
        """Shows a value in a control, which does not react to it.

        What a person has just set and nobody has heard of yet is not overwritten by what was known before.
        """
        with self._lock:
            if self._told[name] != value:
                self._told[name] = value
                self.handles[name].value = value

    def build_expression(self) -> None:
        """Presets and a slider for each expression, in groups."""
        gui, state = self._gui, self._state
        presets = load_json_asset("expressions/presets.json")["presets"]
        buttons = gui.add_button_group("Preset", tuple(presets))
        buttons.on_click(lambda event: state.preset(presets[event.target.value]))
        reset = gui.add_button_group("Reset", ("neutral", "as reconstructed"))
        reset.on_click(lambda event: self._reset(event.target.value))
        self.handles["preset"], self.handles["reset"] = buttons, reset
        linked = gui.add_checkbox("Link left and right", True, hint="move both sides; eyes look the same way")
        self._add("linked", linked, lambda value: state.put(linked=value))
        for label, names in grouped(expression_order("arkit52")):
            with gui.add_folder(f"{label} {len(names)}", expand_by_default=label in _OPEN_GROUPS):
                for name in names:
                    self._slider(name)

    def _slider(self, name: str) -> None:
        slider = self._gui.add_slider(name, min=0.0, max=1.0, step=0.01, initial_value=0.0)
        self.sliders[name] = self._add(name, slider, lambda value: self._moved(name, value))

    def _moved(self, name: str, value: float) -> None:
        if name in self._state.names:
            for other, moved in self._state.move(name, value).items():
                if other != name:
                    self.tell(other, round(moved, 2))

    def _reset(self, to: str) -> None:
        if to == "neutral":
            self._state.preset({})
        else:
            self._state.photo_expression()

    def build_person(self) -> None:
        """Who is shown."""
        self._titles = [NOBODY]
        person = self._gui.add_dropdown("Person", (NOBODY,), initial_value=NOBODY)
        self._add("person", person, self._chosen)

    def _chosen(self, title: str) -> None:
        if self._state.people and title in self._titles:
            self._state.select(self._titles.index(title))

    def build_look(self) -> None:
        """Surface, relief, wires, light, and the photo behind."""
        gui, show = self._gui, self._state.show
        look = Look()
        with gui.add_folder("Surface"):
            shading = gui.add_dropdown("Shading", SHADINGS, initial_value=look.shading)
            self._add("shading", shading, lambda value: show(shading=value))
            parts = gui.add_dropdown(
                "Detail", PARTS, initial_value=look.parts, hint="the person's own lines, or the expression's"
            )
            self._add("parts", parts, lambda value: show(parts=value))
            wires = gui.add_checkbox("Wireframe", look.wires)
            self._add("wires", wires, lambda value: show(wires=value))
        with gui.add_folder("Light"):
            light = gui.add_dropdown("Light", LIGHTS, initial_value=look.light, hint="drag the lamp's arrows")
            self._add("light", light, lambda value: show(light=value))
            strength = gui.add_slider("Strength", min=0.0, max=3.0, step=0.05, initial_value=look.intensity)
            self._add("intensity", strength, lambda value: show(intensity=value))
        with gui.add_folder("Photo"):
            over = gui.add_checkbox(
                "Over the photo", False, hint="through the solved camera; the view stays there"
            )
            self._add("over_photo", over, self._over_photo)
            opacity = gui.add_slider("Head's opacity", min=0.0, max=1.0, step=0.01, initial_value=1.0)
            self._add("opacity", opacity, lambda value: show(opacity=value))
        self._build_lamp(look)

    def _over_photo(self, value: bool) -> None:
        """The head over its photo is first seen in the photo's light."""
        self._state.put(over_photo=value)
        if value and self._state.can_be_over_photo:
            self._state.show(light="photo", intensity=1.0)
        elif not value:
            self._state.show(light=LAMP)

    def _build_lamp(self, look: Look) -> None:
        scene = self._server.scene
        lamp = scene.add_transform_controls(
            "/lamp", scale=_LAMP_SIZE_M, disable_rotations=True, disable_sliders=True, position=look.lamp_m
        )
        scene.add_icosphere("/lamp/bulb", radius=_BULB_M, color=(255, 214, 90), cast_shadow=False)
        lamp.on_update(lambda event: self._lamp_moved(event.target))
        self.handles["lamp"] = lamp

    def _lamp_moved(self, lamp: Any) -> None:
        x, y, z = (float(v) for v in lamp.position)
        self._state.show(lamp_m=(x, y, z))

    def sync(self) -> None:
        """Shows in the controls what the state is, wherever it came from."""
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        shown = self._state.snapshot()
        for name, value in shown.weights.items():
            if name in self.sliders and abs(self._told[name] - value) > _NEAR:
                self.tell(name, round(value, 2))
        titles = _distinct(shown.titles) or [NOBODY]
        if titles != self._titles:
            self._titles = titles
            self._told["person"] = titles[shown.index]
            self.handles["person"].options = tuple(titles)
            self.handles["person"].value = titles[shown.index]
        self.tell("person", titles[shown.index])
        self.tell("light", shown.look.light)
        self.tell("intensity", shown.look.intensity)
        over = shown.over_photo and shown.can_be_over_photo
        self.handles["lamp"].visible = shown.look.light == LAMP and not over and shown.viewed is not None
        self.handles["over_photo"].disabled = not shown.can_be_over_photo
        self.handles["opacity"].disabled = not over


def _distinct(titles: Sequence[str]) -> list[str]:
    """Titles with numbers where one comes twice."""
    out: list[str] = []
    for title in titles:
        number, name = 1, title
        while name in out:
            number += 1
            name = f"{title} ({number})"
        out.append(name)
    return out
