"""Twenty AdamW steps of PEFT's LoRA on SmolLM2 in f32: each step's loss and gradient norm.

Run:      python peft_steps.py SMOLLM2_HF_DIR        (made by gguf_to_hf.py; 3 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2
Writes:   peft_steps.json

Setting: LoRA r = 8, alpha = 16 (scale 2), no dropout, on all seven linear layers of each of the 30 blocks; AdamW lr 1e-3
constant, betas 0.9/0.999, eps 1e-8, weight decay 0; gradients clipped to global norm 1.0 (torch: factor 1 / (norm + 1e-6) where
that is below 1). Step k (0-based) trains on batch k mod 5; a batch is 4 rows of 40 to 60 tokens, `rows[4 * b .. 4 * b + 4]`.
loss = sum over the batch of -log p(ids[t] | ids[..t]) where mask[t] = 1, divided by the number of such t in the batch.
Rows are padded on the right for PEFT and the padding masked from attention and loss.

The initial A and B are not stored: they come from a counter.
  modules, in this order: for layer in 0..30: q_proj k_proj v_proj o_proj gate_proj up_proj down_proj; of each module first A
  [8, in], then B [out, 8], both row-major. The element with running number n (from 0, counted over all modules in that order) is
      z = SEED + (n + 1) * 0x9E3779B97F4A7C15            all u64, wrapping: this is splitmix64
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
      z = (z ^ (z >> 27)) * 0x94D049BB133111EB
      z =  z ^ (z >> 31)
      u = (z >> 40) as f32 * 2^-24                       in [0, 1), exact
      value = (2 * u - 1) * a                            f32; 2 * u - 1 is exact; a is f32(0.03) for A and f32(0.01) for B
  SEED = 20261123. The first 8 values (A of layer 0's q_proj) are in `init.first_values`; `init.sum_abs_a`, `sum_abs_b` (f64) are
  over all of them.

peft_steps.json: {lora_r, lora_alpha, learning_rate, ..., init, rows: [{ids, mask}], base_losses: [5, before any step and with B = 0,
a batch each], steps: [{step, batch, supervised_tokens, loss, grad_norm (before clipping)}], after: {the last loss of each batch
after all steps, sum_abs_a, sum_abs_b}}.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED, R, ALPHA, LR, STEPS, BATCHES, ROWS = 20261123, 8, 16, 1e-3, 20, 5, 4
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
QUESTIONS = [
    ("Acute appendicitis with generalized peritonitis", "K35.2"), ("Type 2 diabetes mellitus without complications", "E11.9"),
    ("Essential (primary) hypertension", "I10"), ("Viral pneumonia, unspecified", "J12.9"),
    ("What is the boiling point of water at sea level?", "100 degrees Celsius, or 212 degrees Fahrenheit."),
    ("Name three primary colours.", "Red, yellow and blue."), ("Translate 'good morning' into German.", "Guten Morgen."),
    ("Write a haiku about rain.", "Grey drops on the roof\nfill the barrel by the door.\nThe cat will not move."),
    ("How many days has a leap year?", "366."), ("Who wrote 'Faust'?", "Johann Wolfgang von Goethe."),
    ("Reverse the list [1, 2, 3].", "[3, 2, 1]"), ("Migraine without aura, intractable", "G43.019"),
    ("Sort these words: pear, apple, fig.", "apple, fig, pear"), ("What is 17 * 23?", "17 * 23 = 391."),
    ("Chronic kidney disease, stage 3a", "N18.31"), ("Complete: the early bird", "catches the worm."),
    ("Is 97 a prime number?", "Yes: no number from 2 to 9 divides it."), ("Cellulitis of left lower limb", "L03.116"),
    ("Give the past tense of 'to swim'.", "Swam."), ("Why is the sky blue?", "Air scatters short wavelengths of light more than long ones."),
]


def splitmix(start: int, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        n = np.arange(start, start + count, dtype=np.uint64)
        z = np.uint64(SEED) + (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -24)
    return np.float32(2) * u - np.float32(1)


def parameters(model) -> dict[str, torch.nn.Parameter]:
    """Every A and B in the stated order."""
    named = {k.removeprefix("base_model.model.model.").replace(".default.weight", ""): p
             for k, p in model.named_parameters() if p.requires_grad}
    order = [f"layers.{i}.{m}.lora_{x}" for i in range(30) for m in MODULES for x in "AB"]
    assert sorted(order) == sorted(named), "other modules than expected are trainable"
    return {k: named[k] for k in order}


def initialise(params) -> list[float]:
    at, first = 0, None
    for name, p in params.items():
        a = np.float32(0.03 if name.endswith("A") else 0.01)
        values = splitmix(at, p.numel()) * a
        first = values[:8] if first is None else first
        p.data = torch.from_numpy(values.reshape(p.shape))
        at += p.numel()
    return [float(x) for x in first]


def sums(params) -> dict[str, float]:
    return {f"sum_abs_{x.lower()}": sum(p.detach().double().abs().sum().item() for k, p in params.items() if k.endswith(x)) for x in "AB"}


def make_rows(tokenizer) -> list[dict]:
    rows = []
    for question, answer in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        head, tail = (tokenizer.encode(x, add_special_tokens=False) for x in (prompt, answer + "<|im_end|>"))
        ids = (head + tail)[:60]
        mask = ([0] * len(head) + [1] * len(tail))[:60]
        while len(ids) < 40:  # short rows go on with unsupervised text
            ids, mask = ids + tokenizer.encode("\n", add_special_tokens=False), mask + [0]
        rows.append({"ids": ids, "mask": mask})
    return rows


def batch(rows: list[dict], b: int):
    part = rows[ROWS * b:ROWS * (b + 1)]
    longest = max(len(r["ids"]) for r in part)
    pad = [longest - len(r["ids"]) for r in part]
    ids = torch.tensor([r["ids"] + [2] * p for r, p in zip(part, pad)])
    attention = torch.tensor([[1] * len(r["ids"]) + [0] * p for r, p in zip(part, pad)])
    mask = torch.tensor([r["mask"] + [0] * p for r, p in zip(part, pad)])
    return ids, attention, mask


def loss_of(model, rows, b) -> tuple[torch.Tensor, int]:
    ids, attention, mask = batch(rows, b)
    logits = model(input_ids=ids, attention_mask=attention).logits
    logp = torch.log_softmax(logits[:, :-1], -1).gather(2, ids[:, 1:, None])[..., 0]
    chosen = mask[:, 1:].bool()
    return -logp[chosen].sum() / chosen.sum(), int(chosen.sum())


def main(folder: str) -> None:
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    rows = make_rows(tokenizer)
    lengths = [len(r["ids"]) for r in rows]
    assert len(rows) == ROWS * BATCHES and min(lengths) >= 40 and max(lengths) <= 60, lengths
    model = get_peft_model(model, LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.eval()  # nothing random in it
    with torch.no_grad():
        base = [loss_of(model, rows, b)[0].item() for b in range(BATCHES)]  # PEFT's own B is zero
    params = parameters(model)
    first = initialise(params)
    init = {"seed": SEED, "first_values": first, "range_a": 0.03, "range_b": 0.01, **sums(params)}
    optimizer = torch.optim.AdamW(params.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps = []
    for k in range(STEPS):
        loss, count = loss_of(model, rows, k % BATCHES)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"step": k + 1, "batch": k % BATCHES, "supervised_tokens": count, "loss": loss.item(), "grad_norm": norm.item()})
        print(f"step {k + 1}: loss {loss.item():.6f}, gradient norm {norm.item():.6f}, {count} supervised tokens", flush=True)
    with torch.no_grad():
        after = {"losses": [loss_of(model, rows, b)[0].item() for b in range(BATCHES)], **sums(params)}
    out = {"lora_r": R, "lora_alpha": ALPHA, "learning_rate": LR, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0,
           "init": init, "rows": rows, "base_losses": base, "steps": steps, "after": after}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
