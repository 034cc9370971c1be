"""The options of ``ui``, the page in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import DeviceOptions, option
from wav2lip_npu.errors import UserError

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")  # which no other machine reaches
MAX_PORT = 2**16 - 1
MAX_UPLOAD_MB = 2**20  # a terabyte; more is a slip of the finger


@dataclass(frozen=True, kw_only=True)
class UiConfig(DeviceOptions):
    """Lip-sync, reports of data sets and curves of trainings in the browser."""

    command = "ui"
    checkpoints: tuple[Path, ...] = option(
        "folders whose generators are offered", (Path("checkpoints"),)
    )
    data: tuple[Path, ...] = option(
        "folders below which data sets are shown (default: none is shown)", ()
    )
    runs: tuple[Path, ...] = option(
        "folders below which trainings are shown (default: none is shown)", ()
    )
    host: str = option(
        "address to listen at; one that other machines reach, such as 0.0.0.0, needs --logins",
        LOOPBACK_HOSTS[0],
    )
    port: int = option("port to listen at; 0: any that is free", 7860)
    logins: Path | None = option(
        "text file with a line NAME:PASSWORD for each person who may log in (default: no login)",
        None,
    )
    max_upload_mb: int = option("largest file that can be uploaded, in megabytes", 500)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port <= MAX_PORT:
            raise UserError(f"--port {self.port}: must be from 0 to {MAX_PORT}")
        if not 1 <= self.max_upload_mb <= MAX_UPLOAD_MB:
            raise UserError(
                f"--max_upload_mb {self.max_upload_mb}: must be from 1 to {MAX_UPLOAD_MB}"
            )
        if not self.is_loopback and self.logins is None:
            raise UserError(
                f"--host {self.host}: other machines reach it, so --logins is required; without "
                "it, listen at 127.0.0.1 and forward the port: ssh -L 7860:localhost:7860 SERVER"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host in LOOPBACK_HOSTS
