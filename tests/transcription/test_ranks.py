"""Processes of torchrun share one list: each input is done once, and results are merged in order."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch import distributed as dist

from asr.errors import AsrError
from asr.transcription import job
from asr.transcription.inputs import Input
from asr.transcription.output import Output, begin_parts, merge_parts, part_of, remove_file
from asr.transcription.ranks import Ranks

ROOT = Path(__file__).parents[2]


def test_each_position_is_taken_once():
    store, taken, positions = dist.HashStore(), [], list(range(0, 200, 2))
    ranks = [Ranks(rank, 3, store) for rank in range(3)]
    ranks[1].store.add("next", 0)
    first = ranks[0].share(positions)
    taken.append(next(first))  # a slow process: the others do the rest
    for rank in ranks[1:]:
        taken += rank.share(positions)
    taken += first
    assert sorted(taken) == positions


def test_sums_wait_for_all():
    store = dist.HashStore()
    ranks = [Ranks(rank, 2, store) for rank in range(2)]
    found = []
    thread = threading.Thread(target=lambda: found.append(ranks[1].total("failed", 3)))
    thread.start()
    thread.join(0.05)
    assert not found
    assert ranks[0].total("failed", 4) == 7
    thread.join()
    assert found == [7]


def test_decisions_of_the_main_process():
    store = dist.HashStore()
    assert Ranks(0, 2, store).decide(lambda: [3, 5]) == [3, 5]
    assert Ranks(1, 2, store).decide(lambda: [0]) == [3, 5]
    store = dist.HashStore()
    with pytest.raises(AsrError, match="broken"):
        Ranks(0, 2, store).decide(lambda: (_ for _ in ()).throw(AsrError("broken")))
    with pytest.raises(SystemExit):
        Ranks(1, 2, store).decide(lambda: [0])


def line(name, text="x"):
    return json.dumps({"id": name, "text": text, "segments": []}) + "\n"


def test_parts_are_merged_in_the_order_of_the_inputs(tmp_path):
    """Together with what is there already; a line without its end is dropped."""
    file = tmp_path / "out.jsonl"
    file.write_text(line("c"))
    (tmp_path / "out.jsonl.part0").write_text(line("d") + line("a", "first"))
    (tmp_path / "out.jsonl.part1").write_text(line("a", "second") + line("b") + '{"id": "e')
    merge_parts(file, [Input.of(name) for name in "aabcde"])
    assert [json.loads(each)["id"] for each in file.read_text().splitlines()] == list("aabcd")
    assert list(tmp_path.iterdir()) == [file]


def test_results_of_other_inputs_stay(tmp_path):
    """Two manifests can have one id."""
    file = tmp_path / "out.jsonl"
    file.write_text(line("old", "first") + line("old", "second") + line("other") + line("a"))
    (tmp_path / "out.jsonl.part0").write_text(line("a", "again") + line("b"))
    merge_parts(file, [Input.of("a"), Input.of("b")])
    found = [json.loads(each)["id"] for each in file.read_text().splitlines()]
    assert found[:2] == ["a", "b"] and sorted(found[2:]) == ["a", "old", "old", "other"]


def test_parts_of_an_interrupted_run(tmp_path):
    file, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part0"
    part.write_text(line("a"))
    with pytest.raises(AsrError, match=r"out\.jsonl\.part0: results of an interrupted run; add --resume"):
        begin_parts(Output(file), [])
    begin_parts(Output(file, resume=True), [Input.of("a")])
    assert file.read_text() == line("a") and not part.exists()
    part.write_text(line("b"))
    begin_parts(Output(file, overwrite=True), [])
    assert list(tmp_path.iterdir()) == [file]
    remove_file(Output(file))
    assert list(tmp_path.iterdir()) == [file]
    remove_file(Output(file, overwrite=True))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "real").write_text(line("a"))
    file.symlink_to(tmp_path / "real")
    remove_file(Output(file, overwrite=True))
    assert file.is_symlink() and not file.exists()
    file.unlink()
    assert part_of(Output(file), 3).file == tmp_path / "out.jsonl.part3"


def test_places_that_cannot_be_shared():
    for output in (Output(), Output(Path("-")), Output(Path("a.ctm"), formats=("ctm",))):
        with pytest.raises(AsrError, match="torchrun: several processes cannot write to one stream; add"):
            output.check_shared()
    Output(Path("a.jsonl")).check_shared()
    Output(folder=Path("a"), formats=("ctm", "txt")).check_shared()


def test_options_that_others_decide_are_refused(tmp_path, monkeypatch):
    with pytest.raises(AsrError, match="--threads: the processes of a Ray cluster"):
        job.transcribe_inputs([str(tmp_path)], Output(), ray=True, threads=2)
    ranks = Ranks(rank=1, count=2, store=object())
    monkeypatch.setattr(job, "join_ranks", lambda: ranks)
    with pytest.raises(AsrError, match="--workers: torchrun starts the processes"):
        job.transcribe_inputs([str(tmp_path)], Output(), workers=2)


@pytest.mark.slow
def test_two_processes_of_torchrun(tiny_model, tmp_path):
    for i in range(10):
        time = np.arange(3200 + 800 * i) / 16000
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 150 * (i + 1) * time), 16000)
    (tmp_path / "4.wav").write_bytes(b"RIFF")
    arguments = ["cli.py", "transcribe", tmp_path, "--model", tiny_model, "--output"]
    subprocess.run([sys.executable, *arguments, tmp_path / "one.jsonl"], cwd=ROOT, check=False)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = [sys.executable, *torchrun, *arguments, tmp_path / "two.jsonl"]
    done = subprocess.run(shared, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("4.wav: ") == 1
    one, two = (
        [(r["id"], r["text"]) for r in map(json.loads, (tmp_path / name).read_text().splitlines())]
        for name in ("one.jsonl", "two.jsonl")
    )
    assert len(one) == 9 and one == two
    assert not list(tmp_path.glob("two.jsonl.part*"))
