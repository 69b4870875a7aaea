"""The number format of a model that transcribes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from asr.errors import AsrError
from asr.model.bf16 import to_bf16
from asr.model.int8 import to_int8
from asr.model.linear_layers import to_float32_linear
from asr.model_folder import Bundle


def with_precision(bundle: Bundle[Any], precision: str) -> Bundle[Any]:
    """The model, or for a CPU a copy with other linear layers. The caller keeps its own.

    Weights of other layers are shared with the model.
    """
    if bundle.device.type != "cpu" and precision != "int8":
        return bundle
    shared = {id(each): each for each in (*bundle.network.parameters(), *bundle.network.buffers())}
    network = copy.deepcopy(bundle.network, shared)
    {"bf16": to_bf16, "int8": to_int8}.get(precision, to_float32_linear)(network)
    return replace(bundle, network=network)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16. Emulated bfloat16 is slower than float32."""
    if precision not in ("auto", "float32", "bf16", "int8"):
        raise AsrError(f"precision {precision!r}: unknown; choose auto, float32, bf16 or int8")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"
