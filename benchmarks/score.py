"""Compare `asr score` on many utterances with jiwer's command line, and with sclite if it is on PATH.

    python benchmarks/score.py --utterances 1000000

Each run is a separate process that reads the files and prints the rate. The system reports its peak memory
(ru_maxrss) and processor time. Other programs change processor time less than wall time. The texts are random
words with 10 % errors, the same for all. jiwer reads one text per line. `asr score` also counts characters
and matches ids, which jiwer does not do here.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEGA = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere


def write(folder: Path, utterances: int, words: int) -> None:
    """Write ref.trn and hyp.trn, and ref.txt and hyp.txt with the same texts without ids."""
    generator = random.Random(0)
    vocabulary = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 8))) for _ in range(5000)]
    files = {
        name: (folder / name).open("w", encoding="utf-8")
        for name in ("ref.trn", "hyp.trn", "ref.txt", "hyp.txt")
    }
    for i in range(utterances):
        ref = generator.choices(vocabulary, k=words)
        hyp = []
        for word in ref:
            fate = generator.random()
            if fate < 0.03:
                continue
            hyp.append(generator.choice(vocabulary) if fate < 0.08 else word)
            if fate > 0.98:
                hyp.append(generator.choice(vocabulary))
        # jiwer drops empty lines, which would shift the pairs after them.
        for side, tokens in (("ref", ref), ("hyp", hyp or ref[:1])):
            text = " ".join(tokens)
            files[f"{side}.trn"].write(f"{text} (s{i % 100:02}-{i:07})\n")
            files[f"{side}.txt"].write(text + "\n")
    for file in files.values():
        file.close()


def timed(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Wall time and processor time in seconds, peak memory in MiB, and the output."""
    output = folder / "output"
    with output.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{text[-2000:]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MEGA, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterances", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=20)
    arguments = parser.parse_args()
    asr = [sys.executable, str(ROOT / "cli.py"), "score", "ref.trn", "hyp.trn", "--worst", "0"]
    jiwer = [sys.executable, "-m", "jiwer.cli", "-r", "ref.txt", "-h", "hyp.txt"]
    sclite = ["sclite", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-o", "sum", "stdout"]
    runs = {"asr score": asr, "jiwer": jiwer}
    if shutil.which("sclite"):
        runs |= {"asr score --costs nist": [*asr, "--costs", "nist"], "sclite": sclite}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), arguments.utterances, arguments.words)
        print(f"{arguments.utterances:,} utterances of {arguments.words} words")
        base = None
        for what, command in runs.items():
            seconds, processor, memory, text = timed(command, Path(name))
            base = base or (seconds, processor, memory)
            message = text.splitlines()[0] if what != "sclite" else ""
            print(
                f"{what:24} {seconds:8.2f} s ({seconds / base[0]:5.2f} x)  "
                f"processor {processor:8.2f} s ({processor / base[1]:5.2f} x)  "
                f"{memory:6.0f} MiB ({memory / base[2]:5.2f} x)  {message}",
                flush=True,
            )


if __name__ == "__main__":
    main()
