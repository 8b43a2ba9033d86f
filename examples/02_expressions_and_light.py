# SPDX-License-Identifier: Apache-2.0
"""The same face with other expressions, from other sides, in other light.

python examples/02_expressions_and_light.py portrait.jpg out
"""

import sys
from pathlib import Path

from PIL import Image

import hiface

photo, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

face = hiface.Reconstructor().reconstruct(photo)[0]
smile = face.neutral().with_expression(mouthSmileLeft=0.8, mouthSmileRight=0.8, cheekSquintLeft=0.5)
surprise = face.neutral().with_expression(jawOpen=0.5, browInnerUp=0.9, eyeWideLeft=0.6, eyeWideRight=0.6)

smile.picture(384).save(out / "smile.png")
surprise.picture(384, yaw=35, light="left").save(out / "surprise.png")  # wrinkles move with the expression
smile.displacement("dynamic")  # [1, 256, 256] metres: what the smile folds

relit = face.relight("sunset")  # [H, W, 3]: the photo, its face in another light
Image.fromarray(relit).save(out / "sunset.png")
print("smile.png, surprise.png and sunset.png in", out)
