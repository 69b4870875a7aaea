"""Compare the time of encoders: positions, local attention, and blocks at lower rates.

    python benchmarks/encoders.py [--preset tiny] [--states 250 1000 4000] [--device cpu] [--repeat 5]

Every encoder has random weights, and as many blocks as the encoder of the preset. The alternatives take turns
in one process. The script prints the median time of a forward pass of one recording in milliseconds, and in
parentheses the time of the first alternative divided by it. On a CPU it is the processor time of all threads,
so that other processes matter less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from asr.kinds import ENCODERS
from asr.model.encoder_decoder import EncoderDecoder
from asr.model_folder import pick_device
from asr.section import load_kind

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "full attention, sinusoidal": {},
    "rotary": {"positions": "rotary"},
    "relative": {"positions": "relative"},
    "shaw": {"positions": "shaw"},
    "window 16": {"window": 16},
    "window 64": {"window": 64},
    "window 16, relative": {"window": 16, "positions": "relative"},
    "conformer": {"kind": "conformer"},
    "conformer, half rate": {"kind": "conformer", "rates": (1 / 2, 0)},
    "conformer, quarter rate": {"kind": "conformer", "rates": (1 / 4, 1 / 4)},
}


def encoder_of(preset: str, settings: dict[str, Any], device: torch.device) -> Any:
    """An encoder with the sizes of a preset. `rates` are the shares of blocks at half and quarter rate."""
    sizes: Any = EncoderDecoder.Config(preset=preset).encoder  # type: ignore[call-arg]
    values = {"kind": "transformer", **settings}
    half, quarter = (round(share * sizes.n_layers) for share in values.pop("rates", (0, 0)))
    if half:
        values |= {"half_rate_layers": half, "quarter_rate_layers": quarter}
    for name in ("d_model", "n_heads", "d_ffn"):
        values[name] = getattr(sizes, name)
    values["n_layers"] = sizes.n_layers - half - quarter
    kind = load_kind(ENCODERS, values["kind"])
    return kind(kind.Config(**values)).to(device).eval()


@torch.inference_mode()
def main() -> None:
    """Print one line for each alternative."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--states", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    device = pick_device(options.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ALTERNATIVES}
    for states in options.states:
        encoders = {name: encoder_of(options.preset, each, device) for name, each in ALTERNATIVES.items()}
        x = torch.randn(1, states, encoders["rotary"].blocks[0].attention.query.in_features, device=device)
        lengths = torch.tensor([states], device=device)
        taken: dict[str, list[float]] = {name: [] for name in ALTERNATIVES}
        for turn in range(options.repeat + 1):
            for name, encoder in encoders.items():
                start = clock()
                encoder(x, lengths).states.sum().item()  # waits for the device
                if turn:  # the first turn warms up
                    taken[name].append(clock() - start)
        for name in ALTERNATIVES:
            times[name].append(1000 * statistics.median(taken[name]))
    first = times[next(iter(ALTERNATIVES))]
    print(f"{'milliseconds':28}" + "".join(f"{f'{states} states':>20}" for states in options.states))
    for name, row in times.items():
        shown = [f"{found:.1f} ({base / found:.2f})" for found, base in zip(row, first, strict=True)]
        print(f"{name:28}" + "".join(f"{each:>20}" for each in shown))


if __name__ == "__main__":
    main()
