"""A card as torch_npu shows it: choice, precision, memory, threads; and what must fail on it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from helpers import syncnet_config, trainer
from torch import nn
from torch.nn import functional as F

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device


def wait() -> None:
    """Until the card has done its work, and has said what went wrong."""
    torch.npu.synchronize()


# ------------------------------------------------------------------------- choice and precision


def test_the_card_is_found_and_set_up() -> None:
    import torch_npu

    place = Device.open("auto", "auto")
    assert place.torch_device == torch.device("npu:0")
    assert place.dtype is torch.bfloat16
    assert place.reason.startswith("Ascend910B2, CANN unknown, driver unknown; bf16")
    assert torch_npu.npu.is_jit_compile_false()
    assert Device.open("npu:1").torch_device.index == torch.npu.current_device() == 1
    assert torch.ones(1, device="npu").device.index == 1
    assert Device.open("npu", card_offset=1).torch_device.index == torch.npu.current_device() == 1
    assert Device.open("npu").torch_device.index == torch.npu.current_device() == 0
    with pytest.raises(UserError, match="--device npu:2: the cards here are npu:0 to npu:1"):
        Device.open("npu:2")
    with pytest.raises(UserError, match="--device npu: the cards here are npu:0 to npu:1, not n"):
        Device.open("npu", card_offset=2)
    Device.open("npu")


def test_fp32_is_hf32_in_convolutions_unless_it_is_strict() -> None:
    """HF32 keeps 11 of 23 bits: errors of up to 2**-11 in each product."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 8, 3, bias=False), torch.randn(1, 8, 16, 16)
    exact = layer(x)
    errors = {}
    for strict in (False, True):
        place = Device.open("npu", strict_fp32=strict)
        assert ("HF32" in place.reason) is not strict
        on_card = nn.Conv2d(8, 8, 3, bias=False)
        on_card.load_state_dict(layer.state_dict())
        errors[strict] = (place.prepare(on_card)(x.to("npu")).cpu() - exact).abs().max().item()
    assert errors[True] == 0
    assert 1e-5 < errors[False] < 2**-9 * exact.abs().max().item() * 8
    Device.open("npu")


def test_products_are_measured_as_convolutions_are_computed() -> None:
    place = Device.open("npu")
    with place._products_as_convolutions():
        assert torch.npu.matmul.allow_hf32
    assert not torch.npu.matmul.allow_hf32


def test_batches_come_in_pinned_memory(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", device="npu"))
    batch = next(run._train_batches(threading.Event()))
    assert all(part.is_pinned() for part in batch.values())
    assert all(part.device.type == "npu" for part in run.device.to_device(batch).values())


def test_losses_do_not_belong_under_autocast() -> None:
    probability = torch.rand(3).to("npu")
    with Device.open("npu", "bf16").autocast(), pytest.raises(RuntimeError, match="unsafe"):
        F.binary_cross_entropy(probability, probability)


def test_a_thread_computes_on_the_card_it_is_told() -> None:
    place, found = Device.open("npu:1"), []

    def work() -> None:
        place.make_current()
        found.append(torch.npu.current_device())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1]
    Device.open("npu")


def test_memory_is_counted() -> None:
    place = Device.open("npu")
    before, free = place.peak_memory(), place.free_memory()
    kept = torch.zeros(before + 2**26, dtype=torch.uint8, device="npu")
    assert place.peak_memory() >= before + 2**26
    assert place.free_memory() <= free - 2**26
    del kept


# ------------------------------------------------------------------------------- what must fail

MIXES = {
    "sum": lambda npu, cpu: npu + cpu,
    "sum, the CPU's first": lambda npu, cpu: cpu + npu,
    "in place": lambda npu, cpu: npu.add_(cpu),
    "comparison": lambda npu, cpu: npu > cpu,
    "where": lambda npu, cpu: torch.where(npu > 0, npu, cpu),
    "product": lambda npu, cpu: npu @ cpu,
    "linear": lambda npu, cpu: F.linear(npu, cpu),
    "convolution": lambda npu, cpu: F.conv2d(npu[None, None], cpu[None, None]),
    "batch norm": lambda npu, cpu: F.batch_norm(npu, cpu[0], cpu[1], training=True),
    "loss": lambda npu, cpu: F.binary_cross_entropy(npu, cpu),
    "L1": lambda npu, cpu: F.l1_loss(npu, cpu),
    "similarity": lambda npu, cpu: F.cosine_similarity(npu, cpu),
    "concatenation": lambda npu, cpu: torch.cat([npu, cpu]),
    "stack": lambda npu, cpu: torch.stack([cpu, npu]),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_forgotten_transfer_fails(name: str) -> None:
    cpu = torch.full((3, 3), 0.5)
    with pytest.raises(RuntimeError):
        MIXES[name](cpu.to("npu"), cpu.clone())
        wait()


@pytest.mark.parametrize("name", ["sum", "product", "convolution", "loss", "concatenation"])
def test_a_tensor_of_another_card_fails(name: str) -> None:
    cpu = torch.full((3, 3), 0.5)
    with pytest.raises(RuntimeError):
        MIXES[name](cpu.to("npu:0"), cpu.to("npu:1"))
        wait()


def test_float64_is_float32_with_a_warning() -> None:
    """As torch_npu has it: nothing of the kind is computed on a card."""
    assert torch.ones(2, device="npu").double().dtype is torch.float32
    with pytest.raises(RuntimeError):
        torch.ones(2, dtype=torch.float64).to("npu").sin().cpu()
        wait()


def test_an_operator_without_a_kernel_fails() -> None:
    with pytest.raises(RuntimeError, match="aclnnCumsum"):
        torch.ones(3, 3, device="npu").cumsum(0)
        wait()


def test_memory_that_was_not_written_is_no_number() -> None:
    """So what is computed with it shows."""
    torch.npu.empty_cache()
    assert not torch.empty(2**27, device="npu").isfinite().any()


def test_out_of_memory_is_told_as_such() -> None:
    from wav2lip_npu.runtime.failures import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**36, device="npu")
    assert is_out_of_memory(caught.value)
