# SPDX-License-Identifier: Apache-2.0
"""Written videos: whole or not at all, with times, and sound beside the pictures."""

import numpy as np
import pytest

from hiface.errors import OutputError, ShapeError, VideoError
from hiface.export.video import VideoWriter
from video_clips import COLOURS, H, W, av, flat, noise, read, sound, write


def test_ends_of_the_writer(tmp_path):
    path = tmp_path / "new" / "a.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, W, H, 25) as writer:
        writer.write(noise(1)[0])
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), VideoWriter(path, W, H, 25) as writer:
        writer.write(noise(1)[0])
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, W, H, 25, keep_partial=True) as writer:
        for picture in noise(7):
            writer.write(picture)
        raise KeyboardInterrupt
    assert len(read(path)[1]) == 7
    with pytest.raises(VideoError, match="no frames"), VideoWriter(tmp_path / "b.mp4", W, H, 25):
        pass
    assert [p.name for p in tmp_path.rglob("*.*")] == ["a.mp4"]


def test_what_the_writer_refuses(tmp_path):
    for arguments, message in [
        (("a.webp", W, H, 25), "suffix"),
        (("a.mp4", 0, H, 25), "cannot have"),
        (("a.mp4", W, H, 0), "cannot have"),
        (("a.mp4", W, H, 25, tmp_path / "absent.mp4"), "does not exist"),
    ]:
        with pytest.raises(VideoError, match=message):
            VideoWriter(tmp_path / arguments[0], *arguments[1:])
    with pytest.raises(VideoError, match="increase"), VideoWriter(tmp_path / "a.mp4", W, H, 25) as writer:
        writer.write(noise(1)[0], 1.0)
        writer.write(noise(1)[0], 1.0)
    with (
        pytest.raises(ShapeError, match=r"\[48, 64, 3\]"),
        VideoWriter(tmp_path / "a.mp4", W, H, 25) as writer,
    ):
        writer.write(noise(1)[0][:-1])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        VideoWriter(tmp_path / "file" / "a.mp4", W, H, 25)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_frames_that_are_very_close_stay_in_order(tmp_path):
    """Under the container's clock of 1/90000 s: the next one is a tick later, and later ones are not late."""
    times = [0.0, 1e-6, 2e-6, 0.04, 0.040001, 0.08]
    _, frames = read(write(tmp_path / "a.mp4", [flat(c) for c in COLOURS], times))
    expected = [0.0, 1 / 90000, 2 / 90000, 0.04, 0.04 + 1 / 90000, 0.08]
    assert [frame.time_s for frame in frames] == pytest.approx(expected, abs=1e-6)
    for colour, frame in zip(COLOURS, frames, strict=True):
        assert np.abs(frame.image_srgb.mean((0, 1)) - colour).max() < 6


def test_another_encoder_when_the_first_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    path = write(tmp_path / "a.mp4", [flat(c) for c in COLOURS])
    assert av.open(str(path)).streams.video[0].codec_context.name != "libx264"
    for colour, frame in zip(COLOURS, read(path)[1], strict=True):
        assert np.abs(frame.image_srgb.astype(int) - colour).mean() < 6


def test_the_index_lies_in_front(tmp_path):
    content = write(tmp_path / "a.mp4", noise(5)).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def heard(path):
    """Codec, end of the sound and middle of its silence, seconds after the first picture."""
    with av.open(str(path)) as container:
        start_s = next(container.decode(video=0)).time
        container.seek(0)
        audio = container.streams.audio[0]
        frames = list(container.decode(audio))
        waves = [
            f.to_ndarray().reshape(1, -1) if not f.format.is_planar else f.to_ndarray()[:1] for f in frames
        ]
        wave = np.concatenate(waves, axis=1)[0].astype(float)
        name, rate = audio.codec_context.name, audio.rate
    wave /= np.abs(wave).max()
    power = np.convolve(wave**2, np.ones(rate // 50) / (rate // 50), "same")
    offset_s = frames[0].time - start_s
    inside = slice(rate // 5, -rate // 5)  # MP3 that is cut into begins with silence
    quiet = np.nonzero(power[inside] < 0.1)[0] + rate // 5
    middle = None if len(quiet) == 0 else quiet.mean() / rate + offset_s
    return name, len(wave) / rate + offset_s, middle


@pytest.mark.parametrize(
    ("source", "codec", "target", "kept"),
    [
        ("s.mp4", "aac", "o.mp4", "aac"),
        ("s.mp4", "libmp3lame", "o.mp4", "mp3float"),
        ("s.mp4", "ac3", "o.mov", "ac3"),
        ("s.ts", "aac", "o.mp4", "aac"),
        ("s.mkv", "libopus", "o.mp4", "aac"),
        ("s.mkv", "libopus", "o.mkv", "opus"),
        ("s.mkv", "flac", "o.mp4", "aac"),
        ("s.avi", "pcm_s16le", "o.mp4", "aac"),
        ("s.wav", "pcm_s16le", "o.mp4", "aac"),
    ],
)
@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_sound_lies_beside_the_pictures(tmp_path, source, codec, target, kept, start_s):
    """The silence of the source is where it was, counted from the first picture that was taken over."""
    path = sound(tmp_path / source, codec, picture=not source.endswith(".wav"))
    target = write(tmp_path / target, noise(35), [start_s + i / 25 for i in range(35)], audio_from=path)
    name, end_s, middle_s = heard(target)
    assert name == kept
    assert middle_s == pytest.approx(1.05 - start_s, abs=0.012)
    assert end_s == pytest.approx(1.4, abs=0.03)
    video, frames = read(target)
    assert video.info.has_audio and len(frames) == 35 and video.warnings == []


def test_sound_that_begins_before_the_pictures(tmp_path):
    path = sound(tmp_path / "s.mp4", "aac", first_frame=10)
    target = write(tmp_path / "o.mp4", noise(35), audio_from=path)
    assert heard(target)[2] == pytest.approx(1.05 - 0.4, abs=0.012)


def test_sound_and_pictures_are_interleaved(tmp_path):
    target = write(tmp_path / "o.mp4", noise(50), audio_from=sound(tmp_path / "s.mp4", "aac"))
    with av.open(str(target)) as container:
        packets = sorted((p for p in container.demux() if p.size), key=lambda p: p.pos)
        ends = [max(i for i, p in enumerate(packets) if p.stream.type == kind) for kind in ("audio", "video")]
    assert min(ends) > 0.8 * len(packets)


@pytest.mark.parametrize("name", ["s.mp4", "s.mkv"])
def test_damaged_sound_is_a_warning(tmp_path, name):
    path = sound(tmp_path / name, "aac" if name.endswith("mp4") else "flac")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in places[3:]:
        content[position + 8 : position + size] = b"\xff" * (size - 8)
    path.write_bytes(content)
    with VideoWriter(tmp_path / "o.mp4", W, H, 25, audio_from=path) as writer:
        for picture in noise(25):
            writer.write(picture)
    assert len(read(tmp_path / "o.mp4")[1]) == 25
    if name == "s.mkv":  # decoded here; a copy passes on what it cannot judge
        assert any("damaged" in line for line in writer.warnings)


def test_sound_that_ends_early_is_a_warning(tmp_path):
    path = sound(tmp_path / "s.mkv", "flac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with VideoWriter(tmp_path / "o.mp4", W, H, 25, audio_from=path) as writer:
        for picture in noise(45):
            writer.write(picture)
    assert any("is damaged; it ends at" in line for line in writer.warnings)
    assert len(read(tmp_path / "o.mp4")[1]) == 45


def test_no_sound_and_no_video_in_the_source(tmp_path):
    silent = write(tmp_path / "s.mp4", noise(3))
    assert not read(write(tmp_path / "o.mp4", noise(3), audio_from=silent))[0].info.has_audio
    (tmp_path / "text.mp4").write_text("no sound here\n" * 30)
    with VideoWriter(tmp_path / "p.mp4", W, H, 25, audio_from=tmp_path / "text.mp4") as writer:
        writer.write(noise(1)[0])
    assert any("sound of text.mp4 is damaged" in line for line in writer.warnings)
    assert len(read(tmp_path / "p.mp4")[1]) == 1
