"""The assembled model: front end, encoder, and a decoder, a CTC head or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from asr.kinds import DECODERS, ENCODERS, FRONT_ENDS
from asr.model.attention import MultiHeadAttention, recorded_weights
from asr.model.blocks import Block, EncoderSection
from asr.model.interfaces import (
    CachedForward,
    FillsMasks,
    LimitsPositions,
    Memory,
    PredictsLength,
    ReadsOwnPredictions,
    ShowsAttention,
    State,
)
from asr.model.intermediate_ctc import IntermediateCTC, IntermediateCTCSection
from asr.section import ModelSection, PartSection, kind_of, load_kind, of_kind

# `small` is ESPnet's LibriSpeech-100 Transformer; `base` is the base model of "Attention Is All You Need".
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(
        d_model=144, n_heads=4, d_ffn=576,
        front_end=dict(channels=32), encoder=dict(n_layers=4), decoder=dict(n_layers=4),
    ),
    "small": dict(
        d_model=256, n_heads=4, d_ffn=2048,
        front_end=dict(channels=256), encoder=dict(n_layers=12), decoder=dict(n_layers=6),
    ),
    "base": dict(
        d_model=512, n_heads=8, d_ffn=2048,
        front_end=dict(channels=256), encoder=dict(n_layers=6), decoder=dict(n_layers=6),
    ),
}  # fmt: skip
PARTS = {
    "front_end": (FRONT_ENDS, "convolution"),
    "encoder": (ENCODERS, "transformer"),
    "decoder": (DECODERS, "transformer"),
}
# Shorthand for all parts; the front end takes d_model alone.
SHARED = (
    *("d_model", "n_heads", "d_ffn", "dropout", "attention_dropout", "norm"),
    *("activation", "positions", "key_bias"),
)


class EncoderDecoder(nn.Module):
    """Attention encoder-decoder (Vaswani et al. 2017; Dong et al. 2018 for speech), CTC model, or both.

    The CTC head on the encoder (Watanabe et al. 2017) keeps the alignment monotonic while the cross-attention
    learns, and bounds the length of a text in decoding.

    The operations of `asr.model.interfaces` that the parts do not offer do not exist in an instance.
    """

    class Config(ModelSection):
        """The parts of the model. Settings given here, such as d_model, hold for every part that has them."""

        kind: Literal["encoder_decoder"] = "encoder_decoder"
        preset: Literal["tiny", "small", "base"] | None = Field(
            None, description="sizes for all parts; other settings of the model have priority"
        )
        front_end: Annotated[SerializeAsAny[PartSection], of_kind(*PARTS["front_end"])]
        encoder: Annotated[SerializeAsAny[PartSection], of_kind(*PARTS["encoder"])]
        decoder: Annotated[SerializeAsAny[PartSection], of_kind(*PARTS["decoder"])] | None = Field(
            description="null: no decoder, only CTC"
        )
        ctc: bool = Field(True, description="a CTC head on the encoder")
        intermediate_ctc: IntermediateCTCSection | None = Field(
            None, description="the CTC head also reads states inside the encoder; null: it does not"
        )

        @classmethod
        def known_keys(cls) -> tuple[str, ...]:
            """The keys of this section and the shorthand for all parts."""
            return (*cls.model_fields, *SHARED)

        @model_validator(mode="before")
        @classmethod
        def _expand(cls, values: Any) -> Any:
            """Fill in the preset, and give the shorthand to the parts."""
            if not isinstance(values, Mapping):
                return values
            name = values.get("preset")
            preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
            expanded = {key: value for key, value in values.items() if key not in SHARED}
            shared = {key: value for key, value in (preset | dict(values)).items() if key in SHARED}
            unused = {key: value for key, value in values.items() if key in SHARED}
            for part, (kinds, default) in PARTS.items():
                section = values.get(part, {})
                if isinstance(section, Mapping):
                    kind = kind_of(section, default)
                    if kind not in kinds:  # reported where the part itself is read
                        unused = {}
                        continue
                    fields = load_kind(kinds, kind).Config.model_fields
                    taken = ("d_model",) if part == "front_end" else SHARED
                    inherited = {key: value for key, value in shared.items() if key in taken}
                    # A preset is for the default kinds. A part of another kind uses those settings of the
                    # preset that it has.
                    found = {k: v for k, v in (inherited | preset.get(part, {})).items() if k in fields}
                    expanded[part] = found | dict(section)
                    unused = {key: value for key, value in unused.items() if key not in found}
            cls.refuse(unused, "no part of this model has this setting; leave it out")
            return expanded

        @model_validator(mode="after")
        def _parts_fit(self) -> EncoderDecoder.Config:
            for name in ("encoder", "decoder"):
                part = getattr(self, name)
                if part is not None and part.d_model != self.front_end.d_model:
                    raise ValueError(
                        f"{name}.d_model {part.d_model} differs from front_end.d_model "
                        f"{self.front_end.d_model}; set model.d_model for all parts"
                    )
            if self.decoder is not None and getattr(self.decoder, "needs_ctc", False) and not self.ctc:
                raise ValueError(
                    f"a decoder of kind {self.decoder.kind} takes the length of a text from CTC; set ctc to "
                    "true and train.ctc_weight above 0, or give the decoder a length_head"
                )
            if self.intermediate_ctc is not None:
                self._check_layers(self.intermediate_ctc.layers)
            if self.decoder is None and not self.ctc:
                raise ValueError(
                    "the model has neither a decoder nor a CTC head; set ctc to true, or name a decoder"
                )
            return self

        def _check_layers(self, layers: tuple[int, ...]) -> None:
            if not self.ctc:
                raise ValueError(
                    "intermediate_ctc needs the CTC head, but ctc is false; set ctc to true, or leave it out"
                )
            if not isinstance(self.encoder, EncoderSection):
                raise ValueError(
                    f"intermediate_ctc: the encoder {self.encoder.kind} does not support it; leave it out"
                )
            if max(layers) >= self.encoder.n_layers:
                raise ValueError(
                    f"intermediate_ctc.layers has {max(layers)}, but encoder.n_layers is "
                    f"{self.encoder.n_layers}; name only blocks before the last one, after which the CTC "
                    "head predicts in any case"
                )

        @property
        def width(self) -> int:
            """The size of the encoder's states."""
            return self.encoder.d_model

    # Weights with one row for each token: with another vocabulary, a row moves with its token.
    BY_TOKEN = (
        "decoder.embed.weight",
        *("decoder.out.weight", "decoder.out.bias"),
        *("ctc_head.weight", "ctc_head.bias"),
    )

    def __init__(self, config: EncoderDecoder.Config, n_features: int, vocabulary_size: int) -> None:
        super().__init__()
        self.front_end = load_kind(FRONT_ENDS, config.front_end.kind)(config.front_end, n_features)
        self.encoder = load_kind(ENCODERS, config.encoder.kind)(config.encoder)
        # The parts state this ratio. It cannot be computed from a short recording, whose states are rounded
        # up.
        self.frames_per_state: float = self.front_end.frames_per_state * self.encoder.stride
        if any(isinstance(part, MultiHeadAttention) for part in self.encoder.modules()):
            self._offer("self_attention")
        if getattr(config.encoder, "reads_phonemes", False):
            self._offer("encode_phonemes")
        if config.decoder is not None:
            self.decoder = load_kind(DECODERS, config.decoder.kind)(config.decoder, vocabulary_size)
            if isinstance(self.decoder, FillsMasks):
                self._offer("fill")
            else:
                self._offer("decode", "start", "step")
            if isinstance(self.decoder, CachedForward):
                self._offer("forward_cached")
            if isinstance(self.decoder, PredictsLength):
                self._offer("predict_lengths")
            if isinstance(self.decoder, ReadsOwnPredictions):
                self._offer("decode_sampled")
            if isinstance(self.decoder, ShowsAttention):
                self._offer("cross_attention")
            if getattr(self.decoder, "alignment_heads", ()):
                self._offer("alignment")
            if isinstance(self.decoder, LimitsPositions):
                self.max_positions: int = self.decoder.max_positions
        if config.ctc:
            self.ctc_head = nn.Linear(config.encoder.d_model, vocabulary_size)
            self._offer("ctc")
        self.intermediate_ctc: IntermediateCTC | None = None
        if config.intermediate_ctc is not None:
            d_model = config.encoder.d_model
            self.intermediate_ctc = IntermediateCTC(config.intermediate_ctc, d_model, vocabulary_size)

    def _offer(self, *operations: str) -> None:
        """Make operations visible to `isinstance` with the protocols of `asr.model.interfaces`."""
        for name in operations:
            setattr(self, name, getattr(self, f"_{name}"))

    def compile(self, **options: Any) -> None:
        """Compile each block by itself (`torch.compile`). Blocks are alike, so one compilation serves them.

        The network as a whole would be compiled again for many combinations of lengths.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(**options)

    def encode(self, features: Tensor, lengths: Tensor) -> Memory:
        """features (B, T, F), lengths (B,) in frames -> memory."""
        x, lengths = self.front_end(features, lengths)
        if self.intermediate_ctc is None:
            return self.encoder(x, lengths)
        logits: dict[str, Tensor] = {}
        memory = self.encoder(x, lengths, self.intermediate_ctc.after_block(self.ctc_head, logits))
        return memory.with_intermediate({name: (each, memory.lengths) for name, each in logits.items()})

    def _encode_phonemes(self, probabilities: Tensor, lengths: Tensor) -> Memory:
        """probabilities (B, S, P) of phonemes, the blank first, lengths (B,) -> memory of S states."""
        return self.encoder.encode_phonemes(probabilities, lengths)

    def _decode(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (B, U), from the prompt on -> logits (B, U, V)."""
        return self.decoder(tokens, memory)

    def _decode_sampled(self, tokens: Tensor, memory: Memory, sampled: Tensor) -> Tensor:
        """As `_decode`, but the decoder reads its own predictions where sampled (B, U) is true."""
        return self.decoder.decode_sampled(tokens, memory, sampled)

    def _fill(self, tokens: Tensor, masked: Tensor, lengths: Tensor, memory: Memory) -> Tensor:
        """tokens (B, U), masked (B, U) bool, lengths (B,) -> logits (B, U, V) of each position."""
        return self.decoder.fill(tokens, masked, lengths, memory)

    def _predict_lengths(self, memory: Memory) -> Tensor:
        """Log-probabilities (B, N) of 0 to N - 1 tokens, float32."""
        return self.decoder.predict_lengths(memory)

    def _cross_attention(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Weights of the cross-attention under teacher forcing (B, n_layers, n_heads, U, S), float32."""
        return self.decoder.cross_attention(tokens, memory)

    def _alignment(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Logits (B, U, V) and the weights of the alignment heads (B, N, U, S), float32."""
        return self.decoder.alignment(tokens, memory)

    def _self_attention(self, features: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Weights (B, n_heads, S', S') of the encoder's layers by name, those of `encode`, float32."""
        with recorded_weights(self.encoder) as weights:
            self.encode(features, lengths)
        return {name.removesuffix(".attention"): each for name, each in weights.items()}

    def _start(self, memory: Memory, capacity: int) -> State:
        """A state with caches for `capacity` positions."""
        return self.decoder.start(memory, capacity)

    def _step(self, tokens: Tensor, state: Any) -> Tensor:
        """tokens (B,) -> log-probabilities (B, V) of the next ones, float32. The state is updated."""
        return self.decoder.step(tokens, state).float().log_softmax(-1)

    def _forward_cached(self, tokens: Tensor, state: Any, starts: Tensor) -> Tensor:
        """tokens (B, U) at positions from starts (B,) on -> log-probabilities (B, U, V), float32."""
        return self.decoder.forward_cached(tokens, state, starts).float().log_softmax(-1)

    def _ctc(self, memory: Memory) -> Tensor:
        """Log-probabilities (B, S, V), float32."""
        return self.ctc_head(memory.states).float().log_softmax(-1)
