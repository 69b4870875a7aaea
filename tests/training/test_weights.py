"""Moving averages, starting from another model, frozen weights."""

from __future__ import annotations

import pytest
import torch
from helpers import sections

from asr.config import Config
from asr.errors import AsrError
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer
from asr.training.weights import MovingAverage, freeze, start_from

SIZES = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=2, decoder_layers=1, conv_channels=4)


def bundle(characters: str, seed: int = 0, **sizes) -> Bundle:
    torch.manual_seed(seed)
    return Bundle.build(
        Config.model_validate({"model": SIZES | sizes}), CharacterTokenizer.from_characters([characters])
    )


def test_the_average_is_the_weighted_sum_of_all_earlier_weights():
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = MovingAverage(network, decay=0.9)
    expected = 0.0
    for step, value in enumerate([1.0, 5.0, 2.0, 8.0], 1):
        network.weight.data.fill_(value)
        average.update(step)
        decay = min(0.9, step / (step + 9))  # short memory first
        expected = decay * expected + (1 - decay) * value
    assert average.average[0].item() == pytest.approx(expected)
    with average.in_place():
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 8.0
    assert average.average[0].item() == pytest.approx(expected)


def test_the_decay_reaches_the_configured_value():
    network = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, decay=0.5)
    average.average[0].fill_(0.0)
    network.weight.data.fill_(1.0)
    average.update(1000)
    assert average.average[0].item() == 0.5


def test_all_weights_of_a_model_with_the_same_characters_are_copied(tmp_path):
    old, new = bundle("abc", seed=1), bundle("abc", seed=2)
    old.features.mean.fill_(3.0)
    old.save(tmp_path)
    (line,) = start_from(tmp_path, new)
    count = len(new.network.state_dict())
    assert line.endswith(f"{count} of {count} tensors copied")
    for name, tensor in old.module.state_dict().items():
        assert torch.equal(tensor, new.module.state_dict()[name]), name


def test_rows_of_the_embedding_follow_their_characters(tmp_path):
    old, new = bundle("abd", seed=1), bundle("bcd", seed=2)  # as many, but others
    fresh = new.network.decoder.embed.weight.clone()
    old.save(tmp_path)
    lines = start_from(tmp_path, new)
    assert any("new tokens: 'c'" in line for line in lines)
    for tensors in (
        (old.network.decoder.embed.weight, new.network.decoder.embed.weight),
        (old.network.decoder.out.bias, new.network.decoder.out.bias),
        (old.network.ctc_head.weight, new.network.ctc_head.weight),
    ):
        was, now = tensors
        for character in "bd":
            assert torch.equal(was[old.tokenizer.encode(character)], now[new.tokenizer.encode(character)])
        assert torch.equal(was[:4], now[:4])  # PAD, BOS, EOS, UNK
    (c,) = new.tokenizer.encode("c")
    assert torch.equal(new.network.decoder.embed.weight[c], fresh[c])


def test_weights_that_do_not_fit_are_named_and_start_at_random(tmp_path):
    bundle("abc", seed=1).save(tmp_path)
    deeper = bundle("abc", seed=2, encoder={"n_layers": 3})
    lines = start_from(tmp_path, deeper)
    assert any("start at random" in line and "encoder.blocks.2" in line for line in lines)
    with pytest.raises(AsrError, match="none of its weights fits"):
        start_from(tmp_path, bundle("xyz", d_model=8, d_ffn=8, front_end={"channels": 2}))


def test_frozen_weights_get_no_gradient_and_patterns_without_a_match_are_refused():
    network = bundle("abc").network
    names = freeze(network, ("encoder.*",))
    assert names and all(name.startswith("encoder.") for name in names)
    assert all(p.requires_grad != name.startswith("encoder.") for name, p in network.named_parameters())
    with pytest.raises(AsrError, match=r"'encodr\.\*'"):
        freeze(bundle("abc").network, ("encodr.*",))
    with pytest.raises(AsrError, match="nothing is left to train"):
        freeze(bundle("abc").network, ("*",))
