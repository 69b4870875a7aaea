"""Fixtures that several test files use."""

import os

from helpers import sections

# Tensors of tests are small: a second thread only waits for the first. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# The time of an example depends more on the load of the machine than on the code.
settings.register_profile("asr", deadline=None)
settings.load_profile("asr")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes share the tests: one for each processor when the default suite runs as a whole.

    Named files and tests run in one process, which starts sooner, and slow tests too, as some measure time.
    """
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and config.option.markexpr == "not slow"
    return (os.cpu_count() or 1) if whole else 0


class Decoded(list):
    """The number of samples of each channel that each call of a decoder gave; `rate` is that of the last."""

    rate = 0


@pytest.fixture
def decoded(monkeypatch):
    """What is decoded during the test."""
    from asr.audio import reading

    found, original = Decoded(), reading._read

    def read(file, sound, frames, at):
        samples = original(file, sound, frames, at)
        found.append(len(samples))
        found.rate = sound.samplerate
        return samples

    monkeypatch.setattr(reading, "_read", read)
    return found


@pytest.fixture(scope="module")
def no_attention_plots():
    """Training draws no cross-attention: matplotlib takes longer than all the rest of a small validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr.training.attention_plot.plot_attention", lambda bundle, loader: None)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model folder with random weights. Its texts have no meaning, but they differ from sound to sound.

    Recordings are cut into pieces of two seconds at most.
    """
    import torch
    from helpers import EOS

    from asr.config import Config
    from asr.model_folder import Bundle
    from asr.tokenizers import CharacterTokenizer

    sizes = sections(d_model=32, n_heads=2, d_ffn=64, encoder_layers=1, decoder_layers=1, conv_channels=4)
    torch.manual_seed(2)
    bundle = Bundle.build(
        Config.model_validate({"model": sizes}), CharacterTokenizer.from_characters(["efghinor stuvwxz"])
    )
    with torch.no_grad():
        for name, weights in bundle.network.named_parameters():
            if "cross_attention" in name and weights.dim() > 1:
                weights *= 8  # so that the text depends on the audio
        bundle.network.decoder.out.bias[EOS] += 0.5  # so that about half of the texts end by themselves
        bundle.features.mean.fill_(-8.0)
        bundle.features.std.fill_(3.0)
    folder = tmp_path_factory.mktemp("model")
    bundle.save(folder, longest_seconds=2.0, voice_activity=False)  # its sounds are not speech
    return folder
