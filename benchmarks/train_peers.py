"""Compare training throughput with peers: the same batches, size of model and step, in one process.

    pip install transformers speechbrain
    python benchmarks/train_peers.py [--preset small] [--precision float32 bf16] [--device cpu] [--rounds 5]

A step is forward, loss, backward, clipping and AdamW. Systems take turns batch by batch, so that other load
of the machine affects all of them. A ratio is the peer's time divided by ours, the median over the rounds.
Features are random numbers of realistic lengths, and their computation is not measured. Each peer is compared
with our model with the peer's losses. Our front end is so wide that our step has at least as many operations.

`share` is the rate of a step (operations per second of its matrix multiplications, convolutions and
attention; a multiplication with an addition counts 2) divided by the matrix rate of the machine in the same
run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, pad

from asr.flops import count_flops
from asr.model.encoder_decoder import PRESETS, EncoderDecoder
from asr.tokenizers import SpecialTokens
from asr.training.losses import joint_loss

N_MELS, FRAMES_PER_SECOND, CHARACTERS_PER_SECOND, VOCABULARY = 80, 100, 14, 32
PAD, BOS, EOS = 0, 1, 2  # ids of the special tokens in this benchmark
SPECIAL = SpecialTokens((BOS,), EOS, PAD, PAD, (PAD, BOS), VOCABULARY)


@dataclass(frozen=True)
class Batch:
    """features (B, T, n_mels), lengths (B,), tokens (B, U), token_lengths (B,)."""

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor

    @property
    def seconds(self) -> float:
        """Seconds of audio without padding."""
        return float(self.lengths.sum()) / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Sizes:
    """The sizes that our model and its peers share."""

    d_model: int
    n_heads: int
    d_ffn: int
    encoder_layers: int
    decoder_layers: int
    channels: int  # of our front end
    dropout: float = 0.1
    attention_dropout: float = 0.0

    @classmethod
    def of_preset(cls, name: str) -> Sizes:
        """The sizes of one of our presets."""
        preset = PRESETS[name]
        return cls(
            d_model=preset["d_model"],
            n_heads=preset["n_heads"],
            d_ffn=preset["d_ffn"],
            encoder_layers=preset["encoder"]["n_layers"],
            decoder_layers=preset["decoder"]["n_layers"],
            channels=preset["front_end"]["channels"],
        )

    def of_ours(self, ctc: bool) -> EncoderDecoder.Config:
        """The configuration of our model."""
        shared = ("d_model", "n_heads", "d_ffn", "dropout", "attention_dropout")
        return EncoderDecoder.Config.model_validate(
            {
                "front_end": {"channels": self.channels},
                "encoder": {"n_layers": self.encoder_layers},
                "decoder": {"n_layers": self.decoder_layers},
                "ctc": ctc,
            }
            | {name: getattr(self, name) for name in shared}
        )


@dataclass(eq=False)
class System:
    """A model and its loss. `rounds` has the seconds that each round over all batches took."""

    name: str
    network: nn.Module
    loss: Callable[[Batch], Tensor]
    rounds: list[float] = field(default_factory=list)

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer, autocast: torch.autocast) -> None:
        """One optimizer step."""
        with autocast:
            loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def flops(self, batch: Batch) -> int:
        """Operations of the forward and the backward pass."""
        found = count_flops(lambda: self.loss(batch).backward())
        self.network.zero_grad(set_to_none=True)
        return found


def ours(config: Sizes, ctc_weight: float, name: str) -> System:
    """The model of this project."""
    network = EncoderDecoder(config.of_ours(ctc_weight > 0), N_MELS, VOCABULARY)

    def loss(batch: Batch) -> Tensor:
        memory = network.encode(batch.features, batch.lengths)
        found = joint_loss(network, memory, batch.tokens, batch.token_lengths, SPECIAL, ctc_weight, 0.1)
        return found.total / int(batch.token_lengths.sum() + len(batch.tokens))

    return System(f"asr, {name}", network, loss)


def speech2text(config: Sizes) -> System:
    """transformers' Speech2Text: two 1-d convolutions with GLU, only cross-entropy."""
    from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration

    network = Speech2TextForConditionalGeneration(
        Speech2TextConfig(
            vocab_size=VOCABULARY,
            d_model=config.d_model,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            encoder_attention_heads=config.n_heads,
            decoder_attention_heads=config.n_heads,
            encoder_ffn_dim=config.d_ffn,
            decoder_ffn_dim=config.d_ffn,
            conv_channels=4 * config.d_model,  # as in s2t_transformer_s
            dropout=config.dropout,
            activation_dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            decoder_start_token_id=BOS,
            use_cache=False,
        )
    )

    def loss(batch: Batch) -> Tensor:
        decoder_input, targets = _shifted(batch)
        frames = torch.arange(batch.features.size(1), device=batch.lengths.device)
        mask = frames < batch.lengths.unsqueeze(1)  # (B, T)
        logits = network(
            input_features=batch.features, attention_mask=mask.long(), decoder_input_ids=decoder_input
        ).logits
        return cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=0.1
        )

    return System("transformers Speech2Text", network, loss)


def speechbrain(config: Sizes) -> System:
    """SpeechBrain's TransformerASR with the front end and the losses of its LibriSpeech recipe."""
    from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    from speechbrain.nnet.losses import ctc_loss, kldiv_loss

    front_end = ConvolutionFrontEnd(
        input_shape=(8, 10, N_MELS),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=[64, 32],
        kernel_sizes=[3, 3],
        strides=[2, 2],
        residuals=[False, False],
        dropout=0.0,  # ours has none there
    )
    transformer = TransformerASR(
        tgt_vocab=VOCABULARY,
        input_size=32 * N_MELS // 4,
        d_model=config.d_model,
        nhead=config.n_heads,
        num_encoder_layers=config.encoder_layers,
        num_decoder_layers=config.decoder_layers,
        d_ffn=config.d_ffn,
        dropout=config.dropout,
        normalize_before=True,
        causal=False,
    )
    for module in transformer.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = config.attention_dropout
    ctc_out, out = nn.Linear(config.d_model, VOCABULARY), nn.Linear(config.d_model, VOCABULARY)

    def loss(batch: Batch) -> Tensor:
        decoder_input, targets = _shifted(batch)
        share = batch.lengths / batch.features.size(1)
        token_share = batch.token_lengths / batch.tokens.size(1)
        encoded, decoded = transformer(front_end(batch.features), decoder_input, share, pad_idx=PAD)
        ctc_log_probs = ctc_out(encoded).float().log_softmax(-1)
        log_probs = out(decoded).float().log_softmax(-1)
        attention = kldiv_loss(
            log_probs,
            targets,
            length=(batch.token_lengths + 1) / targets.size(1),
            label_smoothing=0.1,
            reduction="batchmean",
        )
        ctc = ctc_loss(ctc_log_probs, batch.tokens, share, token_share, PAD, reduction="batchmean")
        return 0.7 * attention + 0.3 * ctc

    return System("SpeechBrain TransformerASR", nn.ModuleList([front_end, transformer, ctc_out, out]), loss)


def _shifted(batch: Batch) -> tuple[Tensor, Tensor]:
    """The input of the decoder and its targets, both (B, U + 1)."""
    decoder_input = pad(batch.tokens, (1, 0), value=BOS)
    targets = pad(batch.tokens, (0, 1), value=PAD).scatter(1, batch.token_lengths.unsqueeze(1), EOS)
    return decoder_input, targets


def make_batches(seconds: float, count: int) -> list[Batch]:
    """Batches of utterances of similar length: 1.5 to 16.5 s, mean 12 s, as in LibriSpeech."""
    durations = np.sort(1.5 + 15.0 * np.random.default_rng(0).beta(3.0, 1.2, 2000))
    batches = []
    for last in np.linspace(0, len(durations), count + 2)[1:-1].astype(int):
        length = torch.from_numpy(durations[last - int(seconds / durations[last]) : last])
        lengths = (length * FRAMES_PER_SECOND).long()
        token_lengths = (length * CHARACTERS_PER_SECOND).long()
        tokens = torch.randint(4, VOCABULARY, (len(length), int(token_lengths.max())))
        tokens[torch.arange(tokens.size(1)) >= token_lengths.unsqueeze(1)] = PAD
        features = torch.randn(len(length), int(lengths.max()), N_MELS)
        batches.append(Batch(features, lengths, tokens, token_lengths))
    return batches


def matched(config: Sizes, ctc_weight: float, peer: System, batch: Batch) -> System:
    """Our model with the narrowest front end whose step has at least as many operations as the peer's."""
    for channels in range(16, 513, 16):
        system = ours(replace(config, channels=channels), ctc_weight, f"{channels} conv channels")
        if system.flops(batch) >= peer.flops(batch):
            return system
    raise RuntimeError("no front end is as large as the peer's")


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Operations per second of large matrix multiplications, by the faster of two functions of torch.

    On a CPU, MKL computes the float32 multiplication and oneDNN the convolution. Either can be faster.
    """
    if device.type == "cuda":
        size = 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    image = a.view(1, size, 1, size).permute(0, 3, 1, 2)  # the same as a 1x1 convolution
    variants = [lambda: a @ b, lambda: conv2d(image, b.view(size, size, 1, 1), dilation=2)]
    return max(2 * size**3 / min(_seconds(way, device) for _ in range(5)) for way in variants)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time; with one thread of a CPU, processor time, which other programs hardly change."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def compare(options: argparse.Namespace, precision: str) -> Iterator[str]:
    """Lines of a table for one precision."""
    device, bf16 = torch.device(options.device), precision == "bf16"
    config = Sizes.of_preset(options.preset)
    batches = make_batches(options.seconds, options.batches)
    short = min(batches, key=lambda batch: batch.seconds)
    peers = [build(config) for build in (PEERS[name] for name in options.peers)]
    pairs = []  # ours and the peer whose time it is compared with
    for peer in peers:
        weight = 0.0 if peer.name == "transformers Speech2Text" else 0.3
        pairs += [(matched(config, weight, peer, short), peer)]
    pairs += [(ours(config, 0.3, f"{options.preset} preset"), peers[-1])]
    systems = [*peers, *(system for system, _ in pairs)]

    flops = {system: sum(map(system.flops, batches)) for system in systems}
    optimizers = {
        system: torch.optim.AdamW(system.network.to(device).train().parameters(), lr=1e-4, fused=True)
        for system in systems
    }
    batches = [Batch(*(t.to(device) for t in vars(batch).values())) for batch in batches]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    rates = []
    for turn in range(1 + options.rounds):
        rates.append(matrix_rate(torch.bfloat16 if bf16 else torch.float32, device))
        spent = dict.fromkeys(systems, 0.0)
        for index, batch in enumerate(batches):
            for system in systems if (turn + index) % 2 else reversed(systems):
                step = partial(system.step, batch, optimizers[system], autocast)
                spent[system] += _seconds(step, device)
        if turn:  # the first round allocates memory and is not counted
            for system in systems:
                system.rounds.append(spent[system])

    rate, audio = statistics.median(rates), sum(batch.seconds for batch in batches)
    peer_of = dict(pairs)
    for system in systems:
        seconds = statistics.median(system.rounds)
        ratio = ""
        if system in peer_of:
            peer = peer_of[system]
            found = [a / b for a, b in zip(peer.rounds, system.rounds, strict=True)]
            spread = f"({min(found):.2f}-{max(found):.2f})"
            ratio = f"{statistics.median(found):.2f} x {peer.name.split()[-1]} {spread}"
        parameters = sum(p.numel() for p in system.network.parameters()) / 1e6
        yield (
            f"| {precision} | {system.name} | {parameters:.1f} M | {flops[system] / audio / 1e9:.2f} "
            f"| {audio / seconds:.1f} | {flops[system] / seconds / rate:.0%} | {ratio} |"
        )
    yield f"| {precision} | matrix multiplications alone | | | | {rate / 1e9:.0f} GFLOP/s | |"


PEERS = {"speech2text": speech2text, "speechbrain": speechbrain}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="small", choices=["tiny", "small", "base"])
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16"], choices=["float32", "bf16"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="most padded audio in a batch")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    message = f"{options.batches} batches of {options.seconds:g} s, {options.rounds} rounds"
    print(f"{options.preset}, {options.device}, {options.threads} thread(s), {message}\n")
    print("| precision | system | weights | GFLOP per s of audio | s of audio/s | share | ratio |")
    print("|---|---|---|---|---|---|---|")
    for precision in options.precision:
        for line in compare(options, precision):
            print(line, flush=True)


if __name__ == "__main__":
    main()
