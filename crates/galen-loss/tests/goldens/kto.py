"""Losses of single answers by TRL's KTO trainer. Writes kto.safetensors.

Run: python kto.py      (versions in trl_stub.py; 20 s)
"""
from types import SimpleNamespace

import torch
import trl_stub as stub
from trl.trainer.kto_trainer import KTOTrainer

METRICS = ["kl", "rewards/chosen", "logps/chosen", "rewards/rejected", "logps/rejected", "rewards/margins"]
MAIN, KL = 7, 9  # What the inputs are full of, for the model to tell the two passes apart.


def run(case, loss_type):
    completions = stub.leaves(case["completions"])
    labels, left = torch.tensor(case["labels"]), 2
    rows = lambda sequences: stub.padded([s.double() for s in sequences], left)
    shape = lambda sequences: torch.cat([torch.zeros(len(sequences), 1).long(), stub.mask(sequences, left)], 1)
    main, other = shape(completions), shape(case["kl_policy"])
    made = stub.trainer(
        KTOTrainer, loss_type=loss_type, beta=case["beta"], desirable_weight=case["desirable_weight"],
        undesirable_weight=case["undesirable_weight"], calculate_KL=loss_type == "kto", precompute_ref_logps=False,
        ref_model=stub.fused({MAIN: rows(case["reference"]), KL: rows(case["kl_reference"])}),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None))
    inputs = dict(label=labels, input_ids=torch.full_like(main, MAIN), attention_mask=torch.ones_like(main),
                  completion_mask=main, KL_input_ids=torch.full_like(other, KL),
                  KL_attention_mask=torch.ones_like(other), KL_completion_mask=other)
    policy = stub.fused({MAIN: rows(completions), KL: rows(case["kl_policy"])})
    return made._compute_loss(policy, inputs, False), completions, made._metrics["train"]


def main():
    random = torch.Generator().manual_seed(21)
    golden = stub.Golden()
    pick = lambda values: values[int(torch.randint(len(values), (1,), generator=random))]
    lengths = lambda n: torch.randint(1, 7, (n,), generator=random).tolist()
    for _ in range(stub.CASES):
        rows, scale, spread = pick([2, 3, 4, 5]), pick([0.3, 1.0, 3.0]), pick([0.05, 0.5, 1.5])
        case = {k: float(torch.tensor(pick(v))) for k, v in dict(
            beta=[0.05, 0.1, 0.5, 2.0], desirable_weight=[0.7, 1.0, 1.33], undesirable_weight=[0.5, 1.0]).items()}
        for name, value in case.items():
            golden.add(name, value)
        case["labels"] = [bool(torch.rand(1, generator=random) < 0.5) for _ in range(rows)]
        for policy, reference in (("completions", "reference"), ("kl_policy", "kl_reference")):
            case[policy] = stub.answers(random, lengths(rows), scale)
            case[reference] = stub.near(random, case[policy], spread)
            golden.add(f"{policy}_lengths", [len(s) for s in case[policy]])
            golden.add(policy, case[policy])
            golden.add(reference, case[reference])
        golden.add("rows", rows)
        golden.add("labels", [int(label) for label in case["labels"]])
        for name in ("kto", "apo_zero_unpaired"):
            loss, completions, metrics = run(case, name)
            golden.variants[name] = {"loss_type": name}
            golden.add(f"{name}/loss", loss)
            golden.add(f"{name}/gradient", stub.gradients(loss, completions))
            golden.metrics(name, metrics, METRICS)
    golden.save("kto.safetensors", metrics=METRICS)


if __name__ == "__main__":
    main()
