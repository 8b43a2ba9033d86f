# SPDX-License-Identifier: Apache-2.0
"""Several photos of one person: one shape, one skin, one set of lines for all.

python examples/03_many_photos.py out first.jpg second.jpg third.jpg
"""

import sys
from pathlib import Path

import hiface
from hiface.errors import DifferentPeopleError

out, photos = Path(sys.argv[1]), sys.argv[2:]
out.mkdir(parents=True, exist_ok=True)

try:
    faces = hiface.Reconstructor().reconstruct_person(photos)
except DifferentPeopleError as error:
    raise SystemExit(f"these are not one person: {error}") from error

faces[0].neutral().save(out / "person.glb")
print(f"{len(faces)} photos, one identity:", faces[0].params.identity[:4].tolist())
for face in faces:
    sides = face.evidence.seen_left, face.evidence.seen_right
    print(f"jawOpen {face.expression['jawOpen']:.2f}; halves seen: {sides[0]:.0%} left, {sides[1]:.0%} right")
