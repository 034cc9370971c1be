"""Processes that load batches, where they cannot be started."""

import errno
from multiprocessing.context import ForkServerContext

import pytest

from wav2lip_npu.data import loader
from wav2lip_npu.errors import UserError


def test_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(context: ForkServerContext) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # of sem_open

    monkeypatch.setattr(ForkServerContext, "Lock", refuse)
    with pytest.raises(UserError, match=r"shared memory cannot be used \(Permission denied\)"):
        loader.open_loader(
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            batch_size=1,
            workers=1,
            pin_options={},
        )
