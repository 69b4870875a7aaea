"""Compare beam search with its peers: the same size of model, beam, audio and number of tokens.

    python benchmarks/decode_peers.py [--preset tiny] [--beam 1 10] [--batch 8] [--device cpu] [--ctc]
        [--peers transformers speechbrain]

Peers: transformers' `generate` on a Speech2Text model, and SpeechBrain's S2STransformerBeamSearcher, the
latter also with its CTC scorer (`--ctc`: joint scores, weight 0.3, candidates 1.5 x beam). All have random
weights of the same shapes and equally many encoder states. EOS is forbidden before the last of `--tokens`.
The alternatives take turns in one process. The script prints medians: utterances per second of the decoder
alone (without the encoder), and the peer's time divided by ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch

from asr.decoding import DecodingOptions, beam_search, repetition
from asr.decoding import beam as beam_module
from asr.model.decoders.transformer import TransformerDecoder
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.interfaces import Memory
from asr.model_folder import pick_device
from asr.tokenizers.special import SpecialTokens

VOCABULARY, MELS = 32, 80
PAD, BOS, EOS = range(3)
SPECIAL = SpecialTokens(
    prompt=(BOS,), eos=EOS, pad=PAD, blank=PAD, suppressed=(PAD, BOS), vocabulary_size=VOCABULARY
)
Run = Callable[[], int]  # decodes the batch; returns the number of tokens of each hypothesis


def decoder_sizes(model: EncoderDecoder.Config) -> TransformerDecoder.Config:
    """The settings of the model's decoder."""
    return cast(TransformerDecoder.Config, model.decoder)


def ours(model: EncoderDecoder.Config, states: torch.Tensor, beam: int, tokens: int) -> Run:
    """Our beam search."""
    network: Any = EncoderDecoder(model, MELS, VOCABULARY).to(states.device).eval()
    with torch.no_grad():
        network.decoder.out.bias[EOS] = -1e4
    memory = Memory(states, torch.full((len(states),), states.size(1), device=states.device))
    options = DecodingOptions(decoder="beam", beam=beam, max_tokens=tokens)

    def run() -> int:
        return min(len(found[0].tokens) for found in beam_search(network, memory, SPECIAL, options))

    return run


def transformers(model: EncoderDecoder.Config, states: torch.Tensor, beam: int, tokens: int) -> Run:
    """`generate` on a Speech2Text model."""
    from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    config = decoder_sizes(model)
    shape = Speech2TextConfig(
        vocab_size=VOCABULARY,
        d_model=config.d_model,
        encoder_layers=1,  # not used: encoder states are given
        decoder_layers=config.n_layers,
        decoder_attention_heads=config.n_heads,
        decoder_ffn_dim=config.d_ffn,
        conv_channels=8,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
    )
    network = Speech2TextForConditionalGeneration(shape).to(states.device).eval()
    mask = torch.ones(len(states), 4 * states.size(1), dtype=torch.long, device=states.device)

    def run() -> int:
        found = network.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            num_beams=beam,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return found.size(1) - 1

    return run


def speechbrain(model: EncoderDecoder.Config, states: torch.Tensor, beam: int, tokens: int) -> Run:
    """SpeechBrain's searcher for Transformers, with its CTC scorer if the model has a CTC head."""
    from speechbrain.decoders import S2STransformerBeamSearcher
    from speechbrain.decoders.scorer import CTCScorer, ScorerBuilder
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    from speechbrain.nnet.linear import Linear

    config = decoder_sizes(model)
    network = TransformerASR(
        tgt_vocab=VOCABULARY,
        input_size=MELS,
        d_model=config.d_model,
        nhead=config.n_heads,
        num_encoder_layers=1,  # not used: encoder states are given
        num_decoder_layers=config.n_layers,
        d_ffn=config.d_ffn,
        normalize_before=True,
        causal=False,
    )
    out, ctc = (Linear(VOCABULARY, input_size=config.d_model) for _ in range(2))
    scorer = None
    if model.ctc:
        partial = CTCScorer(ctc_fc=ctc, blank_index=PAD, eos_index=EOS)
        scorer = ScorerBuilder(partial_scorers=[partial], weights={"ctc": 0.3}, scorer_beam_scale=1.5)
    share = (tokens + 0.5) / states.size(1)
    searcher = S2STransformerBeamSearcher(
        modules=[network, out],
        bos_index=BOS,
        eos_index=EOS,
        min_decode_ratio=share,
        max_decode_ratio=share,
        beam_size=beam,
        scorer=scorer,
        using_eos_threshold=False,
    )
    for module in (network, out, ctc, searcher):
        module.to(states.device).eval()
    lengths = torch.ones(len(states), device=states.device)

    def run() -> int:
        with torch.inference_mode():
            found = searcher(states, lengths)[0]
        return min(map(len, found))

    return run


PEERS = {"transformers": transformers, "speechbrain": speechbrain}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="tiny", choices=("tiny", "small", "base"))
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--states", type=int, default=100, help="encoder states of an utterance, 40 ms each")
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--ctc", action="store_true", help="joint scores; transformers does not have them")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for module in (beam_module, repetition):  # random weights repeat themselves, and the peers have no guard
        vars(module)["CHECK_INTERVAL"] = 10**9
    device = pick_device(options.device)
    config = EncoderDecoder.Config.model_validate({"preset": options.preset, "ctc": options.ctc})
    print(
        f"{options.preset}, {options.batch} utterances of {options.states} states and {options.tokens} "
        f"tokens, {'joint CTC' if options.ctc else 'attention alone'}, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    for beam in options.beam:
        torch.manual_seed(0)
        states = torch.randn(options.batch, options.states, config.width, device=device)
        makers = {"ours": ours} | {name: PEERS[name] for name in options.peers}
        if options.ctc:
            makers.pop("transformers", None)
        runs = {name: make(config, states, beam, options.tokens) for name, make in makers.items()}
        lengths = {name: run() for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - began)
        middle = {name: statistics.median(walls) for name, walls in times.items()}
        for name, wall in middle.items():
            ratios = [t / o for t, o in zip(times[name], times["ours"], strict=True)]
            print(
                f"beam {beam:2}  {name:12} {options.batch / wall:8.1f} utterances/s of {lengths[name]} "
                f"tokens, its time over ours {statistics.median(ratios):.2f}"
            )


if __name__ == "__main__":
    main()
