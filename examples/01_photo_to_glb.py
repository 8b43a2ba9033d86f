# SPDX-License-Identifier: Apache-2.0
"""A photo in, a face that opens animated in Blender out.

python examples/01_photo_to_glb.py portrait.jpg out
"""

import sys
from pathlib import Path

import hiface

photo, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

faces = hiface.Reconstructor().reconstruct(photo)  # one per person, the largest first
for number, face in enumerate(faces, start=1):
    face.save(out / f"face{number}.glb")  # 52 ARKit morph targets, joints, texture, a clip
    face.save(out / f"face{number}.obj", units="cm")  # as in the photo, for programs without glTF
    face.save(out / f"face{number}.json")  # coefficients, camera, landmarks
    strongest = sorted(face.expression.items(), key=lambda item: -item[1])[:3]
    print(f"face {number}, sure by {face.score:.2f}:", ", ".join(f"{n} {v:.2f}" for n, v in strongest))
