"""Ten AdamW steps of TRL's DPO, KTO and ORPO trainers with LoRA on SmolLM2 in f32: each step's loss, gradient norm and metrics.

Run:      python align_steps.py SMOLLM2_HF_DIR [THREADS]      (made by gguf_to_hf.py; 5 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2, trl 1.16.0
Writes:   align_steps.json

Setting: the adapter, its start and its modules are those of peft_steps.py (LoRA r = 8, alpha = 16, A and B from its counter); AdamW
lr 5e-4 constant, betas 0.9/0.999, eps 1e-8, weight decay 0; gradients clipped to global norm 1.0; no dropout. 20 rows in file
order, 4 a step: step k (0-based) trains on rows 4 (k mod 5) .. 4 (k mod 5) + 4. The trainer makes the adapter, then its values are
replaced, so the reference is the base with the adapter off and the first rewards are not 0. The figures are those the trainers
compute; only the order of rows is fixed (sequential) and the loss is kept unrounded.

align_steps.json: {lora_r, lora_alpha, learning_rate, eps, weight_decay, max_grad_norm, seed,
  dpo:  {beta, rows: [{prompt, chosen, rejected}], steps: [{loss, grad_norm, "rewards/chosen", ...}]},
  kto:  {beta, rows: [{prompt, completion, kl_completion, label}], steps},
  orpo: {beta, rows as of dpo, steps}}; prompts and answers are token ids as the trainers made them.
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from peft_steps import ALPHA, QUESTIONS, R, SEED, initialise, parameters
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

LR, STEPS, ROWS, BETA = 5e-4, 10, 4, 0.1
KEEP = ("rewards/", "logps/", "kl", "nll_loss", "log_odds", "grad_norm", "mean_token_accuracy")


def texts(tokenizer) -> list[tuple[str, str, str]]:
    """(prompt, answer, the next question's answer), each answer closed."""
    out = []
    for i, (question, answer) in enumerate(QUESTIONS):
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        out.append((prompt, answer + "<|im_end|>", QUESTIONS[(i + 1) % len(QUESTIONS)][1] + "<|im_end|>"))
    return out


class Keep(TrainerCallback):
    """Keeps the figures of every logged step whose names begin with one of `names`."""

    def __init__(self, names: tuple[str, ...]):
        self.names, self.rows = names, []

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.rows.append({k: float(v) for k, v in logs.items() if k.startswith(self.names)})


def keeping_losses(trainer_class, losses: list[float]):
    """The trainer with its rows in file order and each step's loss, unrounded, put into `losses`."""

    class Kept(trainer_class):
        def _get_train_sampler(self, *args):
            # Trainers that sample answers repeat prompts by a sampler of their own.
            return super()._get_train_sampler(*args) if hasattr(self, "num_generations") else SequentialSampler(self.train_dataset)

        def compute_loss(self, *a, **k):
            loss = super().compute_loss(*a, **k)
            losses.append(float(loss[0] if isinstance(loss, tuple) else loss))
            return loss

    return Kept


def settings_of(out: str, rows_a_step: int, steps: int) -> dict:
    """What all runs have in common."""
    return {
        "output_dir": out, "per_device_train_batch_size": rows_a_step, "gradient_accumulation_steps": 1, "max_steps": steps,
        "learning_rate": LR, "lr_scheduler_type": "constant", "warmup_steps": 0, "optim": "adamw_torch", "weight_decay": 0.0,
        "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False,
        "fp16": False, "gradient_checkpointing": False}


def run_trainer(trainer_class, config_class, folder: str, rows: list[dict], names: tuple[str, ...], rows_a_step: int = ROWS,
                steps: int = STEPS, reward_funcs=None, **settings):
    losses, keep = [], Keep(names)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as out:
        config = config_class(**settings_of(out, rows_a_step, steps), **settings)
        lora = LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        rewards = {"reward_funcs": reward_funcs} if reward_funcs else {}
        trainer = keeping_losses(trainer_class, losses)(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora,
            callbacks=[keep], **rewards)
        initialise(parameters(trainer.model))
        trainer.train()
        data = [dict(row) for row in trainer.train_dataset]
    steps = [{"loss": loss, **row} for loss, row in zip(losses, keep.rows, strict=True)]
    for i, step in enumerate(steps):
        print(trainer_class.__name__, i + 1, {k: round(v, 5) for k, v in step.items()}, flush=True)
    return data, steps


def run(trainer_class, config_class, folder: str, rows: list[dict], **settings):
    return run_trainer(trainer_class, config_class, folder, rows, KEEP, beta=BETA, **settings)


def main(folder: str) -> None:
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    all_texts = texts(AutoTokenizer.from_pretrained(folder))
    pairs = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in all_texts]
    labelled = [{"prompt": p, "completion": c if i % 2 == 0 else r, "label": i % 2 == 0} for i, (p, c, r) in enumerate(all_texts)]
    out = {"lora_r": R, "lora_alpha": ALPHA, "learning_rate": LR, "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": SEED}

    data, steps = run(DPOTrainer, DPOConfig, folder, pairs, max_length=512)
    rows = [{"prompt": r["prompt_ids"], "chosen": r["chosen_ids"], "rejected": r["rejected_ids"]} for r in data]
    out["dpo"] = {"beta": BETA, "rows": rows, "steps": steps}

    data, steps = run(KTOTrainer, KTOConfig, folder, labelled, max_length=512)
    rows = [{"prompt": r["prompt_ids"], "completion": r["completion_ids"], "kl_completion": r["KL_completion_ids"], "label": r["label"]}
            for r in data]
    out["kto"] = {"beta": BETA, "rows": rows, "steps": steps}

    data, steps = run(ORPOTrainer, ORPOConfig, folder, pairs, max_length=512)
    rows = []
    for r in data:
        n = sum(label == -100 for label in r["chosen_labels"])
        assert r["chosen_input_ids"][:n] == r["rejected_input_ids"][:n]
        rows.append({"prompt": r["chosen_input_ids"][:n], "chosen": r["chosen_input_ids"][n:], "rejected": r["rejected_input_ids"][n:]})
    out["orpo"] = {"beta": BETA, "rows": rows, "steps": steps}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
