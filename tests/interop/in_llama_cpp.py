"""Exported GGUF files in llama.cpp, teacher-forced, against galen's own logits.

Usage: in_llama_cpp.py TEACHER BASE ADAPTER FILE.gguf...
  TEACHER   the example `teacher` of galen-export (cargo build --release --workspace --example teacher)
  BASE      the base as a GGUF file; ADAPTER a PEFT folder, or `none`
  FILE      merged models, or adapters (`general.type` adapter), which are put over BASE

Needs llama-cpp-python==0.3.36 and gguf==0.19.0. Prints for each file the share of positions with the same likeliest token,
the largest gap between galen's two likeliest where they differ, and the mean KL of galen's distribution from llama.cpp's.
The texts are chats of the clinical task and plain prose. llama.cpp rounds activations to f16, or to 8 bits beside quantised
weights.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from llama_cpp import Llama
from safetensors.numpy import load_file

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
TEXTS = [
    CHAT.format("Diagnosis: Chronic obstructive pulmonary disease with acute exacerbation\nFirst letter:", "J"),
    CHAT.format("Diagnosis: Type 2 diabetes mellitus with diabetic nephropathy\nFirst letter:", "E"),
    CHAT.format("Diagnosis: Essential hypertension\nFirst letter:", "I"),
    CHAT.format("What is the capital of France?", "The capital of France is Paris, a city on the river Seine."),
    CHAT.format("Why is the sky blue?", "Air scatters short wavelengths of light more than long ones, so blue reaches us."),
    "The heart is a muscle about the size of a closed fist. It pumps blood through the vessels of the body, and with it "
    "oxygen and nutrients, and carries away what the cells no longer need. Each beat begins in the sinoatrial node.",
    "def mean(values):\n    if not values:\n        raise ValueError('no values')\n    return sum(values) / len(values)\n",
    "In 1854 John Snow marked the deaths from cholera on a map of Soho, and found that they lay around one pump in Broad "
    "Street. The handle was taken off; the outbreak, which had been waning, ended.",
]


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def is_adapter(path):
    field = GGUFReader(path).get_field("general.type")
    return field is not None and field.contents() == "adapter"


def student(base, path, texts):
    options = dict(n_ctx=512, logits_all=True, verbose=False, n_threads=2)
    model = Llama(base, lora_path=path, **options) if is_adapter(path) else Llama(path, **options)
    for ids in texts:
        model.reset()
        model.eval(ids)
        yield np.array(model.scores[: len(ids)])


def main():
    teacher, base, adapter, *files = sys.argv[1:]
    tokenizer = Llama(base, vocab_only=True, verbose=False)
    texts = [tokenizer.tokenize(t.encode(), add_bos=False, special=True) for t in TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        ids, out = Path(folder) / "ids.json", Path(folder) / "out.safetensors"
        ids.write_text(json.dumps(texts))
        subprocess.run([teacher, base, *([] if adapter == "none" else [adapter]), ids, out], check=True)
        rows = load_file(out)
    wanted = [log_softmax(rows[str(i)]) for i in range(len(texts))]
    print(f"{sum(map(len, texts))} positions")
    for path in files:
        same, kl, gap, n = 0, 0.0, 0.0, 0
        for want, got in zip(wanted, student(base, path, texts)):
            got = log_softmax(got)
            agree = want.argmax(-1) == got.argmax(-1)
            top = np.sort(want, -1)[:, -2:]
            gap = max([gap, *(top[:, 1] - top[:, 0])[~agree]])
            same, n = same + agree.sum(), n + len(want)
            kl += (np.exp(want) * (want - got)).sum()
        print(f"{Path(path).name}: top-1 equal {same / n:.2%} ({n - same} differ, largest gap {gap:.4f}), KL {kl / n:.2e}")


main()
