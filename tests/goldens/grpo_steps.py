"""Optimiser steps of TRL's GRPO and RLOO trainers with LoRA on SmolLM2 in f32, on answers that are given: each step's loss,
gradient norm and metrics.

Run:      python grpo_steps.py SMOLLM2_HF_DIR [THREADS]      (made by gguf_to_hf.py; 4 minutes on 2 quiet cores)
Versions: torch 2.15.0 (CPU, f32, sdpa attention), transformers 5.23.0, peft 0.21.2, trl 1.16.0
Writes:   grpo_steps.json

Setting: adapter, its start and the optimiser are those of align_steps.py. Prompts are its questions in file order, two a step, with
four answers each: the answers to the question itself and to the three behind it, the last of them without its end token, as if it
had been cut off. Generation alone is replaced; TRL computes log-probabilities, advantages and the loss. Two reward functions stand
for any: `length`, 0.1 a token, and `ends`, 1 where the answer ends by itself.

grpo_steps.json: {lora_r, lora_alpha, learning_rate, eps, weight_decay, max_grad_norm, seed, group, prompts: [ids],
  answers: [[ids of an answer, four] a prompt], NAME: {settings, steps: [{loss, grad_norm, kl, reward, ...}]}}
"""
import json
import sys
from pathlib import Path

import torch
from align_steps import LR, run_trainer, texts
from peft_steps import ALPHA, R, SEED
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

GROUP, PROMPTS = 4, 2
KEEP = ("kl", "reward", "completions/", "clip_ratio/", "grad_norm", "frac_reward_zero_std")
RUNS = {
    "grpo": (GRPOTrainer, GRPOConfig, {"beta": 0.04}),
    "iterations": (GRPOTrainer, GRPOConfig, {"beta": 0.0, "loss_type": "grpo", "num_iterations": 2, "temperature": 0.8,
                                             "mask_truncated_completions": True, "epsilon": 0.02}),
    "rloo": (RLOOTrainer, RLOOConfig, {"beta": 0.05}),
}


def length(completion_ids, **_):
    return [0.1 * len(ids) for ids in completion_ids]


def main(folder: str) -> None:
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = texts(tokenizer)

    def ends(completion_ids, **_):
        return [float(ids[-1] == tokenizer.eos_token_id) for ids in completion_ids]

    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    prompts = [encode(prompt) for prompt, _, _ in asked[:8]]
    answers = [[encode(asked[(i + j) % len(asked)][1]) for j in range(GROUP)] for i in range(8)]
    for group in answers:
        group[-1] = group[-1][:-1]
    out = {"lora_r": R, "lora_alpha": ALPHA, "learning_rate": LR, "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0,
           "seed": SEED, "group": GROUP, "prompts": prompts, "answers": answers}
    for name, (trainer, config, settings) in RUNS.items():

        class Given(trainer):
            def _generate_single_turn(self, prompt_ids, *_, **__):
                seen = {}
                given = []
                for ids in prompt_ids:
                    i = prompts.index(list(ids))
                    given.append(list(answers[i][seen.get(i, 0)]))
                    seen[i] = seen.get(i, 0) + 1
                # GRPO's also gives the generator's log-probabilities, where it has any.
                return given if issubclass(trainer, RLOOTrainer) else (given, None)

        rows = [{"prompt": prompt} for prompt, _, _ in asked[:8]]
        _, steps = run_trainer(Given, config, folder, rows, KEEP, rows_a_step=PROMPTS * GROUP, steps=4, reward_funcs=[length, ends],
                               num_generations=GROUP, shuffle_dataset=False, max_completion_length=256, **settings)
        out[name] = {"settings": settings, "steps": steps}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
