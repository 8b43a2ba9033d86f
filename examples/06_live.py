# SPDX-License-Identifier: Apache-2.0
"""A camera's face to Unreal Engine: Live Link packets while it happens.

python examples/06_live.py camera:0 127.0.0.1 11111
"""

import sys

import hiface
from hiface.animation.live_link_udp import LiveLinkSender
from hiface.data.video import open_video
from hiface.tracking.live import LiveTracker
from hiface.tracking.streaming import Latencies, LiveStream

source, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
tracker, latencies = LiveTracker(hiface.Reconstructor()), Latencies()

with open_video(source) as video, LiveLinkSender(host, port, "hiface", video.info.fps) as sender:
    for answer in LiveStream(video, tracker):  # a camera's newest frame, or a file at its own speed
        for face in answer.faces[:1]:
            sender.send(face.blendshapes, face.params.camera.R)
        latencies.add(answer)
print(f"{len(latencies)} frames, {sender.sent} packets; 95 % within {latencies.percentile_ms(95):.0f} ms")
