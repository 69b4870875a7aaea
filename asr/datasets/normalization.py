"""Normalization of texts at preparation, by name. The names of `asr score --normalize` mean the same here.

The normalization is recorded beside the manifests, in corpus.json, so that `asr score` can print it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.datasets.manifest import Utterance
from asr.datasets.number_words import number_speller
from asr.errors import AsrError
from asr.files import atomic_write
from asr.scoring.normalize import NORMALIZATIONS, normalizer

STEPS = ("numbers", *NORMALIZATIONS[1:], "upper")


def text_normalizer(names: str) -> Callable[[Utterance], str]:
    """The function of a list such as "numbers,basic": the normalized text of an utterance.

    numbers  figures in words of the utterance's language, by num2words, before anything else
    upper    upper case, after anything else
    case, basic, english  as in `asr score`; english is for English only

    Raises AsrError for an unknown name, and for a package that is not installed. The function raises AsrError
    for a language in which numbers cannot be spelled, or where an utterance has none.
    """
    chosen = [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in STEPS]:
        raise AsrError(f"--normalize {unknown[0]!r}: unknown; choose from {', '.join(STEPS)}")
    functions = [normalizer(name) for name in NORMALIZATIONS[1:] if name in chosen]
    if len(functions) > 1:
        raise AsrError(f"--normalize {names}: case, basic and english exclude each other; keep one")
    spell = number_speller() if "numbers" in chosen else None

    def normalize(utterance: Utterance) -> str:
        text = utterance.text or ""
        if spell is not None and any(map(str.isdigit, text)):
            if utterance.lang is None:
                raise AsrError(f"utterance {utterance.id!r}: its language is not known; give --lang")
            text = spell(text, utterance.lang)
        for function in functions:
            text = function(text) if function else text
        return " ".join((text.upper() if "upper" in chosen else text).split())

    return normalize


def normalize_splits(
    splits: dict[str, list[Utterance]], names: str, bad: list[str], notes: list[str]
) -> dict[str, list[Utterance]]:
    """All utterances with normalized texts; a text that is not known stays so.

    An utterance of whose text nothing is left goes to `bad`. Texts in which `numbers` left figures are
    counted in `notes`.
    """
    function = text_normalizer(names)
    done: dict[str, list[Utterance]] = {}
    figures: list[str] = []
    for split, group in splits.items():
        done[split] = []
        for utterance in group:
            if utterance.text is None:
                done[split].append(utterance)
                continue
            text = function(utterance)
            if utterance.text.strip() and not text:
                bad.append(f"utterance {utterance.id!r}: nothing is left of its text {utterance.text[:60]!r}")
                continue
            done[split].append(replace(utterance, text=text))
            if any(map(str.isdigit, text)):
                figures.append(f"{utterance.id} ({text[:60]!r})")
    if figures and "numbers" in map(str.strip, names.split(",")):
        notes.append(f"figures are left in {len(figures)} texts, such as {figures[0]}")
    return done


def split_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of the splits in the corpus.json of a folder; empty if this file cannot be read."""
    try:
        record = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        # Versions up to 0.2 wrote one record for all splits.
        shared = {key: record[key] for key in ("corpus", "license", "site", "normalize") if key in record}
        return {name: shared | split for name, split in record["splits"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_records(folder: Path, records: dict[str, dict[str, Any]]) -> None:
    """Write the records of the splits of a folder to its corpus.json."""
    with atomic_write(folder / "corpus.json") as file:
        file.write(json.dumps({"splits": records}, indent=2, ensure_ascii=False) + "\n")


def recorded(manifest: Path) -> str:
    """The normalization that corpus.json beside a manifest records; empty for none."""
    name = str(split_records(manifest.parent).get(manifest.stem, {}).get("normalize", "none"))
    return "" if name == "none" else name
