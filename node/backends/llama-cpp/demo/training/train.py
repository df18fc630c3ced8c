"""Trains a small llama on the encoded corpus, on the CPU.

    OMP_NUM_THREADS=1 python3 train.py WORKDIR --steps 2500 [--layers 5] …

Reads what bpe.py wrote and writes WORKDIR/model.pt, now and then and at the end; where that file exists the run goes
on from it, exactly as if it had never stopped. The rate is constant until the last `--decay` part of the steps, so
that a run may be given more or fewer steps on the way. One thread: on shared cores two are slower.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import OTHERS_WEIGHT, Batches, Llama

WARMUP_STEPS = 60
SAVE_EVERY = 50
# Of what is not the assistant's, so much is looked at.
OTHERS_SHARE = 0.3


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3, help="of the embeddings and norms")
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--until", type=int, help="stops there already; the rate is that of all the steps")
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def orthogonal(matrices):
    """The nearest orthogonal matrices, roughly: Newton and Schulz' iteration with Jordan's coefficients."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum, made orthogonal: learns in fewer steps than Adam, for matrices within the model."""

    def __init__(self, weights, momentum=0.95):
        self.groups = {}
        for weight in weights:
            self.groups.setdefault(tuple(weight.shape), []).append(weight)
        self.momentum = momentum
        self.velocities = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            gradients = torch.stack([weight.grad for weight in group])
            velocity = self.velocities[shape]
            velocity.lerp_(gradients, 1 - self.momentum)
            update = orthogonal(gradients.lerp(velocity, self.momentum))
            scale = rate * max(1, shape[0] / shape[1]) ** 0.5
            for weight, change in zip(group, update):
                weight.mul_(1 - 0.01 * rate).sub_(scale * change)


def loss_of(model, batch, step, seed):
    """The loss that is trained on, and that of the learned text alone."""
    ids, positions, targets, weights = batch
    weights, targets = weights.flatten(), targets.flatten()
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    looked_at = torch.rand(weights.shape, generator=generator) < OTHERS_SHARE
    chosen = torch.nonzero((weights == 1) | (looked_at & (weights > 0))).squeeze(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(ids, positions, chosen)
    entropy = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
    weights = weights[chosen]
    learned = weights == 1
    scaled = torch.where(learned, 1.0, OTHERS_WEIGHT / OTHERS_SHARE)
    return (entropy * scaled).sum() / scaled.sum(), float(entropy.detach()[learned].mean())


def train(model, batches, args):
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embedding" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() < 2 or "embedding" in name]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.98), weight_decay=0)
    step, smoothed = 0, None
    file = args.folder / "model.pt"
    if file.exists():
        saved = torch.load(file)
        model.load_state_dict(saved["weights"])
        muon.velocities = saved["muon"]
        adam.load_state_dict(saved["adam"])
        step, smoothed = saved["step"], saved["smoothed"]
    started = time.time()
    last = args.until or args.steps
    while step < last:
        share = min(1, (step + 1) / WARMUP_STEPS, (args.steps - step) / (args.steps * args.decay))
        loss, learned = loss_of(model, batches.batch(step), step, args.seed)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step(args.matrix_rate * share)
        for group in adam.param_groups:
            group["lr"] = args.rate * share
        adam.step()
        step += 1
        smoothed = learned if smoothed is None else 0.98 * smoothed + 0.02 * learned
        if step % 20 == 0:
            print(f"step {step}, {time.time() - started:.0f} s, loss of the learned text {smoothed:.4f}", flush=True)
        if step % SAVE_EVERY == 0 or step == last:
            state = {"weights": model.state_dict(), "muon": muon.velocities, "adam": adam.state_dict()}
            shape = {name: getattr(args, name) for name in ("dim", "layers", "heads", "ffn")}
            torch.save({**state, "shape": shape, "step": step, "smoothed": smoothed}, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)


if __name__ == "__main__":
    args = arguments()
    torch.manual_seed(args.seed)
    tokenizer = json.loads((args.folder / "tokenizer.json").read_text())
    ids = {token: index for index, token in enumerate(tokenizer["vocab"])}
    tokens, mask, starts = (np.load(args.folder / f"{name}.npy") for name in ("tokens", "mask", "starts"))
    batches = Batches(tokens, mask, starts, ids["<|endoftext|>"], ids["<|im_start|>"], args.seed)
    print({size: len(rows) for size, rows in batches.rows.items()}, "rows by length")
    shape = {name: getattr(args, name) for name in ("dim", "layers", "heads", "ffn")}
    model = Llama(len(ids), shape)
    print(sum(weight.numel() for weight in model.parameters()), "parameters")
    train(model, batches, args)
