"""Learns a byte-level BPE vocabulary from the corpus and encodes the corpus with it.

    python3 bpe.py CORPUS.jsonl VOCABULARY_SIZE WORKDIR

Writes WORKDIR/tokenizer.json (vocab, merges), tokens.npy (uint16) and mask.npy (1 where the assistant speaks).
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import regex

CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# GPT-2's split into words, which llama.cpp calls "gpt-2".
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
# Dialogues that the vocabulary is learnt from: more of them change nothing.
LEARN_FROM = 40_000
LEAST_PAIRS = 20
NEVER = 1e9


def byte_names():
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in printable}
    extra = 256
    for byte in range(256):
        if byte not in names:
            names[byte] = chr(extra)
            extra += 1
    return names


BYTE_NAMES = byte_names()


def spelled(word):
    return [BYTE_NAMES[byte] for byte in word.encode()]


def merge_pair(symbols, first, second):
    merged, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] == first and symbols[i + 1] == second:
            merged.append(first + second)
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


def count_words(corpus):
    counts = Counter()
    for index, line in enumerate(corpus):
        if index >= LEARN_FROM:
            break
        for role, text in json.loads(line):
            counts.update(WORD.findall(text))
            counts.update(WORD.findall(role + "\n"))
    return counts


def learn(counts, size):
    """The vocabulary (bytes, merges, control tokens, in this order) and the merges in order of rank."""
    words = [spelled(word) for word in counts]
    frequencies = list(counts.values())
    vocab, merges = [BYTE_NAMES[byte] for byte in range(256)], []
    while len(vocab) < size - len(CONTROL_TOKENS):
        pairs = Counter()
        for symbols, frequency in zip(words, frequencies):
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += frequency
        if not pairs:
            break
        (first, second), frequency = max(pairs.items(), key=lambda item: (item[1], item[0]))
        if frequency < LEAST_PAIRS:
            break
        merges.append(f"{first} {second}")
        vocab.append(first + second)
        words = [merge_pair(symbols, first, second) if first in symbols else symbols for symbols in words]
    return vocab + CONTROL_TOKENS, merges


class Encoder:
    def __init__(self, vocab, merges):
        self.ids = {token: index for index, token in enumerate(vocab)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self.cache = {}

    def word(self, word):
        if word not in self.cache:
            symbols = spelled(word)
            while len(symbols) > 1:
                ranked = ((self.ranks.get(pair, NEVER), i) for i, pair in enumerate(zip(symbols, symbols[1:])))
                rank, i = min(ranked)
                if rank >= NEVER:
                    break
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            self.cache[word] = [self.ids[symbol] for symbol in symbols]
        return self.cache[word]

    def text(self, text):
        return [token for word in WORD.findall(text) for token in self.word(word)]


def encode_corpus(corpus, encoder):
    """Each dialogue in ChatML, closed by the end of text; and a mask of what the assistant says."""
    end_of_text, start, end = (encoder.ids[token] for token in CONTROL_TOKENS)
    tokens, mask = [], []
    for line in corpus:
        for role, text in json.loads(line):
            head = [start, *encoder.text(role + "\n")]
            body = [*encoder.text(text), end]
            tail = encoder.text("\n")
            tokens += head + body + tail
            mask += [0] * len(head) + [int(role == "assistant")] * len(body) + [0] * len(tail)
        tokens.append(end_of_text)
        mask.append(0)
    return tokens, mask


if __name__ == "__main__":
    corpus_path, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    with open(corpus_path) as corpus:
        vocab, merges = learn(count_words(corpus), size)
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": vocab, "merges": merges}))
    with open(corpus_path) as corpus:
        tokens, mask = encode_corpus(corpus, Encoder(vocab, merges))
    np.save(folder / "tokens.npy", np.array(tokens, dtype=np.uint16))
    np.save(folder / "mask.npy", np.array(mask, dtype=np.uint8))
    print(f"{len(vocab)} tokens in the vocabulary, {len(tokens)} in the corpus, {sum(mask)} of them the assistant's")
