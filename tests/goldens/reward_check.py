"""Loads galen's reward model in PEFT on the Hugging Face copy of the base and compares its rewards with galen's.

Run:      python reward_check.py HF_DIR RUN_DIR REWARDS.jsonl [THREADS]
            HF_DIR          the base in f32, for SmolLM2's GGUF made by gguf_to_hf.py
            RUN_DIR         adapter_config.json and adapter_model.safetensors of a run of `rl: reward`
            REWARDS.jsonl   `cargo run --release -p galen --example reward -- RUN_DIR`: {"ids": [...], "reward": x}
Versions: torch 2.15.0 (CPU, f32), transformers 5.23.0, peft 0.21.2

Prints one JSON object: n, the rewards' range, the largest |difference|, and how many pairs (two lines each) both order alike. Exit
status 1 where a difference is above 1e-3 or nothing was learned. Sequences go one at a time without a padding token, so that the
last token is read.
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification


def main(folder: str, run: str, rewards: str) -> None:
    torch.set_num_threads(int(sys.argv[4]) if len(sys.argv) > 4 else 2)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    base.config.pad_token_id = None
    fresh = base.score.weight.detach().clone()
    model = PeftModel.from_pretrained(base, run).eval()
    named = dict(model.named_parameters())
    assert any(p.abs().max() > 0 for k, p in named.items() if "lora_B" in k), "PEFT loaded no lora_B that is not zero"
    (head,) = [p for k, p in named.items() if "score.modules_to_save" in k]
    assert not torch.equal(head, fresh), "PEFT did not load the head"
    with open(rewards, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    with torch.no_grad():
        theirs = [model(input_ids=torch.tensor([row["ids"]])).logits.item() for row in rows]
    ours = [row["reward"] for row in rows]
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    pairs = list(zip(ours[::2], ours[1::2], theirs[::2], theirs[1::2]))
    alike = sum((a > b) == (c > d) for a, b, c, d in pairs)
    print(json.dumps({"n": len(rows), "least": min(ours), "greatest": max(ours), "largest_difference": worst,
                      "pairs": len(pairs), "ordered_alike": alike}))
    sys.exit(0 if worst <= 1e-3 and max(ours) - min(ours) > 0.1 else 1)


if __name__ == "__main__":
    main(*sys.argv[1:4])
