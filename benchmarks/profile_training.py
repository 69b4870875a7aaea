"""Measure the time of a training step by kind of work, and compare it with a peer.

    python benchmarks/profile_training.py [--preset tiny] [--precision float32] [--systems asr speech2text]

Times come from torch's profiler, which makes a step slightly slower. The script prints the median over some
steps on a batch of train_peers.py.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile
from train_peers import Batch, Sizes, System, make_batches, ours, speech2text, speechbrain

# An operator belongs to the first kind that has a beginning of its name.
KINDS = {
    "matrix multiplications of linear layers": ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise"),
    "attention": (
        "aten::_scaled_dot_product",
        "aten::bmm",
        "aten::baddbmm",
        "aten::_softmax",
        "aten::_safe_softmax",
    ),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution", "aten::thnn", "aten::_slow"),
    "CTC": ("aten::_ctc_loss",),
    "log-softmax, cross-entropy": ("aten::_log_softmax", "aten::nll_loss"),
    "random numbers of dropout": ("aten::random_", "aten::ge", "aten::bernoulli_", "aten::native_dropout"),
    "elementwise multiplications": ("aten::mul", "aten::div"),
    "sums, residual connections": ("aten::add", "aten::sum", "aten::sub"),
    "ReLU, GLU": ("aten::clamp_min", "aten::relu", "aten::threshold_backward", "aten::glu"),
    "layer normalization": ("aten::native_layer_norm",),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::clone"),
    "AdamW, clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm", "aten::_foreach"),
}
REST = "the rest, Python"
SYSTEMS = {
    "asr": lambda config: ours(config, 0.3, "with CTC"),
    "asr-attention": lambda config: ours(config, 0.0, "without CTC"),
    "speech2text": speech2text,
    "speechbrain": speechbrain,
}


class Profile:
    """Milliseconds of each kind of work in a step; the median over steps, which `measure` adds."""

    def __init__(self, system: System, bf16: bool) -> None:
        self.system = system
        self.optimizer = torch.optim.AdamW(system.network.train().parameters(), lr=1e-4, fused=True)
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        self.steps: list[Counter[str]] = []

    def measure(self, batch: Batch) -> None:
        """Run one step and add the times of its operators."""
        with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
            self.system.step(batch, self.optimizer, self.autocast)
        found: Counter[str] = Counter()
        for event in profiler.key_averages():
            kinds = (kind for kind, names in KINDS.items() if event.key.startswith(names))
            found[next(kinds, REST)] += event.self_cpu_time_total / 1e3
        self.steps.append(found)

    def typical(self, kind: str) -> float:
        """Milliseconds. The first step is not counted, because it allocates memory."""
        return statistics.median(step[kind] for step in self.steps[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny", choices=["tiny", "small", "base"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--systems", nargs="+", default=["asr"], choices=list(SYSTEMS))
    parser.add_argument("--channels", type=int, help="width of our front end; default: the preset's")
    parser.add_argument("--seconds", type=float, default=60.0, help="most padded audio in a batch")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = Sizes.of_preset(options.preset)
    if options.channels:
        config = replace(config, channels=options.channels)
    profiles = [Profile(SYSTEMS[name](config), options.precision == "bf16") for name in options.systems]
    batch = make_batches(options.seconds, 1)[0]
    for _ in range(options.steps + 1):
        for each in profiles:  # in turn, so that other load affects all systems
            each.measure(batch)
    print(f"| {options.preset}, {options.precision} | " + " | ".join(p.system.name for p in profiles) + " |")
    print("|---|" + "---|" * len(profiles))
    totals = [sum(map(each.typical, [*KINDS, REST])) for each in profiles]
    for kind in [*KINDS, REST]:
        found = [each.typical(kind) for each in profiles]
        cells = [f"{ms:.0f} ms, {ms / total:.0%}" for ms, total in zip(found, totals, strict=True)]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("| whole step | " + " | ".join(f"{total:.0f} ms" for total in totals) + " |")


if __name__ == "__main__":
    main()
