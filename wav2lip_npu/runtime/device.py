"""The one module that knows devices: choice, precision, memory format, seeds.

Imports torch only when a device is opened, so that ``--help`` and option errors come at once.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2lip_npu.config_base import CPU, CUDA, NPU, check_device_name
from wav2lip_npu.errors import UserError

if TYPE_CHECKING:
    import torch

HEAP_GROWTH = 2**28  # bytes by which memory that is held grows, see ``tune_malloc``
SET_ENV = "/usr/local/Ascend/ascend-toolkit/set_env.sh"  # CANN's, where it is installed by default


def disable_torch_npu_autoload() -> None:
    """Keep ``import torch`` from loading torch_npu by itself.

    torch from 2.5 on does that, and the import fails as a whole where torch_npu is installed and
    CANN is not. Here torch_npu is imported when an NPU is asked for, and its failure explained.
    """
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


def yield_cores() -> None:
    """Have torch's threads on a CPU sleep, not spin, while they wait; before torch is imported.

    Where other stages work beside the network, as in ``infer``, spinning takes their time. A
    training has the cores to itself, and would be slower by a tenth.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that is there, and how the networks run on it."""

    torch_device: torch.device
    dtype: torch.dtype | None  # of autocast; None is plain fp32
    reason: str  # why this device and this precision, for the log

    @classmethod
    def open(cls, name: str = "auto", precision: str = "fp32") -> Device:
        """Choose a device and its arithmetic.

        Args:
            name: see ``check_device_name``; "auto" takes the first of NPU, CUDA and CPU that works.
            precision: one of PRECISIONS; "auto" is bf16 where the device computes in it natively,
                else fp16 on an accelerator, else fp32.

        Raises:
            UserError: the device is not there (with the reason), or cannot do the precision.
        """
        import torch

        check_device_name(name)
        chosen, why_device = _choose(name)
        device = torch.device(chosen)
        dtype, why_precision = _choose_dtype(device.type, precision)
        if device.type == "npu":
            _configure_npu(device)
        elif device.type == "cuda":
            torch.cuda.set_device(device)
        return cls(torch_device=device, dtype=dtype, reason=f"{why_device}; {why_precision}")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for the forward passes of networks; losses belong outside it."""
        import torch

        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

    def scaler(self) -> Any:
        """A gradient scaler, which does nothing unless the precision is fp16."""
        import torch

        enabled = self.dtype is torch.float16
        if hasattr(torch.amp, "GradScaler"):  # torch 2.3
            return torch.amp.GradScaler(self.torch_device.type, enabled=enabled)
        module = self._module or torch.cuda  # which does nothing where it is not enabled
        return module.amp.GradScaler(enabled=enabled)

    @property
    def has_fused_adam(self) -> bool:
        """Whether Adam's step is one kernel here, which can be told on the device not to step."""
        import torch

        if self.torch_device.type == NPU:
            return False
        try:
            torch.optim.Adam([torch.zeros(1, device=self.torch_device)], fused=True)
        except (RuntimeError, ValueError):  # a CPU before torch 2.4
            return False
        return True

    def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network here, in the memory format that suits convolutions on this device."""
        import torch

        if self.torch_device.type == "npu":  # has formats of its own
            return network.to(self.torch_device)
        network = network.to(self.torch_device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Move a batch here, without waiting for it."""
        return {key: part.to(self.torch_device, non_blocking=True) for key, part in batch.items()}

    def prefetch(
        self, batches: Iterable[dict[str, torch.Tensor]]
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Batches moved here, each asked for before the work on the one before it begins."""
        if self.torch_device.type == CPU:  # nothing to move, and a batch more in memory
            yield from map(self.to_device, batches)
            return
        coming: dict[str, torch.Tensor] | None = None
        for batch in batches:
            ready, coming = coming, self.to_device(batch)
            if ready is not None:
                yield ready
        if coming is not None:
            yield coming

    def tune_malloc(self) -> None:
        """Have this process keep memory that tensors have freed for those to come.

        Accelerators do so by themselves. On a CPU with the GNU C library a step of the generator
        gives gigabytes back to the system and takes them again, page by page, which is a quarter of
        its time (``benchmarks/README.md``).
        """
        if self.torch_device.type != CPU:
            return
        import ctypes

        # malloc.h's M_MMAP_MAX: no blocks of their own; M_TRIM_THRESHOLD: never; M_TOP_PAD.
        mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
        if mallopt is not None:
            for parameter, value in ((-4, 0), (-1, -1), (-2, HEAP_GROWTH)):
                mallopt(parameter, value)

    def measured_matmul_flops(self) -> float:
        """Floating-point operations a second of large matrix multiplications, as measured now."""
        import torch

        size, seconds = 512, 0.0
        while seconds < 0.01 and size < 8192:  # small ones do not reach a device's full speed
            size *= 2
            matrix = torch.ones(size, size, device=self.torch_device, dtype=self.dtype)
            seconds = min(self._seconds_of_product(matrix) for _ in range(4))  # others may disturb
        return 2 * size**3 / seconds

    def _seconds_of_product(self, matrix: torch.Tensor) -> float:
        self.synchronize()
        started = time.perf_counter()
        _ = matrix @ matrix
        self.synchronize()
        return time.perf_counter() - started

    def copy_to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor here, also where it came from here: it may have been a file."""
        return tensor.to(self.torch_device, copy=True)

    def with_index_offset(self, cards: int) -> Device:
        """The same settings so many cards further on; a CPU is one."""
        import torch

        if self.torch_device.type == CPU:
            return self
        number = self.torch_device.index + cards
        return replace(self, torch_device=torch.device(self.torch_device.type, number))

    @property
    def onnx_providers(self) -> list[str]:
        """What ONNX Runtime should compute with, the first that it has."""
        own = {NPU: "CANNExecutionProvider", CUDA: "CUDAExecutionProvider"}
        return [*filter(None, [own.get(self.torch_device.type)]), "CPUExecutionProvider"]

    @property
    def backend(self) -> str:
        """How processes exchange tensors: those of the device, and those of the CPU."""
        library = {NPU: "hccl", CUDA: "nccl"}.get(self.torch_device.type)
        return f"cpu:gloo,{self.torch_device.type}:{library}" if library else "gloo"

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""
        if self._module:
            self._module.synchronize(self.torch_device)

    def peak_memory(self) -> int | None:
        """The most bytes that tensors have had on this card so far; None on a CPU."""
        return self._module.max_memory_allocated(self.torch_device) if self._module else None

    def free_memory(self) -> int | None:
        """Bytes that are free on this card, or on this machine; None where nobody tells."""
        if self._module:
            return self._module.mem_get_info(self.torch_device)[0]
        table = Path("/proc/meminfo")
        found = re.search(r"MemAvailable: *(\d+) kB", table.read_text()) if table.exists() else None
        return int(found[1]) * 1024 if found else None

    def random_state(self) -> dict[str, torch.Tensor]:
        """The state of the CPU's random numbers, and of this card's."""
        import torch

        states = {CPU: torch.get_rng_state()}
        if self._module:
            states[self.torch_device.type] = self._module.get_rng_state(self.torch_device)
        return states

    def set_random_state(self, states: dict[str, torch.Tensor]) -> None:
        """Take up what ``random_state`` gave, as far as it is of this kind of device."""
        import torch

        if CPU in states:
            torch.set_rng_state(states[CPU])
        if self._module and self.torch_device.type in states:
            self._module.set_rng_state(states[self.torch_device.type], self.torch_device)

    @property
    def _module(self) -> Any:
        """Torch's module of an accelerator, such as ``torch.npu``; None for a CPU."""
        import torch

        kind = self.torch_device.type
        return None if kind == CPU else getattr(torch, kind)

    @property
    def wants_fixed_shapes(self) -> bool:
        """Whether a new batch shape costs a compilation."""
        return self.torch_device.type == "npu"

    @property
    def frames_at_once(self) -> int | None:
        """How many frames the generator should draw together; None: as many as there are.

        On a CPU more than these are hardly faster, and each takes 10 MB or more.
        """
        return 8 if self.torch_device.type == CPU else None

    @property
    def has_onednn(self) -> bool:
        """Whether convolutions are Intel's oneDNN's, which does more in one operation."""
        import torch

        return self.torch_device.type == CPU and torch.backends.mkldnn.is_available()

    @property
    def pins_memory(self) -> bool:
        """Whether batches should be loaded into page-locked memory, for transfer beside work."""
        return self.torch_device.type != "cpu"


def local_processes() -> int:
    """How many processes of this run are on this machine, as torchrun tells."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def usable_cores() -> int:
    """Processor cores for this process, which in a container are fewer than the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def share_of_cores(processes: int = 1) -> int:
    """The cores for each of ``processes`` that this process, like its peers here, has working."""
    return max(1, usable_cores() // (processes * local_processes()))


def limit_threads(processes: int = 1) -> None:
    """Leave this process its share of the cores, see ``share_of_cores``."""
    import cv2
    import torch

    share = share_of_cores(processes)
    torch.set_num_threads(share)
    cv2.setNumThreads(share)


def seed(value: int) -> None:
    """Seed torch's generators on every device."""
    import torch

    torch.manual_seed(value)


def _choose(name: str) -> tuple[str, str]:
    """A device's name for torch, and why it was chosen."""
    import torch

    kind = name.partition(":")[0]
    missing: list[str] = []
    if kind in ("auto", "npu"):
        problem = _npu_problem()
        if problem is None:
            return _numbered(name, "npu", torch.npu.device_count()), "NPU available"  # type: ignore[attr-defined]
        missing.append(f"no NPU ({problem})")
    if kind in ("auto", "cuda"):
        if torch.cuda.is_available():
            card = _numbered(name, "cuda", torch.cuda.device_count())
            return card, torch.cuda.get_device_name(card)
        reason = "" if torch.version.cuda else " (this torch is built without)"
        missing.append(f"no CUDA device{reason}")
    if kind in ("auto", "cpu"):
        return "cpu", "asked for" if kind == "cpu" else ", ".join(missing)
    raise UserError(f"--device {name}: {missing[0]}")


def _numbered(name: str, kind: str, count: int) -> str:
    """A card's name with its number: as asked for, else this process's of those on the machine.

    Raises:
        UserError: the machine has fewer cards, or one is asked for by several processes.
    """
    asked, here = name.partition(":")[2], os.environ.get("LOCAL_RANK", "0")
    if asked and local_processes() > 1:
        raise UserError(f"--device {name}: each process takes its own card; leave the number off")
    if int(asked or here) >= count:
        cards = f"the cards here are {kind}:0 to {kind}:{count - 1}"
        raise UserError(f"--device {name}: {cards}" + ("" if asked else f", not {kind}:{here}"))
    return f"{kind}:{asked or here}"


def _npu_problem() -> str | None:
    """Why no NPU can be used, or None if one can."""
    import torch

    try:
        import torch_npu  # noqa: F401
    except Exception as error:  # it raises plain ones for what CANN lacks
        return _why_not_loaded(error)
    return None if torch.npu.is_available() else "torch_npu sees no card"  # type: ignore[attr-defined]


def _why_not_loaded(error: Exception) -> str:
    """What is missing when torch_npu cannot be imported, and what to do, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch_npu":
        return "torch_npu is not installed"
    text = " ".join(str(error).partition(". ")[0].split())  # advice of its own may follow
    if re.search(r"lib(?!ascend_hal)\w+\.so|ASCEND_\w+", text):
        return f"CANN is missing or its environment is not set: {text}; source {SET_ENV}"
    return f"torch_npu cannot be loaded: {text}"


def _configure_npu(device: torch.device) -> None:
    import torch
    import torch_npu

    torch.npu.set_device(device)  # type: ignore[attr-defined]
    # Kernels built once for all shapes, and tensors in torch's own layout.
    torch_npu.npu.set_compile_mode(jit_compile=False)
    torch_npu.npu.config.allow_internal_format = False


def _choose_dtype(kind: str, precision: str) -> tuple[torch.dtype | None, str]:
    """The autocast type (None: fp32) and why."""
    import torch

    if precision == "fp32":
        return None, "fp32"
    if kind == "cpu" and precision == "fp16":
        raise UserError("--precision fp16: is for accelerators; use bf16 or fp32 on a CPU")
    if precision != "auto":
        return (torch.bfloat16 if precision == "bf16" else torch.float16), precision
    if _native_bf16(kind):
        return torch.bfloat16, "bf16, which this device computes natively"
    if kind == "cpu":
        return None, "fp32, as this processor has no native bf16"
    return torch.float16, "fp16 with scaled gradients, as this device has no native bf16"


def _native_bf16(kind: str) -> bool:
    import torch

    if kind == "npu":
        return bool(torch.npu.is_bf16_supported())  # type: ignore[attr-defined]
    if kind == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8  # Ampere; older ones only emulate it
    processor = Path("/proc/cpuinfo")
    flags = processor.read_text().split() if processor.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
