"""The command ``evaluate``: generate videos if asked to, measure each, write the reports."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wav2lip_npu import __version__
from wav2lip_npu.config import EvaluateConfig
from wav2lip_npu.config.base import CPU
from wav2lip_npu.console.progress import Progress
from wav2lip_npu.errors import UserError
from wav2lip_npu.evaluation.fid import features_path, frechet_distance
from wav2lip_npu.evaluation.generated import generate
from wav2lip_npu.evaluation.inputs import Item, find_items, read_list
from wav2lip_npu.evaluation.measure import EvaluationWorker, Measured, Networks
from wav2lip_npu.evaluation.records import Records
from wav2lip_npu.evaluation.report import Evaluation, log_summary, write_report
from wav2lip_npu.run_options import options_path, write_options
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import file_state, sha256
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.runtime.signals import stop_signals
from wav2lip_npu.runtime.workers import WorkerPool
from wav2lip_npu.tracking.detection import choose_detector

VIDEOS = "videos"  # folder of what is generated
RECORDS = "measured.jsonl"
FEATURES = "fid_features"
FORMAT = 1  # of what is kept; a higher number measures all again
WORKERS_PER_CARD = 4
FEW_FACES = 2048  # below, the covariance of Inception's features has not its full rank
# Options that decide where and how fast, not what is found.
UNREPORTED = ("outdir", "num_workers", "batch_size", "wav2lip_batch_size")
DECISIVE = ("protocol", "detect_every", "smooth_boxes")  # options that decide what is measured
WEIGHTS = ("checkpoint_path", "syncnet_v2", "syncnet_checkpoint_path", "inception", "s3fd")

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Measure videos; what was measured before, of the same files and options, is taken over.

    Returns:
        What is in the reports.

    Raises:
        UserError: an input or a file of weights cannot be used, or not one video can be measured.
        KeyboardInterrupt: stopped by a signal; what was measured is kept.
    """
    if threads.process_share()[1] > 1:
        raise UserError("evaluate: runs in one process, without torchrun")
    outdir = config.outdir
    inputs = read_list(config, outdir / VIDEOS) if config.videos is None else find_items(config)
    with folder_lock(outdir, "evaluate"):
        weights = _check_weights(config)
        detector = choose_detector(config)
        write_options(options_path(outdir, config), config)
        faults = dict(inputs.faults)
        if config.videos is None:
            faults |= generate(inputs.items, weights["checkpoint_path"], outdir / VIDEOS, config)
        items = [item for item in inputs.items if item.name not in faults]
        measured, more = _measure_all(items, weights, detector, config)
        found = Evaluation(
            version=__version__,
            options=_options(config),
            weights=weights,
            detector=detector,
            videos=measured,
            failed=faults | more,
            fid=_measure_fid(measured, config),
        )
        write_report(found, outdir)
    log_summary(found, outdir)
    if not measured:
        raise UserError(
            f"not one of {len(found.failed)} videos could be measured; "
            f"{next(iter(found.failed.values()))}"
        )
    return found


def _check_weights(config: EvaluateConfig) -> dict[str, str]:
    """The SHA-256 of each file of weights; those that measure are loaded once, to be sure.

    Raises:
        UserError: one is missing, or holds other weights.
    """
    given = {name: getattr(config, name) for name in WEIGHTS}
    digests = {}
    for name, path in given.items():
        if path is not None:
            try:
                digests[name] = sha256(path)
            except OSError as error:
                raise UserError(f"--{name} {path}: cannot be read ({reason(error)})") from error
    Networks.load(config, Device.open(CPU))
    for name, metrics in (
        ("syncnet_v2", "LSE-D and LSE-C"),
        ("syncnet_checkpoint_path", "sync loss, offset and confidence"),
        ("inception", "FID"),
    ):
        if given[name] is None:
            log.info("without --%s: no %s", name, metrics)
    return digests


def _options(config: EvaluateConfig) -> dict[str, Any]:
    """The options, as JSON can hold them."""
    return {name: value for name, value in config.plain().items() if name not in UNREPORTED}


def _measure_all(
    items: Sequence[Item], weights: Mapping[str, str], detector: str, config: EvaluateConfig
) -> tuple[list[Measured], dict[str, str]]:
    """Measure videos that are not known already, and note each as it is done.

    Returns:
        What was found, in the order of the items; and of those that failed, by name, the reason.

    Raises:
        KeyboardInterrupt: stopped by a signal.
    """
    records = Records(config.outdir / RECORDS)
    measures = {name: digest for name, digest in weights.items() if name != "checkpoint_path"}
    decisive = {name: getattr(config, name) for name in DECISIVE}
    options = {"format": FORMAT, "weights": measures, "detector": detector, **decisive}
    found: dict[str, Measured] = {}
    faults: dict[str, str] = {}
    states: dict[str, object] = {}
    todo = []
    for item in items:
        try:
            states[item.name] = {**options, **_file_states(item)}
        except OSError as error:
            faults[item.name] = reason(error)
            continue
        kept = records.get(item.name, states[item.name])
        if kept is not None and _has_features(item, config):
            found[item.name] = Measured(**kept)
        else:
            todo.append(item)
    log.info("%d videos, %d of them to be measured", len(items), len(todo))
    with stop_signals() as stop:
        for item, result in _run(todo, config, stop):
            if isinstance(result, Measured):
                found[item.name] = result
                records.put(item.name, states[item.name], asdict(result))
            else:
                faults[item.name] = result
    if stop.is_set():
        log.info("stopped; what was measured is kept, the same command goes on from here")
        raise KeyboardInterrupt
    names = [item.name for item in items]
    return (
        [found[name] for name in names if name in found],
        {name: faults[name] for name in names if name in faults},
    )


def _file_states(item: Item) -> dict[str, object]:
    """Of what a video's results depend on.

    Raises:
        OSError: a file is not there.
    """
    source = None if item.source is None else [str(item.source), file_state(item.source)]
    return {
        "video": file_state(item.video),
        "source": source,
        "reconstruction": item.reconstruction,
    }


def _has_features(item: Item, config: EvaluateConfig) -> bool:
    """Whether what FID needs of a video is kept, or not needed."""
    needed = config.inception is not None and item.source is not None
    return not needed or features_path(config.outdir / FEATURES, item.name).is_file()


def _run(
    todo: Sequence[Item], config: EvaluateConfig, stop: threading.Event
) -> Iterator[tuple[Item, Measured | str]]:
    """Measure videos side by side; yield each with what was found, or why it failed.

    Whatever goes wrong with a video costs it alone. What may pass is tried once more.
    """
    workers = _count_workers(config)
    arguments = (config, workers, config.outdir / FEATURES)
    pool: WorkerPool[Item] = WorkerPool(EvaluationWorker, [arguments] * workers)
    for item in todo:
        pool.submit(item)
    with Progress("evaluate", "video", len(todo)) as progress:
        try:
            for outcome in pool.outcomes(stop):
                item, failure = outcome.job, outcome.failure
                if failure is None:
                    yield item, outcome.result
                elif pool.try_again(outcome, item):
                    log.warning("%s: %s; trying once more", item.name, failure.reason)
                    continue
                else:
                    log.warning("%s: %s", item.name, failure.reason)
                    yield item, failure.reason
                progress.update()
        finally:
            pool.close()


def _count_workers(config: EvaluateConfig) -> int:
    """Not by how many videos are left: the threads of each decide its last digits."""
    if config.num_workers is not None:
        return config.num_workers
    cores = threads.share_of_cores()
    is_cpu = Device.open(config.device).torch_device.type == CPU
    return cores if is_cpu else min(cores, WORKERS_PER_CARD)


def _measure_fid(measured: Sequence[Measured], config: EvaluateConfig) -> dict[str, Any]:
    """FID of all videos together, and the numbers of faces; or why there is none."""
    found: dict[str, Any] = {"value": None, "generated": 0, "source": 0, "reason": None}
    if config.inception is None:
        return {**found, "reason": "no --inception"}
    folder = config.outdir / FEATURES
    paths = [features_path(folder, one.name) for one in measured if one.source is not None]
    if not paths:
        return {**found, "reason": "no video has a source"}
    value, found["generated"], found["source"] = frechet_distance(paths)
    if value is None:
        return {**found, "reason": "too few faces"}
    fewest = min(found["generated"], found["source"])
    if fewest < FEW_FACES:
        log.warning("fid: of %d faces; of fewer than %d it is too high", fewest, FEW_FACES)
    return {**found, "value": round(value, 4) + 0.0}
