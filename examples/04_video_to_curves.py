# SPDX-License-Identifier: Apache-2.0
"""A video to ARKit curves for Unreal, Blender or a spreadsheet.

python examples/04_video_to_curves.py talk.mp4 out
"""

import sys
from pathlib import Path

import hiface
from hiface.saving import SaveOptions
from hiface.tracking import TrackOptions, track_video
from hiface.tracking.outputs import write_video_track

video, out = Path(sys.argv[1]), Path(sys.argv[2])
fps = 25.0 if video.is_dir() else None  # a folder of pictures has no times of its own

options = TrackOptions(people=2, keyframes=3, fps=fps)
# out/seen keeps what was seen of each frame, so that a run that was stopped goes on; delete it when done.
track = track_video(video, hiface.Reconstructor(), options, work=out / "seen")
write_video_track(track, video, out, SaveOptions(), overlay=True)

for person in track.people:
    counts = {word: person.status.count(word) for word in ("ok", "interpolated", "missing")}
    jaw = person.face.model.expression_index("jawOpen")
    widest = person.blendshapes[person.there, jaw].max()
    print(f"person {person.number}: {counts}, the mouth opens to {widest:.2f}")
print("blendshapes.csv, blendshapes.json and face.glb for each person, and overlay.mp4, in", out)
