"""The changes that fit each kind of file."""

from fuzz import special_arrays, special_media, special_sound, special_text, special_weights
from fuzz.mutations import Mutation

SPECIAL: dict[str, tuple[Mutation, ...]] = {
    "video": special_media.VIDEO,
    "sound": special_sound.SOUND,
    "wav": special_sound.WAV,
    "image": special_media.IMAGE,
    "crop": special_media.CROP,
    "checkpoint": special_weights.CHECKPOINT,
    "s3fd": special_weights.S3FD,
    "mel": special_arrays.MEL,
    "face cache": special_arrays.FACE_CACHE,
    "file list": special_text.FILE_LIST,
    "clip": special_text.CLIP,
    "report": special_text.REPORT,
    "options": special_text.OPTIONS,
    "metrics": special_text.METRICS,
    "sample sheet": special_text.SAMPLE_SHEET,
    "jobs": special_text.JOBS,
    "voices": special_text.VOICES,
}
