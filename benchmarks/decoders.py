"""Compare all decoders on the same utterances, in one process, as a table.

    python benchmarks/decoders.py MANIFEST... [--model DIR] [--language-model DIR] [--batch-seconds 120]
    python benchmarks/decoders.py MANIFEST... [--model DIR] --one-by-one --only greedy --repeats 3

For each decoder: word error rate; decoder passes per utterance (those in which the utterance takes part); and
seconds of audio per second (RTFx), of decoding alone and end to end. The latter includes reading, features
and encoder, which are the same for all decoders. Every batch goes through all decoders before the next one
is read, and the fastest of `--repeats` counts, so all decoders run under the same load of the machine. One
batch is decoded before the measurement, as a warm-up.

With `--one-by-one` a batch is one recording. The last line then compares greedy decoding with a draft and
step by step, end to end. The exit status is 1 if a hypothesis differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from asr import audio
from asr.datasets.manifest import Utterance, read_manifest
from asr.decoding import Decoder, DecodingOptions, build_decoder
from asr.decoding.options import DECODERS
from asr.errors import AsrError
from asr.model.interfaces import HasCTC, HasDecoder, Memory
from asr.model_folder import Bundle, load_model
from asr.scoring import score

STEP_BY_STEP, WITH_DRAFT = "greedy, step by step", "greedy, with a draft"


class PassCounter:
    """Counts decoder passes of a network, once for each utterance that takes part."""

    def __init__(self, network: Any) -> None:
        self.passes = 0
        for name in ("step", "forward_cached"):
            if hasattr(network, name):
                setattr(network, name, self._counted(getattr(network, name)))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tokens: Any, state: Any, *rest: Any) -> Any:
            self.passes += getattr(state, "utterances", len(tokens))
            return operation(tokens, state, *rest)

        return counted


@dataclass
class Row:
    """One decoder with its measurements."""

    decode: Decoder
    seconds: float = 0.0
    passes: int = 0
    texts: dict[str, str] = field(default_factory=dict)


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of some work, and its wall time in seconds."""
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def seconds_of(utterance: Utterance) -> float:
    """The duration, from the manifest or from the file."""
    return audio.duration(utterance.audio) if utterance.duration is None else utterance.duration


def text_of(utterance: Utterance) -> str:
    """The reference text. Raises AsrError if the manifest has none."""
    if utterance.text is None:
        raise AsrError(f"utterance {utterance.id!r}: no text in the manifest; add one to compute error rates")
    return utterance.text


def plan_batches(utterances: list[Utterance], seconds: float) -> list[list[Utterance]]:
    """Batches of similar length, with at most so many padded seconds each."""
    left = sorted(utterances, key=lambda u: -seconds_of(u))
    planned = []
    while left:
        fit = max(1, int(seconds / seconds_of(left[0])))
        planned.append(left[:fit])
        left = left[fit:]
    return planned


@torch.inference_mode()
def measure(
    bundle: Bundle[Any],
    rows: dict[str, Row],
    counter: PassCounter,
    planned: list[list[Utterance]],
    repeats: int,
) -> float:
    """Decode all batches with every decoder. Returns the seconds of reading, features and encoder."""
    rate = bundle.config.features.sample_rate

    def encode(batch: list[Utterance]) -> Memory:
        waves = [torch.from_numpy(audio.read(u.audio, rate, u.start, u.duration)) for u in batch]
        lengths = torch.tensor([len(wave) for wave in waves])
        padded = pad_sequence(waves, batch_first=True)
        memory: Memory = bundle.network.encode(
            *bundle.features(padded.to(bundle.device), lengths.to(bundle.device))
        )
        return memory

    warm_up = encode(planned[-1])
    for row in rows.values():
        row.decode(warm_up)
    encoder_seconds = 0.0
    for batch in planned:
        memory, seconds = timed(bundle.device, lambda batch=batch: encode(batch))  # type: ignore[misc]
        encoder_seconds += seconds
        fastest = dict.fromkeys(rows, float("inf"))
        for repeat in range(repeats):
            for name, row in rows.items():
                before = counter.passes
                found, seconds = timed(bundle.device, lambda row=row, memory=memory: row.decode(memory))  # type: ignore[misc]
                fastest[name] = min(fastest[name], seconds)
                if repeat == 0:
                    row.passes += counter.passes - before
                for utterance, hypotheses in zip(batch, found, strict=True):
                    row.texts[utterance.id] = bundle.tokenizer.decode(hypotheses[0].tokens)
        for name, row in rows.items():
            row.seconds += fastest[name]
    return encoder_seconds


def choose_decoders(options: argparse.Namespace, network: object) -> dict[str, DecodingOptions]:
    """The decoders of the table that the model can run."""
    table = {"CTC greedy": DecodingOptions("ctc"), "CTC beam 10": DecodingOptions("ctc", beam=10)}
    if isinstance(network, HasDecoder):
        table |= {
            STEP_BY_STEP: DecodingOptions("greedy", draft=False),
            WITH_DRAFT: DecodingOptions("greedy", draft=True),
            "rescoring of 10": DecodingOptions("rescoring"),
            "beam 10": DecodingOptions("beam"),
        }
        if options.language_model:
            fused = dict(
                language_model=options.language_model, language_model_weight=options.language_model_weight
            )
            table["rescoring of 10 + LM"] = DecodingOptions("rescoring", **fused)
            table["beam 10 + LM"] = DecodingOptions("beam", **fused)
    if not isinstance(network, HasCTC):
        table = {STEP_BY_STEP: DecodingOptions("greedy", draft=False), "beam 10": DecodingOptions("beam")}
    if options.ctc_weight is not None:
        table = {
            name: dataclasses.replace(each, ctc_weight=options.ctc_weight)
            if "ctc_weight" in DECODERS[str(each.decoder)]
            else each
            for name, each in table.items()
        }
    if options.only:
        table = {name: each for name, each in table.items() if any(part in name for part in options.only)}
    return table


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
    parser.add_argument("--one-by-one", action="store_true", help="one recording in a batch")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--limit", type=int, help="use every n-th utterance, so that about this many are left"
    )
    parser.add_argument("--only", nargs="*", help="only decoders whose name contains one of these")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    bundle = load_model(options.model, options.device)
    table = choose_decoders(options, bundle.network)
    counter = PassCounter(bundle.network)
    different = 0
    for manifest in options.manifests:
        utterances = read_manifest(manifest)
        utterances = utterances[:: max(1, len(utterances) // (options.limit or len(utterances)))]
        planned = plan_batches(utterances, 0.0 if options.one_by_one else options.batch_seconds)
        rows = {name: Row(build_decoder(bundle, each)) for name, each in table.items()}
        encoder_seconds = measure(bundle, rows, counter, planned, options.repeats)
        seconds = sum(map(seconds_of, utterances))
        size = "one recording at a time" if options.one_by_one else f"batches of {options.batch_seconds:g} s"
        where = f"{bundle.device}, {torch.get_num_threads()} threads, {size}"
        print(f"\n{manifest}: {len(utterances)} utterances, {seconds:.0f} s of audio; {where}\n")
        print("| decoder | WER % | decoder passes per utterance | RTFx of decoding | RTFx end to end |")
        print("|---|---|---|---|---|")
        for name, row in rows.items():
            wer = 100 * score({u.id: text_of(u) for u in utterances}, row.texts).wer
            rates = f"{seconds / row.seconds:.0f} | {seconds / (row.seconds + encoder_seconds):.0f}"
            print(f"| {name} | {wer:.2f} | {row.passes / len(utterances):.1f} | {rates} |", flush=True)
        if STEP_BY_STEP in rows and WITH_DRAFT in rows:
            one, two = rows[STEP_BY_STEP], rows[WITH_DRAFT]
            different += sum(one.texts[u.id] != two.texts[u.id] for u in utterances)
            decoding = one.seconds / two.seconds
            all_of_it = (one.seconds + encoder_seconds) / (two.seconds + encoder_seconds)
            print(
                f"\nThe draft is {all_of_it:.2f} times as fast as step by step end to end, "
                f"{decoding:.2f} times in decoding; {different} texts differ."
            )
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
