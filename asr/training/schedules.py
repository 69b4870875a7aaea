"""Learning rate schedules: factors of the peak, by optimizer step."""

from __future__ import annotations

import math

from asr.training.settings import LoopConfig, OptimConfig


def learning_rate(step: int, total: int, config: OptimConfig) -> float:
    """The learning rate of a step counted from 0, out of `total`.

    All schedules rise linearly over `warmup_steps` to `lr`. Then `inverse_sqrt` falls with the root of the
    step, which is the schedule of Vaswani et al. 2017 with `lr` = (d_model * warmup_steps) ** -0.5; `cosine`
    falls along half a cosine to zero at `total`; `constant` stays. In the last `decay_steps` before `total`
    the rate of the schedule is also multiplied by a factor that falls linearly from 1 to 0. With a constant
    rate before this end, a training can be continued later from any earlier point (Hu et al. 2024, MiniCPM).
    """
    rate = _before_decay(step, total, config)
    left = max(0, total - step) / (config.decay_steps + 1)
    return rate * min(1.0, left) if config.decay_steps else rate


def expected_steps(step: int, seconds: float, config: LoopConfig) -> int:
    """The total number of steps, for the schedule of a step counted from 0 after `seconds` of steps.

    With `max_minutes` the number is computed from the mean time of the steps so far, so that a schedule ends
    when the time is over, on a machine of any speed.
    """
    if config.max_minutes is None or not step or seconds <= 0:
        return config.steps
    return min(config.steps, max(step + 1, round(step * 60 * config.max_minutes / seconds)))


def _before_decay(step: int, total: int, config: OptimConfig) -> float:
    step, warmup = step + 1, max(1, config.warmup_steps)
    if step < warmup:
        return config.lr * step / warmup
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(warmup / step)
    if config.schedule == "cosine":
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr
