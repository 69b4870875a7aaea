"""Drafts of another model: the result is that of decoding step by step, with fewer passes."""

from dataclasses import replace

import pytest
import torch
from decoding_networks import (
    EOS,
    LONG_PROMPT,
    SPECIAL,
    VOCABULARY,
    Scripted,
    batch,
    network,
    network_config,
    random_processor,
    same,
)

from asr.config import Config
from asr.decoding import DecodingOptions, build_decoder, greedy
from asr.decoding.draft_model import FIRST, LONGER, MOST
from asr.errors import AsrError
from asr.model_folder import Bundle, load_model
from asr.tokenizers import CharacterTokenizer

PLAIN = DecodingOptions(decoder="greedy", draft=False)


def both(model, draft, **sizes):
    features, lengths = batch(**sizes)
    return replace(model.encode(features, lengths), draft=draft.encode(features, lengths))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("special", [SPECIAL, LONG_PROMPT])
def test_the_text_is_that_of_the_model_alone(seed, special):
    """Whatever the draft: that of the model itself, of a similar one, or of one that knows nothing of it."""
    model = network(seed, ctc=False)
    similar, other = network(seed, ctc=False), network(seed + 50, ctc=False, decoder_layers=1)
    for parameter in similar.parameters():
        parameter.data *= 1.02
    rules = [random_processor(seed)] if seed % 2 else []
    for draft in (model, similar, other):
        memory = both(model, draft)
        expected = greedy(model, memory, special, PLAIN, (), rules)
        same(greedy(model, memory, special, PLAIN, (), rules, draft), expected)


def test_ctc_scores_and_a_draft_model_are_refused_together():
    model = network(0, ctc=True)
    with pytest.raises(AsrError, match="cannot be used together with CTC scores; set ctc_weight to 0"):
        greedy(model, both(model, model), SPECIAL, DecodingOptions(decoder="greedy"), (), (), model)


def test_a_draft_that_is_right_saves_passes():
    script = tuple(5 + i % 3 for i in range(2, 29))
    model, draft = Scripted(script, script[:9]), Scripted(script, script[:9])
    memory = replace(model.memory(40, 40), draft=draft.memory(40, 40))
    ((long,), (short,)) = greedy(model, memory, SPECIAL, PLAIN, (), (), draft)
    assert long.tokens == script and short.tokens == script[:9]
    assert FIRST < MOST and len(model.held) == 4  # 4, 6, 8 and 10 tokens, EOS included
    assert len(draft.held) == FIRST * 4 + LONGER * 6
    assert sorted(model.held, reverse=True) == model.held and model.held[-1] == 1  # finished rows leave


def test_a_wrong_draft_costs_passes_but_no_token():
    script = (5, 6, 7, 8, 5, 6, 7, 8, 6)
    model, draft = Scripted(script), Scripted((5, 7, 6, 8))
    memory = replace(model.memory(40), draft=draft.memory(40))
    ((found,),) = greedy(model, memory, SPECIAL, PLAIN, (), (), draft)
    assert found.tokens == script and found.finish_reason == "end"


def test_a_text_that_repeats_itself_is_not_read_to_the_limit():
    script = (5, 6) * 200
    model, draft, alone = Scripted(script), Scripted(script), Scripted(script)
    for each in (model, alone):  # the probability of what is kept of a repetition
        each.decode = lambda tokens, memory: torch.zeros(*tokens.shape, VOCABULARY)
    memory = replace(model.memory(400), draft=draft.memory(400))
    ((found,),) = greedy(model, memory, SPECIAL, PLAIN, (), (), draft)
    ((expected,),) = greedy(alone, memory, SPECIAL, PLAIN)
    assert found.tokens == expected.tokens and found.finish_reason == "repetition"
    assert len(model.held) < 12  # passes of at most 16 tokens; all 400 would need more than 25


def test_a_near_tie_is_decided_step_by_step(monkeypatch):
    """Rounding could change it, so the draft is given up."""
    model = network(1, ctc=False)
    model.decoder.out.weight.data.zero_()
    model.decoder.out.bias.data.zero_()
    model.decoder.out.bias.data[EOS] = -5
    memory = both(model, model, lengths=[9, 20])
    same(greedy(model, memory, SPECIAL, PLAIN, (), (), model), greedy(model, memory, SPECIAL, PLAIN))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("drafts")
    for name, letters in (("large", "seven ix"), ("small", "seven ix"), ("foreign", "abc")):
        model = network_config(ctc=False).model_dump() | {"intermediate_ctc": None}
        torch.manual_seed(len(name))
        config = Config.model_validate({"model": model, "train": {"ctc_weight": 0.0}})
        Bundle.build(config, CharacterTokenizer.from_characters(letters)).save(root / name)
    model["decoder"] |= {"positions": {"kind": "learned", "max_length": 6}}
    config = Config.model_validate({"model": model, "train": {"ctc_weight": 0.0}})
    Bundle.build(config, CharacterTokenizer.from_characters("seven ix")).save(root / "short")
    return root


def test_a_folder_is_the_draft_model_and_must_fit(folders):
    large = load_model(folders / "large", "cpu")
    decoder = build_decoder(large, DecodingOptions(draft_model=str(folders / "small")))
    waveforms, lengths = torch.randn(3, 16000), torch.tensor([16000, 9000, 12000])
    with torch.inference_mode():
        memory, own = (
            each.network.encode(*each.features(waveforms, lengths)) for each in (large, decoder.draft_model)
        )
    found = decoder(replace(memory, draft=own))
    same(found, build_decoder(large, DecodingOptions())(memory))
    with pytest.raises(AsrError, match="foreign has another vocabulary"):
        build_decoder(large, DecodingOptions(draft_model=str(folders / "foreign")))
    with pytest.raises(AsrError, match="short has fewer positions for tokens"):
        build_decoder(large, DecodingOptions(draft_model=str(folders / "short")))
    with pytest.raises(AsrError, match="cannot be used together with CTC scores"):
        build_decoder(load_model("digits", "cpu"), DecodingOptions(draft_model=str(folders / "small")))
    with pytest.raises(AsrError, match="cannot be used with draft or temperature"):
        DecodingOptions(draft_model="x", temperature=1.0)
