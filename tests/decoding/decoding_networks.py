"""Networks for the tests of decoders: random ones, and one that predicts a script."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from helpers import sections

from asr.decoding import FinishReason, Hypothesis
from asr.decoding.ctc_prefix import CTCPrefixScorer
from asr.decoding.repetition import length_without_copies
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.tokenizers.special import SpecialTokens

MELS, VOCABULARY = 12, 9
PAD, BOS, EOS, UNK = range(4)
SPECIAL = SpecialTokens(
    prompt=(BOS,), eos=EOS, pad=PAD, blank=PAD, suppressed=(PAD, BOS), vocabulary_size=VOCABULARY
)
# A prompt of three tokens of which two can also be decoded, other ids, and a blank that is not the padding.
LONG_PROMPT = SpecialTokens(
    prompt=(6, 1, 4), eos=3, pad=0, blank=8, suppressed=(0, 1, 8), vocabulary_size=VOCABULARY
)
LENGTHS = [3, 130, 40, 17, 90, 64, 1, 110, 33, 77, 150, 8, 50, 125, 28, 99]  # frames of 16 utterances
HALF = math.log(0.5)
ENDLESS = tuple(5 + i.bit_count() % 2 for i in range(1000))  # never ends and never repeats itself


def batch(lengths=LENGTHS, padding=0):
    """Features (B, T, MELS), zero after each length, with their lengths."""
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features, torch.tensor(lengths)


def network_config(*, decoder=True, **sizes):
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=1, decoder_layers=2, conv_channels=3)
    settings = sections(**(small | sizes))
    return EncoderDecoder.Config.model_validate(settings if decoder else settings | {"decoder": None})


def network(seed, **sizes):
    """A small random network with confident predictions."""
    torch.manual_seed(seed)
    model = EncoderDecoder(network_config(**sizes), MELS, VOCABULARY)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 1.5
        else:
            parameter.data += 0.2 * torch.randn_like(parameter)
    if hasattr(model, "decoder"):
        model.decoder.out.weight.data *= 3
    return model.eval()


class StepOnly:
    """A model that offers a decoder, and no scoring of many positions at once."""

    def __init__(self, model):
        for name in ("encode", "decode", "start", "step"):
            setattr(self, name, getattr(model, name))


class StepOnlyWithCTC(StepOnly):
    """The same with a CTC head."""

    def __init__(self, model):
        super().__init__(model)
        self.ctc = model.ctc


def same(found, expected):
    """The first hypotheses of all rows agree."""
    found, expected = [h for (h,) in found], [h for (h,) in expected]
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.finish_reason for h in found] == [h.finish_reason for h in expected]
    assert [h.log_prob for h in found] == pytest.approx([h.log_prob for h in expected], abs=1e-4)


def random_processor(seed):
    """A logit processor that depends on the whole history, and forbids a token now and then."""
    generator = torch.Generator().manual_seed(seed)
    table = 3 * torch.randn(64, VOCABULARY, generator=generator)
    table[torch.rand(64, VOCABULARY, generator=generator) < 0.2] = -torch.inf
    table[:, EOS] = table[:, EOS].clamp_min(-3)

    def process(tokens, log_probs):
        order = torch.arange(1, tokens.size(1) + 1)
        return log_probs + table[((tokens + 1) * order).sum(1) % 64].to(log_probs.dtype)

    return process


@torch.no_grad()
def naive_greedy(model, features, lengths, max_lengths, special=SPECIAL, ctc_weight=0.0, processors=()):
    """No cache and no batch: every prefix is decoded again, and CTC scores every token of the vocabulary."""
    hypotheses = []
    for row, max_length in enumerate(max_lengths):
        memory = model.encode(features[row : row + 1, : int(lengths[row])], lengths[row : row + 1])
        scorer = CTCPrefixScorer(model.ctc(memory), memory.lengths, special) if ctc_weight else None
        tokens, steps, finished = [], [], False
        while (kept := length_without_copies(tuple(tokens))) is None:
            prefix = torch.tensor([[*special.prompt, *tokens]])
            log_probs = model.decode(prefix, memory)[0, -1].float().log_softmax(-1)
            for processor in processors:
                log_probs = processor(prefix, log_probs.unsqueeze(0))[0]
            log_probs[list(special.suppressed)] = -math.inf
            joint = log_probs
            if scorer is not None:
                ctc_scores = scorer.score(torch.arange(VOCABULARY).unsqueeze(0))[0]
                joint = (1 - ctc_weight) * log_probs + ctc_weight * ctc_scores
            best = int(joint.argmax())
            if best != special.eos and len(tokens) == max_length:
                break
            steps.append(float(log_probs[best]))
            if best == special.eos:
                finished = True
                break
            tokens.append(best)
            if scorer is not None:
                scorer.advance(torch.tensor([best]))
        reason = FinishReason.end if finished else FinishReason.length
        if kept is not None:
            reason = FinishReason.repetition
        hypotheses.append([Hypothesis(tuple(tokens[:kept]), sum(steps[:kept]), reason)])
    return hypotheses


def paths(*rows):
    """CTC log-probabilities (B, S, V) with these best paths."""
    size = max(map(len, rows))
    best = torch.tensor([[*row, *[5] * (size - len(row))] for row in rows])  # padding that is not blank
    return torch.nn.functional.one_hot(best, VOCABULARY).float().log_softmax(-1)


@dataclass
class ScriptedState:
    rows: torch.Tensor
    inputs: torch.Tensor
    position: int = 0

    def select(self, rows):
        return ScriptedState(self.rows[rows], self.inputs[rows], self.position)


class Scripted:
    """Predicts each row's script with probability 1/2 per token, followed by EOS; `held` counts its rows.

    It has only the operations that decoders need. After a token that is not in the script it
    predicts UNK.
    """

    def __init__(self, *scripts):
        self.scripts, self.held = scripts, []

    def memory(self, *lengths):
        states = torch.zeros(len(lengths), max(lengths), 1)
        states[:, 0, 0] = torch.arange(len(lengths))
        return Memory(states, torch.tensor(lengths))

    def start(self, memory, capacity):
        rows = memory.states[:, 0, 0].long()
        return ScriptedState(rows, torch.zeros(len(rows), capacity, dtype=torch.long))

    def step(self, tokens, state):
        starts = torch.full_like(state.rows, state.position)
        state.position += 1
        return self.forward_cached(tokens.unsqueeze(1), state, starts).squeeze(1)

    def forward_cached(self, tokens, state, starts):
        self.held.append(len(state.rows))
        log_probs = torch.full((*tokens.shape, VOCABULARY), math.log(0.5 / (VOCABULARY - 1)))
        for row, (index, start) in enumerate(zip(state.rows.tolist(), starts.tolist(), strict=True)):
            line = (BOS, *self.scripts[index], *[EOS] * 99)
            for position, token in enumerate(tokens[row].tolist(), start):
                state.inputs[row, position] = token
                known = tuple(state.inputs[row, : position + 1].tolist()) == line[: position + 1]
                log_probs[row, position - start, line[position + 1] if known else UNK] = HALF
        return log_probs


class ScriptedWithCTC(Scripted):
    """The same with a CTC head that gives the log-probabilities `log_probs` (B, S, V)."""

    def __init__(self, *scripts, ctc):
        super().__init__(*scripts)
        self.log_probs = ctc

    def ctc(self, memory):
        return self.log_probs


def merged(path):
    """The tokens of a CTC path."""
    return tuple(token for token, _ in itertools.groupby(path) if token != PAD)


def ctc_output(*changes):
    """CTC's log-probabilities with their lengths, and the decoder's tokens.

    A change has the output of CTC in each state, _ for a blank, such as `5 _ 6/8 _`. Where CTC is wrong, the
    decoder's token comes second.
    """
    states = [[state.split("/") for state in change.replace("_", "0").split()] for change in changes]
    logits = torch.zeros(len(states), max(map(len, states)), VOCABULARY)
    for row, line in enumerate(states):
        for position, (best, *second) in enumerate(line):
            logits[row, position, [int(s) for s in second]] = 5.0
            logits[row, position, int(best)] = 7.0
    decoded = [merged([int(state[-1]) for state in line]) for line in states]
    return logits.log_softmax(-1), [len(line) for line in states], decoded
