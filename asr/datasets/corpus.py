"""Many utterances in little memory: arrays hold the values for planning, the rest stays in the manifest.

An utterance takes 16 bytes (duration, speaker, place of its line), so 30 million of them take 480 MB. Reading
the manifest takes 8 more bytes and about 8 us for each line. The line of an utterance is read again when it
is needed, in 20 us (`benchmarks/plan.py`), which is less than opening its audio takes.
"""

from __future__ import annotations

import hashlib
import math
import os
import weakref
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from asr.audio.archive import tar_of
from asr.datasets.manifest import Utterance, iter_lines, parse_line, to_utterance
from asr.datasets.settings import DataConfig
from asr.errors import AsrError
from asr.tokenizers import Tokenizer, normalize_text

_NAMED = 3  # excluded utterances that are named in a summary


@dataclass
class Dropped:
    """The utterances that one filter excludes: their number, and the first few ids."""

    count: int = 0
    ids: list[str] = field(default_factory=list)


class Corpus(Sequence[Utterance]):
    """A read-only sequence of utterances. `read` makes one from manifests, `of` from utterances in memory.

    Safe to use from several threads. `durations` (n,) float32 in seconds; `speakers` (n,) int32, equal for
    equal speakers, -1 without a speaker. Every utterance has a duration, and a text or phonemes.
    """

    def __init__(
        self, durations: np.ndarray, speakers: np.ndarray, fetch: Callable[[int], Utterance], name: str
    ) -> None:
        self.durations = durations
        self.speakers = speakers
        self.name = name  # for messages
        self.dropped: dict[str, Dropped] = {}  # by reason
        self.counts: Counter[str] = Counter()  # character: number of texts with it
        self.first_seen: dict[str, str] = {}  # character: file and line of the first text with it
        self.digest = ""  # of ids and durations, in order
        self.starts = [0]  # the index of each manifest's first utterance
        self.shard_paths: list[Path] = []  # the tar files of the training set, if data.shard_pool is set
        self.shards = np.zeros(0, np.int32)  # (n,) the index there of each utterance's tar file
        self._fetch = fetch

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> Corpus:
        """All of the given utterances. Raises ValueError for one without a duration."""
        codes: dict[str | None, int] = {None: -1}
        speakers = [codes.setdefault(u.speaker, len(codes) - 1) for u in utterances]
        durations = np.array([u.duration or math.nan for u in utterances], np.float32)
        if np.isnan(durations).any():
            raise ValueError("every utterance needs a duration; write the manifest with `asr prepare`")
        corpus = cls(durations, np.array(speakers, np.int32), utterances.__getitem__, "these utterances")
        for utterance in utterances:
            for character in corpus._count(utterance.text or ""):
                corpus.first_seen[character] = f"utterance {utterance.id!r}"
        return corpus

    @classmethod
    def read(cls, data: DataConfig, key: str, phonemes: bool = False) -> Corpus:
        """The utterances of `data.train` or `data.dev` (`key`) that pass the filters of `data`, in one pass.

        With `phonemes`, an utterance that has those needs no text. In `data.dev` it is left out then.
        Raises AsrError naming file and line for whatever `read_manifest` refuses, a missing text or duration,
        and a duplicate id in these manifests, and when no utterance passes.
        """
        manifests: tuple[Path, ...] = getattr(data, key)
        if not manifests:
            raise AsrError(
                f"data.{key} names no manifest; write one with `asr prepare` and name it in the configuration"
            )
        lines = _Lines(manifests)
        durations, speakers, ids, shards = array("f"), array("i"), array("q"), array("i")
        sharded, shard_codes = key == "train" and data.shard_pool is not None, dict[Path, int]()
        codes: dict[str | None, int] = {None: -1}
        excluded, texts, digest = set(data.exclude_speakers), set[str](), hashlib.blake2b(digest_size=8)
        corpus = cls(np.empty(0), np.empty(0), lines, ", ".join(map(str, manifests)))
        for path in manifests:
            lines.starts.append(len(durations))
            for number, offset, line in iter_lines(path):
                if len(durations) == data.first:
                    corpus._drop(f"after the first {data.first}", None)
                    continue
                record = parse_line(line, path, number)
                ids.append(hash(record["id"]))
                textless = phonemes and record.get("text") is None and record.get("phonemes") is not None
                for needed in ("text", "duration"):
                    if record.get(needed) is None and not (textless and needed == "text"):
                        raise AsrError(
                            f"{path}, line {number}: no {needed!r}; training needs text and duration on "
                            "every line: add it, or write the manifest with `asr prepare`"
                        )
                duration, speaker = record["duration"], record.get("speaker")
                if textless and key == "dev":
                    corpus._drop("without a text", record["id"])
                elif speaker in excluded:
                    corpus._drop("of excluded speakers", record["id"])
                elif duration < data.min_seconds:
                    corpus._drop(f"shorter than {data.min_seconds} s", record["id"])
                elif duration > data.max_seconds:
                    corpus._drop(f"longer than {data.max_seconds} s", record["id"])
                elif data.distinct_texts and (text := normalize_text(record.get("text") or "")) in texts:
                    corpus._drop("with a text of an earlier one", record["id"])
                else:
                    if data.distinct_texts:
                        texts.add(text)
                    digest.update(f"{record['id']}\t{duration}\n".encode())
                    durations.append(duration)
                    speakers.append(codes.setdefault(speaker, len(codes) - 1))
                    lines.offsets.append(offset)
                    if sharded:
                        shard = _shard_of(record["audio"], path, number)
                        shards.append(shard_codes.setdefault(shard, len(shard_codes)))
                    for character in corpus._count(record.get("text") or ""):
                        corpus.first_seen[character] = f"{path}, line {number}"
        _refuse_duplicates(manifests, np.frombuffer(ids, np.int64))
        if not durations:
            out = corpus._left_out() or "empty"
            raise AsrError(f"data.{key}: no utterance left of {corpus.name} ({out}); check the manifests")
        corpus.durations = np.frombuffer(durations, np.float32)
        corpus.speakers = np.frombuffer(speakers, np.int32)
        corpus.shards, corpus.shard_paths = np.array(shards, np.int32), list(shard_codes)
        lines.durations, corpus.digest, corpus.starts = corpus.durations, digest.hexdigest(), lines.starts
        return corpus

    def __len__(self) -> int:
        return len(self.durations)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._fetch(index % len(self))

    def __iter__(self) -> Iterator[Utterance]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def by_speaker(self) -> np.ndarray:
        """The indices (n,) int32 of all utterances sorted by speaker, in the corpus's order for each
        speaker.
        """
        return sort_by(self.speakers)

    @property
    def fingerprint(self) -> str:
        """The number of utterances, their seconds, and a digest of ids and durations."""
        return f"{len(self)} utterances, {self.seconds:.1f} s, {self.digest}"

    @property
    def seconds(self) -> float:
        """The length of all audio."""
        return float(self.durations.sum(dtype=np.float64))

    def summary(self) -> str:
        """One line: the number of utterances, the hours, and what the filters exclude."""
        out = self._left_out()
        return f"{len(self)} utterances, {self.seconds / 3600:.2f} h from {self.name}" + (
            f"; left out: {out}" if out else ""
        )

    def check_characters(self, tokenizer: Tokenizer) -> None:
        """Raises AsrError, naming file and line, for a text with a character that the tokenizer lacks."""
        unknown = [character for character in self.first_seen if lacks(tokenizer, character)]
        if unknown:
            first = unknown[0]
            also = f"; also {' '.join(map(repr, unknown[1:10]))}" if len(unknown) > 1 else ""
            raise AsrError(
                f"{self.first_seen[first]}: the text has {first!r}, which the model does not know (it is in "
                f"{self.counts[first]} texts{also}); correct the texts, or set data.unknown_characters to unk"
            )

    def _count(self, text: str) -> set[str]:
        """Count the characters of a text. Returns those that are new."""
        found = set(normalize_text(text))
        self.counts.update(found)
        return found - self.first_seen.keys() if len(self.counts) > len(self.first_seen) else set()

    def _drop(self, reason: str, id: str | None) -> None:
        dropped = self.dropped.setdefault(reason, Dropped())
        dropped.count += 1
        if id is not None and len(dropped.ids) < _NAMED:
            dropped.ids.append(id)

    def _left_out(self) -> str:
        parts = []
        for reason, dropped in self.dropped.items():
            names = ", ".join(dropped.ids) + (", ..." if dropped.count > len(dropped.ids) else "")
            parts.append(f"{dropped.count} {reason}" + (f" ({names})" if dropped.ids else ""))
        return ", ".join(parts)


def _shard_of(audio: str, manifest: Path, number: int) -> Path:
    """The tar file of a recording. Raises AsrError for a recording that is in none."""
    shard = tar_of(manifest.parent / audio)
    if shard is None:
        raise AsrError(
            f"{manifest}, line {number}: {audio} is not in a shard; write shards with `asr data shard`, or "
            "leave data.shard_pool out"
        )
    return shard


def lacks(tokenizer: Tokenizer, character: str) -> bool:
    """Whether a tokenizer cannot write a character. A text of one space would lose it as white space."""
    return character in tokenizer.unknown(f"|{character}|")


def sort_by(codes: np.ndarray, minor: np.ndarray | None = None) -> np.ndarray:
    """The indices (n,) int32 of `codes` in rising order, ties by `minor`, and then by index.

    Code (16 or, without `minor`, 32 bits), minor (16 bits) and index are packed into one integer and sorted
    in place. This takes a third of the memory of argsort, is faster, and leaves no ties whose order could
    differ between machines.
    """
    keys = codes.astype(np.int64)
    if minor is not None:
        keys <<= 16
        keys |= minor
    keys <<= 32
    keys |= np.arange(len(keys), dtype=np.uint32)
    keys.sort()
    return keys.astype(np.int32)  # the lower half


class _Lines:
    """Reads utterances from their lines in the manifests. The files stay open.

    A manifest that is replaced, as `asr prepare` does, can still be read. A change in place is noticed.
    """

    def __init__(self, manifests: Sequence[Path]) -> None:
        self.manifests = manifests
        self.starts: list[int] = []  # the index of each manifest's first utterance
        self.offsets = array("q")
        self.durations = np.empty(0, np.float32)
        self._files: list[int] = []
        for path in manifests:
            try:
                self._files.append(os.open(path, os.O_RDONLY))
            except OSError as error:
                raise AsrError(
                    f"{path}: cannot read the manifest ({error.strerror}); check the path"
                ) from None
            weakref.finalize(self, os.close, self._files[-1])

    def __call__(self, index: int) -> Utterance:
        manifest = bisect_right(self.starts, index) - 1
        path, size, end = self.manifests[manifest], 1024, -1
        while end < 0:
            data = os.pread(self._files[manifest], size, self.offsets[index])
            end = data.find(b"\n") if len(data) == size else len(data.partition(b"\n")[0])
            size *= 4
        try:
            record = parse_line(data[:end], path, 0)
        except AsrError:
            record = {}
        if np.float32(record.get("duration") or 0.0) != self.durations[index]:
            raise AsrError(f"{path}: the file has changed since it was read; start again")
        return to_utterance(record, path)


def _refuse_duplicates(manifests: Sequence[Path], hashes: np.ndarray) -> None:
    """Raises AsrError for a duplicate id. Ids are compared, in a second pass, only if two hashes are equal.

    Among 30 million different ids, two of the 64-bit hashes are equal with a probability of 1 in 40,000.
    """
    hashes.sort()
    twice = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return
    seen: dict[str, str] = {}
    for path in manifests:
        for number, _, line in iter_lines(path):
            record = parse_line(line, path, number)
            if hash(record["id"]) in twice:
                where = f"{path}, line {number}"
                if record["id"] in seen:
                    raise AsrError(
                        f"{where}: duplicate id {record['id']!r} (first in {seen[record['id']]}); "
                        "ids must be unique: rename one"
                    )
                seen[record["id"]] = where
