"""The only module that runs code for a kind of device: choice, precision, memory format, seeds.

It imports torch only when a device is opened, so that ``--help`` and option errors come at once.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2lip_npu.config.base import CPU, CUDA, NPU, check_device_name
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import device_choice
from wav2lip_npu.runtime.machine_memory import free_machine_memory

if TYPE_CHECKING:
    import torch

FIRST_TORCH_THAT_FINDS_CARDS = (2, 7)  # before, a DataLoader pins for CUDA unless it is told
MALLOC_TOP_PAD_BYTES = 2**28  # by which the heap grows at a time, see ``tune_malloc``
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
    def open(
        cls,
        name: str = "auto",
        precision: str = "fp32",
        *,
        strict_fp32: bool = False,
        card_offset: int = 0,
    ) -> Device:
        """Choose a device and its arithmetic, and make it the one of this process.

        Args:
            name: see ``check_device_name``; "auto" takes the first of NPU, CUDA and CPU that works.
            precision: one of PRECISIONS; "auto" is bf16 if the device supports it natively, else
                fp16 on an accelerator, else fp32.
            strict_fp32: no shorter numbers in fp32's convolutions, for this whole process.
            card_offset: how many cards after the one of ``name``.

        Raises:
            UserError: the device cannot be used (with the reason), or not with this precision.
        """
        import torch

        check_device_name(name)
        chosen, why_device = device_choice.choose(name, card_offset)
        device = torch.device(chosen)
        if device.type == NPU:
            _configure_npu(device)
        elif device.type == CUDA:
            torch.cuda.set_device(device)
        dtype, why_precision = device_choice.choose_dtype(device.type, precision)
        if dtype is None:
            why_precision = f"{why_precision}{_set_fp32(device.type, strict=strict_fp32)}"
        elif strict_fp32:
            raise UserError(f"--strict_fp32: needs --precision fp32, not {precision}")
        return cls(torch_device=device, dtype=dtype, reason=f"{why_device}; {why_precision}")

    def make_current(self) -> None:
        """Let this thread compute on this card.

        Each thread begins at card 0. Without this, torch would change the card at every operation,
        and the process would take memory on card 0 as well.
        """
        if self._module:
            self._module.set_device(self.torch_device)

    def expect_fixed_shapes(self) -> None:
        """For training: cuDNN times its convolutions once for each shape, and takes the fastest."""
        import torch

        torch.backends.cudnn.benchmark = self.torch_device.type == CUDA

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes of networks; compute losses outside of it."""
        import torch

        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)

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

    @property
    def adam_options(self) -> dict[str, bool]:
        """The fastest of torch's implementations of Adam here, as options of its constructor.

        On a card a kernel for each parameter would cost more time to launch than to run.
        """
        if self.has_fused_adam:
            return {"fused": True}
        return {"foreach": self.torch_device.type != CPU}

    def clear_overflow(self) -> None:
        """Let ``overflow`` begin anew."""
        if self._saturates:
            import torch
            import torch_npu

            torch_npu.npu_clear_float_status(torch.zeros(8, device=self.torch_device))

    def overflow(self) -> torch.Tensor | None:
        """1 if a result on this card was too large since ``clear_overflow``, else 0; a scalar.

        Only where arithmetic saturates: there is neither Inf nor NaN then, but a register of the
        card. None on all other devices, whose gradients show it.
        """
        if not self._saturates:
            return None
        import torch
        import torch_npu

        status = torch_npu.npu_get_float_status(torch.zeros(8, device=self.torch_device))
        return (status[0] != 0).float()

    @property
    def _saturates(self) -> bool:
        """Whether this is a card on which overflow gives the largest number instead of Inf."""
        if self.torch_device.type != NPU:
            return False
        import torch_npu

        return not torch_npu.npu.utils.is_support_inf_nan()

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

    def require_compiler(self) -> None:
        """Raise a UserError if ``torch.compile`` cannot work here."""
        if self.torch_device.type == NPU and importlib.util.find_spec("triton") is None:
            raise UserError(
                "--compile: on an NPU it needs triton-ascend (pip install triton-ascend, for CANN "
                "8.3 or newer); leave it out"
            )

    def profiler(self, folder: Path, *, skip: int, steps: int) -> Any:
        """Torch's profiler, or torch_npu's: a context manager, to be told of each step's end.

        Args:
            folder: where the trace is written, one file or folder for each process.
            skip: steps before those that are recorded.
            steps: how many are recorded.
        """
        import torch

        module: Any = torch.profiler
        kind = self.torch_device.type
        if kind == NPU:
            import torch_npu

            module = torch_npu.profiler
        kinds = ["CPU"] if kind == CPU else ["CPU", kind.upper()]
        return module.profile(
            activities=[getattr(module.ProfilerActivity, name) for name in kinds],
            schedule=module.schedule(wait=skip - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=module.tensorboard_trace_handler(str(folder)),
        )

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
        with self._products_as_convolutions():
            self.synchronize()
            started = time.perf_counter()
            _ = matrix @ matrix
            self.synchronize()
            return time.perf_counter() - started

    @contextmanager
    def _products_as_convolutions(self) -> Iterator[None]:
        """Let products in fp32 use the shorter numbers that convolutions use, see ``_set_fp32``."""
        import torch

        if self.torch_device.type == CUDA:
            owner, name, short = torch.backends.cuda.matmul, "allow_tf32", torch.backends.cudnn
        elif self.torch_device.type == NPU:
            owner, name, short = torch.npu.matmul, "allow_hf32", torch.npu.conv  # type: ignore
        else:
            yield
            return
        before = getattr(owner, name)
        setattr(owner, name, getattr(short, name))
        try:
            yield
        finally:
            setattr(owner, name, before)

    def copy_to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor on this device, even if it is here: it may be a mapped file."""
        return tensor.to(self.torch_device, copy=True)

    def card_count(self) -> int:
        """How many cards of this kind are here; 0 for a CPU."""
        return self._module.device_count() if self._module else 0

    @property
    def onnx_provider(self) -> tuple[str, dict[str, Any]]:
        """ONNX Runtime's name of what computes here, and its options."""
        own = {NPU: "CANNExecutionProvider", CUDA: "CUDAExecutionProvider"}
        if self.torch_device.type not in own:
            return "CPUExecutionProvider", {}
        return own[self.torch_device.type], {"device_id": self.torch_device.index}

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
        if not self._module:
            return free_machine_memory()
        if hasattr(self._module, "mem_get_info"):  # not in torch_npu 2.1.0's first releases
            return self._module.mem_get_info(self.torch_device)[0]
        return None

    @property
    def _module(self) -> Any:
        """Torch's module of an accelerator, such as ``torch.npu``; None for a CPU."""
        import torch

        kind = self.torch_device.type
        return None if kind == CPU else getattr(torch, kind)

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
    def pin_options(self) -> dict[str, Any]:
        """DataLoader's options that let it load into page-locked memory, for queued copies."""
        import torch

        if self.torch_device.type == CPU:
            return {}
        options: dict[str, Any] = {"pin_memory": True}
        if tuple(map(int, torch.__version__.split(".")[:2])) < FIRST_TORCH_THAT_FINDS_CARDS:
            options["pin_memory_device"] = self.torch_device.type
        return options


def seed(value: int) -> None:
    """Seed torch's random generators on every device."""
    import torch

    torch.manual_seed(value)


def _configure_npu(device: torch.device) -> None:
    import torch
    import torch_npu

    torch.npu.set_device(device)  # type: ignore[attr-defined]
    # Compile kernels once for all shapes; keep tensors in torch's own layout.
    torch_npu.npu.set_compile_mode(jit_compile=False)
    torch_npu.npu.config.allow_internal_format = False


def _set_fp32(kind: str, *, strict: bool) -> str:
    """Let convolutions in fp32 use shorter numbers or not; what that is called, for the log.

    The matrix units of cards are several times faster with fewer bits of mantissa: 10 of TF32 and
    11 of HF32 instead of 23. Both keep fp32's range. Torch's and torch_npu's own choice is to use
    them in convolutions, and not in other products.
    """
    import torch

    if kind == CUDA:
        torch.backends.cudnn.allow_tf32 = not strict
        short = "TF32" if torch.cuda.get_device_capability()[0] >= 8 else None  # Ampere
    elif kind == NPU:
        if not device_choice.has_fp32_cube():
            if strict:
                name = torch.npu.get_device_name()  # type: ignore[attr-defined]
                raise UserError(f"--strict_fp32: the matrix unit of {name} has fp16 only")
            return ", with fp16 in convolutions, which is all that this card has"
        torch.npu.conv.allow_hf32 = not strict  # type: ignore[attr-defined]
        torch.npu.matmul.allow_hf32 = False  # type: ignore[attr-defined]
        short = "HF32"
    else:
        short = None
    return f", with {short} in convolutions (--strict_fp32 without)" if short and not strict else ""
