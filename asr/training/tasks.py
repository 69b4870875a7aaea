"""The interface between the training loop and the kinds of experiments: recognizers and language models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch import nn

from asr.model_folder import Bundle
from asr.tokenizers import Tokenizer
from asr.training.distributed import Ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Batch(Protocol):
    """The properties of a batch that the loop uses."""

    @property
    def place(self) -> int:
        """Its number in the pool."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Its examples, for messages. There are none when no recording could be read."""
        ...

    @property
    def n_targets(self) -> int:
        """The tokens that the model must predict. Losses are divided by it."""
        ...

    @property
    def amount(self) -> float:
        """Its size in the task's unit, without padding."""
        ...

    @property
    def bad(self) -> tuple[str, ...]:
        """One message for each recording that could not be read."""
        ...


Learning = Callable[[Callable[[], Tokenizer]], Tokenizer]
"""From a function that learns a tokenizer from the training texts to the tokenizer that is used.

A resumed run uses that of its checkpoint, and several processes use that of the first one, because training
units twice need not give the same ones.
"""


def learn_it(learn: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokenizer of one new run: the one that is learned."""
    return learn()


B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class Pool(Protocol[B_co]):
    """A series of batches, a function of seed, epoch and its number in the epoch alone."""

    def __len__(self) -> int:
        """The number of batches."""
        ...

    def batches(self, places: Iterable[int]) -> Generator[B_co, None, None]:
        """The batches at these places, in this order."""
        ...


@dataclass(frozen=True)
class Validation:
    """The result of a validation."""

    scores: dict[str, float]  # `loss` per token, and `cer` (perhaps `wer`) or `perplexity`
    summary: str  # the scores as part of a line
    examples: tuple[str, ...] = ()  # one line each
    bad: tuple[str, ...] = ()  # recordings that could not be read, and are not in the scores


class Task(ABC, Generic[B]):
    """Data, model and losses of one experiment."""

    bundle: Bundle[Any]
    pools: int  # in an epoch
    data: str  # describes the data that must stay the same when a run is resumed
    unit: str  # of `Batch.amount`, for speeds
    speed_name: str  # of the curve of the speed
    batch_size_setting: str  # the setting to lower when memory does not suffice
    loss_names: tuple[str, ...]  # of the losses that the objective returns; the first one is minimized
    precision = "float32"  # in which objectives compute (`asr.training.precision`)

    @abstractmethod
    def objective(self) -> nn.Module:
        """A module: batch, or None for no batch -> sums of the losses, and (B,) bool: unalignable texts.

        It is made after the model was moved to its device.
        """

    @abstractmethod
    def pool(self, epoch: int, number: int) -> Pool[B]:
        """A pool of an epoch."""

    @abstractmethod
    def heaviest_batch(self, epoch: int) -> tuple[B, str]:
        """A batch of an epoch that needs the most memory, and its description."""

    @abstractmethod
    def validate(self, ranks: Ranks, stop: Callable[[], bool]) -> Validation | None:
        """Score the validation data; all processes get the same result. None: `stop` asked to leave."""

    def figure(self) -> Figure | None:
        """A figure that shows how the model works now, if the task has one."""
        return None
