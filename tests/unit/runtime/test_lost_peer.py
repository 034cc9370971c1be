"""How a process that has ended is recognised by those that wait for it."""

import pytest

from wav2lip_npu.runtime.distributed import is_lost_peer

LOST = (
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1",
    "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error, NCCL "
    "version 2.21.5\nncclRemoteError: A call failed possibly due to … a remote process exiting",
    "NCCL error in: ProcessGroupNCCL.cpp:1275, internal error, NCCL version 2.14.3\n"
    "ncclInternalError: Internal check failed.\nNet : Connection closed by remote peer",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE",
    "NCCL communicator was aborted on rank 1.",
    "OPS function error: HcclAllreduce, error code is 6\n[ERROR] ERR01100 OPS call failed.\n"
    "EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time.",
    "HCCL function error\n[ERROR] ERR02200 DIST call hccl api failed.\n"
    "Communication_Error_Get_Socket(EI0006)",
)
OTHERS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "NCCL error in: ProcessGroupNCCL.cpp:1287, invalid usage, NCCL version 2.17.1",
    "[ERROR] ERR02200 DIST call hccl api failed.\nEJ0001: Failed to initialize the HCCP process.",
    "mat1 and mat2 shapes cannot be multiplied",
)


@pytest.mark.parametrize("message", LOST)
def test_a_lost_peer(message: str) -> None:
    assert is_lost_peer(RuntimeError(message))


@pytest.mark.parametrize("message", OTHERS)
def test_other_errors(message: str) -> None:
    assert not is_lost_peer(RuntimeError(message))
