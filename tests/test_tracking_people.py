# SPDX-License-Identifier: Apache-2.0
"""Who is who: tracklets that become people, in a whole video and while it runs."""

from dataclasses import replace

import pytest
import torch

import hiface
from hiface.tracking.live import LiveTracker
from hiface.tracking.people import _KNOWN, SAME, Acquaintances, people_of
from hiface.tracking.sightings import unlikeness
from tracked_faces import SIZE, Scripted, identities, sighting

SIGMA = torch.ones(150)


@pytest.fixture(scope="module")
def seen():
    """Makes sightings without drawing a face for each."""
    base = sighting(0, 0, identities(1)[0])

    def make(tracklet, frame, identity, width=60.0):
        box = torch.tensor([50.0, 50.0, 50.0 + width, 120.0])
        detection = replace(base.detection, box=box)
        read = base.read.replace(identity=identity)
        return replace(
            base, tracklet=tracklet, frame=frame, time_s=frame / 25, detection=detection, read=read
        )

    return make


def noise(k):
    return 0.2 * identities(100 + k)[0]


def test_tracklets_become_people(seen):
    anna, boris = identities(1, 2)
    frames = [seen(0, k, anna + noise(k)) for k in range(10)]
    frames += [seen(1, k, boris + noise(50 + k)) for k in range(5, 16)]
    frames += [seen(2, k, anna + noise(k)) for k in range(20, 26)]
    frames += [seen(3, 30, identities(7)[0])]  # a flicker on a poster
    people, brief = people_of(frames, SIGMA, 40, 25.0)
    assert [len(p.sightings) for p in people] == [16, 11] and brief == 0
    assert {s.tracklet for s in people[0].sightings} == {0, 2}
    assert [s.frame for s in people[0].sightings] == sorted(s.frame for s in people[0].sightings)
    twins = [seen(0, k, anna) for k in range(6)] + [seen(1, k, anna) for k in range(6)]
    assert len(people_of(twins, SIGMA, 6, 25.0)[0]) == 2  # nobody is in a frame twice
    assert len(people_of(frames[-1:], SIGMA, 40, 25.0)[0]) == 1
    assert people_of([], SIGMA, 40, 25.0) == ([], 0)


def test_a_second_is_enough_in_a_long_video_and_a_quarter_in_a_short_one(seen):
    anna, boris = identities(1, 2)
    for count, n_frames, kept, brief in ((26, 4500, 2, 0), (24, 4500, 1, 1), (7, 24, 2, 0), (5, 24, 1, 1)):
        frames = [seen(0, k, anna) for k in range(n_frames)]
        frames += [seen(1, k, boris) for k in range(count)]
        people, left_out = people_of(frames, SIGMA, n_frames, 25.0)
        assert (len(people), left_out) == (kept, brief)
    assert people_of([*frames[:24], seen(1, 3, boris)], SIGMA, 24, 25.0)[1] == 0  # a mistake is nobody


def test_large_faces_come_before_bystanders(seen):
    anna, boris, carla = identities(1, 2, 3)
    frames = [seen(0, k, anna, 20.0) for k in range(50)]
    frames += [seen(1, k, boris, 80.0) for k in range(10, 40)]
    frames += [seen(2, k, carla, 80.0) for k in range(9, 39)]
    people, _ = people_of(frames, SIGMA, 50, 25.0)
    assert [p.sightings[0].tracklet for p in people] == [2, 1, 0]
    assert people[0].size == pytest.approx(30 * 80.0 / SIZE)


def test_people_are_those_of_joining_pair_by_pair(seen):
    """Against the slow way: every pair's distance anew after each join."""
    gen = torch.Generator().manual_seed(3)
    persons = identities(*range(6))
    frames = []
    for tracklet in range(40):
        who = persons[int(torch.randint(6, (), generator=gen))]
        offset = 0.75 * torch.randn(150, generator=gen)  # joins are close calls
        start = int(torch.randint(300, (), generator=gen))
        for k in range(start, start + 6):
            sight = seen(tracklet, k, who + offset)
            score = 0.5 + 0.5 * float(torch.rand((), generator=gen))
            frames.append(replace(sight, detection=replace(sight.detection, score=score)))
    found = {frozenset(s.tracklet for s in p.sightings) for p in people_of(frames, SIGMA, 24, 25.0)[0]}
    slow = {frozenset(s.tracklet for s in group) for group in joined_slowly(frames)}
    assert found == slow and 6 < len(slow) < 30


def joined_slowly(frames):
    groups = [[s for s in frames if s.tracklet == t] for t in sorted({s.tracklet for s in frames})]
    while True:
        means = []
        for group in groups:
            weight = torch.tensor([s.detection.score for s in group])[:, None]
            means.append((torch.stack([s.read.identity for s in group]) * weight).sum(0) / weight.sum())
        there = [{s.frame for s in group} for group in groups]
        pairs = [
            (unlikeness(means[a], means[b]), a, b)
            for a in range(len(groups))
            for b in range(a + 1, len(groups))
            if not there[a] & there[b]
        ]
        off, a, b = min(pairs, default=(9.0, 0, 0))
        if off > SAME:
            return groups
        groups = [g for i, g in enumerate(groups) if i not in (a, b)] + [groups[a] + groups[b]]


def test_many_tracklets_are_joined_soon(seen):
    import time

    persons = identities(*range(5))
    frames = [seen(g, 6 * g + k, persons[g % 5] + noise(g)) for g in range(400) for k in range(5)]
    started = time.perf_counter()
    people, _ = people_of(frames, SIGMA, 2400, 25.0)
    assert [len(p.sightings) for p in people] == [400] * 5
    assert time.perf_counter() - started < 3.0  # pair by pair it takes minutes


def test_whoever_comes_back_keeps_the_number(seen):
    anna, boris = identities(1, 2)
    known = Acquaintances(SIGMA)
    assert known.people_of([seen(0, 0, anna)]) == [1]
    assert known.people_of([seen(0, 0, anna), seen(1, 0, boris)]) == [1, 2]
    assert known.people_of([]) == []
    assert known.people_of([seen(2, 9, anna + 0.1 * boris), seen(3, 9, anna)]) == [1, 3]
    assert known.people_of([seen(4, 10, boris)]) == [2]


def test_a_newcomer_does_not_take_the_number_of_somebody_present(seen):
    anna, boris = identities(1, 2)
    like_boris = 0.75 * boris + 0.66 * identities(9)[0]
    assert unlikeness(like_boris, boris) < SAME
    known = Acquaintances(SIGMA)
    assert known.people_of([seen(0, 0, anna), seen(1, 0, boris)]) == [1, 2]
    assert known.people_of([seen(2, 1, like_boris), seen(1, 1, boris)]) == [3, 2]


def test_of_very_many_people_the_last_are_remembered(seen):
    known = Acquaintances(SIGMA)
    crowd = identities(*range(_KNOWN + 3))
    for k, identity in enumerate(crowd):
        assert known.people_of([seen(k, k, identity)]) == [k + 1]
    assert 3 not in known and 4 in known and len(known._means) == _KNOWN and len(known.followed) == 1
    assert known.people_of([seen(999, 999, crowd[-1])]) == [_KNOWN + 3]
    assert known.people_of([seen(1000, 1000, crowd[0])]) == [_KNOWN + 4]  # forgotten, and so somebody new


def test_a_newcomers_detail_is_read_while_somebody_known_is_away(monkeypatch):
    reconstructor = hiface.Reconstructor(device="cpu")
    anna, boris = identities(1, 2)
    script = [[sighting(0, k, anna)] for k in range(15)]
    script += [[sighting(0, k, boris, place=150.0)] for k in range(15, 20)]
    asked = []

    def read_traced(image, detections, focal_px, with_detail):
        asked.append(with_detail)
        return [s.read for s in script[detector.frame]], None

    detector = Scripted(script)
    reconstructor.detector = detector
    assert reconstructor.network is not None
    monkeypatch.setattr(reconstructor.network, "read_traced", read_traced)
    tracker = LiveTracker(reconstructor)
    grey = torch.full((SIZE, SIZE, 3), 90, dtype=torch.uint8).numpy()
    people = []
    for k in range(20):
        detector.frame = k
        people.append([face.person for face in tracker.step(grey, k / 25)])
    assert people == [[1]] * 15 + [[2]] * 5
    assert asked == [True] * 12 + [False] * 3 + [True] * 5
