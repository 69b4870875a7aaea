"""The task of training a language model on plain text, one sentence at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from asr.config import LanguageConfig
from asr.datasets.settings import TextConfig
from asr.datasets.text import Text, TextBatch, TextFile, TextPool
from asr.errors import AsrError
from asr.kinds import TOKENIZERS
from asr.model.interfaces import LimitsPositions
from asr.model_folder import Bundle
from asr.run_folder import TOKENIZER
from asr.section import load_kind
from asr.tokenizers import load_tokenizer
from asr.training.distributed import Ranks
from asr.training.losses import sequence_loss
from asr.training.objective import zero_loss
from asr.training.precision import DTYPES
from asr.training.tasks import Learning, Task, Validation, learn_it


class LanguageObjective(nn.Module):
    """The cross-entropy of a language model. The weights are those of the bundle."""

    def __init__(self, bundle: Bundle[LanguageConfig], autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.network, self.special, self.device = bundle.network, bundle.special, bundle.device
        self.autocast = autocast  # the type in which layers compute in training; None: float32

    def forward(self, batch: TextBatch | None, step: int = 0) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy (1,) of the tokens after the prompt, zero for None; and an empty
        tensor.
        """
        none = torch.zeros(0, dtype=torch.bool)
        if batch is None:
            return zero_loss(self.network, 1), none
        tokens, begin = batch.tokens.to(self.device), len(self.special.prompt)
        enabled = self.autocast is not None and self.training
        with torch.autocast(self.device.type, self.autocast, enabled=enabled):
            logits = self.network(tokens[:, :-1])[:, begin - 1 :]  # (B, U - begin, V)
        lengths = batch.lengths.to(self.device) - begin
        return sequence_loss(logits, tokens[:, begin:], lengths).unsqueeze(0), none


class LanguageTask(Task[TextBatch]):
    """Language modeling of sentences (Al-Rfou et al. 2019)."""

    unit = "characters"
    speed_name = "characters_per_second"
    batch_size_setting = "data.batch_characters"
    loss_names = ("loss",)

    def __init__(
        self,
        config: LanguageConfig,
        scratch: Path,
        say: Callable[[str], None],
        tokenizer_of: Learning = learn_it,
    ) -> None:
        """Read the text once, learn the tokenizer and build the network with the seed's weights.

        `say` gets lines about the text. Packed files are unpacked in the folder `scratch`. `tokenizer_of`
        gets a function that learns the tokenizer, and returns the tokenizer to use.
        Raises AsrError for text that is missing, cannot be read or has no sentence that can be used.
        """
        self.config = config.train
        self.text, self.dev = _open(config.data, scratch)
        known = config.data.characters_of
        if known is None:
            kind = load_kind(TOKENIZERS, config.tokenizer.kind)
            tokenizer = tokenizer_of(lambda: kind.learn(config.tokenizer, self.text))
        else:
            tokenizer = load_tokenizer(known / TOKENIZER)
        torch.manual_seed(config.train.seed)
        self.bundle = Bundle.build(config, tokenizer)
        if isinstance(self.bundle.network, LimitsPositions):
            max_tokens = self.bundle.network.max_positions - len(tokenizer.special.prompt)
            self.text.max_tokens = self.dev.max_tokens = max_tokens
        surveys = {"data.text": self.text.survey(tokenizer), "held-out text": self.dev.survey(tokenizer)}
        for name, survey in surveys.items():
            say(f"{name}: {survey}")
            if not survey.sentences:
                raise AsrError(
                    f"{name}: all sentences are left out ({survey}); check the files and the settings"
                )
        self.data = "; ".join(f"{s.sentences} sentences, {s.characters} characters" for s in surveys.values())
        self.token = "character" if tokenizer.kind == "characters" else "token"
        self.pools = self.text.pools
        self._pool = lru_cache(1)(  # the memory check and the first step use the same one
            lambda epoch, number: self.text.pool(tokenizer, self.config.seed, epoch, number)
        )

    def objective(self) -> LanguageObjective:
        """Network and cross-entropy as one module."""
        return LanguageObjective(self.bundle, DTYPES[self.precision])

    def pool(self, epoch: int, number: int) -> TextPool:
        """A pool of text."""
        return self._pool(epoch, number)

    def heaviest_batch(self, epoch: int) -> tuple[TextBatch, str]:
        """The batch with the most tokens of a pool. All pools have batches of about this size."""
        pools = (self.pool(epoch, number) for number in range(self.pools))
        pool = next(pool for pool in pools if len(pool))
        sizes = [len(group) * max(map(len, group)) for group in pool.groups]
        batch = next(pool.batches([sizes.index(max(sizes))]))
        return batch, f"{len(batch.tokens)} sentences, {batch.tokens.numel()} tokens padded"

    @torch.inference_mode()
    def validate(self, ranks: Ranks, stop: Callable[[], bool] = bool) -> Validation | None:
        """The perplexity per token of the held-out text: exp of the mean cross-entropy. EOS is a token."""
        objective = self.objective().eval()
        loss, n_targets, stopped = 0.0, 0, False
        for pool in self.dev.in_order(self.bundle.tokenizer):
            for batch in pool.batches(range(ranks.rank, len(pool), ranks.count)):
                if stopped := stopped or stop():
                    break
                loss += float(objective(batch)[0])
                n_targets += batch.n_targets
        loss, total, stops = ranks.total(loss, n_targets, stopped)
        if stops:
            return None
        mean = loss / total
        perplexity = math.exp(min(mean, 700.0))  # exp of a larger number overflows
        return Validation(
            {"loss": mean, "perplexity": perplexity}, f"held-out perplexity {perplexity:.3f} per {self.token}"
        )


def _open(data: TextConfig, scratch: Path) -> tuple[Text, Text]:
    """The training text and the held-out text. Raises AsrError for missing files or settings."""
    if not data.text:
        raise AsrError(
            "data.text names no file; name plain text, one sentence per line, in the configuration"
        )
    if not data.dev and not data.hold_out:
        raise AsrError("no held-out text; name a file in data.dev, or set data.hold_out to a number of lines")
    files = [TextFile.open(path, scratch) for path in data.text]
    held_out = [TextFile.open(path, scratch) for path in data.dev]
    if data.hold_out:
        files[-1], last = files[-1].split(data.hold_out)
        held_out = [last]
    return Text(files, data), Text(held_out, data)
