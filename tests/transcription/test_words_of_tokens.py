"""From aligned tokens to words: what each token adds to the text, and how long that takes."""

from asr.decoding.alignment import TokenSpan
from asr.tokenizers import CharacterTokenizer
from asr.transcription.words import words_of


class Counting(CharacterTokenizer):
    """Counts the tokens that are decoded."""

    decoded = 0

    def decode(self, ids):
        Counting.decoded += len(ids)
        return super().decode(ids)


def test_a_token_is_decoded_with_few_others():
    tokenizer, text = Counting(tuple(" abc")), "abc ab b " * 50
    tokens = tokenizer.encode(text)
    spans = [TokenSpan(i, i + 1, 0.5) for i in range(len(tokens))]
    words = words_of(tokens, spans, tokenizer, 0.1, 2.0, 99.0, True)
    assert [word.text for word in words] == text.split()
    assert [character.start for word in words for character in word.characters] == [
        round(2 + 0.1 * i, 3) for i, character in enumerate(text.strip()) if character != " "
    ]
    assert Counting.decoded < 80 * len(tokens)  # and not the square
