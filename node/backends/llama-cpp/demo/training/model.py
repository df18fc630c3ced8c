"""The llama that is trained, and the cutting of the corpus into batches."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CONTEXT_TOKENS = 4096
# High, so that half of each head hardly sees where a token stands: copying works over the whole context.
ROPE_BASE = 100_000
NORM_EPSILON = 1e-5
ATTENTION_BLOCK = 128
# Row lengths of a batch; each holds as many rows as make a batch of BATCH_TOKENS.
SHORT, MEDIUM, LONG = 512, 1024, CONTEXT_TOKENS
BATCH_TOKENS = 4096
JUMPING_SHARE = 0.3


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x, cos, sin):
    """Rotary position embedding of interleaved pairs, as llama.cpp's llama architecture has it."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def attend(q, k, v):
    """Causal attention in blocks of queries: on a CPU with bf16 matrices twice as fast as torch's own."""
    length = q.shape[2]
    block = max(ATTENTION_BLOCK, length // 8)
    future = torch.full((block, block), float("-inf"), dtype=q.dtype).triu(1)
    q = q * q.shape[-1] ** -0.5
    blocks = []
    for start in range(0, length, block):
        end = min(start + block, length)
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)
        own = scores[..., start:] + future[: end - start, : end - start]
        scores = torch.cat((scores[..., :start], own), -1) if start else own
        blocks.append(torch.softmax(scores, -1) @ v[:, :, :end])
    return torch.cat(blocks, 2)


class Layer(nn.Module):
    def __init__(self, dim, heads, ffn):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (linear(dim, dim) for _ in range(4))
        self.gate, self.up, self.down = linear(dim, ffn), linear(dim, ffn), linear(ffn, dim)
        self.attention_norm = nn.RMSNorm(dim, eps=NORM_EPSILON)
        self.ffn_norm = nn.RMSNorm(dim, eps=NORM_EPSILON)

    def forward(self, x, cos, sin):
        batch, length, dim = x.shape
        shape = (batch, length, self.heads, dim // self.heads)
        h = self.attention_norm(x)
        v = self.v(h).view(shape).transpose(1, 2)
        q, k = (
            rotate(projected.view(shape).float(), cos, sin).transpose(1, 2).to(v.dtype)
            for projected in (self.q(h), self.k(h))
        )
        x = x + self.o(attend(q, k, v).transpose(1, 2).reshape(batch, length, dim))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Embeddings are tied: the output projection is the token table."""

    def __init__(self, vocab_size, shape):
        super().__init__()
        head_dim = shape["dim"] // shape["heads"]
        self.embedding = nn.Embedding(vocab_size, shape["dim"])
        self.layers = nn.ModuleList(
            Layer(shape["dim"], shape["heads"], shape["ffn"]) for _ in range(shape["layers"])
        )
        self.norm = nn.RMSNorm(shape["dim"], eps=NORM_EPSILON)
        residual_scale = 1 / math.sqrt(2 * shape["layers"])
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith((".o.weight", ".down.weight"))
                nn.init.normal_(weight, 0, 0.02 * (residual_scale if residual else 1))
        frequencies = 1 / ROPE_BASE ** (torch.arange(0, head_dim, 2) / head_dim)
        self.angles = torch.outer(torch.arange(CONTEXT_TOKENS), frequencies)

    def forward(self, ids, positions, chosen):
        """Logits of the chosen positions, which are indices into the flattened batch."""
        angles = self.angles[positions][:, :, None]
        cos, sin = angles.cos(), angles.sin()
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x.flatten(0, 1)[chosen]) @ self.embedding.weight.t()


def packed(documents, lengths, row_tokens, rng):
    """Rows of documents that together fill at most `row_tokens`, each document in one row."""
    rows, open_rows = [], []
    for document in rng.permutation(documents):
        length = lengths[document]
        fitting = [row for row in open_rows if row[0] + length <= row_tokens]
        row = max(fitting, key=lambda row: row[0]) if fitting else [0, []]
        if not fitting:
            open_rows.append(row)
            if len(open_rows) > 24:
                fullest = max(open_rows, key=lambda row: row[0])
                open_rows = [other for other in open_rows if other is not fullest]
                rows.append(fullest[1])
        row[0] += int(length)
        row[1].append(int(document))
    return rows + [row[1] for row in open_rows]


class Batches:
    """Batch number n is the same in each run, wherever the run began."""

    def __init__(self, tokens, mask, starts, padding, turn, seed):
        self.tokens, self.mask, self.starts = tokens, mask, starts
        self.padding, self.turn, self.seed = padding, turn, seed
        lengths = np.diff(starts)
        rng = np.random.default_rng(seed)
        self.rows, at_least = {}, 0
        for size in (SHORT, MEDIUM, LONG):
            documents = np.flatnonzero((lengths > at_least) & (lengths <= size + 1))
            self.rows[size] = packed(documents, lengths, size + 1, rng)
            at_least = size + 1

    def size_of(self, step):
        return LONG if step % 16 == 15 else MEDIUM if step % 16 == 7 else SHORT

    def batch(self, step):
        """Token ids, their positions, what follows each, and 1 where that is learned, 0 where it is padding."""
        size = self.size_of(step)
        count, rows = BATCH_TOKENS // size, self.rows[size]
        before = sum(self.size_of(s) == size for s in range(step % 16)) + step // 16 * (14 if size == SHORT else 1)
        rng = np.random.default_rng([self.seed, step])
        ids = np.full((count, size + 1), self.padding, dtype=np.int64)
        weights = np.zeros((count, size + 1), dtype=np.float32)
        positions = np.tile(np.arange(size), (count, 1))
        for index in range(count):
            at = 0
            for document in rows[(before * count + index) % len(rows)]:
                start, end = self.starts[document], self.starts[document + 1]
                ids[index, at : at + end - start] = self.tokens[start:end]
                weights[index, at : at + end - start] = np.where(self.mask[start:end] == 1, 1, OTHERS_WEIGHT)
                at += end - start
            if rng.random() < JUMPING_SHARE and size < LONG:
                # As if a long text stood between two turns: teaches far positions at the price of near ones.
                turns = np.flatnonzero(ids[index, :size] == self.turn)
                positions[index, rng.choice(turns) if len(turns) else 0 :] += rng.integers(LONG - size)
        return tuple(map(torch.from_numpy, (ids[:, :-1].copy(), positions, ids[:, 1:].copy(), weights[:, 1:].copy())))


# What is not the assistant's counts a little: it teaches the questions' words.
OTHERS_WEIGHT = 0.15
