#!/usr/bin/env bash
# Run all GPU tests and all benchmarks that have a GPU mode, one after the other, with one command:
#
#     benchmarks/on_gpu.sh [OUT] [AUDIO ...]
#
# OUT (default: gpu-results) gets one text file for each part. AUDIO are files, folders or a manifest to transcribe
# (default: data/samples/digits, repeated). A part that fails does not stop the others; the exit status then is 1.
# Parts that compare with transformers or speechbrain are skipped when these are not installed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
shift || true
model=()
(($#)) || model=(--model digits)
audio=("${@:-data/samples/digits}")
python=${PYTHON:-python}
failed=0
mkdir -p "$out"

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "on_gpu.sh: error: torch finds no CUDA device; run this on a machine with a GPU" >&2
    exit 1
fi
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' | tee "$out/device.txt"

part() { # NAME COMMAND...: run one part and keep what it prints
    local name=$1
    shift
    echo "== $name: $*"
    if ! "$@" >"$out/$name.txt" 2>&1; then
        failed=1
        echo "   failed, see $out/$name.txt"
    fi
    tail -n 3 "$out/$name.txt"
}

part tests "$python" -m pytest -m gpu
part transcribe "$python" benchmarks/speed.py transcribe "${audio[@]}" "${model[@]}" --copies 20 --device cuda
data=('data.train=[data/synthetic_digits/manifest.jsonl]' 'data.dev=[data/samples/digits/manifest.jsonl]')
part train "$python" benchmarks/speed.py train recipes/fsdd/digits.yaml "${data[@]}" --device cuda
part train-bf16 "$python" benchmarks/speed.py train recipes/fsdd/digits.yaml "${data[@]}" train.precision=bf16 --device cuda
part decoders "$python" benchmarks/decoders.py data/samples/digits/manifest.jsonl --model digits --device cuda --repeats 3
if "$python" -c 'import transformers, speechbrain' 2>/dev/null; then
    part train-peers "$python" benchmarks/train_peers.py --device cuda
    part decode-peers "$python" benchmarks/decode_peers.py --device cuda
    part decode-peers-ctc "$python" benchmarks/decode_peers.py --device cuda --ctc --peers speechbrain
else
    echo "== peers skipped: pip install transformers speechbrain"
fi
exit "$failed"
