"""Hundreds of cut and garbled files of each format: each is read whole or refused with one line."""

import os
from collections import Counter

import numpy as np
import pytest
from test_streams import FORMATS, encode, tone

from asr import audio
from asr.errors import AsrError

FILES = 200  # of each format and kind of damage
SECONDS = 2.0
CHECKED = (
    "flac",
    "ogg",
    "opus",
    "mp3",
)  # they have checksums or frames; the others have a few numbers in front


def outcome(encoded, length):
    """What reading gives: rejected, whole, or shortened. Every other exception fails the test."""
    try:
        samples = audio.read(encoded)
    except AsrError as error:
        assert str(error).isprintable()
        return "rejected"
    assert samples.dtype == np.float32 and np.isfinite(samples).all()
    return "whole" if len(samples) >= length - 1 else "shortened"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*16-bit samples")
@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_garbled(name, capfd):
    random = np.random.default_rng(len(name))
    encoded = encode(tone(seconds=SECONDS), name)
    length = len(audio.read(encoded))
    header = min(600, len(encoded) // 4)
    counts = {kind: Counter() for kind in ("cut", "garbled", "garbled header")}
    for _ in range(FILES):
        cut = int(random.integers(1, len(encoded)))
        counts["cut"][outcome(encoded[:cut], length)] += 1
        for kind, limit in (("garbled", len(encoded)), ("garbled header", header)):
            changed = np.frombuffer(encoded, np.uint8).copy()
            changed[random.integers(0, limit, random.integers(1, 9))] = random.integers(0, 256)
            counts[kind][outcome(changed.tobytes(), length)] += 1
    if os.environ.get("FUZZ_REPORT"):
        with capfd.disabled():
            print(
                f"\n{name:6}", *(f"{kind}: {dict(sorted(c.items()))}" for kind, c in counts.items()), sep="  "
            )
    assert not counts["cut"]["shortened"]
    assert counts["cut"]["whole"] <= (0 if name in CHECKED else FILES // 5)  # only padding was cut off
    if name in CHECKED:
        assert not counts["garbled"]["shortened"]
        assert not counts["garbled header"]["shortened"]
    assert not capfd.readouterr().err
