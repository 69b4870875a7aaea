"""Splits by speaker for corpora that have none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from asr.datasets.manifest import Utterance
from asr.errors import AsrError

Splits = dict[str, list[Utterance]]


def hold_out(splits: Splits, shares: dict[str, float], notes: list[str]) -> Splits:
    """Take a share of the hours of "train" (or "all") out for each new split, whole speakers at a time.

    The choice is a function of the names of the speakers alone, the same on every machine and for every order
    of the utterances. Utterances without a speaker stay in "train", because their speaker could be any of the
    others. Where there are fewer speakers than splits, utterances with equal texts stay together instead.
    `notes` says which. Raises AsrError for a split that exists already, and when a split would be empty.
    """
    if not shares:
        return splits
    source = next((name for name in ("train", "all") if name in splits), None)
    if source is None:
        raise AsrError(
            f"only a split train or all can be divided, and the corpus has "
            f"{', '.join(splits)}; hold nothing out"
        )
    if there := [name for name in shares if name in splits]:
        raise AsrError(f"the corpus has a split {there[0]} of its own; leave --{there[0]} out")
    if sum(shares.values()) >= 1:
        raise AsrError(f"{sum(shares.values()):g} of the corpus would be held out; give smaller shares")
    group = splits[source]
    speakers = {utterance.speaker for utterance in group} - {None}
    by_speaker = len(speakers) > len(shares)
    if by_speaker:
        parts = _divide(group, shares, lambda u: u.speaker)
        unknown = sum(utterance.speaker is None for utterance in group)
        also = f"; {unknown} utterances without a speaker are in train" if unknown else ""
        notes.append(f"whole speakers are held out{also}")
    else:
        parts = _divide(group, shares, lambda u: u.text or "")
        notes.append(
            f"texts are held out, and speakers can be in several splits: {len(speakers)} speakers are too "
            f"few for {len(shares) + 1} splits"
        )
    if empty := [name for name in (*shares, "train") if not parts[name]]:
        unit = "speakers" if by_speaker else "different texts"
        raise AsrError(
            f"there are too few {unit} for a split {empty[0]}; hold out a smaller share, or nothing"
        )
    return {"train": parts.pop("train"), **parts, **{k: v for k, v in splits.items() if k != source}}


def _divide(
    group: list[Utterance], shares: dict[str, float], key: Callable[[Utterance], str | None]
) -> Splits:
    """Keys in the order of their hash go to the first split until its share is reached, then to the next.

    Utterances without a key stay in "train".
    """
    total, seconds = 0.0, dict[str, float]()
    for utterance in group:
        total += utterance.duration or 0.0
        if (name := key(utterance)) is not None:
            seconds[name] = seconds.get(name, 0.0) + (utterance.duration or 0.0)
    chosen: dict[str | None, str] = {}
    keys = iter(sorted(seconds, key=lambda k: hashlib.blake2b(k.encode()).digest()))
    for name, share in shares.items():
        held = 0.0
        while held < share * total and (k := next(keys, None)) is not None:
            chosen[k] = name
            held += seconds[k]
    parts: Splits = {name: [] for name in (*shares, "train")}
    for utterance in group:
        parts[chosen.get(key(utterance), "train")].append(utterance)
    return parts
