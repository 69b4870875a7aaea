"""Train every architecture with about equal parameters for an equal time, and compare them on test sets.

    python recipes/fsdd/compare.py CONFIG OUT [section.key=value ...] --test MANIFEST ... [--minutes 3]

CONFIG is a recipe; its section `model` is replaced. OUT gets a run folder for each architecture and seed, and
results.jsonl with one line for each that is finished. The same command continues where it stopped. The table
is printed at the end; `--table` prints it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from asr.config import Config, load_config
from asr.datasets.manifest import read_manifest
from asr.decoding import DecodingOptions
from asr.kinds import FEATURES, MODELS
from asr.model.interfaces import HasCTC, HasDecoder
from asr.model_folder import Bundle, load_model
from asr.scoring import Score, score
from asr.section import load_kind
from asr.training.loop import train
from asr.transcription.recognizer import Recognizer

PARAMETERS = 1_000_000
VOCABULARY_SIZE = 32  # for fitting sizes; the tokenizer of a run is learned from its data
SAMPLING: dict[str, dict[str, Any]] = {
    "train": {"scheduled_sampling": {"probability": 0.3, "start": 200, "end": 800}}
}
FASTER: dict[str, dict[str, Any]] = {
    "optim": {"lr": 0.002}
}  # LSTMs learn more slowly with the rate of the recipe

# `model` of each architecture; the first size is chosen so that the number of parameters is right.
TRANSFORMER: dict[str, Any] = {
    "d_model": 96, "n_heads": 4, "dropout": 0.05, "front_end": {"channels": 32},
    "encoder": {"n_layers": 4}, "decoder": {"n_layers": 2},
}  # fmt: skip
PATCHES = {"kind": "patches", "bins": 80, "frames": 4}
LSTM: dict[str, Any] = {  # halves time once, and has as many states per second as the others
    "dropout": 0.05, "front_end": {"kind": "stacked", "frames": 2, "stride": 2},
    "encoder": {"kind": "pyramidal_lstm", "n_layers": 3}, "decoder": {"kind": "lstm"},
}  # fmt: skip


def _transformer(**changes: Any) -> dict[str, Any]:
    """The Transformer with other settings. Those of a part are added to the part's own."""
    merged = {key: {**TRANSFORMER.get(key, {}), **value} if isinstance(value, Mapping) else value
              for key, value in changes.items()}  # fmt: skip
    return {**TRANSFORMER, **merged}


def _positions(kind: str) -> dict[str, Any]:
    return _transformer(encoder={"positions": kind})


# The size to fit, `model`, and what differs from the recipe in other sections.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "RNN without attention": (
        "d_model", {**LSTM, "decoder": {"kind": "lstm", "attention": "none"}}, FASTER
    ),
    "LAS": ("d_model", LSTM, FASTER),
    "LAS, scheduled sampling": ("d_model", LSTM, FASTER | SAMPLING),
    "Transformer, pre-norm": ("d_ffn", TRANSFORMER, {}),
    "Transformer, post-norm": ("d_ffn", _transformer(norm="post"), {}),
    "Transformer, scheduled sampling": ("d_ffn", TRANSFORMER, SAMPLING),
    "Transformer, mask-predict": ("d_ffn", _transformer(decoder={"kind": "mask_predict"}), {}),
    "Transformer, window of 8 states": ("d_ffn", _transformer(encoder={"window": 8}), {}),
    "Transformer, patches": ("d_ffn", {**TRANSFORMER, "front_end": PATCHES}, {}),
    "Transformer, no positions": ("d_ffn", _positions("none"), {}),
    "Transformer, learned positions": ("d_ffn", _positions("learned"), {}),
    "Transformer, rotary positions": ("d_ffn", _positions("rotary"), {}),
    "Transformer, relative positions": ("d_ffn", _positions("relative"), {}),
    "Transformer, Shaw positions": ("d_ffn", _positions("shaw"), {}),
    "Conformer": ("d_ffn", _transformer(encoder={"kind": "conformer", "n_layers": 3}), {}),
}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", default=[], help="manifests")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training steps for each run")
    parser.add_argument("--steps", type=int, help="steps of each run, in place of a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of each model, about")
    parser.add_argument("--table", action="store_true", help="print the table of the results so far alone")
    options, overrides = parser.parse_known_args()
    if wrong := [each for each in overrides if each.startswith("-") or "=" not in each]:
        parser.error(f"{wrong[0]}: neither an option nor section.key=value")
    torch.set_num_threads(1)
    results = options.out / "results.jsonl"
    finished = read_results(results)
    if not options.table:
        for seed in options.seeds:  # a whole table of one seed first
            for name in options.only:
                if (name, seed) not in finished:
                    finished[name, seed] = compare(name, seed, options, tuple(overrides))
                    with results.open("a") as out:
                        out.write(json.dumps(finished[name, seed]) + "\n")
    print(table(list(finished.values())))


def read_results(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The results so far, by architecture and seed."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(line["name"], line["seed"]): line for line in map(json.loads, lines)}


def compare(name: str, seed: int, options: argparse.Namespace, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Train and score one architecture. Returns its line of the results."""
    config = configuration(name, seed, options, overrides)
    run = options.out / f"{name.lower().replace(',', '').replace(' ', '-')}-{seed}"
    began = time.process_time()
    if status := train(config, run, resume="if_possible", device="cpu"):
        sys.exit(status)
    cpu_seconds = time.process_time() - began
    state = json.loads(max(run.glob("checkpoints/*/trainer.json")).read_text())
    bundle = load_model(run, "cpu")
    line = {
        "name": name, "seed": seed, "parameters": bundle.parameters(), "steps": state["step"],
        "training_seconds": round(state["seconds"], 1), "cpu_seconds": round(cpu_seconds, 1),
        "load": os.getloadavg()[0], "wer": {}, "cer": {}, "rtfx": {},
        "wer_decoder_alone": {}, "cer_ctc_alone": {},
    }  # fmt: skip
    for manifest in options.test:
        found, line["rtfx"][manifest.stem] = scored(bundle, manifest, DecodingOptions())
        line["wer"][manifest.stem], line["cer"][manifest.stem] = found.wer, found.cer
        if isinstance(bundle.network, HasDecoder):
            alone = DecodingOptions(decoder="greedy", ctc_weight=0.0)
            line["wer_decoder_alone"][manifest.stem] = scored(bundle, manifest, alone)[0].wer
        if isinstance(bundle.network, HasCTC):
            ctc_alone = DecodingOptions(decoder="ctc")
            line["cer_ctc_alone"][manifest.stem] = scored(bundle, manifest, ctc_alone)[0].cer
    return line


def configuration(
    name: str, seed: int, options: argparse.Namespace, overrides: tuple[str, ...] = ()
) -> Config:
    """The recipe's configuration with the model of an architecture."""
    values = load_config(options.config, overrides).model_dump(mode="json")
    size, model, others = ARCHITECTURES[name]
    limit = {"max_minutes": options.minutes, "steps": 10**6}
    if options.steps:
        limit = {"max_minutes": None, "steps": options.steps}
    for section, changes in others.items():
        values[section] |= changes
    values["train"] |= {**limit, "seed": seed, "validate_every": 10**6, "checkpoint_every": 200}
    values["train"] |= {"average": 1, "init": None, "patience": None, "stop_wer": None}
    sizes = range(48, 1025, 16)

    def sized(n: int) -> Config:
        return Config.model_validate(values | {"model": {**model, size: n}})

    at = bisect_left(sizes, options.parameters, key=lambda n: parameters(sized(n)))
    near = [sized(n) for n in sizes[max(0, at - 1) : at + 1]]
    return min(near, key=lambda each: abs(parameters(each) - options.parameters))


def parameters(config: Config) -> int:
    """The number of parameters of a model, which is not built."""
    n_features = load_kind(FEATURES, config.features.kind)(config.features).n_features
    with torch.device("meta"):
        network = load_kind(MODELS, config.model.kind)(config.model, n_features, VOCABULARY_SIZE)
    return sum(p.numel() for p in network.parameters())


def scored(bundle: Bundle[Config], manifest: Path, options: DecodingOptions) -> tuple[Score, float]:
    """The score, and seconds of audio per second with one thread, reading included."""
    utterances = read_manifest(manifest)
    recognizer = Recognizer(bundle, options=options)
    began = time.perf_counter()
    transcripts = recognizer.transcribe([str(u.audio) for u in utterances])
    seconds = time.perf_counter() - began
    references = {u.id: u.text or "" for u in utterances}
    hypotheses = {u.id: t.text for u, t in zip(utterances, transcripts, strict=True)}
    found = score(references, hypotheses, unit="auto")
    return found, sum(t.duration for t in transcripts) / seconds


def table(lines: list[dict[str, Any]]) -> str:
    """A Markdown table: one row for each architecture, the WER of each seed, and means of the rest."""
    sets = list(lines[0]["wer"]) if lines else []
    head = ["architecture", "parameters", "steps", "training s", "CPU s"]
    head += [f"WER % {each}" for each in sets] + [f"CER % {each}" for each in sets]
    head += [f"decoder alone, WER % {each}" for each in sets] + [f"CTC alone, CER % {each}" for each in sets]
    head += [f"RTFx {each}" for each in sets]
    rows = [head, ["---"] * len(head)]
    for name in ARCHITECTURES:
        runs = sorted((line for line in lines if line["name"] == name), key=lambda line: line["seed"])
        if not runs:
            continue
        row = [name, f"{runs[0]['parameters']:,}", *(
            f"{mean(run[key] for run in runs):,.0f}" for key in ("steps", "training_seconds", "cpu_seconds")
        )]  # fmt: skip
        for key in ("wer", "cer", "wer_decoder_alone", "cer_ctc_alone"):
            row += [
                " / ".join(f"{100 * run[key][s]:.1f}" if s in run.get(key, {}) else "-" for run in runs)
                for s in sets
            ]
        row += [f"{mean(run['rtfx'][s] for run in runs):.0f}" for s in sets]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
