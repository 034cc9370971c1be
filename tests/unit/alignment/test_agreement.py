"""Whether sounds and lips belong together, on data sets of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import TALK_FRAMES, make_talk

from wav2lip_npu.alignment.agreement import MIN_COMPARED_CLIPS, compare
from wav2lip_npu.alignment.mouth import Talk


@pytest.mark.parametrize("late", [0, 5, -4])
def test_the_offset_that_all_clips_have_is_found(late: int) -> None:
    found = compare([make_talk(n, late=late) for n in range(40)])
    assert found.is_known
    assert found.is_found
    assert found.clips == 40
    assert found.common_offset == late
    assert found.has_many_faults == (late != 0)
    assert (found.off >= 30) if late else (found.off <= 2)


@pytest.mark.parametrize("seed", range(5))
def test_sounds_of_other_clips_are_named(seed: int) -> None:
    clips = range(100 * seed, 100 * seed + 30)
    found = compare([make_talk(n, voice_of=n + 50) for n in clips])
    assert not found.is_found
    assert found.unclear > 15
    # The sounds of the same clips, one further on.
    assert not compare([make_talk(n, voice_of=clips[n % 100 - 1]) for n in clips]).is_found


def test_offsets_of_single_clips_are_counted() -> None:
    late = np.random.default_rng(0).integers(-6, 7, 60)
    found = compare([make_talk(n, late=int(by)) for n, by in enumerate(late)])
    assert found.is_found
    assert found.common_offset is None
    assert abs(found.off - (np.abs(late) >= 2).sum()) <= 6 + found.unclear
    assert found.has_many_faults


def test_single_clips_with_the_sound_of_others_are_counted() -> None:
    found = compare([make_talk(n, voice_of=n + 100 if n < 12 else None) for n in range(60)])
    assert found.is_found
    assert abs(found.common_offset or 0) <= 1
    assert 8 <= found.unclear + found.off <= 20


@pytest.mark.parametrize("sentences", [10, 12, 20])
def test_sentences_may_be_said_again_and_again(sentences: int) -> None:
    """As in data sets in which each speaker reads the same list: every n-th clip sounds alike."""
    assert compare([make_talk(n % sentences) for n in range(40)]).is_found


def test_few_clips_say_nothing() -> None:
    talks = [make_talk(n) for n in range(MIN_COMPARED_CLIPS)]
    assert compare(talks).is_known
    nobody = Talk(mouth=np.full((TALK_FRAMES, 3), np.nan), voice=talks[0].voice)
    still = Talk(mouth=np.full((TALK_FRAMES, 3), 0.1), voice=talks[1].voice)
    for few, clips in (([], 0), (talks[1:], 19), ([*talks[2:], nobody, still], 18)):
        found = compare(few)
        assert not found.is_known
        assert found.clips == clips
