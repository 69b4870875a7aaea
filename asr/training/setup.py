"""From a configuration to everything the loop needs: data, tokenizer, features, network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr.bundle import Bundle
from asr.config import AugmentConfig, Config
from asr.datasets.batching import EpochPlan
from asr.datasets.loader import Loader
from asr.datasets.manifest import Utterance, read_manifest
from asr.errors import AsrError
from asr.features import LogMel, Statistics
from asr.tokenizer import Tokenizer

STATISTICS_SECONDS = 1800.0  # half an hour of audio fixes the mean and variance of a mel bin well enough


@dataclass
class Setup:
    """What `set_up` builds."""

    bundle: Bundle
    train: Loader
    dev: Loader
    dev_plan: EpochPlan


def set_up(config: Config, say: Callable[[str], None]) -> Setup:
    """Read the manifests, learn the tokenizer, build the network with the seed's weights, fit the features.

    Raises AsrError for empty or missing manifests and for dev texts with characters never trained on.
    """
    train = _select(config, config.data.train, "data.train", say)
    dev = _select(config, config.data.dev, "data.dev", say)
    tokenizer = Tokenizer.learn(u.text for u in train)
    _check_characters(config, tokenizer, dev)
    torch.manual_seed(config.train.seed)
    bundle = Bundle.build(config, tokenizer)
    setup = Setup(
        bundle,
        Loader(train, tokenizer, config, train=True),
        Loader(dev, tokenizer, config, train=False),
        EpochPlan(dev, config.data, AugmentConfig(specaugment=None), seed=0, epoch=0),
    )
    plan = EpochPlan(train, config.data, config.augment, config.train.seed, epoch=0)
    bundle.metadata["longest_seconds"] = f"{np.quantile(plan.seconds, 0.99):.1f}"
    _fit_features(bundle.features, setup.train, plan)
    return setup


def _select(
    config: Config, manifests: Sequence[Path], key: str, say: Callable[[str], None]
) -> list[Utterance]:
    """The utterances of some manifests that the configuration asks for; the others are counted."""
    if not manifests:
        raise AsrError(
            f"{key} names no manifest; write one with `asr prepare` and name it in the configuration"
        )
    data, kept, dropped = config.data, [], Counter[str]()
    for utterance in (u for path in manifests for u in read_manifest(path)):
        if utterance.speaker in data.exclude_speakers:
            dropped["of excluded speakers"] += 1
        elif utterance.duration < data.min_seconds:
            dropped[f"shorter than {data.min_seconds} s"] += 1
        elif utterance.duration > data.max_seconds:
            dropped[f"longer than {data.max_seconds} s"] += 1
        else:
            kept.append(utterance)
    kept = kept[: data.first]
    names = ", ".join(map(str, manifests))
    if not kept:
        raise AsrError(
            f"{key}: no utterance left of {names} ({dict(dropped) or 'empty'}); check the manifests"
        )
    hours = sum(u.duration for u in kept) / 3600
    out = "; left out: " + ", ".join(f"{n} {why}" for why, n in dropped.items()) if dropped else ""
    say(f"{key}: {len(kept)} utterances, {hours:.2f} h from {names}{out}")
    return kept


def _check_characters(config: Config, tokenizer: Tokenizer, dev: Sequence[Utterance]) -> None:
    if config.data.unknown_characters == "unk":
        return
    for utterance in dev:
        if unknown := tokenizer.unknown(utterance.text):
            names = ", ".join(map(str, config.data.dev))
            raise AsrError(
                f"{names}: utterance {utterance.id!r} has {unknown[0]!r}, which no training text has; "
                "mend the text, or set data.unknown_characters to unk"
            )


def _fit_features(features: LogMel, loader: Loader, plan: EpochPlan) -> None:
    statistics, seconds = Statistics(features.config.n_mels), 0.0
    for batch in loader.batches(plan):
        statistics.add(features.log_mel(batch.waveforms), features.frames(batch.lengths))
        seconds += batch.seconds
        if seconds >= STATISTICS_SECONDS:
            break
    statistics.store(features)
