"""The data set of the demo: videos of a talking head, and its file lists."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soxr

from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.demo.speech import Speech, speak
from wav2lip_npu.demo.talking_head import load_portrait, render
from wav2lip_npu.demo.visemes import mouth_track
from wav2lip_npu.media.audio import open_sound, write_wav
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.runtime.files import write_text

VOICE = "en-us"
WORDS_PER_MINUTE = 105  # slow and clear: at 25 frames a second each sound has its frames
SENTENCES = (
    "Bob may bring a map of the bay before we move.",
    "Please pass the purple paper to my mother.",
    "The boat was far away from the open water.",
    "Nobody saw the bright lamp on top of the mast.",
    "We have five warm apples and a bowl of plums.",
    "Who knew that blue moons move so slowly?",
    "My father plays the piano in an empty room.",
    "A big brown bear may be asleep in that barn.",
    "Every morning we walk along the old harbour.",
    "Would you give Emma the box above the shelf?",
    "People from the village buy bread at seven.",
    "Tomorrow we may visit the opera with Pamela.",
    "The farmer opened both gates, and all the lambs ran out.",
    "I am happy that you phoned me about the farm.",
    "Many animals hide under the wooden bridge.",
    "How far away is the market from the park?",
    "Put more butter on the bread, and pass me the ham.",
    "The army band will march past our house at four.",
    "Papa bought a yellow umbrella for the rainy months.",
    "Are there any apples in the barn behind the mill?",
    "She always hums a melody when she walks home.",
    "Four brave boys climbed over the marble wall.",
    "The moon rose above the palm trees by the bay.",
    "Maybe a warm bath will make my arm feel better.",
)
# Said in the videos that no training sees.
HELD_OUT_SENTENCES = (
    "A small part of the map was lost on the farm.",
    "Mama put the apple pie above the warm oven.",
    "Have you ever heard a parrot laugh so happily?",
    "We are proud that Barbara may lead the march.",
)
CLIPS_FOR_ONE_HELD_OUT = 7


def held_out_clips(clips: int) -> int:
    """How many of so many clips, the last ones, no training sees: 1 to 4."""
    return min(max(1, clips // CLIPS_FOR_ONE_HELD_OUT), len(HELD_OUT_SENTENCES))


def make_videos(folder: Path, clips: int, *, seed: int) -> None:
    """Write talking heads ``00001.mp4`` …, each with another sentence.

    Args:
        folder: is created.
        clips: with more than there are sentences, some come again.
        seed: varies head movement and blinks.
    """
    portrait = load_portrait()
    held_out = held_out_clips(clips)
    sentences = [*islice(cycle(SENTENCES), clips - held_out), *HELD_OUT_SENTENCES[:held_out]]
    folder.mkdir(parents=True, exist_ok=True)
    for place, sentence in enumerate(sentences):
        speech = say(sentence)
        frames = render(portrait, mouth_track(speech, FPS), seed=clips * seed + place, fps=FPS)
        wav = folder / f"{place + 1:05d}.wav"
        write_speech(wav, speech)
        video = wav.with_suffix(".mp4")
        with open_sound(wav) as sound, VideoWriter(video, fps=FPS, sound=sound) as writer:
            for image in frames:
                writer.write(image)
        wav.unlink()


def make_silent_video(path: Path, *, seconds: float, seed: int) -> None:
    """Write a video of the portrait with its mouth at rest; it moves and blinks."""
    mouth = np.zeros((round(seconds * FPS), 3), np.float32)
    with VideoWriter(path, fps=FPS) as writer:
        for image in render(load_portrait(), mouth, seed=seed, fps=FPS):
            writer.write(image)


def make_filelists(folder: Path, clips: int) -> None:
    """Write ``train.txt`` and ``val.txt``, in the format of the guide."""
    names = [f"{number:05d}\n" for number in range(1, clips + 1)]
    trained = clips - held_out_clips(clips)
    write_text(folder / "train.txt", "".join(names[:trained]))
    write_text(folder / "val.txt", "".join(names[trained:]))


def say(text: str) -> Speech:
    """Speak a text with the voice of the data set."""
    return speak(text, voice=VOICE, words_per_minute=WORDS_PER_MINUTE)


def write_speech(path: Path, speech: Speech) -> None:
    """Write a speech as a WAV file, with the sample rate of the networks."""
    write_wav(path, soxr.resample(speech.samples, speech.sample_rate, SAMPLE_RATE))
