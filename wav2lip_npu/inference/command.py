"""The command ``infer``: one video, or the jobs of a list."""

from __future__ import annotations

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.jobs import infer_jobs
from wav2lip_npu.inference.voices import inputs_of
from wav2lip_npu.media.outfile import check_files, is_sequence
from wav2lip_npu.run_options import options_path, options_path_beside, write_options
from wav2lip_npu.runtime.threads import process_share


def infer(config: InferConfig) -> None:
    """Write ``--outfile``, or those of all ``--jobs``.

    Raises:
        UserError: an input is missing or cannot be used, no frame has a face, or the outfile cannot
            be written; of jobs, when the others are done.
    """
    if config.jobs is not None:
        infer_jobs(config)
        return
    if process_share()[1] > 1:
        raise UserError("infer: torchrun shares the lines of --jobs, and cannot share one video")
    check_files(config.outfile, [*inputs_of(config), *config.network_files])
    from wav2lip_npu.inference.lip_sync import LipSync  # loads torch, which the jobs' process does
    from wav2lip_npu.inference.one_video import infer_video

    infer_video(lambda: LipSync.from_config(config), config)
    if is_sequence(config.outfile):
        write_options(options_path(config.outfile.parent, config), config)
    else:
        write_options(options_path_beside(config.outfile), config)
