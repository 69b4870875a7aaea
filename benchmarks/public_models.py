"""Compare a Whisper here with the same one in transformers: the same random weights, windows and tokens.

    python benchmarks/public_models.py [--shape tiny] [--beam 1 5] [--batch 1 8] [--tokens 60] [--threads 1]
        [--device cpu] [--rounds 3]

Features of 30 s of noise are given. Each run encodes them and decodes exactly `--tokens` tokens; END is
forbidden. The alternatives take turns in one process. The script prints medians of the processor time of the
process, which other processes disturb less than the time on the clock, and the peer's time divided by ours.
On a GPU it prints the time on the clock. Greedy tokens of float32 must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from asr.decoding import DecodingOptions, beam_search, greedy, repetition
from asr.decoding import beam as beam_module
from asr.decoding import greedy as greedy_function
from asr.model.encoder_decoder import EncoderDecoder
from asr.model.int8 import to_int8
from asr.model_folder import pick_device
from asr.public.names import public_names
from asr.public.whisper import FRONT_END, config_values
from asr.tokenizers.special import SpecialTokens

SHAPES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12)}  # d_model, heads, layers
Run = Callable[[], list[list[int]]]  # decodes the batch; returns the tokens of each row


def original(shape: str) -> Any:
    """A Whisper of transformers with random weights."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    d_model, heads, layers = SHAPES[shape]
    sizes = {"d_model": d_model}
    for stack in ("encoder", "decoder"):
        sizes |= {
            f"{stack}_layers": layers,
            f"{stack}_attention_heads": heads,
            f"{stack}_ffn_dim": 4 * d_model,
        }
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes)).eval()
    with torch.no_grad():
        model.model.decoder.embed_positions.weight.normal_(std=1.0)  # else one token is repeated
    return model


def ours(model: Any) -> EncoderDecoder:
    """The same weights in our network."""
    values = config_values(model.config.to_dict(), [])
    config = EncoderDecoder.Config.model_validate(values["model"])
    network = EncoderDecoder(config, model.config.num_mel_bins, model.config.vocab_size).eval()
    theirs = model.state_dict()
    with torch.no_grad():
        for name, own in network.state_dict(keep_vars=True).items():
            own.copy_(torch.cat([theirs[each] for each in public_names(name, FRONT_END)]))
    return network


def run_ours(network: Any, features: torch.Tensor, special: SpecialTokens, beam: int, tokens: int) -> Run:
    """Greedy decoding or beam search; the tokens of the best hypotheses."""
    lengths = torch.full((len(features),), features.size(1), device=features.device)
    decoder = "greedy" if beam == 1 else "beam"
    options = DecodingOptions(decoder=decoder, max_tokens=tokens)
    if beam > 1:
        options = DecodingOptions(decoder=decoder, max_tokens=tokens, beam=beam, length_normalization=1.0)
    search = greedy if beam == 1 else beam_search

    @torch.inference_mode()
    def run() -> list[list[int]]:
        found = search(network, network.encode(features, lengths), special, options)
        return [list(best.tokens) for best, *_ in found]

    return run


def run_theirs(model: Any, features: torch.Tensor, special: SpecialTokens, beam: int, tokens: int) -> Run:
    """`generate` on one window, with the key and value cache of transformers."""
    from transformers import GenerationConfig, GenerationMixin

    settings = GenerationConfig(
        num_beams=beam,
        max_new_tokens=tokens,
        suppress_tokens=list(special.suppressed),
        eos_token_id=special.eos,
        pad_token_id=special.eos,
    )
    prompt = torch.tensor(special.prompt, device=features.device).expand(len(features), -1)

    @torch.inference_mode()
    def run() -> list[list[int]]:
        rows = GenerationMixin.generate(
            model, features.transpose(1, 2), decoder_input_ids=prompt, generation_config=settings
        )
        return rows[:, prompt.size(1) :].tolist()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for module in (beam_module, repetition):  # random weights repeat themselves, and the peer has no guard
        vars(module)["CHECK_INTERVAL"] = 10**9
    greedy_function.__globals__["CHECK_INTERVAL"] = 10**9
    device = pick_device(options.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    peer = original(options.shape).to(device)
    network = ours(peer).to(device)
    networks = {"ours float32": network}
    if device.type == "cpu":
        networks["ours int8"] = ours(peer)
        to_int8(networks["ours int8"])
    eos, size = peer.config.eos_token_id, peer.config.vocab_size
    start = peer.config.decoder_start_token_id
    special = SpecialTokens(
        prompt=(start, start + 1), eos=eos, pad=eos, blank=eos, suppressed=(eos,), vocabulary_size=size
    )
    print(
        f"whisper-{options.shape}, {options.tokens} tokens, {device}, {options.threads} threads, "
        f"{'processor' if device.type == 'cpu' else 'wall'} seconds"
    )
    for batch in options.batch:
        features = torch.randn(batch, 3000, peer.config.num_mel_bins, device=device)
        for beam in options.beam:
            runs = {"transformers": run_theirs(peer, features, special, beam, options.tokens)}
            runs |= {
                name: run_ours(each, features, special, beam, options.tokens)
                for name, each in networks.items()
            }
            found = {name: run() for name, run in runs.items()}
            assert all(len(row) == options.tokens for rows in found.values() for row in rows)
            same = sum(a == b for a, b in zip(found["transformers"], found["ours float32"], strict=True))
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(options.rounds):
                for name, run in runs.items():
                    began = clock()
                    run()
                    if device.type == "cuda":
                        torch.cuda.synchronize()
                    times[name].append(clock() - began)
            base = statistics.median(times["ours float32"])
            for name, each in times.items():
                middle = statistics.median(each)
                print(
                    f"batch {batch:2}  beam {beam}  {name:13} {middle:7.3f} s  over ours {middle / base:.2f}"
                )
            print(f"batch {batch:2}  beam {beam}  equal texts in float32: {same} of {batch}")


if __name__ == "__main__":
    main()
