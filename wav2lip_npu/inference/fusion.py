"""A trained generator made faster for inference: fewer operations, the same numbers."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from wav2lip_npu.models import Generator
from wav2lip_npu.models.blocks import ConvBlock, UpBlock

log = logging.getLogger(__name__)


def fold(generator: Generator) -> Generator:
    """Fold each batch norm into the convolution before it, in place.

    ``w' = w·γ/σ`` and ``b' = (b − μ)·γ/σ + β`` (Jacob et al. 2018, section 3.2), by torch.
    """
    for block in generator.modules():
        if not isinstance(block, nn.Sequential) or len(block) < 2:
            continue
        convolution, norm = block[0], block[1]
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
        assert norm.running_mean is not None and norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(convolution, nn.ConvTranspose2d),
        )
        block[1] = nn.Identity()
    return generator


def fuse(folded: nn.Module) -> nn.Module:
    """Let oneDNN add the residual and apply the ReLU while it stores a convolution, in place.

    ``Device.gains_from_fusion`` tells where that pays. The operations are those that
    ``torch.compile`` calls, which would take half a minute. Torch does not document them, so they
    are tried first: where they fail or differ, the blocks stay plain.
    """
    dtype = next(folded.parameters()).dtype
    try:
        works = _fused_equals_plain(dtype)
    except (RuntimeError, AttributeError, TypeError) as error:
        log.debug("no fused blocks: %s", str(error).partition("\n")[0])
        works = False
    if works:
        for parent in list(folded.modules()):
            for name, block in parent.named_children():
                if isinstance(block, ConvBlock | UpBlock):
                    setattr(parent, name, _FusedBlock(block))
    return folded


class _FusedBlock(nn.Module):
    """A block as one operation. Its weights are packed for the shape of the first batch."""

    def __init__(self, block: ConvBlock | UpBlock) -> None:
        super().__init__()
        convolution = block.conv_block[0]
        assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
        self._up = isinstance(convolution, nn.ConvTranspose2d)
        self._residual = isinstance(block, ConvBlock) and block.residual
        self._geometry: list[Any] = [
            convolution.padding,
            *([convolution.output_padding] if self._up else []),
            convolution.stride,
            convolution.dilation,
            convolution.groups,
        ]
        self._weight, self._bias = convolution.weight, convolution.bias
        self._packed: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See ``ConvBlock`` and ``UpBlock``."""
        if self._packed is None:
            self._packed = self._pack(list(x.shape))
            del self._weight  # not kept twice
        run, given = torch.ops.mkldnn, (self._packed, self._bias, *self._geometry)
        y: torch.Tensor
        if self._residual:
            y = run._convolution_pointwise.binary(x, x, *given, "add", None, "relu", [], None)
        elif self._up:
            y = run._convolution_transpose_pointwise(x, *given, "relu", [], "")
        else:
            y = run._convolution_pointwise(x, *given, "relu", [], "")
        return y

    def _pack(self, shape: list[int]) -> torch.Tensor:
        packed: torch.Tensor
        pack: Any
        if self._up:
            pack = torch.ops.mkldnn._reorder_convolution_transpose_weight
            packed = pack(self._weight, *self._geometry, shape)
        else:
            weight = self._weight.to_mkldnn()
            pack = torch._C._nn.mkldnn_reorder_conv2d_weight
            packed = pack(weight, *self._geometry, shape)
        return packed


@torch.inference_mode()
def _fused_equals_plain(dtype: torch.dtype) -> bool:
    """Whether fused blocks compute what plain ones do, in this torch and on this processor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [
            ConvBlock(24, 24, stride=2, padding=1),
            ConvBlock(24, 24, padding=1, residual=True),
            UpBlock(24, 24, stride=2, padding=1, output_padding=1),
        ]
    precise = 1e-5 if dtype is torch.float32 else 0.05
    for block in blocks:
        block = block.eval().to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        block.conv_block[1] = nn.Identity()
        fused = _FusedBlock(block)
        for batch in (2, 1):  # weights packed for one are used for the other
            x = torch.linspace(-1, 1, batch * 24 * 36).view(batch, 24, 6, 6).sin().to(dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            if not torch.allclose(fused(x), block(x), rtol=precise, atol=precise):
                return False
    return True
