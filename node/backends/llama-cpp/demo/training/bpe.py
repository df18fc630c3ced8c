"""Learns a byte-level BPE vocabulary from the corpus and encodes the corpus with it.

    python3 bpe.py CORPUS.jsonl VOCABULARY_SIZE WORKDIR

A WORKDIR/tokenizer.json that is there already is used as it is. Writes WORKDIR/tokenizer.json (vocab, merges, and which tokens are control tokens and marks), tokens.npy (uint16),
mask.npy (1 where the model learns to speak), starts.npy (where each document begins, and the end of the last), and
samples.jsonl, prompts with their tokens for evaluate.ts to compare.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import regex

from chatml import CONTROL_TOKENS, MARKS, chat, pieces

# GPT-2's split into words, which llama.cpp calls "gpt-2".
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SPECIAL = regex.compile("(" + "|".join(map(regex.escape, CONTROL_TOKENS + MARKS)) + ")")
# Documents that the vocabulary is learnt from: more of them change nothing.
LEARN_FROM = 20_000
LEAST_PAIRS = 20
SAMPLES = 200
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
        for text, _ in pieces(json.loads(line)):
            for part in SPECIAL.split(text)[::2]:
                counts.update(WORD.findall(part))
    return counts


def learn(counts, size):
    """The vocabulary (bytes, merges, marks, control tokens, in this order) and the merges in order of rank."""
    # Rare words are invented ones: a merge for them would be wasted.
    counts = {word: frequency for word, frequency in counts.items() if frequency >= 3}
    words = [spelled(word) for word in counts]
    frequencies = list(counts.values())
    vocab, merges = [BYTE_NAMES[byte] for byte in range(256)], []
    while len(vocab) < size - len(CONTROL_TOKENS) - len(MARKS):
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
    return vocab + MARKS + CONTROL_TOKENS, merges


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
        tokens = []
        for index, part in enumerate(SPECIAL.split(text)):
            if index % 2 == 1:
                tokens.append(self.ids[part])
            else:
                for word in WORD.findall(part):
                    tokens += self.word(word)
        return tokens


def encode_corpus(corpus, encoder):
    tokens, mask, starts = [], [], [0]
    for line in corpus:
        for text, spoken in pieces(json.loads(line)):
            piece = encoder.text(text)
            tokens += piece
            mask += [int(spoken)] * len(piece)
        starts.append(len(tokens))
    return tokens, mask, starts


def samples(corpus, encoder):
    """Prompts up to where the assistant speaks for the last time."""
    for line in corpus[:SAMPLES]:
        document = json.loads(line)
        if document["kind"] == "chat":
            before = {"tools": document["tools"], "messages": document["messages"][:-1]}
            text = "".join(text for text, _ in chat(**before)) + "<|im_start|>assistant\n"
            yield json.dumps({**before, "text": text, "tokens": encoder.text(text)})


if __name__ == "__main__":
    corpus_path, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    corpus = Path(corpus_path).read_text().splitlines()
    known = folder / "tokenizer.json"
    if known.exists():
        tokenizer = json.loads(known.read_text())
    else:
        vocab, merges = learn(count_words(corpus), size)
        tokenizer = {"vocab": vocab, "merges": merges, "marks": MARKS, "control": CONTROL_TOKENS}
        known.write_text(json.dumps(tokenizer))
    encoder = Encoder(tokenizer["vocab"], tokenizer["merges"])
    (folder / "samples.jsonl").write_text("\n".join(samples(corpus, encoder)))
    tokens, mask, starts = encode_corpus(corpus, encoder)
    np.save(folder / "tokens.npy", np.array(tokens, dtype=np.uint16))
    np.save(folder / "mask.npy", np.array(mask, dtype=np.uint8))
    np.save(folder / "starts.npy", np.array(starts, dtype=np.int64))
    print(f"{len(encoder.ids)} tokens in the vocabulary, {len(tokens)} in the corpus, {sum(mask)} of them learned")
