"""The number format of a model that transcribes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from asr.errors import AsrError
from asr.model.bf16 import to_bf16
from asr.model.int8 import to_int8
from asr.model.linear_layers import store_by_columns
from asr.model_folder import Bundle


def with_precision(bundle: Bundle[Any], precision: str) -> Bundle[Any]:
    """The model, or a copy with other linear layers for a CPU. The caller keeps its own.

    The model itself gets no other values, but its weights may be stored in another order.
    """
    bf16 = precision == "bf16" and bundle.device.type == "cpu"
    if precision != "int8" and not bf16:
        store_by_columns(bundle.network)
        return bundle
    copied = replace(bundle, network=copy.deepcopy(bundle.network))
    (to_bf16 if bf16 else to_int8)(copied.network)
    return copied


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16. Emulated bfloat16 is slower than float32."""
    if precision not in ("auto", "float32", "bf16", "int8"):
        raise AsrError(f"precision {precision!r}: unknown; choose auto, float32, bf16 or int8")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"
