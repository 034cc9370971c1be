"""What the parts of the page share while the server runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config import UiConfig
from wav2lip_npu.ui import inspection
from wav2lip_npu.ui.folders import Roots
from wav2lip_npu.ui.jobs import JobQueue
from wav2lip_npu.ui.processes import Processes
from wav2lip_npu.ui.visitors import Visitor, Visitors


@dataclass(frozen=True, kw_only=True)
class Service:
    """Folders that may be shown, jobs, and visitors."""

    config: UiConfig
    private: Path  # a folder that only this user can look into; the server removes it
    checkpoints: Roots
    data: Roots
    runs: Roots
    queue: JobQueue
    processes: Processes
    visitors: Visitors

    @classmethod
    def open(cls, config: UiConfig, private: Path) -> Service:
        """Start the queue; see the fields."""
        return cls(
            config=config,
            private=private,
            checkpoints=Roots("checkpoints", config.checkpoints),
            data=Roots("data", config.data),
            runs=Roots("runs", config.runs),
            queue=JobQueue(),
            processes=Processes(),
            visitors=Visitors(files_folder(private)),
        )

    def inspect(self, kind: str, **request: object) -> inspection.Report:
        """See ``inspection.inspect``."""
        with tempfile.TemporaryDirectory(dir=self.private) as folder:
            return inspection.inspect(self.processes, kind, Path(folder), request)

    def leave(self, key: str) -> None:
        """End the job of a visitor, and remove the files."""
        self.queue.cancel(key)
        self.visitors.leave(key)

    def close(self, seconds: float) -> None:
        """End all processes; a job has so many seconds to end by itself."""
        self.processes.close()
        self.queue.close(seconds)

    def visitor(self, key: str) -> Visitor:
        """See ``Visitors.of``."""
        return self.visitors.of(key)


def files_folder(private: Path) -> Path:
    """The folder that uploads come to, and that is served to browsers."""
    return private / "files"
