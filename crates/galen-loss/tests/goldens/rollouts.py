"""Losses and advantages of sampled answers by TRL's GRPO and RLOO trainers. Writes rollouts.safetensors.

Run: python rollouts.py      (versions in trl_stub.py; a minute)
"""
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl_stub as stub
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
GRPO = {name: {} for name in TYPES}
GRPO |= {f"{name} kl": dict(kl=True, loss_type=name) for name in TYPES}
GRPO |= {f"{name} sequence kl": dict(kl=True, level="sequence", loss_type=name)
         for name in ("grpo", "dapo", "cispo", "luspo")}
GRPO |= {
    "uncorrected": dict(loss_type="dapo", kl=True, corrected=False),
    "on policy": dict(loss_type="grpo", kl=True, old=False),
    "high delta": dict(loss_type="grpo", high=True, delta=True),
    "high delta sequence": dict(loss_type="bnpo", high=True, delta=True, level="sequence"),
    "high cispo": dict(loss_type="cispo", high=True),
    "off policy mask": dict(loss_type="grpo", kl=True, threshold=True),
}
RLOO = {"rloo": {}, "rloo high": dict(high=True)}
ADVANTAGES = {
    "group": {}, "batch": dict(scale="batch"), "none": dict(scale="none"),
    "normalised first": dict(aggregation="normalize_then_sum"), "rloo": dict(rloo=True),
    "rloo normalised": dict(rloo=True, normalize=True, clip=True), "rloo plain": dict(rloo=True, kl=False),
}
CLIP = ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "clip_ratio/low_min",
        "clip_ratio/high_max"]
METRICS = ["kl", *CLIP, "cispo_clip_ratio", "vespo/phi_seq_mean"]
REWARD = ["reward", "reward_std", "frac_reward_zero_std", "rewards/a/mean", "rewards/a/std", "rewards/b/mean",
          "rewards/b/std", "kl"]
GROUP, FUNCTIONS = 3, 2


def common(case, high):
    epsilon_high = case["epsilon_high"] if high else case["epsilon"]
    return dict(epsilon_low=case["epsilon"], epsilon_high=epsilon_high, top_entropy_quantile=1.0, use_vllm=False,
                vllm_importance_sampling_correction=False, _entropy_bonus_enabled=False)


def batch(case, completions, **others):
    """Inputs of a loss: one prompt token, the answers, and whatever else is given, padded."""
    mask = stub.mask(completions)
    rows = {k: stub.padded([s.double() for s in v]) for k, v in others.items()}
    ones = torch.ones(len(completions), 1).long()
    return dict(prompt_ids=7 * ones, prompt_mask=ones, completion_ids=torch.full_like(mask, 7), completion_mask=mask,
                advantages=case["advantages"].double(), **rows)


def grpo(case, loss_type, kl=False, level="token", corrected=True, old=True, high=False, delta=False,
         threshold=False):
    completions = stub.leaves(case["completions"])
    made = stub.trainer(
        GRPOTrainer, **common(case, high), loss_type=loss_type, importance_sampling_level=level,
        beta=case["beta"] if kl else 0.0, max_completion_length=16, current_gradient_accumulation_steps=case["steps"],
        off_policy_mask_threshold=case["threshold"] if threshold else None,
        args=SimpleNamespace(
            use_bias_correction_kl=corrected, delta=case["delta"] if delta else None, sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05, vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0,
            steps_per_generation=case["steps"]))
    inputs = batch(case, completions, ref_per_token_logps=case["reference"],
                   **({"old_per_token_logps": case["old"]} if old else {}))
    inputs["num_items_in_batch"] = torch.tensor(float(case["tokens"]))
    loss = made._compute_loss(stub.fused({7: stub.padded(completions)}), inputs)
    return loss, completions, made._metrics["train"]


def rloo(case, high=False):
    completions = stub.leaves(case["completions"])
    made = stub.trainer(RLOOTrainer, **common(case, high), beta=0.0)
    inputs = batch(case, completions)
    inputs["old_logps"] = torch.stack([s.double().sum() for s in case["old"]])
    loss = made._compute_loss(stub.fused({7: stub.padded(completions)}), inputs)
    return loss, completions, made._metrics["train"]


def advantages(case, scale="group", aggregation="sum_then_normalize", rloo=False, normalize=False, clip=False, kl=True):
    """Advantages as the trainer scores its rollouts; sampling and the reward functions are given."""
    old, reference = (stub.padded([s.double() for s in case[k]]) for k in ("old", "reference"))
    answers = [[7] * len(s) for s in case["old"]]
    rows = len(answers)
    passes = iter([old, reference])
    kind = RLOOTrainer if rloo else GRPOTrainer
    generated = ([[7]] * rows, answers, [""] * rows) if rloo else (
        [[7]] * rows, answers, None, [""] * rows, None, {}, None, None)
    made = stub.trainer(
        kind, **common(case, False), beta=case["beta"] if rloo and kl else 0.0, scale_rewards=scale,
        multi_objective_aggregation=aggregation, num_generations=GROUP, num_iterations=1,
        mask_truncated_completions=False, normalize_advantages=normalize, tools=None, environments=None,
        environment_factories=None, reward_clip_range=(-0.5, 1.0) if clip else None, pad_to_multiple_of=None,
        _tokenizer=SimpleNamespace(pad_token_id=0, eos_token_ids=[1]), ref_model=object(), off_policy_mask_threshold=None,
        reward_weights=torch.tensor(case["weights"]).double(), reward_func_names=["a", "b"], reward_funcs=[0, 0],
        _generate=lambda prompts: generated, _calculate_rewards=lambda *_: case["rewards"].double(),
        _get_per_token_logps_and_entropies=lambda *_, **__: (next(passes), None, None), _is_vlm=False,
        _logs=defaultdict(list, rewards=defaultdict(list)), _pending_extra_logs={}, _pending_metrics={},
        processing_class=SimpleNamespace(batch_decode=lambda ids, **_: [""] * len(ids)), log_multimodal=False,
        args=SimpleNamespace(per_device_train_batch_size=rows, steps_per_generation=1,
                             gradient_accumulation_steps=1, gradient_checkpointing_kwargs=None))
    output = made._generate_and_score_completions([{"prompt": ""}] * rows)
    return output["advantages"], made._metrics["train"]


def main():
    random = torch.Generator().manual_seed(23)
    golden = stub.Golden()
    pick = lambda values: values[int(torch.randint(len(values), (1,), generator=random))]
    for _ in range(stub.CASES):
        rows, scale, spread = GROUP * pick([1, 2]), pick([0.3, 1.0, 3.0]), pick([0.05, 0.3, 1.0])
        case = {k: float(torch.tensor(pick(v))) for k, v in dict(
            beta=[0.04, 0.5], epsilon=[0.1, 0.2], epsilon_high=[0.28, 0.4, 5.0], delta=[1.5, 6.5],
            threshold=[0.01, 0.3]).items()}
        if case["delta"] <= 1 + case["epsilon_high"]:
            case["delta"] = 6.5
        case["weights"] = [1.0, 0.25]
        for name, value in case.items():
            golden.add(name, value)
        case["old"] = stub.answers(random, torch.randint(1, 7, (rows,), generator=random).tolist(), scale)
        case["completions"] = stub.near(random, case["old"], spread)
        case["reference"] = stub.near(random, case["old"], spread)
        case["advantages"] = torch.randn(rows, generator=random)
        # A quarter of the rewards does not apply; some groups have one reward throughout.
        rewards = (torch.randn(rows, FUNCTIONS, generator=random) * 2).round() / 2 * pick([0.0, 1.0, 1.0])
        case["rewards"] = torch.where(torch.rand(rows, FUNCTIONS, generator=random) < 0.25, torch.nan, rewards)
        case["steps"] = pick([1, 2, 3])
        case["tokens"] = sum(map(len, case["old"])) + pick([0, 5])
        for name in ("steps", "tokens"):
            golden.add(name, case[name])
        golden.add("rows", rows)
        golden.add("lengths", [len(s) for s in case["old"]])
        for name in ("old", "completions", "reference", "advantages", "rewards"):
            golden.add(name, case[name])
        runs = [(f"grpo/{n}", {"loss_type": n, **v}, grpo) for n, v in GRPO.items()]
        runs += [(f"rloo/{n}", v, rloo) for n, v in RLOO.items()]
        for name, settings, run in runs:
            loss, completions, metrics = run(case, **settings)
            golden.variants[name] = settings
            golden.add(f"{name}/loss", loss)
            golden.add(f"{name}/gradient", stub.gradients(loss, completions))
            golden.metrics(name, metrics, METRICS)
        for name, settings in ADVANTAGES.items():
            values, metrics = advantages(case, **settings)
            golden.variants[f"advantages/{name}"] = settings
            golden.add(f"advantages/{name}/values", values)
            golden.metrics(f"advantages/{name}", metrics, REWARD)
    golden.save("rollouts.safetensors", metrics=METRICS, reward_metrics=REWARD, group=GROUP)


if __name__ == "__main__":
    main()
