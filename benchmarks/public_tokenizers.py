"""Tokenizers of public models against those of transformers, on many lines of random text in many scripts.

    python benchmarks/public_tokenizers.py FOLDER [--lines 100000]

FOLDER has the files of a Whisper or Speech2Text model in the hub's layout. Lines mix words of random
characters of one or two scripts, marks, digits and white space. Prints the number of lines that differ, in
ids or in text.
"""

from __future__ import annotations

import argparse
import random
import time
from importlib import import_module
from pathlib import Path

from asr.kinds import PUBLIC_FAMILIES
from asr.public.source import Source

SCRIPTS = {
    "Latin": (0x41, 0x24F),
    "Greek": (0x370, 0x3FF),
    "Cyrillic": (0x400, 0x52F),
    "Armenian": (0x531, 0x58F),
    "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x620, 0x6FF),
    "Devanagari": (0x900, 0x97F),
    "Bengali": (0x980, 0x9FF),
    "Tamil": (0xB80, 0xBFF),
    "Thai": (0xE01, 0xE5B),
    "Georgian": (0x10A0, 0x10FF),
    "Ethiopic": (0x1200, 0x137F),
    "kana": (0x3041, 0x30FF),
    "Han": (0x4E00, 0x9FFF),
    "Hangul": (0xAC00, 0xD7A3),
    "emoji": (0x1F300, 0x1F64F),
    "combining": (0x300, 0x36F),
    "ASCII": (0x20, 0x7E),
}
SPACES = (" ", " ", " ", " ", "  ", "\t", "\u00a0", ", ", ". ", "-", "'s ", " 12 ")


def line(random_numbers: random.Random) -> str:
    """A line of up to twelve words of one or two scripts."""
    scripts = random_numbers.sample(list(SCRIPTS.values()), random_numbers.choice((1, 1, 2)))
    text = ""
    for _ in range(random_numbers.randint(1, 12)):
        low, high = random_numbers.choice(scripts)
        text += "".join(chr(random_numbers.randint(low, high)) for _ in range(random_numbers.randint(1, 8)))
        text += random_numbers.choice(SPACES)
    return text.replace("<", "")  # special tokens in a text are text here, and not in transformers


def main() -> None:
    """Compare, and print the number of differences."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=100_000)
    arguments = parser.parse_args()
    source = Source(arguments.folder)
    family = import_module(PUBLIC_FAMILIES[source.json("config.json")["model_type"]])
    own, original = family.read_tokenizer(source), AutoTokenizer.from_pretrained(arguments.folder)
    unknown = getattr(own, "unk", -1)
    numbers, differing, tokens, began = random.Random(0), 0, 0, time.monotonic()
    for _ in range(arguments.lines):
        text = line(numbers)
        ids = own.encode(text)
        same = ids == original(text, add_special_tokens=False).input_ids
        if unknown not in ids:  # transformers leaves out the unknown token, here it is shown
            same &= own.decode(ids) == original.decode(ids, skip_special_tokens=True)
        differing += not same
        tokens += len(ids)
    seconds = time.monotonic() - began
    print(f"{arguments.lines} lines, {tokens} tokens, {differing} lines differ, {seconds:.0f} s")


if __name__ == "__main__":
    main()
