"""The videos of ``--filelist``, made by the generator as ``infer`` makes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from wav2lip_npu.config import EvaluateConfig, InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.evaluation.inputs import Item
from wav2lip_npu.evaluation.records import Records
from wav2lip_npu.inference.jobs import Job, do_jobs
from wav2lip_npu.media.outfile import check_outfile
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import file_state

RECORDS = "generated.jsonl"  # of what each video was made

log = logging.getLogger(__name__)


def generate(
    items: Sequence[Item], checkpoint_digest: str, folder: Path, config: EvaluateConfig
) -> dict[str, str]:
    """Make the videos that are not there already, of the same inputs and by the same generator.

    Returns:
        Of those that could not be made, by name, the reason.

    Raises:
        UserError: the networks cannot be loaded.
    """
    records = Records(folder / RECORDS)
    options = {
        "checkpoint": checkpoint_digest,
        "detector": config.detector,
        "detect_every": config.detect_every,
        "precision": config.precision,
        "pads": [*config.pads],
        "align": config.align,
    }
    states: dict[str, object] = {}
    faults: dict[str, str] = {}
    jobs = []
    for number, item in enumerate(items):
        assert item.source is not None and item.audio is not None
        try:
            state = {**options, "face": file_state(item.source), "audio": file_state(item.audio)}
            if item.video.exists() and records.get(item.name, state) == [*file_state(item.video)]:
                continue
            check_outfile(item.video)
        except (UserError, OSError) as error:
            faults[item.name] = reason(error)
            continue
        states[item.name] = state
        jobs.append(Job(line=number, face=item.source, audio=item.audio, outfile=item.video))
    log.info("%d videos, %d of them to be generated", len(items), len(jobs))
    if not jobs:
        return faults
    for job, failure in do_jobs(jobs, _infer_options(jobs[0], config)):
        name = items[job.line].name
        if failure is None:
            records.put(name, states[name], file_state(job.outfile))
        else:
            job.outfile.unlink(missing_ok=True)  # it would be of other inputs
            log.warning("%s: cannot be generated: %s", name, failure)
            faults[name] = f"cannot be generated: {failure}"
    return faults


def _infer_options(job: Job, config: EvaluateConfig) -> InferConfig:
    """The options of ``infer``, which are its defaults but for what ``evaluate`` has too."""
    assert config.checkpoint_path is not None
    return InferConfig(
        checkpoint_path=config.checkpoint_path,
        face=job.face,
        audio=job.audio,
        device=config.device,
        precision=config.precision,
        strict_fp32=config.strict_fp32,
        detector=config.detector,
        s3fd=config.s3fd,
        detect_every=config.detect_every,
        pads=config.pads,
        align=config.align,
        face_det_batch_size=config.batch_size,
        wav2lip_batch_size=config.wav2lip_batch_size,
    )
