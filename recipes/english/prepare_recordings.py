"""Manifests of the real recordings of the English recipe.

    python recipes/english/prepare_recordings.py CORPORA OUT

CORPORA has one folder for each corpus (the README lists them), each with a `manifest.jsonl`. A corpus that
is absent is reported and skipped. Each English utterance gets its text in lower case and the key `phonemes`;
utterances of other languages (`common_voice_60`) have phonemes and no text. OUT receives train-real,
train-digits, cv60, the development sets dev-native, dev-so762, dev-fsdd, dev-cv60, the test sets test-so762,
test-fsdd (each a `.jsonl`), and the inventory of phone symbols, `phonemes.txt`.

No sentence of dev-native is in train-real, from any speaker. dev-callie is the part of dev-native whose voice
is in no other set, less the sentences that another corpus has too.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from phonemes import inventory, phonemes, restrict, voice_for
from text import normalize

from asr.datasets.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError
from asr.files import atomic_write

_ENGLISH = (
    "speechocean762 kathleen matthes ljspeech_mini asterisk_en asterisk_en_GB freeswitch_callie grid_s1 "
    "barista fsdd"
)
ENGLISH = _ENGLISH.split()
OTHERS = "common_voice_60"
BRITISH = {"asterisk_en_GB", "grid_s1"}
IN_CAPITALS = {"speechocean762"}
NATIVE = {"kathleen", "matthes", "asterisk_en"}  # every tenth sentence is held out
UNSEEN = "freeswitch_callie"  # its voice is in no training set
PROMPTS = ("asterisk_en", "asterisk_en_GB")  # share texts with UNSEEN
LONG = 5  # words; shorter prompts are in many corpora and are never held out
FASTEST = 30  # characters a second; a recording with more was cut, or its text is not what is spoken
DEV_SPEAKERS, DEV_DIGITS, DEV_OTHERS = 12, 27, 20  # one in so many

Corpus = dict[str, list[Utterance]]


def read_corpora(folder: Path, names: Iterable[str]) -> Corpus:
    """The utterances of each corpus that is there; ids and missing speakers get the corpus's name."""
    corpora = {}
    for name in names:
        manifest = folder / name / "manifest.jsonl"
        if not manifest.exists():
            print(f"{manifest}: not found; {name} is left out", file=sys.stderr)
            continue
        corpora[name] = [
            replace(u, id=f"{name}-{u.id}", speaker=u.speaker or name, audio=u.audio.absolute())
            for u in read_manifest(manifest)
        ]
    if not corpora:
        raise AsrError(f"{folder}: has none of the corpora; the README of this recipe lists them")
    return corpora


def usable(utterance: Utterance, name: str) -> Utterance | None:
    """The utterance with its normalized text; None when the text cannot be trusted."""
    text = normalize(utterance.text or "", capitals=name in IN_CAPITALS)
    if text is None or utterance.duration is None or len(text) > FASTEST * utterance.duration:
        return None
    return replace(utterance, text=text)


def split(corpora: Corpus) -> Corpus:
    """The sets of the recipe, from English corpora with normalized texts."""
    sets: Corpus = defaultdict(list)
    native = held_out_sentences(corpora)
    speakers = sorted(
        {u.speaker or "" for u in corpora.get("speechocean762", []) if u.extra.get("split") != "test"}
    )
    held_out_speakers = set(speakers[::DEV_SPEAKERS])
    digits = 0
    for name, utterances in corpora.items():
        for utterance in utterances:
            test = utterance.extra.get("split") == "test"
            target = "train-real"
            if name == "speechocean762":
                target = (
                    "test-so762"
                    if test
                    else "dev-so762"
                    if utterance.speaker in held_out_speakers
                    else target
                )
            elif name == "fsdd" and test:
                target = "test-fsdd"
            elif name == "fsdd":
                digits += 1
                target = "train-digits" if digits % DEV_DIGITS else "dev-fsdd"
            elif utterance.text in native[name]:
                target = "dev-native"
            elif name == UNSEEN:
                continue  # short prompts in the voice of dev-callie
            if target == "train-real" and any(utterance.text in texts for texts in native.values()):
                continue  # a sentence of dev-native, read by somebody else
            sets[target].append(utterance)
    prompts = {u.text for name in PROMPTS for u in corpora.get(name, [])}
    sets["dev-callie"] = [
        u for u in sets["dev-native"] if u.id.startswith(f"{UNSEEN}-") and u.text not in prompts
    ]
    return sets


def held_out_sentences(corpora: Corpus) -> dict[str, set[str]]:
    """For each corpus, its sentences that belong to dev-native."""
    held_out: dict[str, set[str]] = defaultdict(set)
    for name, utterances in corpora.items():
        sentences = list(dict.fromkeys(u.text or "" for u in utterances))  # each once, in the corpus's order
        if name in {"asterisk_en", UNSEEN}:
            sentences = [sentence for sentence in sentences if len(sentence.split()) >= LONG]
        if name in NATIVE:
            held_out[name] = set(sentences[::10])
        elif name == UNSEEN:
            held_out[name] = set(sentences)
    return held_out


def add_phonemes(sets: Corpus, others: list[Utterance]) -> tuple[Corpus, list[Utterance], str]:
    """The same utterances with the key `phonemes`, and the inventory."""
    with_phones: Corpus = defaultdict(list)
    for language in ("en-us", "en-gb"):
        chosen = [
            (name, u)
            for name, utterances in sets.items()
            for u in utterances
            if (u.id.split("-")[0] in BRITISH) == (language == "en-gb")
        ]
        phones = phonemes([u.text or "" for _, u in chosen], language)
        for (name, utterance), symbols in zip(chosen, phones, strict=True):
            with_phones[name].append(replace(utterance, phonemes=symbols))
    foreign = []
    for lang in sorted({u.lang or "" for u in others}):
        voice = voice_for(lang)
        if voice is None:
            continue
        chosen_others = [u for u in others if u.lang == lang]
        for utterance, symbols in zip(
            chosen_others, phonemes([u.text or "" for u in chosen_others], voice), strict=True
        ):
            if len(symbols) > 3:
                foreign.append(replace(utterance, text=None, phonemes=symbols))
    english = [u.phonemes or "" for name in with_phones for u in with_phones[name]]
    symbols = inventory(english, [(u.lang or "", (u.phonemes or "")) for u in foreign])

    def known(utterance: Utterance) -> Utterance:
        phones = restrict(utterance.phonemes or "", symbols)
        return replace(utterance, phonemes=phones)

    return (
        {name: [known(u) for u in with_phones[name]] for name in sets},
        [known(u) for u in foreign],
        symbols,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()

    read = read_corpora(options.corpora, [*ENGLISH, OTHERS])
    others = read.pop(OTHERS, [])
    corpora = {name: [u for v in utterances if (u := usable(v, name))] for name, utterances in read.items()}
    for name, utterances in read.items():
        if dropped := len(utterances) - len(corpora[name]):
            print(
                f"{name}: {dropped} of {len(utterances)} utterances left out, their texts cannot be trusted"
            )
    sets, foreign, symbols = add_phonemes(split(corpora), others)
    sets["dev-cv60"] = foreign[::DEV_OTHERS]
    sets["cv60"] = [u for number, u in enumerate(foreign) if number % DEV_OTHERS]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, utterances in sets.items():
        write_manifest(options.out / f"{name}.jsonl", utterances)
        hours = sum(u.duration or 0 for u in utterances) / 3600
        print(f"{name}.jsonl: {len(utterances)} utterances, {hours:.2f} h")
    with atomic_write(options.out / "phonemes.txt") as out:
        out.write(symbols)
    print(f"phonemes.txt: {len(symbols)} symbols; {len({u.lang for u in foreign})} other languages")


if __name__ == "__main__":
    try:
        main()
    except (AsrError, OSError) as error:
        sys.exit(f"prepare_recordings.py: error: {error}")
