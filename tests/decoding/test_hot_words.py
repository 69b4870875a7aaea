"""Hot words count the characters inside whole occurrences, in steps and at once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.hot_words import HotWords
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer(tuple(" abc"))
EOS = TOKENIZER.special.eos
phrases = st.lists(
    st.text("abc ", min_size=1, max_size=7).filter(str.strip), min_size=0, max_size=5, unique=True
)
texts = st.text("aaabbc  ", max_size=16)


def covered(text, phrases, spaces=True):
    """The number of characters of a text inside occurrences of phrases, counted one by one."""
    edge = " " if spaces else ""
    padded = edge + text + edge
    hit = set()
    for phrase in phrases:
        string = edge + " ".join(phrase.split()) + edge
        for i in range(len(padded)):
            if padded.startswith(string, i):
                hit.update(range(i, i + len(string)))
    return sum(padded[i] != " " for i in hit)


def ids(text):
    return [TOKENIZER.characters.index(c) + 4 for c in text]  # encode() would remove spaces


def increments(words, text):
    """What every token of a text, EOS included, adds. It is the same alone and among all candidates."""
    scorer, found = words.start(1, len(text)), []
    everything = torch.arange(len(TOKENIZER)).unsqueeze(0)
    for token in [*ids(text), EOS]:
        found.append(float(scorer.score(torch.tensor([[token]]))))
        assert found[-1] == float(scorer.score(everything)[0, token])
        scorer.advance(torch.tensor([token]))
    return found


@settings(max_examples=40)
@given(phrases, texts)
def test_a_text_scores_its_characters_in_whole_occurrences(phrases, text):
    words = HotWords(phrases, TOKENIZER, 1.0)
    steps = increments(words, text)
    assert sum(steps) == covered(text, phrases)
    assert max(steps) <= words.gain == 1.0


@settings(max_examples=40)
@given(phrases, texts)
def test_without_spaces_in_the_script_every_occurrence_counts(phrases, text):
    tokenizer = CharacterTokenizer(("a", "b", "c"))
    phrases, text = [p.replace(" ", "") for p in phrases], text.replace(" ", "")
    words = HotWords(phrases, tokenizer, 1.0)
    tokens = torch.tensor([tokenizer.encode(text)], dtype=torch.long).view(1, -1)
    assert float(words.score_texts(tokens, torch.tensor([len(text)]))) == covered(text, phrases, spaces=False)


@settings(max_examples=40)
@given(phrases, st.lists(texts, min_size=1, max_size=4))
def test_whole_texts_of_different_lengths_score_as_step_by_step(phrases, batch):
    words = HotWords(phrases, TOKENIZER, 1.0)
    rows = [torch.tensor(ids(text), dtype=torch.long) for text in batch]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    found = words.score_texts(tokens, torch.tensor([len(text) for text in batch]))
    assert found.tolist() == [sum(increments(words, text)) for text in batch]


@settings(max_examples=40)
@given(phrases, texts, texts)
def test_reordered_rows_keep_their_own_counts(phrases, one, other):
    words = HotWords(phrases, TOKENIZER, 1.0)
    size = min(len(one), len(other))
    scorer, alone = words.start(2, size), [words.start(1, size), words.start(1, size)]
    candidates = torch.arange(4, 8).unsqueeze(0)
    for pair in zip(ids(one[:size]), ids(other[:size]), strict=True):
        scorer.advance(torch.tensor(pair))
        for each, token in zip(alone, pair, strict=True):
            each.advance(torch.tensor([token]))
    scores = scorer.select(torch.tensor([1, 0, 1])).score(candidates.expand(3, -1))
    expected = [alone[i].score(candidates)[0] for i in (1, 0, 1)]
    torch.testing.assert_close(scores, torch.stack(expected))


def test_a_phrase_counts_as_it_grows_and_is_subtracted_if_not_completed():
    words = HotWords(["ab cab"], TOKENIZER, 1.0)
    assert increments(words, "ab cab") == [1, 1, 0, 1, 1, 1, 0]
    assert increments(words, "ab ca") == [1, 1, 0, 1, 1, -4]
    assert increments(words, "ab ab cab") == [1, 1, 0, -1, 1, 0, 1, 1, 1, 0]
    assert increments(words, "bab cab") == [0] * 8  # not at the beginning of a word
    assert increments(words, "ab cabb") == [1, 1, 0, 1, 1, 1, -5, 0]  # not at the end of one


def test_a_row_that_does_not_grow_stays_as_it_is():
    words = HotWords(["ab cab"], TOKENIZER, 1.0)
    everything = torch.arange(len(TOKENIZER)).expand(2, -1)
    scorer = words.start(2, 4)
    scorer.advance(torch.tensor(ids("aa")))
    before = scorer.score(everything)
    scorer.advance_some(torch.tensor(ids("bb")), torch.tensor([True, False]))
    after = scorer.score(everything)
    assert torch.equal(after[1], before[1])
    grown = words.start(1, 4)
    for token in ids("ab"):
        grown.advance(torch.tensor([token]))
    assert torch.equal(after[:1], grown.score(everything[:1]))


def test_each_script_has_its_own_word_boundaries():
    tokenizer = CharacterTokenizer.from_characters(["机器学习 abc"])
    words = HotWords(["学习", "ab"], tokenizer, 1.0)

    def total(text):
        tokens = torch.tensor([tokenizer.encode(text)])
        return float(words.score_texts(tokens, torch.tensor([tokens.size(1)])))

    assert [total(text) for text in ("机器学习", "学习机器", "abc", "ab 学习", "学ab习")] == [2, 2, 0, 4, 0]


@pytest.mark.parametrize("phrase", ["佐々", "〇一", "一〇", "ｶﾅ", "カー"])
def test_japanese_words_need_no_spaces(phrase):
    tokenizer = CharacterTokenizer.from_characters([f"x {phrase}"])
    tokens = torch.tensor([tokenizer.encode(f"x{phrase}x")])
    assert HotWords([phrase], tokenizer, 1.0).score_texts(tokens, torch.tensor([4])).tolist() == [2]


def test_long_phrases_and_thousands_of_them():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 4, (1000, 40), generator=generator).tolist()
    many = ["".join(" abc"[i] for i in row).strip() or "a" for row in drawn] + ["a" * 60]
    words = HotWords(many, TOKENIZER, 1.0)
    for text in (many[7] + " " + many[900], "a" * 60, "a" * 59, "b " + "a" * 60):
        assert sum(increments(words, text)) == covered(text, many)


@pytest.mark.parametrize(
    "wrong, complaint", [("", "1 to 60"), (" ", "1 to 60"), ("a" * 61, "60"), ("abx", "'x'")]
)
def test_impossible_hot_words_are_refused(wrong, complaint):
    with pytest.raises(AsrError, match=complaint):
        HotWords(["ab", wrong], TOKENIZER, 1.0)


def test_tokens_that_are_not_characters_are_refused():
    """Also where a phrase happens to have as many pieces as characters."""

    class Pieces(CharacterTokenizer):
        def encode(self, text):
            return super().encode(text)[::2]

    class Marked(CharacterTokenizer):
        symbols = (*TOKENIZER.symbols[:4], "\u2581", "\u2581a", "b", "c")

    for tokenizer in (Pieces(tuple("abc")), Marked(tuple(" abc"))):
        with pytest.raises(AsrError, match="not characters; omit hot_words"):
            HotWords(["ab"], tokenizer, 1.0)


def test_eos_can_have_any_id():
    """EOS ends a word whatever its id."""

    class Renumbered(CharacterTokenizer):
        special = replace(TOKENIZER.special, eos=3, prompt=(2,), suppressed=(0, 2))

    words = HotWords(["ab"], Renumbered(tuple(" abc")), 1.0)
    for end, total in ((3, 2), (2, 0)):
        scorer, found = words.start(1, 3), 0.0
        for token in [*ids("ab"), end]:
            found += float(scorer.score(torch.tensor([[token]])))
            scorer.advance(torch.tensor([token]))
        assert found == total
