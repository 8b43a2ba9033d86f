# SPDX-License-Identifier: Apache-2.0
"""A page with sliders that opens by double click, to send to somebody.

python examples/07_viewer_page.py portrait.jpg out
"""

import sys
from pathlib import Path

import hiface
from hiface.app import write_viewer_page
from hiface.app.results import find_results
from hiface.saving import SaveOptions, save_person

photo, out = Path(sys.argv[1]), Path(sys.argv[2])

for number, face in enumerate(hiface.Reconstructor().reconstruct(photo), start=1):
    save_person(face, out / f"person{number}", ("glb", "json", "maps"), SaveOptions())
for person in find_results(out):
    page = person.glb.with_suffix(".html")
    size = write_viewer_page(page, person, photo=photo)
    print(f"{page}: {size / 1e6:.1f} MB")
