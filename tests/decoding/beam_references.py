"""Reference searches for the tests of beam search, and networks that they search.

`exhaustive_search` and `naive_beam` are short and slow: no batch, no caches, no pruning.
"""

import math
from dataclasses import replace

import pytest
import torch
from helpers import sections

from asr.decoding import FinishReason
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.tokenizers import CharacterTokenizer

MELS = 12
TOKENIZER = CharacterTokenizer(tuple(" ab"))
V = len(TOKENIZER)
SPECIAL = TOKENIZER.special
EOS = SPECIAL.eos
# A prompt of three tokens, and a blank that is not the padding.
LONG_PROMPT = replace(SPECIAL, prompt=(5, 1, 4), blank=3, suppressed=(0, 1, 3))
LENGTHS = [3, 130, 40, 17, 90, 64, 1, 110]  # frames
A, B = 5, 6  # tokens of the networks that follow a rule


def batch(lengths=LENGTHS, padding=0):
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features.double(), torch.tensor(lengths)


def network(seed, **sizes):
    """A small network with confident predictions, in float64: rounding makes no two hypotheses equal."""
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=2, conv_channels=3)
    torch.manual_seed(seed)
    model = Exact(EncoderDecoder.Config.model_validate(sections(**(small | sizes))), MELS, V)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) * (parameter.dim() == 1)
        parameter.data *= 1.6 if parameter.dim() > 1 else 1
    model.decoder.out.weight.data *= 2
    return model.double().eval()


class Exact(EncoderDecoder):
    """A network without rounding to float32."""

    def _step(self, tokens, state):
        return self.decoder.step(tokens, state).log_softmax(-1)

    def _ctc(self, memory):
        return self.ctc_head(memory.states).log_softmax(-1)


@torch.no_grad()
def joint(model, memory, special, tokens, options, words, processors=()):
    """What each token would add to the score of a hypothesis, and the decoder's part of it. No caches."""
    prefix = torch.tensor([[*special.prompt, *tokens]])
    own = model.decode(prefix, memory)[:, -1].log_softmax(-1)  # (1, V)
    for processor in processors:
        own = processor(prefix, own)
    own = own[0]
    own[list(special.suppressed)] = -torch.inf
    weight = options.weight_of_ctc(hasattr(model, "ctc"))
    scorers = [(w.weight, w.start(1, 0)) for w in words]
    if weight:
        scorers.append((weight, CTCPrefixScorer(model.ctc(memory), memory.lengths, special)))
    total = (1 - weight) * own
    for share, scorer in scorers:
        for token in tokens:
            scorer.advance(torch.tensor([token]))
        total = total + share * scorer.score(torch.arange(V).unsqueeze(0))[0]
    return total, own


def exhaustive_search(model, memory, special, max_length, options, words):
    """All hypotheses up to the maximum length: (score, tokens, finish_reason), best first."""
    found, alpha = [], options.length_normalization or 0.0
    live = [((), 0.0)]
    for size in range(max_length + 1):
        longer = []
        for tokens, score in live:
            added, _ = joint(model, memory, special, tokens, options, words)
            ends = [(float(score + added[special.eos]), FinishReason.end)]
            usable = [t for t in range(V) if t != special.eos and t not in special.suppressed]
            others = [((*tokens, t), float(score + added[t])) for t in usable]
            if size == max_length:
                ends = [max(*ends, (max(s for _, s in others), FinishReason.length))]
            found += [(s / (size + 1) ** alpha, tokens, reason) for s, reason in ends]
            longer += others
        live = longer
    return sorted(found, reverse=True)


def naive_beam(model, memory, special, max_length, options, words, processors=()):
    """One utterance, with lists, the whole vocabulary, no caches, and no end before the maximum length."""
    live, found, alpha = [((), 0.0, 0.0)], [], options.length_normalization or 0.0
    for size in range(max_length + 1):
        extended = []
        for tokens, score, log_prob in live:
            added, own = joint(model, memory, special, tokens, options, words, processors)
            extended += [
                (float(score + added[t]), tokens, t, float(log_prob + own[t]), log_prob)
                for t in range(V)
                if t not in special.suppressed and own[t] > -torch.inf
            ]
        kept = sorted(extended, reverse=True)[: options.beam_size]
        live, parents = [], set()
        for score, tokens, token, log_prob, before in kept:
            if token != special.eos and size < max_length:
                live.append(((*tokens, token), score, log_prob))
            elif tokens not in parents:
                parents.add(tokens)
                ended = token == special.eos
                reason, log_prob = (FinishReason.end, log_prob) if ended else (FinishReason.length, before)
                found.append((score / (size + 1) ** alpha, tokens, reason, log_prob))
    return sorted(found, reverse=True)[: options.n_best or 1]


def alone(model, memory, row):
    own = memory.select(torch.tensor([row]))
    return Memory(own.states[:, : int(own.lengths)], own.lengths)


def same(found, expected):
    assert [[(h.tokens, h.finish_reason) for h in hs] for hs in found] == [
        [(h.tokens, h.finish_reason) for h in hs] for hs in expected
    ]
    for name in ("score", "log_prob"):
        numbers = [[getattr(h, name) for hs in each for h in hs] for each in (found, expected)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


class Ruled:
    """Next tokens by a rule (tokens, row) -> {token: probability}. Other tokens have the probability 0.

    `steps` are the numbers of rows of each step.
    """

    def __init__(self, rule):
        self.rule, self.steps = rule, []

    def memory(self, *lengths):
        states = torch.arange(len(lengths)).view(-1, 1, 1).expand(-1, max(lengths), 1)
        return Memory(states, torch.tensor(lengths))

    def start(self, memory, capacity):
        return RuledState(memory.states[:, 0, 0].tolist(), [()] * len(memory.lengths))

    def step(self, tokens, state):
        self.steps.append(len(tokens))
        state.inputs = [(*inputs, int(t)) for inputs, t in zip(state.inputs, tokens, strict=True)]
        log_probs = torch.full((len(tokens), V), -math.inf)
        width = len(tokens) // len(state.rows)
        for row, inputs in enumerate(state.inputs):
            for token, probability in self.rule(inputs[1:], state.rows[row // width]).items():
                log_probs[row, token] = math.log(probability)
        return log_probs

    def decode(self, tokens, memory):
        logits = torch.full((*tokens.shape, V), -math.inf)
        for u in range(tokens.size(1)):
            prefix = tuple(tokens[0, 1 : u + 1].tolist())
            for token, probability in self.rule(prefix, int(memory.states[0, 0, 0])).items():
                logits[0, u, token] = math.log(probability)
        return logits


class RuledState:
    def __init__(self, rows, inputs):
        self.rows, self.inputs = rows, inputs

    def select(self, rows):
        width = len(self.inputs) // len(self.rows)
        chosen = rows.tolist()
        inputs = [self.inputs[r * width + i] for r in chosen for i in range(width)]
        return RuledState([self.rows[r] for r in chosen], inputs)

    def reorder(self, parents):
        width = len(self.inputs) // len(self.rows)
        inputs = [self.inputs[row * width + p] for row, own in enumerate(parents.tolist()) for p in own]
        return RuledState(self.rows, inputs)


class Endless(Ruled):
    """Never ends and never repeats itself; the output of its CTC head is empty."""

    def __init__(self):
        super().__init__(lambda tokens, row: {A + len(tokens).bit_count() % 2: 1.0})

    def ctc(self, memory):
        log_probs = torch.full((1, memory.states.size(1), V), math.log(0.1))
        log_probs[..., SPECIAL.blank] = math.log(0.4)
        return log_probs
