# SPDX-License-Identifier: Apache-2.0
"""Faces through videos: who is seen in which frame, and what each face does."""

from hiface.tracking.result import PersonTrack, VideoTrack
from hiface.tracking.video import TrackOptions, track_video

__all__ = ["PersonTrack", "TrackOptions", "VideoTrack", "track_video"]
