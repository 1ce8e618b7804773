"""Losses of pairs of scalars by TRL's reward trainer. Writes reward.safetensors.

Run: python reward.py      (versions in trl_stub.py; 20 s)
"""
from types import SimpleNamespace

import torch
import trl_stub as stub
from trl.trainer.reward_trainer import RewardTrainer

METRICS = ["min_reward", "mean_reward", "max_reward", "accuracy", "margin"]
VARIANTS = {"plain": {}, "margin": {"margin": True}, "center": {"center": True},
            "margin center": {"margin": True, "center": True}}


def run(case, margin=False, center=False):
    rewards = [s.requires_grad_() for s in (case["chosen"].double(), case["rejected"].double())]
    made = stub.trainer(RewardTrainer, args=SimpleNamespace(
        center_rewards_coefficient=case["center"] if center else None))
    inputs = dict(attention_mask=torch.ones(2, 1))
    if margin:
        inputs["margin"] = case["margin"].double()
    logits = torch.cat(rewards)[:, None]
    loss = made.compute_loss(lambda **_: SimpleNamespace(logits=logits), inputs)
    return loss, rewards, made._metrics["train"]


def main():
    random = torch.Generator().manual_seed(22)
    golden = stub.Golden()
    pick = lambda values: values[int(torch.randint(len(values), (1,), generator=random))]
    for _ in range(stub.CASES):
        rows, scale = pick([1, 2, 3, 5]), pick([0.1, 2.0, 20.0])
        case = {name: scale * torch.randn(rows, generator=random) for name in ("chosen", "rejected")}
        case["margin"] = torch.rand(rows, generator=random) * 3
        case["center"] = float(torch.tensor(pick([0.01, 0.1])))
        golden.add("rows", rows)
        for name, value in case.items():
            golden.add(name, value)
        for name, settings in VARIANTS.items():
            loss, rewards, metrics = run(case, **settings)
            golden.variants[name] = settings
            golden.add(f"{name}/loss", loss)
            for side, gradient in zip(("d_chosen", "d_rejected"), stub.gradients(loss, rewards)):
                golden.add(f"{name}/{side}", gradient)
            golden.metrics(name, metrics, METRICS)
    golden.save("reward.safetensors", metrics=METRICS)


if __name__ == "__main__":
    main()
