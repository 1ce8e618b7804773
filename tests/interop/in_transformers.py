"""An exported Hugging Face folder in transformers, against galen's own logits and token ids.

Usage: in_transformers.py TEACHER BASE ADAPTER FOLDER
  TEACHER   the example `teacher` of galen-export (cargo build --release --workspace --example teacher)
  BASE      the base galen reads; ADAPTER a PEFT folder, or `none`; FOLDER what `galen export --format hf` wrote of them

Needs torch==2.15.0, transformers==5.23.0. Prints the largest difference of a logit in f32, and a chat through the exported
template.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "The heart is a muscle about the size of a closed fist. It pumps blood through the vessels of the body.",
    "def mean(values):\n    return sum(values) / len(values)  # 1234567\n",
]
CHATS = [
    "Diagnosis: Chronic obstructive pulmonary disease with acute exacerbation\nFirst letter:",
    "What is the capital of France?",
]


def main():
    teacher, base, adapter, folder = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = [tokenizer(t)["input_ids"] for t in TEXTS]
    if tokenizer.chat_template:
        chats = [tokenizer.apply_chat_template([{"role": "user", "content": c}], tokenize=False, add_generation_prompt=True) for c in CHATS]
        print(chats[-1])
        texts += [tokenizer(c, add_special_tokens=False)["input_ids"] for c in chats]
    with tempfile.TemporaryDirectory() as work:
        ids, out = Path(work) / "ids.json", Path(work) / "out.safetensors"
        ids.write_text(json.dumps(texts))
        subprocess.run([teacher, base, *([] if adapter == "none" else [adapter]), ids, out], check=True)
        rows = load_file(out)
    worst = 0.0
    for i, ids in enumerate(texts):
        with torch.no_grad():
            got = model(torch.tensor([ids])).logits[0].float()
        worst = max(worst, (got - rows[str(i)]).abs().max().item())
    print(f"{sum(map(len, texts))} positions, largest difference of a logit {worst:.2e}")
    assert worst <= 5e-4, "more than 5e-4"


main()
