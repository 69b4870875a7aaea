"""Files in, transcripts out: segmentation, batching, decoding, and joining of segments."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from asr.audio.live import live_pieces
from asr.decoding import DecodingOptions, Hypothesis, build_decoder
from asr.decoding.alignment import TokenSpan, attention_align, ctc_align, states_with_audio
from asr.decoding.build import Decoder
from asr.decoding.stored_options import default_options
from asr.errors import AsrError, is_out_of_memory
from asr.files import printable
from asr.model.interfaces import HasAlignmentHeads, HasCTC, Memory
from asr.model_folder import PRETRAINED, Bundle, check_model_folder, load_model
from asr.transcription.calibration import load_calibration
from asr.transcription.inputs import Input
from asr.transcription.merging import merge_overlaps
from asr.transcription.order import in_order
from asr.transcription.pieces import Job, Piece, PieceReader, longest_seconds
from asr.transcription.precision import use_bf16, with_precision
from asr.transcription.segments import SegmentBuilder
from asr.transcription.transcript import Segment, StreamResult, Transcript
from asr.transcription.turns import Turns

# Seconds of padded audio in a batch. On a CPU, large batches do not fit into the caches in the encoder, but
# need fewer decoder steps: docs/measurements.md has the measurements.
BATCH_SECONDS_ON_CPU = 60.0
BATCH_SECONDS_ON_GPU = 120.0
FIRST_WINDOW = 20.0  # seconds of audio before the first results
PROMPT_TOKENS = 512  # of the text before a segment; the decoder takes what it has room for
MAX_PROMPT_TEMPERATURE = 0.5  # as in Whisper: text that was drawn at a higher one is no prompt
WINDOW = 8  # batches whose audio is gathered and sorted by length, so that there is little padding


class Recognizer:
    """Transcribes files, arrays and data in memory with one model. Several threads can use it at once.

    `model` is a folder, a loaded `Bundle`, or None for the English model. `device` is "auto", "cpu",
    "cuda" ... `batch_seconds` is the amount of padded audio that goes through the model at once; it changes
    speed and memory, never the text. `options` None: those in `default_decoding.json` of the folder. Without
    this file, and with a `Bundle`, decoding is greedy, or as the model can. `precision` is "float32", "bf16",
    "int8" (8-bit weights, on a CPU) or "auto": bf16 on a GPU that computes it natively. `voice_activity`
    decides whether only speech is decoded; None: yes, unless the metadata of the model has `voice_activity`
    "false", as for a model of other sounds. `channels` is "mix": their mean, "first", or "separate": each is
    decoded, and segments are merged by time.
    A segment whose words have a mean confidence below `min_confidence` gets an empty text. None: 0.2 with a
    calibrated model, where confidence is the probability that a word is right, and 0 with others.
    """

    def __init__(
        self,
        model: Bundle[Any] | str | os.PathLike[str] | None = None,
        device: str = "auto",
        batch_seconds: float | None = None,
        options: DecodingOptions | None = None,
        precision: str = "auto",
        voice_activity: bool | None = None,
        channels: str = "mix",
        min_confidence: float | None = None,
    ) -> None:
        self._arguments = (
            model, device, batch_seconds, options, precision, voice_activity, channels, min_confidence
        )  # fmt: skip
        self.bundle = model if isinstance(model, Bundle) else load_model(model, device)
        if self.bundle.network.training:
            raise AsrError(
                "the model is in training mode, in which dropout changes the text; call its eval() first"
            )
        self.name = "" if isinstance(model, Bundle) else os.fspath(model or PRETRAINED.name)
        kind = self.bundle.device.type
        if batch_seconds is None:
            batch_seconds = BATCH_SECONDS_ON_CPU if kind == "cpu" else BATCH_SECONDS_ON_GPU
        if not (math.isfinite(batch_seconds) and batch_seconds >= 1):
            raise AsrError(f"batch_seconds {batch_seconds}: impossible; give 1 second of audio or more")
        self.batch_seconds = batch_seconds
        folder = (
            None if isinstance(model, Bundle) else check_model_folder(PRETRAINED if model is None else model)
        )
        if min_confidence and not self.has_word_times:
            raise AsrError("min_confidence: this model gives no confidence of words; omit the option")
        calibration = load_calibration(folder) if folder else None
        self._segments = SegmentBuilder(self.bundle, calibration, min_confidence)
        self.sample_rate = self.bundle.config.features.sample_rate
        self.bf16 = use_bf16(precision, self.bundle.device)
        self.bundle = with_precision(self.bundle, precision)
        self.options = options or (default_options(folder) if folder else DecodingOptions())
        self.decoder = build_decoder(self.bundle, self.options)
        # The text of a segment that has not ended changes twice a second, so it must be decoded fast.
        self._unfinished = self.decoder
        if options is None and self.options.decoder == "beam":
            self._unfinished = build_decoder(self.bundle, self.options.as_greedy())
        if voice_activity is None:
            voice_activity = self.bundle.metadata.get("voice_activity") != "false"
        self._reader = PieceReader(
            self.sample_rate,
            longest_seconds(self.bundle),
            self.bundle.config.features.level_matters,
            voice_activity,
            overlap=self.has_word_times,
            channels=channels,
        )
        # One batch at a time goes through the model. Threads that wait for their turn share batches.
        self._recognize: Turns[Piece, Decoder] = Turns(
            self._decode_all, lambda piece: len(piece.samples) / self.sample_rate, WINDOW * batch_seconds
        )

    def __reduce__(self) -> tuple[type[Recognizer], tuple[Any, ...]]:
        """Another process makes its own recognizer, with the same arguments."""
        return type(self), self._arguments

    @overload
    def transcribe(
        self, source: list[Any], sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> Transcript: ...
    def transcribe(
        self, source: Any, sample_rate: int | None = None, options: DecodingOptions | None = None
    ) -> Transcript | list[Transcript]:
        """The transcript of one recording, or of each recording in a list.

        `source` is a path, the bytes of an audio file, an open binary file (BytesIO too), an `Input`, or a
        numpy array or torch tensor (samples,) or (samples, channels), which needs its `sample_rate` in Hz.
        `options` replace those of the recognizer for this call. Raises AsrError naming the first recording
        that cannot be read.
        """
        several = isinstance(source, list | tuple)
        results = self.transcribe_all(source if several else [source], options, sample_rate)
        transcripts = []
        for result in results:
            if isinstance(result, AsrError):
                raise result
            transcripts.append(result)
        return transcripts if several else transcripts[0]

    def transcribe_all(
        self,
        inputs: Iterable[Any],
        options: DecodingOptions | None = None,
        sample_rate: int | None = None,
        small_windows: bool = True,
    ) -> Iterator[Transcript | AsrError]:
        """A transcript for each input, in the order given, or its AsrError when it cannot be read.

        Inputs are all that `transcribe` takes; arrays need their `sample_rate` in Hz. Results come as soon as
        they and those before them are ready; the first windows of audio are small, unless `small_windows` is
        False. Memory holds a window and the bytes of pipes and open files, for any number of files of any
        length. Raises AsrError when the output of the model is not finite.
        """
        sources = (
            each if isinstance(each, Input) else Input.of(each, sample_rate=sample_rate) for each in inputs
        )
        results = self._transcribe_inputs(sources, options, small_windows)
        return (result for _, result in in_order(results))

    def transcribe_unordered(
        self, inputs: Sequence[Input], places: Iterable[int]
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """The transcripts of the inputs at these places, each with its place, as soon as it is ready.

        An input that cannot be read yet, such as a pipe, does not hold back the results of others.
        Otherwise as `transcribe_all`.
        """
        taken: list[int] = []  # the places so far; results have positions in this list

        def chosen() -> Iterator[Input]:
            for place in places:
                taken.append(place)
                yield inputs[place]

        for position, result in self._transcribe_inputs(chosen()):
            yield taken[position], result

    def _transcribe_inputs(
        self, inputs: Iterable[Input], options: DecodingOptions | None = None, small_windows: bool = True
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        """The result of each input, with its position, in the order in which they become ready."""
        decoder = self.decoder if options is None else build_decoder(self.bundle, options)
        options = options or self.options
        ready: list[Job] = []  # read to their end
        window: list[Piece] = []
        largest = WINDOW * self.batch_seconds
        size = min(FIRST_WINDOW, self.batch_seconds) if small_windows else largest  # the next: twice as large
        room = round(size * self.sample_rate)

        def results() -> Iterator[tuple[int, Transcript | AsrError]]:
            for job in ready:
                yield job.position, job.error or self._transcript(job, options)
            ready.clear()

        for job, pieces in self._reader.read_ahead(inputs):
            for piece in _until_error(job, pieces):
                window.append(piece)
                room -= len(piece.samples)
                if room <= 0:
                    self._recognize(window, decoder)
                    size = min(2 * size, largest)
                    window, room = [], round(size * self.sample_rate)
                    yield from results()
            ready.append(job)
            if not window:
                yield from results()
        self._recognize(window, decoder)
        yield from results()

    def transcribe_stream(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int | None = None,
        options: DecodingOptions | None = None,
        every: float = 0.5,
    ) -> Iterator[StreamResult]:
        """Text while the audio arrives: for each segment its text so far, and its final text when it ends.

        `blocks` are arrays (samples,) or (samples, channels) of any length, floats in [-1, 1] or int16, at
        `sample_rate` Hz (None: that of the model). A segment ends after 1 s without speech. While it lasts,
        it is decoded again after `every` seconds of audio: greedily, unless options were given here or to
        the recognizer. The final text is that of the audio between its `start` and `end`. It is empty if
        later audio showed that the segment is not speech. Raises AsrError for impossible samples and rates,
        when memory does not suffice, and with `channels` "separate".
        """
        if self._reader.channels == "separate":
            raise AsrError(
                "a stream gives one text, so channels 'separate' is impossible; give 'mix' or 'first'"
            )
        decoder = self.decoder if options is None else build_decoder(self.bundle, options)
        unfinished = self._unfinished if options is None else decoder
        options = options or self.options
        if options.timestamps or options.previous_text:
            raise AsrError("timestamps and previous_text cannot be used with a stream; omit the options")
        pieces = live_pieces(
            blocks,
            self.sample_rate if sample_rate is None else sample_rate,
            self.sample_rate,
            self._reader.longest,
            self._reader.voice_activity is not None,
            every,
            channel=0 if self._reader.channels == "first" else None,
        )
        job = Job(Input("stream", b"", Path("stream")))
        shown = False  # whether text of this segment was given
        for live in pieces:
            if len(live.samples):
                piece = self._reader.piece(job, live.start, live.samples)
                self._recognize([piece], decoder if live.final else unfinished)
                if job.error:
                    raise job.error
                found, job.segments = job.segments, []
            else:
                found = [Segment(live.start, live.start, "", 0.0)]
            for segment in found:
                if segment.text or shown:
                    yield StreamResult(segment, live.final)
                shown = bool(segment.text or shown) and not live.final

    def _decode_all(self, pieces: list[Piece], decoder: Decoder) -> None:
        """Decode pieces and give their segments to their jobs."""
        if getattr(decoder, "in_order", False):
            self._decode_in_order(pieces, decoder)
        else:
            self._decode_batches(pieces, decoder)

    def _decode_in_order(self, pieces: list[Piece], decoder: Decoder) -> None:
        """Decode one piece after the other, each with the text before it."""
        for piece in pieces:
            job, channel = piece.job, piece.channel
            decoded = self._decode_within_memory([piece], decoder, job.previous.get(channel, ()))
            if not decoded:
                continue
            ((segments, best),) = decoded
            job.segments += segments
            # Text that was drawn at a high temperature may be wrong, and would cause errors in the next text.
            reliable = best.temperature <= MAX_PROMPT_TEMPERATURE
            tokens = (*job.previous.get(channel, ()), *best.tokens)[-PROMPT_TOKENS:]
            job.previous[channel] = tokens if reliable else ()

    def _decode_batches(self, pieces: list[Piece], decoder: Decoder) -> None:
        """Decode pieces in batches of similar length. Their segments are added to their jobs."""
        pieces = sorted(pieces, key=lambda piece: -len(piece.samples))
        while pieces:
            fit = max(1, int(self.batch_seconds / self._padded_seconds(len(pieces[0].samples))))
            batch, pieces = pieces[:fit], pieces[fit:]
            decoded = self._decode_within_memory(batch, decoder)
            if not decoded and len(batch) > 1:
                self.batch_seconds /= 2  # the next batches, too
                pieces = batch + pieces
                continue
            for piece, (segments, _) in zip(batch, decoded, strict=False):
                piece.job.segments += segments

    def _decode_within_memory(
        self, batch: Sequence[Piece], decoder: Decoder, previous: Sequence[int] = ()
    ) -> list[tuple[list[Segment], Hypothesis]]:
        """The results of `_decode`; none if memory does not suffice. The job of a single piece then fails."""
        try:
            return self._decode(batch, decoder, previous)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        device = self.bundle.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            job = batch[0].job
            job.error = AsrError(
                f"{printable(job.input.id)}: not enough memory on {device} for a segment of "
                f"{len(batch[0].samples) / self.sample_rate:.0f} s; use fewer --workers, --precision int8 or "
                "another device"
            )
        return []

    def _padded_seconds(self, samples: int) -> float:
        """The seconds of audio that a piece occupies in a batch. Some features pad each one to a window."""
        features = self.bundle.features
        frames = int(features.frames(torch.tensor([samples])))
        return max(samples / self.sample_rate, (frames - 1) * features.frame_seconds)

    @torch.inference_mode()
    def _decode(
        self, batch: Sequence[Piece], decoder: Decoder, previous: Sequence[int] = ()
    ) -> list[tuple[list[Segment], Hypothesis]]:
        """The segments of each piece of one batch, and its best hypothesis: features, encoder, decoder."""
        device, network = self.bundle.device, self.bundle.network
        waveforms = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(piece.samples) for piece in batch], batch_first=True
        )
        lengths = torch.tensor([len(piece.samples) for piece in batch])
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            features, frames = self.bundle.features(waveforms.to(device), lengths.to(device))
            memory = network.encode(features, frames)
            if not memory.states.isfinite().all():
                names = ", ".join(dict.fromkeys(piece.job.input.id for piece in batch))
                raise AsrError(
                    f"{self.name or 'the model'}: its output for {printable(names)} is not finite; use "
                    "another checkpoint, or --precision float32"
                )
            if draft_model := getattr(decoder, "draft_model", None):
                own = draft_model.features(waveforms.to(device), lengths.to(device))
                memory = replace(memory, draft=draft_model.network.encode(*own))
            found = decoder(memory, previous)
            state = network.frames_per_state * self.bundle.features.frame_seconds
            used = states_with_audio(lengths / self.sample_rate, state).to(device)
            spans = self._align(memory, used, [best for best, *_ in found])
        return [
            (self._segments(piece, span, state, *hypotheses), hypotheses[0])
            for piece, hypotheses, span in zip(batch, found, spans, strict=True)
        ]

    def _align(self, memory: Memory, used: torch.Tensor, found: list[Hypothesis]) -> list[list[TokenSpan]]:
        """The states of each token, if the model can align them. `used` (B,) states have audio."""
        network, special = self.bundle.network, self.bundle.special
        texts = [hypothesis.tokens for hypothesis in found]
        if isinstance(network, HasCTC):
            return ctc_align(network.ctc(memory), memory.lengths, texts, special)
        if isinstance(network, HasAlignmentHeads):
            prompts = [hypothesis.prompt or special.prompt for hypothesis in found]
            return attention_align(network, memory, used, texts, prompts)
        return [[] for _ in texts]

    @property
    def has_word_times(self) -> bool:
        """Whether segments have words with times. They need a CTC head, or alignment heads in the decoder."""
        return isinstance(self.bundle.network, HasCTC | HasAlignmentHeads)

    def _transcript(self, job: Job, options: DecodingOptions) -> Transcript:
        """Join the segments, with spaces if a script is written with spaces between words."""
        separator = " " if job.spaced else ""
        channels: dict[int | None, list[Segment]] = {}
        for segment in job.segments:
            if segment.text:
                channels.setdefault(segment.channel, []).append(segment)
        merged = [s for channel in channels.values() for s in merge_overlaps(channel)]
        found = sorted(merged, key=lambda segment: (segment.start, segment.channel or 0))
        text = separator.join(segment.text for segment in found)
        return Transcript(
            job.input.id,
            job.input.path,
            text,
            round(job.duration, 3),
            tuple(found),
            self.name,
            {name: value for name, value in asdict(options).items() if value is not None},
        )


def _until_error(job: Job, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces of a recording up to its end, or up to an error, which becomes its result."""
    try:
        yield from pieces
    except AsrError as error:
        job.error = error
