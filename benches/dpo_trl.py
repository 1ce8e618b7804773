"""galen's DPO step beside TRL's DPOTrainer: the same pairs, batch, LoRA and optimiser, taking turns.

    cargo build --release -p galen-bench
    python tests/goldens/gguf_to_hf.py SmolLM2-135M-Instruct.Q4_1.gguf HF_DIR
    python benches/dpo_trl.py --bench target/release/dpo_step --model SmolLM2-135M-Instruct.Q4_1.gguf --hf HF_DIR

TRL runs in f32 on the CPU: DPOTrainer with LoRA r = 16 on all linear layers, AdamW, no gradient checkpointing, the reference by the
adapter switched off, --pairs pairs a step. Its step is timed from one step's end to the next's, the first left out. Both count the
tokens of both sequences of each pair. Each turn is a process of its own, so that peak memory is each one's. Prints one JSON line a
turn, then the ratios.

Versions: torch 2.15.0, transformers 5.23.0, peft 0.21.2, trl 1.16.0
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make_pairs(n: int, prompt: int, answer: int) -> list[dict]:
    ids = lambda series, count: [100 + (series * 7919 + i) * 2654435761 % 48000 for i in range(count)]
    return [{"prompt": ids(3 * p, prompt), "chosen": ids(3 * p + 1, answer), "rejected": ids(3 * p + 2, answer)} for p in range(n)]


def trl(hf: str, pairs: list[dict], steps: int, threads: int) -> dict:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(threads)
    ends, losses = [], []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    rows = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * len(pairs))
    with tempfile.TemporaryDirectory() as out:
        config = DPOConfig(
            output_dir=out, per_device_train_batch_size=len(pairs), gradient_accumulation_steps=1, max_steps=steps + 1, learning_rate=2e-4,
            lr_scheduler_type="constant", optim="adamw_torch", weight_decay=0.0, logging_steps=1, save_strategy="no", report_to=[],
            use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False, max_length=None)
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32, attn_implementation="sdpa"), args=config,
            train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(hf), callbacks=[Clock()],
            peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
        trainer.train_dataset = Dataset.from_list(
            [{"prompt_ids": p["prompt"], "chosen_ids": p["chosen"], "rejected_ids": p["rejected"]} for p in pairs])
        trainer.train()
    median = statistics.median(b - a for a, b in zip(ends, ends[1:]))
    tokens = sum(2 * len(p["prompt"]) + len(p["chosen"]) + len(p["rejected"]) for p in pairs)
    return {"mode": "trl f32", "pairs": len(pairs), "tokens": tokens, "threads": threads, "median_s": round(median, 4),
            "tokens_per_second": tokens / median, "losses": losses,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def main() -> None:
    p = argparse.ArgumentParser()
    for name in ("bench", "model", "hf"):
        p.add_argument(f"--{name}", required=True)
    for name, default in (("pairs", 4), ("prompt", 256), ("answer", 64), ("steps", 4), ("turns", 3), ("threads", 2)):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--compute", default="bf16")
    p.add_argument("--only-trl", action="store_true", help="one turn of the peer, as a child of the paired run")
    a = p.parse_args()
    pairs = make_pairs(a.pairs, a.prompt, a.answer)
    if a.only_trl:
        print(json.dumps(trl(a.hf, pairs, a.steps, a.threads)))
        return
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
        ours = [a.bench, a.model, str(file), str(a.steps), str(a.threads), a.compute, "shared"]
        theirs = [sys.executable, __file__, *sys.argv[1:], "--only-trl"]
        for _ in range(a.turns):
            for command in (ours, theirs):
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
                print(said, flush=True)
                turns.append(json.loads(said))
    of = lambda mode, key: statistics.median(t[key] for t in turns if t["mode"].startswith(mode))
    print(json.dumps({"tokens_per_second_over_trl": of("galen", "tokens_per_second") / of("trl", "tokens_per_second"),
                      "peak_memory_of_trl": of("galen", "peak_rss_mb") / of("trl", "peak_rss_mb")}))


if __name__ == "__main__":
    main()
