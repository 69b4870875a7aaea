"""`asr transcribe`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Decoder(StrEnum):
    """The search for the best text. asr.decoding.options lists the options of each."""

    greedy = "greedy"
    beam = "beam"
    ctc = "ctc"
    rescoring = "rescoring"
    mask_predict = "mask-predict"


class Channels(StrEnum):
    """Which channels of a recording are decoded."""

    mix = "mix"
    first = "first"
    separate = "separate"


class Precision(StrEnum):
    """The number format of the model's computations."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
    int8 = "int8"


def transcribe(
    audio: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns, a manifest (.jsonl), or - for stdin.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder, a model that ships (english, digits), or a name on Hugging Face's hub, "
            "such as openai/whisper-small.",
            show_default="english",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision,
        typer.Option(help="auto: bf16 on a GPU that computes it natively, else float32; int8: on a CPU."),
    ] = Precision.auto,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="one for each free core")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that transcribe.", show_default="one for each thread on a CPU"),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Use the processes of a Ray cluster.")] = False,
    batch_seconds: Annotated[
        float | None,
        typer.Option(min=1.0, help="Audio in one batch, in seconds.", show_default="60 on a CPU, else 120"),
    ] = None,
    voice_activity: Annotated[
        bool | None,
        typer.Option(
            help="Decode only audio in which the voice activity detector finds speech.", show_default="yes"
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Segments whose words have a lower mean confidence get an empty text. 0: keep all.",
            show_default="0.2 for a model with a calibration, else 0",
        ),
    ] = None,
    channels: Annotated[
        Channels,
        typer.Option(
            help="mix: mean of all channels; first: the first channel; separate: each one "
            "(calls), merged by time."
        ),
    ] = Channels.mix,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="Use the decoder and the options that are most accurate with this model; slower."
        ),
    ] = False,
    decoder: Annotated[
        Decoder | None,
        typer.Option(
            help="greedy; beam: beam search; ctc: only CTC; rescoring: CTC's texts, ranked with "
            "the decoder; mask-predict: CTC's text, refined in parallel by a decoder of that kind.",
            show_default="that of the model folder, else greedy; ctc without a decoder; mask-predict "
            "with one of that kind",
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Decoder passes of mask-predict.", show_default="10")
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            help="Hypotheses kept in the search.", show_default="that of the model folder, else 10; ctc: 1"
        ),
    ] = None,
    n_best: Annotated[
        int | None, typer.Option(help="Hypotheses written as JSON for each segment.", show_default="1")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Language of the speech, such as de, for models that know several; auto: detect it.",
            show_default="that of the model, else auto",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="transcribe, or translate to English, for models that can.", show_default="transcribe"
        ),
    ] = None,
    timestamps: Annotated[
        bool | None,
        typer.Option(
            help="Decode timestamps, which divide the text into segments, with models that have them.",
            show_default="no-timestamps",
        ),
    ] = None,
    initial_prompt: Annotated[
        str | None, typer.Option(help="Text that the model treats as spoken before the recording.")
    ] = None,
    previous_text: Annotated[
        bool | None,
        typer.Option(
            help="Decode the segments of a recording one after the other, each with the text before it.",
            show_default="no-previous-text",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Above 0: draw tokens at random; a higher value draws less probable tokens.",
            show_default="0: the best token",
        ),
    ] = None,
    fallback: Annotated[
        bool | None,
        typer.Option(
            help="Decode again, at rising temperatures, texts that repeat themselves or are improbable.",
            show_default="no-fallback",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random choice of tokens.", show_default="0")
    ] = None,
    max_compression_ratio: Annotated[
        float | None,
        typer.Option(
            help="Fallback: decode again if the text can be compressed by more than this factor.",
            show_default="2.4",
        ),
    ] = None,
    min_log_prob: Annotated[
        float | None,
        typer.Option(help="Fallback: a text with a lower mean log-probability fails.", show_default="-1"),
    ] = None,
    no_speech_threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability of silence above which a text below --min-log-prob is left out.",
            show_default="0.6 with --fallback",
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Largest number of tokens in one segment.")] = None,
    ctc_weight: Annotated[
        float | None,
        typer.Option(show_default="0.3", help="Share of CTC in the choice of tokens; 0: only attention."),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Number of the decoder's best tokens that CTC and other scorers score at each step.",
            show_default="8, or 1.5 x beam if that is more",
        ),
    ] = None,
    draft: Annotated[
        bool | None,
        typer.Option(help="Check CTC's text in parallel. The result is the same as step by step."),
    ] = None,
    draft_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder or hub name of a smaller model of the same vocabulary: it writes drafts "
            "that the model checks in parallel. The text does not change."
        ),
    ] = None,
    length_normalization: Annotated[
        float | None,
        typer.Option(
            help="Divide scores by (tokens + 1) to this power.",
            show_default="that of the model folder, else 0",
        ),
    ] = None,
    hot_words: Annotated[
        Path | None, typer.Option(help="File of words and phrases to favor, one on each line.")
    ] = None,
    hot_word_bonus: Annotated[
        float | None,
        typer.Option(help="Bonus in the score for each letter of hot words.", show_default="0.7"),
    ] = None,
    language_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a language model, or file of word n-grams; its scores are added.",
            show_default="with the default decoder, that of the model folder",
        ),
    ] = None,
    language_model_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the language model's scores.", show_default="0.3; n-grams: 0.5"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the results to one file as they are ready; - is stdout."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Write one file for each input and format, named after it.")
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="txt, json, srt, vtt, tsv, ctm, trn, textgrid or rttm; for a folder several: srt,json.",
            show_default="txt in a folder, json in a file",
        ),
    ] = None,
    highlight_words: Annotated[
        bool, typer.Option("--highlight-words", help="Mark each word in srt and vtt while it is spoken.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", "--skip-existing", help="Skip inputs that already have a result.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --output.")] = False,
) -> None:
    """Print the text of recordings: one line for each file, path and text, in the order given.

    Files that cannot be read are reported and the others are transcribed. The exit status is then 1.
    """
    from asr.decoding.stored_options import best_options, default_options
    from asr.errors import AsrError
    from asr.model_folder import PRETRAINED
    from asr.transcription.job import read_hot_words, transcribe_inputs
    from asr.transcription.output import Output

    given: dict[str, Any] = dict(
        decoder=decoder.value if decoder else None,
        max_tokens=max_tokens,
        language=language,
        task=task,
        timestamps=timestamps,
        initial_prompt=initial_prompt,
        previous_text=previous_text,
        temperature=temperature,
        fallback=fallback,
        seed=seed,
        max_compression_ratio=max_compression_ratio,
        min_log_prob=min_log_prob,
        no_speech_threshold=no_speech_threshold,
        ctc_weight=ctc_weight,
        candidates=candidates,
        draft=draft,
        draft_model=str(draft_model) if draft_model else None,
        iterations=iterations,
        beam=beam,
        n_best=n_best,
        length_normalization=length_normalization,
        hot_words=read_hot_words(hot_words) if hot_words else None,
        hot_word_bonus=hot_word_bonus,
        language_model=str(language_model) if language_model else None,
        language_model_weight=language_model_weight,
    )
    if best and decoder:
        raise AsrError("--best also chooses the decoder; omit --decoder")
    options = None  # those of the model, which each process finds in its own copy of the model folder
    if best or any(value is not None for value in given.values()):
        options = (best_options if best else default_options)(model or PRETRAINED, **given)
    formats = tuple(dict.fromkeys(name.strip() for each in format or () for name in each.split(",")))
    failed = transcribe_inputs(
        audio,
        Output(output, output_dir, formats, resume, overwrite, highlight_words),
        model=model,
        device=device,
        batch_seconds=batch_seconds,
        options=options,
        precision=precision.value,
        threads=threads,
        voice_activity=voice_activity,
        workers=workers,
        ray=ray,
        channels=channels.value,
        min_confidence=min_confidence,
    )
    if failed:
        raise typer.Exit(1)
