"""Estimate the word n-gram model of the English recognizer, and print its perplexity on held-out sentences.

python recipes/english/word_model.py books_en.txt.xz words.safetensors
"""

from __future__ import annotations

import argparse

from asr.decoding.ngram import train_ngram


def main() -> None:
    """Command line: text files, one sentence per line, and the file to write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", nargs="+", help="text files, one sentence per line (.txt, .gz, .xz)")
    parser.add_argument("out", help="file to write: .safetensors, or .arpa.gz")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=30_000)
    parser.add_argument("--prune", type=float, default=0.0, help="entropy pruning, such as 1e-8")
    args = parser.parse_args()
    model, held_out = train_ngram(args.text, args.out, args.order, args.vocabulary, prune=args.prune)
    sizes = [model.levels[k + 1] - model.levels[k] for k in range(1, model.order + 1)]
    print(f"{args.out}: {' + '.join(map(str, sizes))} n-grams")
    print(f"held out: {held_out.words} words, {held_out.unknown_rate:.1%} unknown,", end=" ")
    print(f"perplexity {held_out.perplexity:.0f} (with unknown words {held_out.perplexity_with_unknown:.0f})")


if __name__ == "__main__":
    main()
