"""The quickstart's training step beside the PyTorch stack's: the same rows, batch and hyper-parameters.

    galen quickstart                      # makes galen-quickstart/ with run.yaml and data/
    python tests/goldens/gguf_to_hf.py SmolLM2-135M-Instruct.Q4_1.gguf HF_DIR
    python benches/real_step.py --galen target/release/galen --config galen-quickstart/run.yaml --hf HF_DIR

The peer is a plain PEFT loop in f32 as TRL runs it: rows through the chat template, loss on the answer alone, shuffled,
each batch padded to its longest row, LoRA on all linear layers, AdamW, clipping at 1, the schedule of the
configuration. `galen train` runs by the very configuration with `max_steps`. The two take turns; the first step of
each turn warms up and is left out; medians over all other steps. galen's steps are read from its log.jsonl.
Prints one JSON line a turn, then the ratio. Run where `galen quickstart` ran: the paths in run.yaml are relative.

Versions: torch 2.15.0, transformers 5.23.0, peft 0.21.0
"""
import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler


def rows_of(path, tokenizer):
    """Token ids and labels of each row, as a trainer masks them: only the last answer and its end token count."""
    rows = []
    for line in Path(path).read_text().splitlines():
        messages = json.loads(line)["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        assert text.startswith(prompt)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        first = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        end = max(i for i, t in enumerate(ids) if t == tokenizer.eos_token_id) + 1
        rows.append((ids, [-100] * first + ids[first:end] + [-100] * (len(ids) - end)))
    return rows


def batch_of(rows, pad):
    longest = max(len(ids) for ids, _ in rows)
    filled = lambda values, with_: torch.tensor([v + [with_] * (longest - len(v)) for v in values])
    return {
        "input_ids": filled([ids for ids, _ in rows], pad),
        "attention_mask": filled([[1] * len(ids) for ids, _ in rows], 0),
        "labels": filled([labels for _, labels in rows], -100),
    }


class Peft:
    def __init__(self, args, config):
        torch.set_num_threads(args.threads)
        torch.manual_seed(config.get("seed", 1))
        self.tokenizer = AutoTokenizer.from_pretrained(args.hf)
        model = AutoModelForCausalLM.from_pretrained(args.hf, attn_implementation="sdpa", dtype=torch.float32)
        model.config.use_cache = False
        lora = LoraConfig(r=config["lora_r"], lora_alpha=config["lora_alpha"], target_modules="all-linear",
                          task_type="CAUSAL_LM")
        self.model = get_peft_model(model, lora).train()
        self.rows = rows_of(config["datasets"][0]["path"], self.tokenizer)
        self.order = random.Random(config.get("seed", 1))
        self.batch = config["micro_batch_size"]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=float(config["learning_rate"]), weight_decay=0.0)
        total = len(self.rows) * config["num_epochs"] // self.batch
        self.schedule = get_scheduler(config["lr_scheduler"], self.optimizer, 0, int(total))
        self.trained = trained

    def turn(self, steps):
        seconds, padded, real, losses = [], 0, 0, []
        for _ in range(steps):
            rows = self.order.sample(self.rows, self.batch)
            start = time.perf_counter()
            batch = batch_of(rows, self.tokenizer.pad_token_id or 0)
            loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
            padded += batch["input_ids"].numel()
            real += int(batch["attention_mask"].sum())
            losses.append(loss.item())
        return {"what": "peft f32", "seconds": seconds[1:], "tokens": real, "padded_tokens": padded,
                "first_loss": losses[0], "last_loss": losses[-1],
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def galen_turn(args, steps):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [args.galen, "train", args.config, "--offline", "--threads", str(args.threads), "--set",
                   f"max_steps={steps}", "--set", f"output_dir={run}"]
        for setting in args.set:
            command += ["--set", setting]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        whole = time.perf_counter() - start
        if done.returncode:
            sys.exit(done.stderr)
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rows = [row for row in log if "step_seconds" in row]
    return {"what": "galen", "seconds": [row["step_seconds"] for row in rows][1:], "tokens": rows[-1]["num_tokens"],
            "first_loss": rows[0]["loss"], "last_loss": rows[-1]["loss"], "process_s": whole,
            "peak_rss_mb": rows[-1]["peak_rss_bytes"] >> 20}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--galen", required=True, help="the binary")
    parser.add_argument("--config", required=True, help="run.yaml of a quickstart")
    parser.add_argument("--hf", required=True, help="the same base model as a Hugging Face folder, dequantised")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="further `--set` of galen: bf16=false")
    args = parser.parse_args()
    config = yaml.safe_load(Path(args.config).read_text())
    peer = Peft(args, config)
    seconds = {"galen": [], "peft f32": []}
    for _ in range(args.turns):
        for turn in (peer.turn(args.steps + 1), galen_turn(args, args.steps + 1)):
            seconds[turn["what"]] += turn["seconds"]
            turn["median_s"] = statistics.median(turn.pop("seconds"))
            print(json.dumps(turn), flush=True)
    ours, theirs = (statistics.median(seconds[what]) for what in ("galen", "peft f32"))
    print(json.dumps({"galen_median_s": ours, "peft_median_s": theirs, "ratio": round(theirs / ours, 3),
                      "steps": args.steps, "turns": args.turns, "threads": args.threads}))


if __name__ == "__main__":
    main()
