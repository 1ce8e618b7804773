"""Ten AdamW steps of TRL's RewardTrainer with LoRA on SmolLM2 in f32: each step's loss, gradient norm and metrics.

Run:      python reward_steps.py SMOLLM2_HF_DIR [THREADS]      (made by gguf_to_hf.py; 4 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2, trl 1.16.0
Writes:   reward_steps.json

Setting: rows, order, adapter, its start and the optimiser are those of align_steps.py; AutoModelForSequenceClassification with one
label, task type SEQ_CLS, so that PEFT trains the head `score` whole. The head goes on where A and B end in the counter of
peft_steps.py: its element n is `(2 u - 1) * f32(0.05)`. Two runs: `plain` by the defaults, `centred` with a margin of 0.25 (k mod 4)
for row k and `center_rewards_coefficient` 0.01.

transformers reads the head at the last token that is not the padding token; where that is the token that ends answers, as in
SmolLM2's tokenizer, it passes over the end. Padding is another token here, so that the last token counts.

reward_steps.json: {lora_r, lora_alpha, learning_rate, eps, weight_decay, max_grad_norm, seed, score: {first_values, range},
  plain | centred: {center, rows: [{prompt, chosen, rejected, margin}], steps: [{loss, grad_norm, "min_reward", ...}]}}; `prompt`,
  `chosen` and `rejected` (answers alone) are token ids.
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from align_steps import LR, ROWS, STEPS, Keep, keeping_losses, settings_of, texts
from datasets import Dataset
from peft import LoraConfig
from peft_steps import ALPHA, MODULES, R, SEED, initialise, splitmix
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

RANGE = 0.05
KEEP = ("min_reward", "mean_reward", "max_reward", "accuracy", "margin", "grad_norm")


def start(model) -> list[float]:
    """Sets A, B and the head; gives the head's first values."""
    trainable = {k: p for k, p in model.named_parameters() if p.requires_grad}
    order = [f"base_model.model.model.layers.{i}.{m}.lora_{x}.default.weight" for i in range(30) for m in MODULES for x in "AB"]
    (head,) = set(trainable) - set(order)
    assert head == "base_model.model.score.modules_to_save.default.weight", head
    low_rank = {k.removesuffix(".default.weight"): trainable[k] for k in order}
    initialise(low_rank)
    values = splitmix(sum(p.numel() for p in low_rank.values()), trainable[head].numel()) * np.float32(RANGE)
    trainable[head].data = torch.from_numpy(values.reshape(trainable[head].shape))
    return [float(x) for x in values[:8]]


def run(folder: str, rows: list[dict], center: float | None):
    losses, keep = [], Keep(KEEP)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "<|endoftext|>"
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as out:
        config = RewardConfig(**settings_of(out, ROWS, STEPS), max_length=512, center_rewards_coefficient=center)
        lora = LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="SEQ_CLS")
        trainer = keeping_losses(RewardTrainer, losses)(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora,
            callbacks=[keep])
        first = start(trainer.model)
        assert trainer.model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
        trainer.train()
        data = [dict(row) for row in trainer.train_dataset]
    made = []
    for row, ids in zip(rows, data, strict=True):
        prompt = tokenizer.encode(row["prompt"], add_special_tokens=False)
        sides = {}
        for side in ("chosen", "rejected"):
            assert ids[f"{side}_ids"][:len(prompt)] == prompt and ids[f"{side}_ids"][-1] == tokenizer.eos_token_id
            sides[side] = ids[f"{side}_ids"][len(prompt):]
        made.append({"prompt": prompt, **sides, "margin": row.get("margin")})
    steps = [{"loss": loss, **row} for loss, row in zip(losses, keep.rows, strict=True)]
    for i, step in enumerate(steps):
        print(i + 1, {k: round(v, 5) for k, v in step.items()}, flush=True)
    return first, {"center": center, "rows": made, "steps": steps}


def main(folder: str) -> None:
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    pairs = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in texts(AutoTokenizer.from_pretrained(folder))]
    out = {"lora_r": R, "lora_alpha": ALPHA, "learning_rate": LR, "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": SEED}
    first, out["plain"] = run(folder, pairs, None)
    out["score"] = {"first_values": first, "range": RANGE}
    _, out["centred"] = run(folder, [{**row, "margin": 0.25 * (k % 4)} for k, row in enumerate(pairs)], 0.01)
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
