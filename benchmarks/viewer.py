# SPDX-License-Identifier: Apache-2.0
"""The viewer page and the viewer's server: time to open a default result, and from a slider to the picture.

Usage: python benchmarks/viewer.py [--record] (needs Chromium, playwright and viser; no GPU: it draws in
software)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hiface import Reconstructor
from hiface.app import write_viewer_page
from hiface.app.results import find_results
from hiface.morphable import load_model
from hiface.saving import save_person
from hiface.synthetic.studio import render_person, studio_params

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SOFTWARE = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-compositing",
]
# readPixels waits until the frame has been drawn; without a GPU it is a draft, the full frame follows at rest
LATENCY_MS = """async ([name, count]) => {
  const viewer = await window.hifaceViewer;
  const gl = viewer.stage.renderer.getContext();
  const slider = document.querySelector(`input[name=${name}]`);
  const times = [];
  for (let i = 0; i < count; i++) {
    await new Promise((done) => setTimeout(done, 50));
    const start = performance.now();
    slider.value = (i % 10) / 10;
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => (viewer.stage.onDrawn = done));
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    times.push(performance.now() - start);
  }
  return times;
}"""


# the server's picture is a texture; readPixels waits until the frame that uploads it is drawn
WATCH_PICTURES = """
window.pictures = [];
for (const name of ["texImage2D", "texSubImage2D"]) {
  const plain = WebGL2RenderingContext.prototype[name];
  WebGL2RenderingContext.prototype[name] = function (...args) {
    plain.apply(this, args);
    const source = args.at(-1);
    if (!(source instanceof ImageBitmap || source instanceof HTMLImageElement)) return;
    Promise.resolve().then(() => {
      this.readPixels(0, 0, 1, 1, this.RGBA, this.UNSIGNED_BYTE, new Uint8Array(4));
      window.pictures.push(performance.now());
    });
  };
}"""
SERVED_LATENCY_MS = """async ([name, count]) => {
  const label = [...document.querySelectorAll("*")].find((e) => !e.children.length && e.textContent === name);
  let row = label;
  while (!row.querySelector("[role=slider]")) row = row.parentElement;
  const thumb = row.querySelector("[role=slider]");
  const times = [];
  for (let i = 0; i < count; i++) {
    await new Promise((done) => setTimeout(done, 1500)); // the whole picture is there
    const seen = window.pictures.length, start = performance.now();
    thumb.dispatchEvent(new KeyboardEvent("keydown", { key: i % 2 ? "Home" : "End", bubbles: true }));
    while (window.pictures.length === seen) await new Promise((done) => setTimeout(done, 2));
    times.push(window.pictures[seen] - start);
  }
  return times;
}"""
DRAFT_SHARE = 0.7


def default_page(folder: Path) -> Path:
    """The page of a person who does not exist, with the default files and maps."""
    model = load_model("open")
    picture = render_person(model, studio_params(model, 5, size=640))
    (face,) = Reconstructor(device="cpu").reconstruct(picture.permute(1, 2, 0).contiguous().numpy())
    save_person(face, folder, ("glb", "json", "maps"))
    write_viewer_page(folder / "face.html", find_results(folder)[0])
    return folder / "face.html"


def summary(times_ms: list[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    values = {"min": min(times_ms), "median": statistics.median(times_ms), "max": max(times_ms)}
    return {name: round(value, 1) for name, value in values.items()}


def measure(page_path: Path, repeats: int) -> dict[str, Any]:
    """Opens the page and moves sliders."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=path, args=SOFTWARE)
        opened: list[float] = []
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        for _ in range(3):
            start = time.perf_counter()
            page.goto(page_path.as_uri())
            page.evaluate("window.hifaceViewer.then(Boolean)")
            opened.append(1e3 * (time.perf_counter() - start))
        moved = {}
        for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft"):
            page.evaluate(LATENCY_MS, [name, 3])
            moved[name] = summary(page.evaluate(LATENCY_MS, [name, repeats]))
        version = browser.version
        browser.close()
    return {"browser": f"Chromium {version}, SwiftShader", "open_ms": summary(opened), "slider_ms": moved}


def measure_server(folder: Path, repeats: int) -> dict[str, Any]:
    """Opens the viewer's server in a browser on the same computer and moves a slider."""
    from playwright.sync_api import sync_playwright

    from hiface.app.server import ViewerServer
    from hiface.app.viewer_faces import load_faces

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    start = time.perf_counter()
    people = load_faces(find_results(folder))
    loaded = time.perf_counter() - start
    with ViewerServer(people, port=0) as viewer, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=path, args=SOFTWARE)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(WATCH_PICTURES)
        start = time.perf_counter()
        page.goto(viewer.url)
        page.wait_for_function("window.pictures.length > 0")
        opened = time.perf_counter() - start
        page.wait_for_timeout(2000)
        moved = page.evaluate(SERVED_LATENCY_MS, ["jawOpen", repeats])
        (client,) = viewer.stage.clients
        view = viewer.stage.view_of(client)
        draft = _drawing_ms(viewer, lambda: viewer.state.picture(viewer.stage.view_of(client, DRAFT_SHARE)))
        whole = _drawing_ms(viewer, lambda: viewer.stage.whole_picture(client))
        browser.close()
    return {
        "view_px": [view.width, view.height],
        "load_ms": round(1e3 * loaded, 1),
        "open_ms": round(1e3 * opened, 1),
        "slider_ms": summary(moved),
        "draw_draft_ms": summary(draft),
        "draw_whole_ms": summary(whole),
    }


def _drawing_ms(viewer: Any, draw: Callable[[], Any]) -> list[float]:
    """Drawing with a new expression every time, while the stage draws its draft of it too."""
    times = []
    for i in range(9):
        time.sleep(1.0)  # until the stage rests
        viewer.state.preset({"jawOpen": (1 + i) / 10})
        start = time.perf_counter()
        draw()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "viewer.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = default_page(Path(folder))
        sizes = {"page_bytes": page.stat().st_size, "glb_bytes": page.with_suffix(".glb").stat().st_size}
        result = {
            "command": "python benchmarks/viewer.py",
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": platform.platform(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "view_px": [870, 800],
            **sizes,
            **measure(page, options.repeats),
            "server": measure_server(page.parent, options.repeats),
        }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
