"""Compare a Whisper here with the same one in transformers and CTranslate2: same weights, windows and tokens.

    python benchmarks/public_models.py [--shape tiny] [--beam 1 5] [--batch 1 8] [--tokens 60] [--threads 1]
        [--device cpu] [--rounds 3] [--profile]

The weights are random. Features of 30 s of noise are given. Each run encodes them and decodes exactly
`--tokens` tokens; END is forbidden. The alternatives take turns in one process. The script prints the median
of the time of each, how many times as fast as the first it is, and how many of its texts are equal. With one
thread it is the processor time of the process, which other processes disturb less than the time on the clock;
with more threads or on a GPU, the time on the clock. CTranslate2 is left out where it is not installed.

With `--profile` nothing is compared. The operations of ours in float32 are printed, with their share of the
time, after the rates at which this processor reads memory and computes products.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from public_folder import SHAPES, write_folder

from asr.decoding import DecodingOptions, beam_search, greedy, repetition
from asr.decoding import beam as beam_module
from asr.decoding import greedy as greedy_function
from asr.model.kernels import linear
from asr.model_folder import Bundle, pick_device
from asr.public.importing import read_model
from asr.public.source import Source
from asr.tokenizers.special import SpecialTokens
from asr.transcription.precision import with_precision

TokenRows = list[list[int]]
Run = Callable[[], TokenRows]  # decodes the batch; returns the tokens of each row


class Ours:
    """The weights of a folder in our network."""

    def __init__(self, folder: Path, device: torch.device, precision: str) -> None:
        self.bundle = with_precision(read_model(Source(folder)).to(device).eval(), precision)
        self._network, self._bf16 = self.bundle.network, precision == "bf16"

    def run(self, features: torch.Tensor, special: SpecialTokens, beam: int, tokens: int) -> Run:
        """Greedy decoding or beam search; the tokens of the best hypotheses."""
        lengths = torch.full((len(features),), features.size(1), device=features.device)
        options = DecodingOptions(decoder="greedy", max_tokens=tokens)
        if beam > 1:
            options = DecodingOptions(decoder="beam", max_tokens=tokens, beam=beam, length_normalization=1.0)
        search = greedy if beam == 1 else beam_search

        @torch.inference_mode()
        def run() -> TokenRows:
            with torch.autocast(features.device.type, torch.bfloat16, enabled=self._bf16):
                memory = self._network.encode(features, lengths)
                found = search(self._network, memory, special, options)
            return [list(best.tokens) for best, *_ in found]

        return run


class Transformers:
    """`generate` on one window, with the key and value cache of transformers."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model.to(device)

    def run(self, features: torch.Tensor, special: SpecialTokens, beam: int, tokens: int) -> Run:
        """Its greedy or beam search."""
        from transformers import GenerationConfig, GenerationMixin

        settings = GenerationConfig(
            num_beams=beam,
            max_new_tokens=tokens,
            suppress_tokens=list(special.suppressed),
            eos_token_id=special.eos,
            pad_token_id=special.eos,
        )
        prompt = torch.tensor(special.prompt, device=features.device).expand(len(features), -1)

        @torch.inference_mode()
        def run() -> TokenRows:
            rows = GenerationMixin.generate(
                self._model, features.transpose(1, 2), decoder_input_ids=prompt, generation_config=settings
            )
            return rows[:, prompt.size(1) :].tolist()

        return run


class CTranslate2:
    """The converted weights of a folder, in CTranslate2, the library below faster-whisper."""

    def __init__(self, folder: Path, device: torch.device, precision: str, threads: int) -> None:
        import ctranslate2

        converted = folder / "ctranslate2"
        if not converted.is_dir():
            ctranslate2.converters.TransformersConverter(str(folder)).convert(str(converted))
        self._model = ctranslate2.models.Whisper(
            str(converted), device.type, compute_type=precision, intra_threads=threads
        )

    def run(self, features: torch.Tensor, special: SpecialTokens, beam: int, tokens: int) -> Run:
        """Its greedy or beam search."""
        from ctranslate2 import StorageView

        array = features.transpose(1, 2).contiguous().cpu().numpy()
        prompts = [list(special.prompt)] * len(features)

        def run() -> TokenRows:
            # At most half of `max_length` is decoded: it counts a text before this one too.
            found = self._model.generate(
                StorageView.from_array(array),
                prompts,
                beam_size=beam,
                max_length=2 * tokens,
                suppress_blank=False,
                suppress_tokens=list(special.suppressed),
            )
            return [each.sequences_ids[0] for each in found]

        return run


def alternatives(folder: Path, shape: str, device: torch.device, threads: int) -> dict[str, Any]:
    """What is compared, by name. The first is what the others are compared with."""
    found: dict[str, Any] = {"transformers float32": Transformers(write_folder(folder, shape), device)}
    if importlib.util.find_spec("ctranslate2"):
        for precision in ("float32", "int8"):
            found[f"CTranslate2 {precision}"] = CTranslate2(folder, device, precision, threads)
    for precision in ("float32", "bf16", *(["int8"] if device.type == "cpu" else [])):
        found[f"ours {precision}"] = Ours(folder, device, precision)
    return found


def forbid_end(bundle: Bundle[Any]) -> SpecialTokens:
    """The model's special tokens, with a prompt for English, and END never decoded."""
    prompt = bundle.tokenizer.prompt("en", "transcribe")
    return replace(bundle.special, prompt=prompt, suppressed=(bundle.special.eos,))


def without_guard() -> None:
    """Let texts repeat themselves, as random weights do: the peers have no guard."""
    for names in (vars(beam_module), vars(repetition), greedy_function.__globals__):
        names["CHECK_INTERVAL"] = 10**9


def compare(runs: dict[str, Run], rounds: int, clock: Callable[[], float], tokens: int) -> None:
    """Print the times of the runs, which take turns, and check what they decode."""
    texts = {name: run() for name, run in runs.items()}
    for name, rows in texts.items():
        sizes = {len(row) for row in rows}
        assert sizes == {tokens}, f"{name} decoded {sizes} tokens"
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            run()
            times[name].append(clock() - began)
    first = next(iter(runs))
    base = statistics.median(times[first])
    for name, each in times.items():
        middle = statistics.median(each)
        same = sum(a == b for a, b in zip(texts[first], texts[name], strict=True))
        speed = f"{middle:7.3f} s  {base / middle:5.2f} x"
        print(f"  {name:20} {speed}  equal texts {same} of {len(texts[name])}", flush=True)


def print_rates() -> None:
    """Print how fast memory is read and products are computed, in the best of a few tries."""
    values, x, weight = torch.randn(50_000_000), torch.randn(1536, 1536), torch.randn(1536, 1536)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return min(times)

    with torch.inference_mode():
        read = 4e-9 * len(values) / best(values.sum)
        product = 2e-9 * 1536**3 / best(lambda: linear(x, weight, None))
    print(f"memory {read:.1f} GB/s, products in float32 {product:.0f} GFLOP/s", flush=True)


def profile(run: Run) -> None:
    """Print the operations that take the most time in one run."""
    run()
    with torch.profiler.profile(record_shapes=True) as found:
        began = time.process_time()
        run()
        print(f"one run: {time.process_time() - began:.2f} s")
    events = found.key_averages(group_by_input_shape=True)
    whole = sum(each.self_cpu_time_total for each in events)
    for each in sorted(events, key=lambda event: -event.self_cpu_time_total)[:16]:
        shapes = [shape for shape in each.input_shapes if shape][:2]
        print(f"  {each.self_cpu_time_total / whole:6.1%} {each.count:6} x {each.key} {shapes}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    without_guard()
    device = pick_device(options.device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if device.type == "cpu" and options.threads == 1 else time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        if options.profile:
            print_rates()
            write_folder(Path(folder), options.shape)
            found = {"ours float32": Ours(Path(folder), device, "float32")}
        else:
            found = alternatives(Path(folder), options.shape, device, options.threads)
        special = forbid_end(found["ours float32"].bundle)
        for batch in options.batch:
            features = torch.randn(batch, 3000, 80, generator=torch.Generator().manual_seed(0)).to(device)
            for beam in options.beam:
                print(f"whisper-{options.shape}, {options.threads} threads, batch {batch}, beam {beam}:")
                runs = {
                    name: each.run(features, special, beam, options.tokens) for name, each in found.items()
                }
                if options.profile:
                    profile(runs["ours float32"])
                    continue
                compare(runs, options.rounds, clock, options.tokens)


if __name__ == "__main__":
    main()
