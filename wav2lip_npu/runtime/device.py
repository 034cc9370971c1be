"""The only module that runs code for a kind of device: choice, precision, memory format, seeds.

It imports torch only when a device is opened, so that ``--help`` and option errors come at once.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2lip_npu.config_base import CPU, CUDA, NPU, check_device_name
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.threads import local_processes

if TYPE_CHECKING:
    import torch

SET_ENV = "/usr/local/Ascend/ascend-toolkit/set_env.sh"  # of CANN's default installation
CPU_FLAGS_FILE = Path("/proc/cpuinfo")
MALLOC_TOP_PAD_BYTES = 2**28  # by which the heap grows at a time, see ``tune_malloc``
CGROUP_MEMORY_FILES = (  # limit and use in a container, by version 2 and 1 of cgroups
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
MAX_CPU_GENERATOR_BATCH = 8  # larger ones are hardly faster, and each frame takes 10 MB or more


def disable_torch_npu_autoload() -> None:
    """Keep ``import torch`` from loading torch_npu by itself. Call it before torch is imported.

    Since version 2.5 torch does so, and its import fails where torch_npu is installed without CANN.
    ``Device.open`` imports torch_npu when an NPU is asked for, and explains a failure.
    """
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that works, and the arithmetic of the networks on it."""

    torch_device: torch.device
    dtype: torch.dtype | None  # of autocast; None: fp32
    reason: str  # of the choice of device and precision, for the log

    @classmethod
    def open(cls, name: str = "auto", precision: str = "fp32") -> Device:
        """Choose a device and its arithmetic.

        Args:
            name: see ``check_device_name``; "auto" takes the first of NPU, CUDA and CPU that works.
            precision: one of PRECISIONS; "auto" is bf16 if the device supports it natively, else
                fp16 on an accelerator, else fp32.

        Raises:
            UserError: the device cannot be used (with the reason), or not with this precision.
        """
        import torch

        check_device_name(name)
        chosen, why_device = _choose(name)
        device = torch.device(chosen)
        dtype, why_precision = _choose_dtype(device.type, precision)
        if device.type == NPU:
            _configure_npu(device)
        elif device.type == CUDA:
            torch.cuda.set_device(device)
        return cls(torch_device=device, dtype=dtype, reason=f"{why_device}; {why_precision}")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes of networks; compute losses outside of it."""
        import torch

        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

    def scaler(self) -> Any:
        """A gradient scaler; it does nothing unless the precision is fp16."""
        import torch

        enabled = self.dtype is torch.float16
        if hasattr(torch.amp, "GradScaler"):  # torch 2.3
            return torch.amp.GradScaler(self.torch_device.type, enabled=enabled)
        module = self._module or torch.cuda  # a disabled scaler of CUDA works everywhere
        return module.amp.GradScaler(enabled=enabled)

    @property
    def has_fused_adam(self) -> bool:
        """Whether this device has the fused Adam, which can skip a step without the CPU's help."""
        import torch

        if self.torch_device.type == NPU:
            return False
        try:
            torch.optim.Adam([torch.zeros(1, device=self.torch_device)], fused=True)
        except (RuntimeError, ValueError):  # a CPU before torch 2.4
            return False
        return True

    def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to this device, in the memory format that is fastest for convolutions."""
        import torch

        if self.torch_device.type == NPU:  # it has memory formats of its own
            return network.to(self.torch_device)
        network = network.to(self.torch_device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Move a batch to this device without waiting for the copy."""
        return {key: part.to(self.torch_device, non_blocking=True) for key, part in batch.items()}

    def prefetch(
        self, batches: Iterable[dict[str, torch.Tensor]]
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yield batches on this device; the next one is copied while the caller uses this one."""
        if self.torch_device.type == CPU:  # nothing to copy; a second batch would only take memory
            yield from map(self.to_device, batches)
            return
        next_batch: dict[str, torch.Tensor] | None = None
        for batch in batches:
            current, next_batch = next_batch, self.to_device(batch)
            if current is not None:
                yield current
        if next_batch is not None:
            yield next_batch

    def tune_malloc(self) -> None:
        """Let this process keep the memory of freed CPU tensors for later ones.

        Without this, on a CPU with the GNU C library, a training step of the generator returns
        gigabytes to the system and gets them back page by page: a quarter of its time (see
        ``benchmarks/README.md``). It changes the whole process, so only the command line calls it.
        """
        if self.torch_device.type != CPU:
            return
        import ctypes

        # malloc.h's M_MMAP_MAX: use the heap only; M_TRIM_THRESHOLD: never shrink it; M_TOP_PAD.
        mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
        if mallopt is not None:
            for parameter, value in ((-4, 0), (-1, -1), (-2, MALLOC_TOP_PAD_BYTES)):
                mallopt(parameter, value)

    def measured_matmul_flops(self) -> float:
        """Floating-point operations per second of large matrix products, measured now."""
        import torch

        size, seconds = 512, 0.0
        while seconds < 0.01 and size < 8192:  # small products do not reach the full speed
            size *= 2
            matrix = torch.ones(size, size, device=self.torch_device, dtype=self.dtype)
            # The fastest of four: other programs may slow some of them down.
            seconds = min(self._matmul_seconds(matrix) for _ in range(4))
        return 2 * size**3 / seconds

    def _matmul_seconds(self, matrix: torch.Tensor) -> float:
        self.synchronize()
        started = time.perf_counter()
        _ = matrix @ matrix
        self.synchronize()
        return time.perf_counter() - started

    def copy_to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor on this device, even if it is here: it may be a mapped file."""
        return tensor.to(self.torch_device, copy=True)

    def with_index_offset(self, cards: int) -> Device:
        """This device with its index raised by ``cards``; a CPU is returned unchanged."""
        import torch

        if self.torch_device.type == CPU:
            return self
        index = self.torch_device.index + cards
        return replace(self, torch_device=torch.device(self.torch_device.type, index))

    def card_count(self) -> int:
        """How many cards of this kind are here; 0 for a CPU."""
        return self._module.device_count() if self._module else 0

    @property
    def onnx_providers(self) -> list[str]:
        """Execution providers for ONNX Runtime, the preferred one first."""
        own = {NPU: "CANNExecutionProvider", CUDA: "CUDAExecutionProvider"}
        return [*filter(None, [own.get(self.torch_device.type)]), "CPUExecutionProvider"]

    @property
    def backend(self) -> str:
        """torch.distributed's backends for tensors of the CPU and of this device."""
        library = {NPU: "hccl", CUDA: "nccl"}.get(self.torch_device.type)
        return f"cpu:gloo,{self.torch_device.type}:{library}" if library else "gloo"

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""
        if self._module:
            self._module.synchronize(self.torch_device)

    def peak_memory(self) -> int | None:
        """Peak memory of tensors on this card so far, in bytes; None on a CPU."""
        return self._module.max_memory_allocated(self.torch_device) if self._module else None

    def free_memory(self) -> int | None:
        """Free memory of this card, or of this machine or container, in bytes; None: unknown."""
        if self._module:
            return self._module.mem_get_info(self.torch_device)[0]
        return _free_machine_memory()

    @property
    def _module(self) -> Any:
        """Torch's module of an accelerator, such as ``torch.npu``; None for a CPU."""
        import torch

        kind = self.torch_device.type
        return None if kind == CPU else getattr(torch, kind)

    @property
    def wants_fixed_shapes(self) -> bool:
        """Whether each new batch shape costs a compilation."""
        return self.torch_device.type == NPU

    @property
    def max_generator_batch(self) -> int | None:
        """The largest useful batch of the generator, in frames; None: no limit."""
        return MAX_CPU_GENERATOR_BATCH if self.torch_device.type == CPU else None

    @property
    def gains_from_fusion(self) -> bool:
        """Whether a generator is faster here with ``inference.fusion.fuse``.

        Measured: 1.1 times as fast in bf16 on x86-64 with one and two threads, but 0.7 times in
        fp32 with two (``python -m benchmarks.infer --help`` tells how to measure).
        """
        import torch

        on_x86 = platform.machine() in ("x86_64", "AMD64") and self.torch_device.type == CPU
        return on_x86 and self.dtype is torch.bfloat16 and torch.backends.mkldnn.is_available()

    @property
    def pins_memory(self) -> bool:
        """Whether to load batches into page-locked memory, for copies during computation."""
        return self.torch_device.type != CPU


def _free_machine_memory(root: Path = Path("/")) -> int | None:
    """Memory that this process may still take: of the machine, or less in a container.

    Args:
        root: of the file system with the kernel's tables.
    """
    free = []
    table = root / "proc/meminfo"
    found = re.search(r"MemAvailable: *(\d+) kB", table.read_text()) if table.exists() else None
    if found:
        free.append(int(found[1]) * 1024)
    for limit, used in CGROUP_MEMORY_FILES:  # a limit is "max" where there is none
        texts = [path.read_text().strip() for path in (root / limit, root / used) if path.exists()]
        if len(texts) == 2 and all(text.isdecimal() for text in texts):
            free.append(max(0, int(texts[0]) - int(texts[1])))
    return min(free, default=None)


def seed(value: int) -> None:
    """Seed torch's random generators on every device."""
    import torch

    torch.manual_seed(value)


def _choose(name: str) -> tuple[str, str]:
    """The name of a device for torch, and the reason for the choice."""
    import torch

    kind = name.partition(":")[0]
    missing: list[str] = []
    if kind in ("auto", NPU):
        problem = _npu_problem()
        if problem is None:
            return _with_index(name, NPU, torch.npu.device_count()), "NPU available"  # type: ignore[attr-defined]
        missing.append(f"no NPU ({problem})")
    if kind in ("auto", CUDA):
        if torch.cuda.is_available():
            card = _with_index(name, CUDA, torch.cuda.device_count())
            return card, torch.cuda.get_device_name(card)
        reason = "" if torch.version.cuda else " (this torch is built without)"
        missing.append(f"no CUDA device{reason}")
    if kind in ("auto", CPU):
        return CPU, "asked for" if kind == CPU else ", ".join(missing)
    raise UserError(f"--device {name}: {missing[0]}")


def _with_index(name: str, kind: str, count: int) -> str:
    """A card's name with its index: the one asked for, else this process's local rank.

    Raises:
        UserError: the machine has no such card, or several processes ask for the same one.
    """
    asked, rank = name.partition(":")[2], os.environ.get("LOCAL_RANK", "0")
    if asked and local_processes() > 1:
        raise UserError(f"--device {name}: each process uses its own card; leave the index out")
    if int(asked or rank) >= count:
        cards = f"the cards here are {kind}:0 to {kind}:{count - 1}"
        raise UserError(f"--device {name}: {cards}" + ("" if asked else f", not {kind}:{rank}"))
    return f"{kind}:{asked or rank}"


def _npu_problem() -> str | None:
    """Why no NPU can be used; None if one can."""
    import torch

    try:
        import torch_npu  # noqa: F401
    except Exception as error:  # any kind: it raises plain ones where CANN is incomplete
        return _explain_import_error(error)
    return None if torch.npu.is_available() else "torch_npu sees no card"  # type: ignore[attr-defined]


def _explain_import_error(error: Exception) -> str:
    """What torch_npu lacks, and what to do, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch_npu":
        return "torch_npu is not installed"
    text = " ".join(str(error).partition(". ")[0].split())  # without the advice that may follow
    if re.search(r"lib(?!ascend_hal)\w+\.so|ASCEND_\w+", text):
        return f"CANN is missing or its environment is not set: {text}; source {SET_ENV}"
    return f"torch_npu cannot be loaded: {text}"


def _configure_npu(device: torch.device) -> None:
    import torch
    import torch_npu

    torch.npu.set_device(device)  # type: ignore[attr-defined]
    # Compile kernels once for all shapes; keep tensors in torch's own layout.
    torch_npu.npu.set_compile_mode(jit_compile=False)
    torch_npu.npu.config.allow_internal_format = False


def _choose_dtype(kind: str, precision: str) -> tuple[torch.dtype | None, str]:
    """The autocast type (None: fp32) and why."""
    import torch

    if precision == "fp32":
        return None, "fp32"
    if kind == CPU and precision == "fp16":
        raise UserError("--precision fp16: only works on accelerators; use bf16 or fp32 on a CPU")
    if precision != "auto":
        return (torch.bfloat16 if precision == "bf16" else torch.float16), precision
    if _native_bf16(kind):
        return torch.bfloat16, "bf16, which this device supports natively"
    if kind == CPU:
        return None, "fp32, as this processor has no native bf16"
    return torch.float16, "fp16 with scaled gradients, as this device has no native bf16"


def _native_bf16(kind: str) -> bool:
    import torch

    if kind == NPU:
        return bool(torch.npu.is_bf16_supported())  # type: ignore[attr-defined]
    if kind == CUDA:
        return torch.cuda.get_device_capability()[0] >= 8  # Ampere; older cards only emulate it
    flags = CPU_FLAGS_FILE.read_text().split() if CPU_FLAGS_FILE.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
