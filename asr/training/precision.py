"""The precision in which training computes: asked for, or measured on the device."""

from __future__ import annotations

import time

import torch
from torch.amp.grad_scaler import GradScaler

from asr.model.kernels import Linear

MIN_WIDTH = 96  # for narrower models, casts take more time than bfloat16 saves, so nothing is measured
MAX_WIDTH = 512  # the gain grows with the width, so wider models need no longer measurement
MIN_GAIN = 1.2  # a smaller gain could be an error of the measurement
_ROUNDS = 5


DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The type of autocast for each precision; None: no autocast."""


def choose_precision(precision: str, device: torch.device, width: int) -> str:
    """The precision that is asked for, or bf16 or float32 for "auto" (see `bf16_is_faster`)."""
    if precision != "auto":
        return precision
    return "bf16" if bf16_is_faster(device, width) else "float32"


def loss_scaler(precision: str, device: torch.device, state: dict[str, float]) -> GradScaler:
    """Scales the loss in fp16, so that small gradients are not rounded to zero (Micikevicius et al. 2018).

    The scale begins at 2**16, is halved by a step whose gradients overflow, and doubled after 2000 steps
    without one. `state` is that of an earlier part of the run, or empty. In other precisions it does nothing.
    """
    scaler = GradScaler(device.type, enabled=precision == "fp16")
    if state and scaler.is_enabled():
        scaler.load_state_dict(state)
    return scaler


def bf16_is_faster(device: torch.device, width: int) -> bool:
    """Whether training on the device takes less time with autocast to bfloat16.

    A GPU is faster if it has bfloat16 instructions; torch can emulate them. On a CPU with such instructions
    the products of a model of this width (d_model) are timed. Other devices use float32.
    """
    if device.type != "cpu":
        return has_bf16(device)
    return has_bf16(device) and width >= MIN_WIDTH and bf16_gain(width) >= MIN_GAIN


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, which torch can also emulate slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def bf16_gain(width: int) -> float:
    """The time of a linear layer and its gradients in float32, divided by that in bfloat16, casts included.

    Takes about 0.1 s. It is processor time of one thread, the best of five rounds, so that other work on the
    machine hardly changes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            width = min(width, MAX_WIDTH)
            layer = Linear(width, width)
            x = torch.randn(max(256, 2**25 // width**2), width, requires_grad=True)
        times = [[_time(layer, x, bf16) for bf16 in (False, True)] for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    float32, bf16 = (min(each) for each in zip(*times, strict=True))
    return float32 / max(bf16, 1e-9)


def _time(layer: Linear, x: torch.Tensor, bf16: bool) -> float:
    begin = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(x)
    y.float().square().sum().backward()
    return time.thread_time() - begin
