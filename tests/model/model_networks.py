"""A small network, its features and its tokens."""

import torch
from helpers import BOS, EOS, sections

from asr.model.encoder_decoder import EncoderDecoder

MELS, VOCABULARY = 12, 9


def network(seed=0, **sizes):
    """A small network whose weights are large enough for everything to matter."""
    torch.manual_seed(seed)
    small = dict(d_model=16, n_heads=2, d_ffn=24, encoder_layers=2, decoder_layers=2, conv_channels=3)
    config = EncoderDecoder.Config.model_validate(sections(**small | sizes))
    model = EncoderDecoder(config, MELS, VOCABULARY)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 1.5
        else:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def batch(lengths, padding=0):
    """Features (B, T, MELS), zero beyond the lengths, with their lengths."""
    features = torch.zeros(len(lengths), max(lengths) + padding, MELS)
    for row, length in zip(features, lengths, strict=True):
        row[:length] = torch.randn(length, MELS, generator=torch.Generator().manual_seed(length))
    return features, torch.tensor(lengths)


def tokens(rows, count):
    given_ = torch.randint(EOS + 1, VOCABULARY, (rows, count), generator=torch.Generator().manual_seed(rows))
    given_[:, 0] = BOS
    return given_


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)
