"""Embeddings slid along each other, and what is concluded, where the offsets are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wav2lip_npu.alignment.comparison import Comparison, fuse_scores
from wav2lip_npu.alignment.embedded import Embedded, Slid, likeness, slide
from wav2lip_npu.alignment.jumps import Segment, segments
from wav2lip_npu.alignment.lags import LAGS, best_offset

NOISE = 3.0  # beside a signal of 1: single frames tell little


def video(
    seed: int, late: int, frames: int = 71, *, wrong: bool = False, noise: float = NOISE
) -> Embedded:
    """Faces and sound that share a random walk, with noise; the sound comes late."""
    random = np.random.default_rng(seed)
    walk = random.normal(size=(frames + 40, 24))
    heard = random.normal(size=walk.shape) if wrong else walk
    faces = walk[20 : 20 + frames] + noise * random.normal(size=(frames, 24))
    sound = heard[20 - late : 20 - late + frames + 4]
    sound = sound + noise * random.normal(size=sound.shape)
    return Embedded(faces=torch.from_numpy(faces).float(), sound=torch.from_numpy(sound).float())


def together(slid: list[Slid]) -> Comparison:
    return Comparison(
        scores=np.stack([one.scores for one in slid]),
        others=np.stack([one.others for one in slid], axis=1),
    )


def test_likeness_is_the_negative_distance_of_each_pair() -> None:
    one = video(0, 2, frames=20)
    found = likeness(one.faces, one.sound)
    assert found.shape == (20, 31)
    for frame in (0, 7, 19):
        for column, lag in enumerate(LAGS.tolist()):
            if 0 <= frame + lag < 24:
                distance = torch.dist(one.faces[frame], one.sound[frame + lag])
                assert found[frame, column] == pytest.approx(-float(distance), abs=1e-5)
            else:
                assert np.isnan(found[frame, column])


@pytest.mark.parametrize("late", [-6, 0, 4])
def test_the_offset_of_one_video_needs_no_others(late: int) -> None:
    scores, confidence = fuse_scores([together([slide(video(late + 50, late, frames=200))])])
    assert round(best_offset(scores[0])) == late
    _, chance = fuse_scores([together([slide(video(late + 50, late, frames=200, wrong=True))])])
    assert confidence[0] > 4 > chance[0]


def test_two_ways_together_are_better_than_each() -> None:
    late = np.random.default_rng(0).integers(-6, 7, 60)
    first, second = (
        together(
            [slide(video(seed + n, int(by), frames=60, noise=3.8)) for n, by in enumerate(late)]
        )
        for seed in (100, 300)
    )
    right = [
        np.mean([abs(best_offset(one) - by) < 1 for one, by in zip(scores, late, strict=True)])
        for scores, _ in (fuse_scores([first]), fuse_scores([second]), fuse_scores([first, second]))
    ]
    assert min(right[:2]) > 0.5 and max(right[:2]) < right[2]


def test_a_way_that_tells_nothing_does_little_harm() -> None:
    late = np.random.default_rng(1).integers(-6, 7, 40)
    good = together([slide(video(n, int(by), frames=150)) for n, by in enumerate(late)])
    noise = together([slide(video(900 + n, 0, frames=150, wrong=True)) for n in range(40)])
    noise = Comparison(scores=1000 * noise.scores, others=1000 * noise.others)  # another unit
    alone, both = (
        np.mean([round(best_offset(one)) == by for one, by in zip(scores, late, strict=True)])
        for scores, _ in (fuse_scores([good]), fuse_scores([good, noise]))
    )
    assert both > alone - 0.05
    assert alone > 0.9


def test_what_cannot_be_compared_is_unknown() -> None:
    nobody = Embedded(faces=torch.full((60, 24), torch.nan), sound=torch.zeros(60, 24))
    silent = Embedded(faces=torch.randn(60, 24), sound=torch.zeros(0, 24))
    short = video(1, 0, frames=10)
    scores, confidence = fuse_scores([together([slide(one) for one in (nobody, silent, short)])])
    assert np.isnan(scores).all()
    assert np.isfinite(confidence).all()
    scores, confidence = fuse_scores(
        [Comparison(scores=np.eye(31)[:2], others=np.zeros((0, 2, 31)))]
    )
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert confidence.tolist() == [0, 0]


def jumping(seed: int, parts: list[tuple[int, int]]) -> np.ndarray:
    """How well frames go with their sound, where it is late by other times in each part."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(sum(frames for frames, _ in parts), 31))
    first = 0
    for frames, late in parts:
        found[first : first + frames, late == LAGS] += 1.5
        first += frames
    return found


def test_jumps_are_found_where_they_are() -> None:
    for seed in range(10):
        found = segments(jumping(seed, [(150, 0), (100, 5), (120, -3)]), overlap=1)
        assert [one.late for one in found] == [0, 5, -3]
        for one, first in zip(found, (0, 150, 250), strict=True):
            assert abs(one.first - first) <= 8


def test_what_does_not_jump_is_whole() -> None:
    for seed in range(20):
        assert segments(jumping(seed, [(300, 2)]), overlap=1) == [Segment(first=0, late=2)]
        assert len(segments(np.random.default_rng(seed).normal(size=(300, 31)), overlap=1)) == 1
    assert len(segments(jumping(0, [(100, 0), (100, 1)]), overlap=1)) == 1
    assert len(segments(np.full((100, 31), np.nan), overlap=1)) == 1
    assert len(segments(np.zeros((3, 31)), overlap=1)) == 1
