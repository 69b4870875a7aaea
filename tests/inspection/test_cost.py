"""Operations of modules: their sum is torch's count, and each is where it is done."""

import json

import pytest
import torch
from inspection_helpers import model

from asr.config import LanguageConfig
from asr.flops import count_flops
from asr.inspection.cost import Part, _merged, model_cost, table
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer


def find(part, *names):
    for name in names:
        (part,) = [each for each in part.parts if each.name == name]
    return part


def test_the_sum_is_the_count_of_torch_and_parts_add_up():
    bundle = model()
    cost = model_cost(bundle, seconds=2.0, tokens_per_second=10)
    waveform = torch.zeros(1, 32000)
    features = bundle.features(waveform, torch.tensor([32000]))
    network = bundle.network

    def work():
        memory = network.encode(*features)
        network.ctc(memory)
        network.decode(torch.full((1, 20), 2), memory)

    assert cost.network.flops * 2 == pytest.approx(count_flops(work)) and cost.tokens == 20
    assert cost.network.parameters == sum(p.numel() for p in network.parameters())
    assert sum(part.flops for part in cost.network.parts) == pytest.approx(cost.network.flops)
    assert "forward" not in network.encoder.__dict__  # nothing is left behind


def test_operations_are_where_they_are_done():
    d, ffn, states, tokens = 16, 24, 51, 20  # 2 s are 201 frames
    cost = model_cost(model(), seconds=2.0, tokens_per_second=10)
    block = find(cost.network, "encoder", "blocks", "0")
    attention = 2 * states * 4 * d * d + 2 * 2 * states * states * d
    assert find(block, "attention").flops * 2 == attention
    assert find(block, "feed_forward").flops * 2 == 2 * states * 2 * d * ffn
    assert find(block, "attention_residual").flops == 0
    cross = 2 * d * d * (2 * tokens + 2 * states) + 2 * 2 * tokens * states * d
    assert find(cost.network, "decoder", "blocks", "1", "cross_attention").flops * 2 == cross


def test_a_model_without_a_decoder_has_no_tokens():
    cost = model_cost(model(ctc_weight=1), seconds=1.0)
    assert cost.tokens is None and [part.name for part in cost.network.parts] == [
        "front_end",
        "encoder",
        "ctc_head",
    ]
    assert "decoder reads" not in "\n".join(table(cost, 3))


def test_a_decoder_with_few_positions_is_counted_with_a_text_that_fits():
    bundle = model(decoder={"n_layers": 1, "positions": {"kind": "learned", "max_length": 12}})
    assert model_cost(bundle, seconds=2.0, tokens_per_second=10).tokens == 12


def test_a_language_model_is_counted_by_the_token():
    config = {"kind": "language model", "model": {"d_model": 8, "n_heads": 2, "d_ffn": 16, "n_layers": 1}}
    bundle = Bundle.build(LanguageConfig.model_validate(config), CharacterTokenizer.from_characters(["abc"]))
    cost = model_cost(bundle, 10.0, 5.0)
    assert cost.seconds is None and cost.tokens == 50
    out = find(cost.network, "decoder", "out")
    assert out.flops == 2 * 8 * 7
    assert "MFLOP per token" in "\n".join(table(cost, 3))


def test_equal_neighbors_share_a_line_and_depth_limits_the_table():
    cost = model_cost(model(), seconds=1.0)
    lines = list(table(cost, 3))
    assert any(line.startswith("    blocks.0-1 ") for line in lines)
    (whole,) = [line for line in lines if line.startswith("network")]
    assert whole.count("100.0%") == 2
    assert not any("dropout" in line for line in lines)  # neither parameters nor operations
    shallow = list(table(cost, 1))
    assert [line.split()[0] for line in shallow[1:6]] == [
        "network",
        "front_end",
        "encoder",
        "decoder",
        "ctc_head",
    ]
    one, two = Part("0", "Block", 5, 2.0, ()), Part("1", "Block", 5, 2.0, ())
    other = Part("2", "Block", 6, 2.0, ())
    stack = Part("x", "Net", 16, 6.0, (Part("blocks", "ModuleList", 16, 6.0, (one, two, other)),))
    assert [(p.name, p.parameters, p.flops) for p in _merged(stack)] == [
        ("blocks.0-1", 10, 4.0),
        ("blocks.2", 6, 2.0),
    ]


def test_json_has_every_module():
    cost = model_cost(model(), seconds=1.0)
    values = json.loads(cost.to_json())

    def names(part):
        return 1 + sum(names(each) for each in part["parts"])

    assert names(values["network"]) == len(list(model().network.modules()))
    assert values["seconds"] == 1.0 and values["tokens"] == 15
