"""The numbers behind one recording: text, times, attention, posteriors. Page and figures only draw them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr import audio
from asr.audio.voice_activity import with_speech
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.alignment import (
    attention_align,
    ctc_align,
    states_needed,
    states_with_audio,
)
from asr.errors import AsrError
from asr.features.interface import HasFrequencies
from asr.files import printable
from asr.inspection.attention import (
    Heads,
    align_attention,
    self_attention_heads,
    teacher_forced_attention,
    with_audio,
)
from asr.model.interfaces import (
    PHONEMES,
    FillsMasks,
    HasAlignmentHeads,
    HasCTC,
    HasDecoder,
    Memory,
    ShowsAttention,
    ShowsSelfAttention,
)
from asr.model_folder import Bundle
from asr.tokenizers import SpecialTokens, Tokenizer
from asr.transcription.pieces import longest_seconds

MOST_SYMBOLS = 80  # rows of an image of posteriors
SEEN = 0.01  # symbols that never reach this probability are left out
Span = tuple[int, int]  # the first state of a token, and the state after its last one


@dataclass(frozen=True)
class Token:
    """A token of the text, or EOS at its end. Times are in seconds from the start of the file."""

    id: int
    label: str  # its text, with a mark for the space
    start: float | None  # None for EOS, and if nothing tells the times (`Inspection.lacks` says why)
    end: float | None
    probability: float | None  # the decoder's, given the tokens before it; None without a decoder
    posterior: float | None  # the highest CTC probability in its states; None without a CTC head


@dataclass(frozen=True)
class Posteriors:
    """The probabilities of one CTC head: values (N, S) of N symbols, `seconds` of audio in each state.

    `left_out` is the number of symbols without a row, because their probabilities are low.
    """

    name: str
    symbols: tuple[str, ...]
    values: np.ndarray
    seconds: float
    left_out: int


@dataclass(frozen=True)
class Inspection:
    """What a model does with one segment of a recording."""

    audio: str
    model: str
    start: float  # of the segment, in seconds from the start of the file
    total: float | None  # the length of the file in seconds; None for a pipe
    samples: np.ndarray
    sample_rate: int
    features: np.ndarray  # (T, F), as the model receives them
    features_kind: str
    frequencies: np.ndarray | None  # (F,) in Hz
    frame_seconds: float
    state_seconds: float
    text: str
    given: bool  # the text was given, not recognized
    tokens: tuple[Token, ...]
    times_from: str | None  # "CTC", "alignment heads" or "cross-attention"
    cross_attention: tuple[Heads, ...]  # the rows are the tokens and, last, EOS
    self_attention: tuple[Heads, ...]
    posteriors: tuple[Posteriors, ...]
    lacks: tuple[str, ...]  # a sentence for each thing that the model cannot show

    @property
    def seconds(self) -> float:
        """The length of the segment."""
        return len(self.samples) / self.sample_rate

    @property
    def spoken(self) -> tuple[Token, ...]:
        """The tokens without EOS."""
        return tuple(token for token in self.tokens if token.start is not None)


@torch.inference_mode()
def gather(
    bundle: Bundle[Any],
    source: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
    reference: str | None = None,
    model: str = "",
) -> Inspection:
    """Recognize the first segment of a recording, or of a part of it, and collect what the model shows.

    With a `reference` nothing is recognized: the decoder receives that text (teacher forcing). Raises
    AsrError as `audio.read` does, for silence, and for a reference that the vocabulary cannot write or that
    has more tokens than the audio has states.
    """
    rate = bundle.config.features.sample_rate
    begin, samples = first_segment(bundle, source, start, duration)
    waveform = torch.from_numpy(samples).unsqueeze(0).to(bundle.device)
    features, frames = bundle.features(waveform, torch.tensor([len(samples)], device=bundle.device))
    network = bundle.eval().network
    memory: Memory = network.encode(features, frames)
    if not memory.states.isfinite().all():
        raise AsrError("the model's output is not finite; use another checkpoint")
    ids = _encode(bundle.tokenizer, reference) if reference is not None else _recognize(bundle, memory)

    frame_seconds = bundle.features.frame_seconds
    state_seconds = frame_seconds * network.frames_per_state
    # Some features pad every recording to a window. Frames begin in the recording, or at its end.
    used_frames = min(int(frames[0]), len(samples) // round(rate * frame_seconds) + 1)
    share = Fraction(used_frames, int(frames[0]))
    size = math.ceil(int(memory.lengths[0]) * share)
    ctc = network.ctc(memory)[0, :size] if isinstance(network, HasCTC) else None  # (S, V)
    cross = None
    if isinstance(network, ShowsAttention):
        cross = with_audio(teacher_forced_attention(bundle, ids, memory), size)
    used = states_with_audio(torch.tensor([len(samples) / rate]), state_seconds)
    try:
        spans, times_from = _spans(bundle, ids, memory, used.to(bundle.device), ctc, cross)
    except AsrError:
        if reference is not None:
            raise
        spans, times_from = None, None  # a decoder can write more tokens than there are states
    frequencies = bundle.features.frequencies if isinstance(bundle.features, HasFrequencies) else None
    layers: dict[str, Tensor] = {}
    if isinstance(network, ShowsSelfAttention):
        layers = network.self_attention(features, frames)
    return Inspection(
        audio=printable(source),
        model=model,
        start=begin,
        total=audio.duration(source) if os.path.isfile(source) else None,  # noqa: PTH113
        samples=samples,
        sample_rate=rate,
        features=features[0, :used_frames].float().cpu().numpy(),
        features_kind=bundle.config.features.kind,
        frequencies=None if frequencies is None else frequencies.cpu().numpy(),
        frame_seconds=frame_seconds,
        state_seconds=state_seconds,
        text=bundle.tokenizer.decode(ids).strip(),
        given=reference is not None,
        tokens=_tokens(bundle, ids, spans, ctc, memory, begin, state_seconds),
        times_from=times_from,
        cross_attention=tuple(
            Heads(f"decoder layer {number}", weights, state_seconds)
            for number, weights in enumerate(() if cross is None else cross, start=1)
        ),
        self_attention=tuple(
            self_attention_heads(name, weights[0], int(memory.lengths[0]), share, state_seconds)
            for name, weights in layers.items()
        ),
        posteriors=tuple(_posteriors(bundle, memory, ctc, share, state_seconds)),
        lacks=tuple(_lacks(network, times_from)),
    )


def first_segment(
    bundle: Bundle[Any], source: str | os.PathLike[str], start: float, duration: float | None
) -> tuple[float, np.ndarray]:
    """The start in seconds and the samples of the first segment, cut as `asr transcribe` does.

    Where no speech is found, it is the first segment with any sound.

    Raises AsrError as `audio.read` does, and for audio that is silent throughout.
    """
    features = bundle.config.features
    detectors = [None] if bundle.metadata.get("voice_activity") == "false" else [with_speech, None]
    for detector in detectors:
        blocks = audio.blocks(source, features.sample_rate, start=start, duration=duration)
        segments = audio.segments(blocks, features.sample_rate, longest_seconds(bundle), detector)
        if (found := next(iter(segments), None)) is not None:
            offset, samples = found
            if features.level_matters:
                samples = audio.normalize_level(samples, features.sample_rate)
            return start + offset, samples
    raise AsrError(f"{printable(source)}: silence; there is nothing to inspect in this part")


def token_label(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token, with a mark for the space. What has no text of its own has its symbol."""
    text = tokenizer.decode([id])
    if not text or "\ufffd" in text:
        text = tokenizer.symbols[id]
    return text.replace(" ", "␣")


def _recognize(bundle: Bundle[Any], memory: Memory) -> list[int]:
    """The tokens of the best hypothesis, found by greedy decoding, or as the model can."""
    return list(build_decoder(bundle, DecodingOptions())(memory)[0][0].tokens)


def _encode(tokenizer: Tokenizer, reference: str) -> list[int]:
    if unknown := tokenizer.unknown(reference):
        raise AsrError(
            f"reference: the model has no characters {' '.join(map(repr, unknown[:10]))}; write the text as "
            "its training texts are written"
        )
    return tokenizer.encode(reference)


def _spans(
    bundle: Bundle[Any],
    ids: list[int],
    memory: Memory,
    used: Tensor,
    ctc: Tensor | None,
    cross: np.ndarray | None,
) -> tuple[list[Span] | None, str | None]:
    """The states of each token, and the method that found them.

    `asr transcribe` uses the same states for times.

    `used` (1,) states have audio. Raises AsrError for a text that has more tokens than states.
    """
    if ctc is not None:
        return _ctc_spans(ctc, ids, bundle.special), "CTC"
    if isinstance(bundle.network, HasAlignmentHeads):
        (spans,) = attention_align(bundle.network, memory, used, [ids], [bundle.special.prompt])
        return [(int(span.start), int(span.end)) for span in spans], "alignment heads"
    if cross is not None:
        return align_attention(cross.mean((0, 1))[:-1]), "cross-attention"
    return None, None


def _ctc_spans(ctc: Tensor, ids: list[int], special: SpecialTokens) -> list[Span]:
    """First state, and state after the last, of each token: ctc (S, V). Raises AsrError for a long text."""
    if states_needed(ids) > len(ctc):
        raise AsrError(
            f"a text of {len(ids)} tokens needs {states_needed(ids)} states of CTC, and this audio has "
            f"{len(ctc)}; give the text of this recording"
        )
    (spans,) = ctc_align(ctc.unsqueeze(0), torch.tensor([len(ctc)]), [ids], special)
    return [(int(span.start), int(span.end)) for span in spans]


def _tokens(
    bundle: Bundle[Any],
    ids: list[int],
    spans: list[Span] | None,
    ctc: Tensor | None,
    memory: Memory,
    begin: float,
    state_seconds: float,
) -> tuple[Token, ...]:
    """The tokens of the text and, for a model with a decoder, EOS."""
    special, probabilities = bundle.special, None
    if isinstance(bundle.network, HasDecoder):
        decoder_input = torch.tensor([[*special.prompt, *ids]], device=memory.states.device)
        log_probs = bundle.network.decode(decoder_input, memory)[0].float().log_softmax(-1)  # (P + U, V)
        targets = torch.tensor([*ids, special.eos], device=log_probs.device).unsqueeze(1)
        probabilities = log_probs[len(special.prompt) - 1 :].gather(1, targets).squeeze(1).exp().tolist()
    found = []
    for number, id in enumerate(ids):
        first, after = spans[number] if spans is not None else (0, 0)
        posterior = None if ctc is None or spans is None else float(ctc[first:after, id].max().exp())
        found.append(
            Token(
                id,
                token_label(bundle.tokenizer, id),
                None if spans is None else begin + first * state_seconds,
                None if spans is None else begin + after * state_seconds,
                None if probabilities is None else probabilities[number],
                posterior,
            )
        )
    if probabilities is not None:
        found.append(Token(special.eos, "EOS", None, None, probabilities[-1], None))
    return tuple(found)


def _posteriors(
    bundle: Bundle[Any], memory: Memory, ctc: Tensor | None, share: Fraction, state_seconds: float
) -> list[Posteriors]:
    """The outputs of the CTC head and of the heads inside the encoder."""
    symbols = list(bundle.tokenizer.symbols)
    symbols[bundle.special.blank] = "blank"
    labels = [symbol.replace(" ", "␣") for symbol in symbols]
    found = []
    if ctc is not None:
        found.append(_likely("CTC", labels, ctc.exp(), state_seconds))
    for name, (logits, lengths) in memory.intermediate.items():
        states = int(lengths[0])
        rate = int(memory.lengths[0]) / states
        values = logits[0, : math.ceil(states * share)].float().softmax(-1)
        names = labels if values.size(1) == len(labels) else [str(i) for i in range(values.size(1))]
        settings = getattr(bundle.config.train, "phonemes", None)
        if name == PHONEMES and settings is not None:
            names = ["blank", *settings.symbols]
        found.append(_likely(name, names, values, state_seconds * rate))
    return found


def _likely(name: str, symbols: Sequence[str], values: Tensor, seconds: float) -> Posteriors:
    """The rows of the symbols that are likely somewhere, of values (S, V)."""
    highest = values.max(0).values
    order = highest.argsort(descending=True)[:MOST_SYMBOLS]
    # The most likely one is shown in any case: an image has a row.
    kept = sorted(i for place, i in enumerate(order.tolist()) if place == 0 or highest[i] >= SEEN)
    return Posteriors(
        name,
        tuple(symbols[i] for i in kept),
        values[:, kept].T.cpu().numpy(),
        seconds,
        values.size(1) - len(kept),
    )


def _lacks(network: object, times_from: str | None) -> list[str]:
    """A sentence for each thing that the model cannot show."""
    lacks = []
    if isinstance(network, FillsMasks):
        lacks.append("No cross-attention: the decoder of this model fills masks and does not show it.")
    elif not isinstance(network, HasDecoder):
        lacks.append("No cross-attention: this model has no decoder, and reads its text from CTC alone.")
    elif not isinstance(network, ShowsAttention):
        lacks.append("No cross-attention: the decoder of this model has none.")
    if not isinstance(network, ShowsSelfAttention):
        lacks.append("No self-attention: the encoder of this model has none.")
    has_ctc = isinstance(network, HasCTC)
    if not has_ctc:
        lacks.append("No CTC posteriors: this model has no CTC head.")
    if times_from is None and (has_ctc or isinstance(network, ShowsAttention)):
        lacks.append("No times of tokens: the text has more tokens than this audio has states.")
    elif times_from is None:
        lacks.append("No times of tokens: they need a CTC head or cross-attention.")
    elif not has_ctc:
        lacks.append("Times of tokens come from the cross-attention, so they are less exact.")
    return lacks
