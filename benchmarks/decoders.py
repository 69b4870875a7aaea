"""All decoders on the same utterances, side by side in one process, as a table.

    python benchmarks/decoders.py MANIFEST... [--model DIR] [--language-model DIR] [--batch-seconds 120]

For each decoder: word error rate; decoder passes per utterance, which are those that an utterance takes part
in; and seconds of audio per second (RTFx), of decoding alone and with reading, features and encoder, which
are the same for all. Every batch goes through all decoders, one after the other, before the next one is
read, and the fastest of `--repeats` is counted: so all see the same machine. One batch goes before, and is
not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr import audio
from asr.datasets.manifest import Utterance, read_manifest
from asr.decoding import DecodingOptions, Hypothesis, build_decoder
from asr.decoding.options import DECODERS
from asr.errors import AsrError
from asr.model.interfaces import Memory
from asr.model_folder import Bundle, load_model
from asr.scoring import score

STEP, DRAFT = "greedy, step by step", "greedy, draft and check"


class Counted:
    """A network that counts how many utterances take part in the passes of its decoder."""

    def __init__(self, network: EncoderDecoder) -> None:
        self._network, self.passes = network, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        self.passes += len(state.memory_mask)
        return self._network.step(tokens, state)

    def extend(self, tokens: Tensor, state: Any, starts: Tensor) -> Tensor:
        self.passes += len(state.memory_mask)
        return self._network.forward_cached(tokens, state, starts)


@dataclass
class Row:
    """One decoder and what has been measured of it."""

    decode: Callable[[Memory], list[list[Hypothesis]]]
    network: Counted
    seconds: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)


def build(bundle: Bundle, options: DecodingOptions) -> Row:
    """A decoder whose passes are counted."""
    network = Counted(bundle.network)
    counted = dataclasses.replace(bundle, network=cast(EncoderDecoder, network))
    return Row(build_decoder(counted, options), network)


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work gives, and its wall time in seconds."""
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def batches(utterances: list[Utterance], seconds: float) -> list[list[Utterance]]:
    """Of similar length, at most so many padded seconds each."""
    left = sorted(utterances, key=lambda u: -(u.duration or 0.0))
    cut = []
    while left:
        fit = max(1, int(seconds / (left[0].duration or seconds)))
        cut.append(left[:fit])
        left = left[fit:]
    return cut


@torch.inference_mode()
def measure(
    bundle: Bundle, rows: dict[str, Row], utterances: list[Utterance], options: argparse.Namespace
) -> float:
    """Decode all utterances with every decoder; returns the seconds of what comes before decoding."""
    rate = bundle.config.features.sample_rate

    def encode(batch: list[Utterance]) -> Memory:
        waves = [torch.from_numpy(audio.read(u.audio, rate, u.start, u.duration)) for u in batch]
        lengths = torch.tensor([len(wave) for wave in waves])
        padded = pad_sequence(waves, batch_first=True)
        return bundle.network.encode(*bundle.features(padded.to(bundle.device), lengths.to(bundle.device)))

    planned = batches(utterances, options.batch_seconds)
    warm = encode(planned[-1])
    for row in rows.values():
        row.decode(warm)
        row.network.passes = 0
    before = 0.0
    for batch in planned:
        memory, seconds = timed(bundle.device, lambda batch=batch: encode(batch))  # type: ignore[misc]
        before += seconds
        fastest = dict.fromkeys(rows, float("inf"))
        for repeat in range(options.repeats):
            for name, row in rows.items():
                passes = row.network.passes
                found, seconds = timed(bundle.device, lambda row=row, memory=memory: row.decode(memory))  # type: ignore[misc]
                fastest[name] = min(fastest[name], seconds)
                if repeat:
                    row.network.passes = passes
                for utterance, hypotheses in zip(batch, found, strict=True):
                    row.texts[utterance.id] = bundle.tokenizer.decode(hypotheses[0].tokens)
        for name, row in rows.items():
            row.seconds += fastest[name]
    return before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--language-model")
    parser.add_argument("--language-model-weight", type=float)
    parser.add_argument("--ctc-weight", type=float)
    parser.add_argument("--batch-seconds", type=float, default=120.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit", type=int, help="take every n-th utterance, so that this many are left")
    parser.add_argument("--only", nargs="*", help="decoders whose name contains one of these")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    table = {
        "CTC greedy": DecodingOptions("ctc"),
        "CTC beam 10": DecodingOptions("ctc", beam=10),
        STEP: DecodingOptions(draft=False),
        DRAFT: DecodingOptions(),
        "rescoring of 10": DecodingOptions("rescoring"),
        "beam 10": DecodingOptions("beam"),
    }
    if options.language_model:
        fused = dict(
            language_model=options.language_model, language_model_weight=options.language_model_weight
        )
        table["rescoring of 10 + LM"] = DecodingOptions("rescoring", **fused)
        table["beam 10 + LM"] = DecodingOptions("beam", **fused)
    if options.ctc_weight is not None:
        table = {
            name: dataclasses.replace(each, ctc_weight=options.ctc_weight)
            if "ctc_weight" in DECODERS[each.decoder]
            else each
            for name, each in table.items()
        }
    if options.only:
        table = {name: each for name, each in table.items() if any(part in name for part in options.only)}
    bundle = load_model(options.model, options.device)
    for manifest in options.manifests:
        utterances = read_manifest(manifest)
        utterances = utterances[:: max(1, len(utterances) // (options.limit or len(utterances)))]
        rows = {name: build(bundle, each) for name, each in table.items()}
        before = measure(bundle, rows, utterances, options)
        seconds = sum(u.duration or 0.0 for u in utterances)
        where = f"{bundle.device}, {torch.get_num_threads()} threads, batches of {options.batch_seconds:g} s"
        print(f"\n{manifest}: {len(utterances)} utterances, {seconds:.0f} s of audio; {where}\n")
        print("| decoder | WER % | decoder passes per utterance | RTFx of decoding | RTFx of all |")
        print("|---|---|---|---|---|")
        for name, row in rows.items():
            wer = 100 * score({u.id: u.text or "" for u in utterances}, row.texts).wer
            rates = f"{seconds / row.seconds:.0f} | {seconds / (row.seconds + before):.0f}"
            print(f"| {name} | {wer:.2f} | {row.network.passes / len(utterances):.1f} | {rates} |")
        if STEP in rows and DRAFT in rows:
            one, two = rows[STEP], rows[DRAFT]
            different = sum(one.texts[u.id] != two.texts[u.id] for u in utterances)
            print(
                f"\nDraft and check: {different} texts differ, {one.seconds / two.seconds:.2f} times as fast"
            )


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
