# SPDX-License-Identifier: Apache-2.0
"""Size of the viewer page of a default result, time to open it, and time from a slider to the picture.

Usage: python benchmarks/viewer.py (needs Chromium and the package playwright; no GPU: it draws in software)
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


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "viewer.json")
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
        }
    print(json.dumps(result, indent=1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
