"""Loads galen's adapter in PEFT on the Hugging Face copy of the base, scores galen's questions again, and counts equal answers.

Run:      python peft_check.py HF_DIR ADAPTER_DIR SAMPLES.jsonl [--run adapter] [--limit N] [--batch 16] [--threads 2] [--min 99]
            HF_DIR          the base in f32, for SmolLM2's GGUF made by gguf_to_hf.py
            ADAPTER_DIR     adapter_config.json and adapter_model.safetensors; `none` scores the base alone
            SAMPLES.jsonl   `galen eval --log_samples`: a line an item with `ids` (the prompt's), `choices_ids` (a list a choice),
                            `pred` (galen's choice), and optionally `logprobs`, `target`, `run`
Versions: torch 2.15.0 (CPU, f32), transformers 5.23.0, peft 0.21.2

A choice's score is the sum of log p over its tokens after the prompt; the answer is the likeliest choice. Prints one JSON object:
n, equal, agreement_percent, largest |difference| of a log-probability, the differing items with PEFT's margin between its own
answer and galen's (a margin near 0 is a tie), accuracies where there are targets. Exit status 1 below --min percent.
"""
import argparse
import json
import sys

import torch
from transformers import AutoModelForCausalLM


def read(path: str, run: str | None, limit: int | None) -> list[dict]:
    with open(path, encoding="utf-8") as f:
        items = [json.loads(line) for line in f if line.strip()]
    if run is not None and any("run" in x for x in items):
        items = [x for x in items if x.get("run") == run]
    missing = [x.get("doc_id") for x in items if not x.get("ids") or not x.get("choices_ids")]
    if missing or not items:
        sys.exit(f"{path}: {len(items)} items of run `{run}`, {len(missing)} of them without `ids` and `choices_ids`")
    return items[:limit]


@torch.no_grad()
def score(model, items: list[dict], batch: int) -> list[list[float]]:
    """Log-probability of every choice of every item."""
    # what follows the prompt is fed only up to a choice's last token but one, so one-token choices share one sequence
    sequences: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = {}
    for i, item in enumerate(items):
        for c, choice in enumerate(item["choices_ids"]):
            sequences.setdefault(tuple(item["ids"]) + tuple(choice[:-1]), []).append((i, c, choice))
    out = [[0.0] * len(x["choices_ids"]) for x in items]
    order = sorted(sequences, key=len)
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        longest = max(map(len, part))
        ids = torch.tensor([list(s) + [0] * (longest - len(s)) for s in part])
        attention = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in part])
        need = max(len(s) - len(items[u[0]]["ids"]) + 1 for s in part for u in sequences[s]) + longest - min(map(len, part))
        logp = torch.log_softmax(model(input_ids=ids, attention_mask=attention, logits_to_keep=need).logits.double(), -1)
        first = longest - logp.shape[1]
        for row, s in enumerate(part):
            for i, c, choice in sequences[s]:
                start = len(s) - len(choice) - first
                out[i][c] = sum(logp[row, start + k, token].item() for k, token in enumerate(choice))
        print(f"\r{min(at + batch, len(order))}/{len(order)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return out


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("hf_dir")
    p.add_argument("adapter_dir")
    p.add_argument("samples")
    p.add_argument("--run", default="adapter")
    p.add_argument("--limit", type=int)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--min", type=float, default=99.0)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    items = read(a.samples, a.run, a.limit)
    model = AutoModelForCausalLM.from_pretrained(a.hf_dir, dtype=torch.float32)
    if a.adapter_dir != "none":
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, a.adapter_dir)
        tuned = [n for n, _ in model.named_parameters() if "lora_B" in n]
        if not any(q.abs().max() > 0 for n, q in model.named_parameters() if n in set(tuned)):
            sys.exit(f"{a.adapter_dir}: PEFT loaded no non-zero lora_B")
    scores = score(model.eval(), items, a.batch)
    answers = [max(range(len(s)), key=s.__getitem__) for s in scores]
    different = [{"doc_id": x.get("doc_id", n), "galen": x["pred"], "peft": q, "margin": s[q] - s[x["pred"]]}
                 for n, (x, q, s) in enumerate(zip(items, answers, scores)) if q != x["pred"]]
    percent = 100 * (1 - len(different) / len(items))
    report = {"n": len(items), "equal": len(items) - len(different), "agreement_percent": round(percent, 3), "different": different}
    logprobs = [abs(mine - theirs) for x, s in zip(items, scores) for mine, theirs in zip(x.get("logprobs") or [], s)]
    if logprobs:
        report["largest_logprob_difference"] = max(logprobs)
    right = [(x["target"] == x["pred"], x["target"] == q) for x, q in zip(items, answers) if isinstance(x.get("target"), int)]
    if right:
        report |= {"accuracy_galen": sum(g for g, _ in right) / len(right), "accuracy_peft": sum(q for _, q in right) / len(right)}
    print(json.dumps(report))
    sys.exit(0 if percent >= a.min else 1)


if __name__ == "__main__":
    main()
