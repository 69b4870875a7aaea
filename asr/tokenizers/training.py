"""Units learned from texts by the library `tokenizers`: byte-level BPE and byte-level unigram.

Both write every text, because all 256 bytes are units. A text is brought to Unicode form NFC first, and runs
of white space become one space, as in the tokenizer of characters. Where the texts have spaces, every word
begins with one, the first too, so a word has the same units everywhere; decoding removes the first space.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from asr.errors import AsrError
from asr.tokenizers.imported import missing_library
from asr.tokenizers.interface import TrainingText
from asr.tokenizers.special import PromptTokens, SpecialTokens

SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>")
SMALLEST = 256 + len(SPECIAL) + 1  # tokens: all bytes, the special ones, and a unit that is learned
LONGEST = 16  # bytes of a unit
_SPACE = r"[\s\x1c-\x1f]+"  # what Python calls white space


def train_units(
    text: TrainingText, size: int, algorithm: Literal["bpe", "unigram"]
) -> tuple[dict[str, Any], list[str]]:
    """The definition of a tokenizer of the library, and its units in the order of their ids.

    There are at most `size` - 3 units, which leaves ids for the special tokens. BPE is from Sennrich et al.
    2016, unigram from Kudo 2018. Equal texts give equal BPE units; sums in the unigram trainer have no fixed
    order, so it can give other units each time. Raises AsrError without the library, and for texts that are
    all empty.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError:
        raise missing_library("tokenizers") from None
    characters = set(text.characters())
    if not characters:
        raise AsrError("the training texts are all empty, so no units can be learned; check the manifests")
    spaced = " " in characters
    settings: dict[str, Any] = {
        "vocab_size": size - len(SPECIAL),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    if algorithm == "bpe":
        backend = Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(**settings, max_token_length=LONGEST)
    else:
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(**settings, max_piece_length=LONGEST)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(_SPACE), " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    strip = [decoders.Strip(" ", 1, 0)] if spaced else []
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), *strip])
    backend.train_from_iterator(text.sentences(), trainer)
    ids = backend.get_vocab()
    units = sorted(ids, key=ids.__getitem__)
    return json.loads(backend.to_str()), units


def trained_special(units: list[str]) -> tuple[list[str], SpecialTokens, PromptTokens]:
    """The whole vocabulary, and its special tokens, whose ids follow those of the units."""
    pad, bos, eos = range(len(units), len(units) + len(SPECIAL))
    special = SpecialTokens((bos,), eos, pad, pad, (pad, bos), len(units) + len(SPECIAL))
    return [*units, *SPECIAL], special, PromptTokens(start=bos)
