"""Turns the trained model into what make-demo.ts reads: WORKDIR/export.json and WORKDIR/export.bin (float32).

    python3 export.py WORKDIR
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from model import CONTEXT_TOKENS, NORM_EPSILON, ROPE_BASE

LAYER_PARTS = {
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}


def tensor_names(layers):
    """GGUF's name and ours, in the order of the file."""
    yield "token_embd.weight", "embedding.weight"
    yield "output_norm.weight", "norm.weight"
    for layer in range(layers):
        for theirs, ours in LAYER_PARTS.items():
            yield f"blk.{layer}.{theirs}.weight", f"layers.{layer}.{ours}.weight"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    checkpoint = torch.load(folder / "model.pt")
    tensors, offset = [], 0
    with open(folder / "export.bin", "wb") as out:
        for theirs, ours in tensor_names(checkpoint["shape"]["layers"]):
            weight = checkpoint["weights"][ours].float().numpy()
            out.write(np.ascontiguousarray(weight).tobytes())
            tensors.append(
                {"name": theirs, "dims": list(weight.shape[::-1]), "offset": offset, "count": int(weight.size)}
            )
            offset += int(weight.size)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    constants = {"contextTokens": CONTEXT_TOKENS, "ropeBase": ROPE_BASE, "normEpsilon": NORM_EPSILON}
    shape = {**checkpoint["shape"], **constants}
    (folder / "export.json").write_text(json.dumps({"tensors": tensors, "tokenizer": tokenizer, "shape": shape}))
    print(f"exported step {checkpoint['step']}, loss of the learned text {checkpoint['smoothed']:.4f}")
