"""Six steps of PEFT's LoRA+ over DoRA on SmolLM2 in f32: each step's loss and gradient norm.

Run:      python loraplus_steps.py SMOLLM2_HF_DIR        (made by gguf_to_hf.py; 3 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2
Writes:   loraplus_steps.json

The setting, rows and start of `dora_steps.py`, stepped by `peft.optimizers.create_loraplus_optimizer` over torch's AdamW: lr 1e-4 for
A, 16 times that for B and magnitudes (which PEFT counts among B, having one dimension), weight decay 0.1 of each one's own rate.

loraplus_steps.json: as dora_steps.json, with {learning_rate, weight_decay, loraplus_lr_ratio}.
"""
import json
import sys
from pathlib import Path

import torch
from dora_steps import train
from peft.optimizers import create_loraplus_optimizer

LR, WEIGHT_DECAY, RATIO, STEPS = 1e-4, 0.1, 16, 6


def loraplus(model, named: dict):
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=RATIO, loraplus_weight_decay=WEIGHT_DECAY, betas=(0.9, 0.999), eps=1e-8)
    groups = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in optimizer.param_groups if g["params"]}
    assert sum(groups.values()) == len(named), groups
    print(groups)
    return optimizer


if __name__ == "__main__":
    out = Path(__file__).with_suffix(".json")
    train(sys.argv[1], loraplus, STEPS, out)
    numbers = {"learning_rate": LR, "weight_decay": WEIGHT_DECAY, "loraplus_lr_ratio": RATIO}
    out.write_text(json.dumps({**numbers, **json.loads(out.read_text())}, indent=1) + "\n")
