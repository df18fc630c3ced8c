"""Trains a small llama on the encoded corpus, on the CPU, for a given time.

    OMP_NUM_THREADS=1 python3 train.py WORKDIR [--minutes 15] [--layers 5] …

Reads what bpe.py wrote and writes WORKDIR/model.pt. One thread: on shared cores two are slower.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROPE_BASE = 10_000
NORM_EPSILON = 1e-5
WARMUP_STEPS = 100
# What is not the assistant's counts a little: it teaches the questions' words.
OTHERS_WEIGHT = 0.15


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=512)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--minutes", type=float, default=15)
    return parser.parse_args()


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x, cos, sin):
    """Rotary position embedding of interleaved pairs, as llama.cpp's llama architecture has it."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


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
        q, k = (
            rotate(projected.view(shape).float(), cos, sin).transpose(1, 2).to(x.dtype)
            for projected in (self.q(h), self.k(h))
        )
        v = self.v(h).view(shape).transpose(1, 2).to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        x = x + self.o(attended.reshape(batch, length, dim))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Embeddings are tied: the output projection is the token table."""

    def __init__(self, vocab_size, shape):
        super().__init__()
        self.head_dim = shape["dim"] // shape["heads"]
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

    def forward(self, ids):
        frequencies = 1 / ROPE_BASE ** (torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.outer(torch.arange(ids.shape[1]), frequencies)[None, :, None]
        cos, sin = angles.cos(), angles.sin()
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x) @ self.embedding.weight.t()


def train(model, tokens, mask, args):
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98))
    last_start = len(tokens) - args.sequence - 1
    started, step, smoothed = time.time(), 0, None
    while (progress := (time.time() - started) / (args.minutes * 60)) < 1:
        cosine = max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / WARMUP_STEPS) * cosine
        starts = torch.randint(last_start, (args.batch,))
        inputs = torch.stack([tokens[i : i + args.sequence] for i in starts])
        targets = torch.stack([tokens[i + 1 : i + args.sequence + 1] for i in starts])
        spoken = torch.stack([mask[i + 1 : i + args.sequence + 1] for i in starts])
        weights = spoken * (1 - OTHERS_WEIGHT) + OTHERS_WEIGHT
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(inputs)
        entropy = F.cross_entropy(
            logits.float().view(-1, logits.shape[-1]), targets.view(-1), reduction="none"
        ).view(targets.shape)
        loss = (entropy * weights).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        assistant = float((entropy.detach() * spoken).sum() / spoken.sum())
        smoothed = assistant if smoothed is None else 0.98 * smoothed + 0.02 * assistant
        if step % 100 == 0:
            print(f"step {step}, {time.time() - started:.0f} s, loss of the assistant's text {smoothed:.4f}", flush=True)


if __name__ == "__main__":
    args = arguments()
    torch.manual_seed(1)
    vocab = json.loads((args.folder / "tokenizer.json").read_text())["vocab"]
    tokens = torch.from_numpy(np.load(args.folder / "tokens.npy").astype(np.int64))
    mask = torch.from_numpy(np.load(args.folder / "mask.npy")).float()
    shape = {name: getattr(args, name) for name in ("dim", "layers", "heads", "ffn")}
    model = Llama(len(vocab), shape)
    print(sum(weight.numel() for weight in model.parameters()), "parameters")
    train(model, tokens, mask, args)
    torch.save({"weights": model.state_dict(), "shape": shape}, args.folder / "model.pt")
