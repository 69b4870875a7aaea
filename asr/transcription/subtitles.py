"""Subtitles: words are gathered into cues that can be read, for SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from unicodedata import east_asian_width

from asr.transcription.transcript import Segment, Transcript, Word, word_spans

LINE = 42  # characters of a line, and lines of a cue: the usual limits of broadcasters and Netflix
LINES = 2
LONGEST = 7.0  # seconds of a cue
SHORTEST = 1.0  # seconds, if there is time before the next cue
RATE = 17.0  # characters that are read in a second; a cue stays longer if there is time for it
PAUSE = 1.0  # seconds without a word: a new cue begins
GAP = 0.08  # seconds between cues that would touch: two frames of film


@dataclass(frozen=True)
class Cue:
    """A subtitle: its lines, which are lists of words, and its time in seconds."""

    start: float
    end: float
    lines: tuple[tuple[Word, ...], ...]  # a word begins with the space before it, if there is one

    @property
    def text(self) -> str:
        """The lines as they are shown."""
        return "\n".join(map(_line, self.lines))


def cues_of(transcript: Transcript) -> list[Cue]:
    """The cues of a transcript: at most 2 lines of 42 characters and 7 seconds, a new one after a pause.

    A cue stays until it can be read (17 characters a second, and 1 s at least), but not into the next one.
    Wide characters (Chinese, Japanese, Korean) count twice. A word that is longer than a line is divided.
    Channels that were decoded separately have cues of their own, which can be shown at the same time.
    """
    cues: list[Cue] = []
    for segments in transcript.by_channel().values():
        cues += _cues_of_words(_with_spaces(segments, transcript.separator))
    return sorted(cues, key=lambda cue: cue.start)


def _with_spaces(segments: Sequence[Segment], separator: str) -> list[Word]:
    """The words of segments, each with the space before it that the text has.

    A text can have both: in "我用 iPhone", each Chinese character is a word, and so may each letter be.
    """
    found: list[Word] = []
    for segment in segments:
        end = 0
        for word, (start, following) in zip(segment.words, word_spans(segment), strict=True):
            before = separator
            if end:
                before = segment.text[end:start] if start < following else " "
            end = following
            found.append(replace(word, text=" " * any(map(str.isspace, before)) + word.text))
    return found


def _cues_of_words(words: Sequence[Word]) -> list[Cue]:
    cues: list[Cue] = []
    current: list[Word] = []
    for word in _short_words(words):
        if current and not _fits(current, word):
            cues.append(_cue(current))
            current = []
        current.append(word)
    if current:
        cues.append(_cue(current))
    following = [cue.start for cue in cues[1:]] + [float("inf")]
    return [replace(c, end=_readable_end(c, begins)) for c, begins in zip(cues, following, strict=True)]


def to_srt(transcript: Transcript, highlight: bool = False) -> str:
    """SubRip. With `highlight` each word is underlined while it is spoken, in a cue of its own."""
    blocks: list[tuple[float, float, str]] = []
    for cue in cues_of(transcript):
        if not highlight:
            blocks.append((cue.start, cue.end, cue.text))
            continue
        words = [word for line in cue.lines for word in line]
        ends = [word.start for word in words[1:]] + [cue.end]
        for i, (word, end) in enumerate(zip(words, ends, strict=True)):
            if end > word.start:
                blocks.append((word.start if i else cue.start, end, _underlined(cue, i)))
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(blocks, 1)
    )


def to_vtt(transcript: Transcript, highlight: bool = False) -> str:
    """WebVTT. With `highlight`, each word has its time inside the cue, and players mark the spoken words."""
    parts = ["WEBVTT\n\n"]
    for cue in cues_of(transcript):
        lines = []
        for line in cue.lines:
            words = [replace(word, text=_escaped(word.text)) for word in line]
            if highlight:
                words = [_marked(word, f"<{_clock(word.start, '.')}><c>", "</c>") for word in words]
            lines.append(_line(words))
        text = "\n".join(lines)
        parts.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n")
    return "".join(parts)


def _short_words(words: Sequence[Word]) -> list[Word]:
    """The words, with those that are longer than a line divided. The parts share the time evenly."""
    found = []
    for word in words:
        text = word.text.lstrip()
        if _width(text) <= LINE:
            found.append(word)
            continue
        count = max(1, LINE * len(text) // _width(text))
        parts = [text[i : i + count] for i in range(0, len(text), count)]
        parts[0] = word.text.removesuffix(text) + parts[0]
        step = (word.end - word.start) / len(parts)
        found += [
            Word(part, word.start + i * step, word.start + (i + 1) * step, word.confidence)
            for i, part in enumerate(parts)
        ]
    return found


def _fits(current: list[Word], word: Word) -> bool:
    """Whether a word can follow in the same cue."""
    if word.start - current[-1].end > PAUSE or word.end - current[0].start > LONGEST:
        return False
    return len(_lines([*current, word])) <= LINES


def _lines(words: Sequence[Word]) -> list[list[Word]]:
    """Words in lines that are as full as possible."""
    lines: list[list[Word]] = [[]]
    for word in words:
        if lines[-1] and _width(_line([*lines[-1], word])) > LINE:
            lines.append([])
        lines[-1].append(word)
    return lines


def _cue(words: list[Word]) -> Cue:
    """A cue of words. Two lines have about the same length."""
    lines = _lines(words)
    if len(lines) == LINES:
        breaks = range(1, len(words))
        widths = {i: max(_width(_line(part)) for part in (words[:i], words[i:])) for i in breaks}
        best = min(breaks, key=widths.__getitem__)
        lines = [words[:best], words[best:]]
    return Cue(words[0].start, words[-1].end, tuple(map(tuple, lines)))


def _readable_end(cue: Cue, following: float) -> float:
    """When the cue disappears: after it could be read, and before the next one."""
    readable = max(cue.end, cue.start + max(SHORTEST, min(LONGEST, _width(cue.text) / RATE)))
    return max(min(readable, following - GAP), min(cue.end, following), cue.start + 0.001)


def _underlined(cue: Cue, index: int) -> str:
    """The text of a cue, one word of which is underlined."""
    lines, count = [], 0
    for line in cue.lines:
        words = [_marked(w, "<u>", "</u>") if count + i == index else w for i, w in enumerate(line)]
        count += len(line)
        lines.append(_line(words))
    return "\n".join(lines)


def _line(words: Iterable[Word]) -> str:
    """The text of words that stand in one line."""
    return "".join(word.text for word in words).lstrip()


def _marked(word: Word, opening: str, closing: str) -> Word:
    """The word with marks around it, but not around the space before it."""
    text = word.text.lstrip()
    return replace(word, text=word.text.removesuffix(text) + opening + text + closing)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
