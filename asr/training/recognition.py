"""The task of training a recognizer: its data, model, objective and validation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.utils import parametrize

from asr.audio.archive import read_ahead
from asr.config import Config
from asr.datasets.batching import EpochPlan, count_pools
from asr.datasets.corpus import Corpus, lacks
from asr.datasets.loading import Batch, Loader
from asr.datasets.settings import AugmentConfig
from asr.datasets.text_injection import InjectedTexts
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.max_lengths import most_tokens
from asr.errors import AsrError
from asr.features.interface import LimitsLength
from asr.kinds import TOKENIZERS
from asr.model_folder import Bundle
from asr.scoring import score
from asr.section import load_kind
from asr.tokenizers import Tokenizer
from asr.training.distributed import Ranks
from asr.training.objective import LOSS_NAMES, RecognitionObjective
from asr.training.precision import DTYPES
from asr.training.tasks import Learning, Task, Validation, learn_it

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATISTICS_SECONDS = 1800.0  # half an hour of audio determines the mean and variance of features well enough


@dataclass(frozen=True)
class PlannedBatches:
    """The batches of an epoch's plan, as the loader makes them."""

    loader: Loader
    plan: EpochPlan

    def __len__(self) -> int:
        return len(self.plan)

    def batches(self, places: Iterable[int]) -> Generator[Batch, None, None]:
        """The batches at these places of the plan, in this order."""
        return self.loader.batches(self.plan, places)


class RecognitionTask(Task[Batch]):
    """Speech recognition with the joint CTC/attention loss."""

    unit = "s audio"
    speed_name = "audio_seconds_per_second"
    batch_size_setting = "data.batch_seconds"
    loss_names = LOSS_NAMES

    def __init__(self, config: Config, say: Callable[[str], None], tokenizer_of: Learning = learn_it) -> None:
        """Read the manifests, learn the tokenizer, build the network with the seed's weights, fit the
        features.

        `say` gets lines about the data. `tokenizer_of` gets a function that learns the tokenizer, and returns
        the tokenizer to use. Raises AsrError for empty or missing manifests, texts with characters
        that the model lacks, folders of noise or rooms that cannot be used, and audio that cannot be read.
        """
        self.config = config.train
        self._augment, self._data = config.augment, config.data
        phonemes = config.train.phonemes.symbols if config.train.phonemes else ""
        train, dev = (Corpus.read(config.data, key, bool(phonemes)) for key in ("train", "dev"))
        say(f"data.train: {train.summary()}")
        say(f"data.dev: {dev.summary()}")
        self.data = f"train: {train.fingerprint}; dev: {dev.fingerprint}"

        kind = load_kind(TOKENIZERS, config.tokenizer.kind)
        text = _CorpusText(train, _separator(config.augment))
        tokenizer = tokenizer_of(lambda: kind.learn(config.tokenizer, text))
        if config.data.unknown_characters == "refuse":
            _refuse_unknown_characters(config.augment, tokenizer, train, dev)
        torch.manual_seed(config.train.seed)
        self.bundle = Bundle.build(config, tokenizer)
        rate = config.features.sample_rate
        max_tokens = most_tokens(self.bundle.network, self.bundle.special)
        features = self.bundle.features
        max_samples = features.max_samples if isinstance(features, LimitsLength) else None
        texts = None
        if config.train.text_injection is not None:
            texts = InjectedTexts(
                config.train.text_injection, phonemes, tokenizer, max_tokens, config.data.pad_tokens
            )
            say(f"train.text_injection: {len(texts)} sentences")
            self.data += f"; text: {texts.fingerprint}"
        self.loader = Loader(
            train, tokenizer, rate, config.data, config.augment, phonemes, max_tokens, max_samples, texts
        )
        self.dev_loader = Loader(
            dev, tokenizer, rate, config.data, max_tokens=max_tokens, max_samples=max_samples
        )
        # Each dev utterance once: the weights are those of the training manifests.
        once = config.data.model_copy(update={"weights": [], "shard_pool": None})
        unchanged = AugmentConfig(specaugment=None)
        self.dev = PlannedBatches(self.dev_loader, EpochPlan(dev, once, unchanged, seed=0, epoch=0))

        self.pools = count_pools(train, config.data)
        plan = next((plan for pool in range(self.pools) if len(plan := self.plan(0, pool))), None)
        if plan is None:
            raise AsrError(
                "data.weights: with these weights the first epoch has no utterance; choose larger weights"
            )
        self.bundle.metadata["longest_seconds"] = f"{np.quantile(plan.seconds, 0.99):.1f}"
        self._fit_features(plan)

    def objective(self) -> RecognitionObjective:
        """Features, SpecAugment, network and losses as one module."""
        augment = self._augment
        return RecognitionObjective(
            self.bundle, self.config, augment.specaugment, augment.vocal_tract, DTYPES[self.precision]
        )

    def plan(self, epoch: int, pool: int = 0) -> EpochPlan:
        """The batches of an epoch, or of one of its pools of shards."""
        return EpochPlan(self.loader.corpus, self._data, self._augment, self.config.seed, epoch, pool)

    def pool(self, epoch: int, number: int) -> PlannedBatches:
        """All batches of an epoch, or of a pool of shards, which are read in the background."""
        plan = self.plan(epoch, number)
        for shard in plan.shards:
            read_ahead(self.loader.corpus.shard_paths[shard])
        return PlannedBatches(self.loader, plan)

    def heaviest_batch(self, epoch: int) -> tuple[Batch, str]:
        """The batch with the most padded seconds, with silence for audio: recordings may be unreadable.

        Batches whose examples are all too long for the model are passed over, as in training. Raises AsrError
        when there is no other.
        """
        plans = [plan for pool in range(self.pools) if len(plan := self.plan(epoch, pool))]
        for plan in sorted(plans, key=lambda plan: -plan.padded_seconds[0]):
            for place in (-plan.padded_seconds).argsort().tolist():
                batch = self.loader.load(plan[place], place, read=False)
                if batch.ids:
                    seconds = batch.waveforms.numel() / self.loader.sample_rate
                    return batch, f"{len(batch.ids)} utterances, {seconds:.0f} s padded"
        raise AsrError(f"data.train: no utterance of epoch {epoch} fits the model; the last: {batch.bad[-1]}")

    @torch.inference_mode()
    def validate(self, ranks: Ranks, stop: Callable[[], bool] = bool) -> Validation | None:
        """Decode the dev set by the default decoder of the model, and score it.

        The batches are divided among the processes. The model is left in evaluation mode.
        Raises AsrError when no recording can be read.
        """
        bundle, objective = self.bundle.eval(), self.objective().eval()
        decode = build_decoder(bundle, DecodingOptions())
        loss, n_targets, stopped = 0.0, 0, False
        texts: dict[str, tuple[str, str]] = {}  # id: reference, hypothesis
        bad: list[str] = []
        for batch in self.dev.batches(range(ranks.rank, len(self.dev), ranks.count)):
            if stopped := stop():
                break
            bad += batch.bad
            if not batch.ids:
                continue
            with parametrize.cached():  # adapters are merged once, not for each token
                memory = bundle.network.encode(*objective.extract(batch))
                loss += float(objective.losses(batch, memory).total)
                n_targets += batch.n_targets
                found = [bundle.tokenizer.decode(best.tokens) for best, *_ in decode(memory)]
            texts.update(zip(batch.ids, zip(batch.texts, found, strict=True), strict=True))

        loss, total, stops = ranks.total(loss, n_targets, stopped)
        if stops:
            return None
        pairs = {id: pair for each in ranks.gather(texts) for id, pair in each.items()}
        bad = [message for each in ranks.gather(bad) for message in each]
        if not pairs:
            raise AsrError(f"data.dev: no recording can be read; the first: {bad[0]}")
        return self._scored(loss / max(1.0, total), pairs, tuple(bad))

    def _scored(self, loss: float, pairs: dict[str, tuple[str, str]], bad: tuple[str, ...]) -> Validation:
        """CER and WER. In a script without spaces between words there is no WER."""
        references, hypotheses = ({id: pair[i] for id, pair in pairs.items()} for i in (0, 1))
        found = score(references, hypotheses, unit="auto")
        scores = {"loss": loss, "cer": found.cer}
        summary = f"dev loss {loss:.3f}  CER {found.cer:.2%}"
        if found.measure.unit == "words":
            scores["wer"] = found.wer
            summary += f"  WER {found.wer:.2%}"
        else:
            summary += "  (no WER: the script has no spaces between words)"
        shown = found.utterances[: self.config.show]
        return Validation(scores, summary, tuple(f"{u.ref!r} -> {u.hyp!r}" for u in shown), bad)

    def figure(self) -> Figure | None:
        """The cross-attention of one utterance of the dev set. None without matplotlib or cross-attention."""
        from asr.training.attention_plot import plot_attention

        return plot_attention(self.bundle, self.dev_loader)

    def _fit_features(self, plan: EpochPlan) -> None:
        """Compute the statistics of the features. Raises AsrError when no recording can be read."""
        seconds, bad = 0.0, ""
        for batch in self.loader.batches(plan, range(len(plan))):
            if batch.ids:
                self.bundle.features.fit(batch.waveforms, batch.lengths)
            bad = bad or "".join(batch.bad[:1])
            seconds += batch.amount
            if seconds >= STATISTICS_SECONDS:
                break
        if not seconds:
            raise AsrError(f"data.train: no recording can be read; the first: {bad}")
        self.bundle.features.finish_fit()


@dataclass(frozen=True)
class _CorpusText:
    """The texts of a corpus, for a tokenizer. The separator of joined texts is among their characters."""

    corpus: Corpus
    separator: str

    def characters(self) -> list[str]:
        """The characters of all texts, each once."""
        return list(dict.fromkeys([*self.corpus.counts, *self.separator]))

    def sentences(self) -> Iterator[str]:
        """The texts, each read from its manifest when it is needed."""
        return (utterance.text for utterance in self.corpus if utterance.text)


def _refuse_unknown_characters(augment: AugmentConfig, tokenizer: Tokenizer, *sets: Corpus) -> None:
    """Raises AsrError, with file and line, for a text with a character that the tokenizer does not have."""
    for corpus in sets:
        corpus.check_characters(tokenizer)
    for character in _separator(augment):
        if lacks(tokenizer, character):
            raise AsrError(
                f"augment.join.separator: the tokenizer has no {character!r}; add it to "
                "tokenizer.characters, or set another separator"
            )


def _separator(augment: AugmentConfig) -> str:
    """The text between joined texts."""
    return augment.join.separator if augment.join.per_epoch else ""
