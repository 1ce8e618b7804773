"""Ten AdamW steps of PEFT's DoRA on SmolLM2 in f32: each step's loss and gradient norm.

Run:      python dora_steps.py SMOLLM2_HF_DIR        (made by gguf_to_hf.py; 5 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2
Writes:   dora_steps.json

The setting and the rows are those of `peft_steps.py` (r 8, alpha 16, all seven linear layers, lr 1e-3, clipping to 1.0), with
`use_dora` and ten steps. Magnitudes start as PEFT makes them, the norms of the base's rows, before A and B get the values of
the counter that `peft_steps.py` documents: so the first forward's gain is not 1.

dora_steps.json: {steps: [{step, batch, supervised_tokens, loss, grad_norm}], start, after: {losses: [of each batch], sum_abs_a,
sum_abs_b, sum_m}}.
"""
import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft_steps import ALPHA, BATCHES, LR, MODULES, R, initialise, loss_of, make_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS = 10


def adamw(model, named: dict):
    return torch.optim.AdamW(named.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def train(folder: str, optimizer_of, n_steps: int, out: Path) -> None:
    """`optimizer_of`: from the PEFT model and its trainables by name."""
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    rows = make_rows(tokenizer)
    kept = json.loads(Path(__file__).with_name("peft_steps.json").read_text())["rows"]
    assert rows == kept, "other rows than peft_steps.json"
    model = get_peft_model(model, LoraConfig(
        r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=True))
    model.eval()
    named = {k.removeprefix("base_model.model.model.").replace(".default.weight", ""): p
             for k, p in model.named_parameters() if p.requires_grad}
    pairs = {f"layers.{i}.{m}.lora_{x}": named[f"layers.{i}.{m}.lora_{x}"] for i in range(30) for m in MODULES for x in "AB"}
    magnitudes = {k: p for k, p in named.items() if k.endswith("lora_magnitude_vector")}
    assert len(pairs) + len(magnitudes) == len(named) and len(magnitudes) == 210
    initialise(pairs)
    total = lambda params, end: sum(p.detach().double().abs().sum().item() for k, p in params.items() if k.endswith(end))
    sums = lambda: {"sum_abs_a": total(pairs, "A"), "sum_abs_b": total(pairs, "B"), "sum_m": total(magnitudes, "")}
    start = sums()
    optimizer = optimizer_of(model, named)
    steps = []
    for k in range(n_steps):
        loss, count = loss_of(model, rows, k % BATCHES)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"step": k + 1, "batch": k % BATCHES, "supervised_tokens": count, "loss": loss.item(), "grad_norm": norm.item()})
        print(f"step {k + 1}: loss {loss.item():.6f}, gradient norm {norm.item():.6f}", flush=True)
    with torch.no_grad():
        after = {"losses": [loss_of(model, rows, b)[0].item() for b in range(BATCHES)], **sums()}
    out.write_text(json.dumps({"steps": steps, "start": start, "after": after}, indent=1) + "\n")


if __name__ == "__main__":
    train(sys.argv[1], adamw, STEPS, Path(__file__).with_suffix(".json"))
