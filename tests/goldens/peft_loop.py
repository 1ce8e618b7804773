"""PEFT's LoRA training loop in f32 over the rows galen trains on, timed step by step. Prints one JSON line.

Run:      python peft_loop.py HF_DIR ROWS.jsonl [--batch 4] [--steps 6] [--warmup 1] [--lora-r 16] [--lora-alpha 32]
                              [--learning-rate 2e-4] [--checkpointing] [--threads 2] [--sequence-len N] [--save DIR]
            ROWS.jsonl  a line a row: {"ids": [...], "mask": [0/1 ...]}, or {"input_ids": [...], "labels": [... -100]}, or
                        {"ids": [...]} for a loss on all tokens; `random:N` instead of a file: rows of N random tokens
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2

A step is forward, loss, backward, gradient clipping to 1.0 and AdamW, over the next --batch rows padded to the longest, as PEFT
users run it. `tokens_per_second` counts the rows' own tokens, `padded_tokens_per_second` the padding too; medians over the steps
after --warmup. The loss is the mean over the supervised tokens of the batch.
"""
import argparse
import json
import resource
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def read(path: str, cut: int | None) -> list[tuple[list[int], list[int]]]:
    if path.startswith("random:"):
        generator = torch.Generator().manual_seed(0)
        ids = [torch.randint(100, 49000, (int(path[7:]),), generator=generator).tolist() for _ in range(64)]
        return [(x, x) for x in ids]
    rows = []
    with open(path, encoding="utf-8") as f:
        for line in filter(str.strip, f):
            row = json.loads(line)
            ids = row.get("ids") or row["input_ids"]
            labels = row.get("labels") or [i if keep else -100 for i, keep in zip(ids, row.get("mask") or [1] * len(ids))]
            rows.append((ids[:cut], labels[:cut]))
    return rows or sys.exit(f"{path}: no rows")


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("hf_dir")
    p.add_argument("rows")
    for name, kind, default in (("batch", int, 4), ("steps", int, 6), ("warmup", int, 1), ("lora-r", int, 16), ("lora-alpha", int, 32),
                                ("learning-rate", float, 2e-4), ("threads", int, 2), ("sequence-len", int, None), ("save", str, None)):
        p.add_argument(f"--{name}", type=kind, default=default)
    p.add_argument("--checkpointing", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    rows = read(a.rows, a.sequence_len)
    model = AutoModelForCausalLM.from_pretrained(a.hf_dir, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    if a.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=a.lora_r, lora_alpha=a.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    trainable = [q for q in model.parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=a.learning_rate, weight_decay=0.0)
    seconds, speeds, padded_speeds, losses = [], [], [], []
    for step in range(a.warmup + a.steps):
        part = [rows[(step * a.batch + i) % len(rows)] for i in range(a.batch)]
        longest = max(len(ids) for ids, _ in part)
        start = time.perf_counter()
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in part])
        labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in part])
        attention = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in part])
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        took = time.perf_counter() - start
        losses.append(loss.item())
        if step >= a.warmup:
            seconds.append(took)
            speeds.append(sum(len(ids) for ids, _ in part) / took)
            padded_speeds.append(a.batch * longest / took)
    if a.save:
        model.save_pretrained(a.save)
    print(json.dumps({
        "mode": "f32", "batch": a.batch, "steps": a.steps, "checkpoint": a.checkpointing, "threads": a.threads,
        "median_s": round(statistics.median(seconds), 3), "tokens_per_second": round(statistics.median(speeds), 1),
        "padded_tokens_per_second": round(statistics.median(padded_speeds), 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "losses": [round(x, 6) for x in losses]}))


if __name__ == "__main__":
    main()
