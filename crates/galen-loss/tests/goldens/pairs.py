"""Losses of pairs by TRL: every loss type of DPO, CPO with SimPO and AlphaPO, ORPO. Writes pairs.safetensors.

Run: python pairs.py      (versions in trl_stub.py; about a minute)
"""
from types import SimpleNamespace

import torch
import trl_stub as stub
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer

TYPES = ["sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
         "apo_zero", "apo_down", "discopop", "sigmoid_norm", "sft"]
DPO = {name: dict(loss_type=[name]) for name in TYPES}
DPO |= {
    "ld": dict(loss_type=["sigmoid"], ld=True),
    "ld ipo": dict(loss_type=["ipo"], ld=True),
    "forward_kl": dict(loss_type=["sigmoid"], f="forward_kl"),
    "js_divergence": dict(loss_type=["sigmoid"], f="js_divergence"),
    "alpha_divergence": dict(loss_type=["sigmoid"], f="alpha_divergence"),
    "forward_kl robust": dict(loss_type=["robust"], f="forward_kl"),
    "js_divergence ld exo_pair": dict(loss_type=["exo_pair"], f="js_divergence", ld=True),
    "alpha_divergence sigmoid_norm": dict(loss_type=["sigmoid_norm"], f="alpha_divergence"),
    "mpo": dict(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    "several ld": dict(loss_type=["aot", "ipo", "sft"], loss_weights=[0.5, 2.0, 0.3], ld=True),
}
CPO = {
    "sigmoid": {}, "hinge": {}, "ipo": {}, "simpo": {},
    "simpo alpha": dict(loss_type="simpo", alpha=True), "sigmoid alpha": dict(loss_type="sigmoid", alpha=True),
    "simpo alone": dict(loss_type="simpo", cpo_alpha=0.0),
}
PAIR = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"]
ORPO = PAIR + ["nll_loss", "log_odds_ratio", "log_odds_chosen"]
PROMPT = 3  # Positions before the answers, the first of which nothing predicts; TRL left-pads nothing here.


def dpo(case, f="reverse_kl", ld=False, loss_type=None, loss_weights=None):
    dtype = torch.float32 if f == "alpha_divergence" else torch.float64  # its clamp has no entry for f64
    chosen, rejected = ([s.to(dtype).detach().requires_grad_() for s in case[k]] for k in ("chosen", "rejected"))
    reference = [s.to(dtype) for s in case["ref_chosen"] + case["ref_rejected"]]
    answers = chosen + rejected
    rows = lambda sequences: stub.padded(sequences, PROMPT - 1)
    completion = torch.cat([torch.zeros(len(answers), 1).long(), stub.mask(answers, PROMPT - 1)], 1)
    made = stub.trainer(
        DPOTrainer, ld_alpha=case["ld_alpha"] if ld else None, precompute_ref_logps=False, f_divergence_type=f,
        ref_model=stub.fused({7: rows(reference)}), f_alpha_divergence_coef=case["f_alpha"], loss_types=loss_type,
        loss_weights=loss_weights or [1.0] * len(loss_type), beta=case["beta"], label_smoothing=case["smoothing"],
        use_weighting=False,
        args=SimpleNamespace(discopop_tau=case["tau"], gradient_checkpointing_kwargs=None))
    inputs = dict(input_ids=torch.full_like(completion, 7), attention_mask=torch.ones_like(completion),
                  completion_mask=completion)
    loss = made._compute_loss(stub.fused({7: rows(answers)}), inputs, False)
    return loss, chosen, rejected, [], made._metrics["train"]


def without_reference(kind, case, prompts, **attributes):
    """CPO or ORPO: a batch of two answers a pair, prompt tokens before each."""
    chosen, rejected = stub.leaves(case["chosen"]), stub.leaves(case["rejected"])
    prompts = stub.leaves(prompts)
    batch, log_probs = {}, []
    width = 1 + max(len(p) + len(a) for side in (chosen, rejected) for p, a in zip(prompts, side))
    for side, sequences in (("chosen", chosen), ("rejected", rejected)):
        whole = [torch.cat([p, s]) for p, s in zip(prompts, sequences)]
        lengths = [(1 + len(p), 1 + len(w)) for p, w in zip(prompts, whole)]
        position = torch.arange(width).expand(len(whole), width)
        starts, ends = (torch.tensor(column)[:, None] for column in zip(*lengths))
        batch[f"{side}_input_ids"] = torch.zeros(len(whole), width).long()
        batch[f"{side}_attention_mask"] = (position < ends).long()
        batch[f"{side}_labels"] = torch.where((position >= starts) & (position < ends), 0, -100)
        rows = stub.padded(whole, fill=-1.0)
        log_probs.append(torch.cat([rows, rows.new_full((len(whole), width - rows.size(1)), -1.0)], 1))
    made = stub.trainer(kind, is_encoder_decoder=False, pad_token_id=1, padding_value=1, beta=case["beta"],
                        **attributes)
    logits = stub.logits_of(torch.cat(log_probs))
    loss, metrics = made.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), batch)
    return loss, chosen, rejected, prompts, {k: [v] for k, v in metrics.items()}


def cpo(case, loss_type, alpha=False, cpo_alpha=None):
    return without_reference(
        CPOTrainer, case, case["prompt"], loss_type=loss_type, label_smoothing=case["smoothing"],
        simpo_gamma=case["gamma"], alpha=case["alpha"] if alpha else 0.0,
        cpo_alpha=case["cpo_alpha"] if cpo_alpha is None else cpo_alpha)


def main():
    random = torch.Generator().manual_seed(20)
    golden = stub.Golden()
    pick = lambda values: values[int(torch.randint(len(values), (1,), generator=random))]
    lengths = lambda n, low=1: torch.randint(low, 7, (n,), generator=random).tolist()
    for _ in range(stub.CASES):
        rows, scale = pick([1, 2, 3, 4]), pick([0.3, 1.0, 3.0])
        case = {k: float(torch.tensor(pick(v))) for k, v in dict(
            beta=[0.05, 0.1, 0.5, 2.0], smoothing=[0.001, 0.1, 0.3], ld_alpha=[0.0, 0.3, 1.0],
            f_alpha=[0.5, 0.7, 1.0, 1.5], tau=[0.05, 0.2, 1.0], gamma=[0.5, 1.4], alpha=[-0.2, 0.1, 0.25],
            cpo_alpha=[0.5, 1.0]).items()}
        for name, value in case.items():
            golden.add(name, value)
        for side in ("chosen", "rejected"):
            case[side] = stub.answers(random, lengths(rows), scale)
            case[f"ref_{side}"] = stub.near(random, case[side], pick([0.05, 0.5, 1.5]))
        case["prompt"] = stub.answers(random, lengths(rows, low=0), 2.0)
        golden.add("rows", rows)
        for name in ("chosen", "rejected", "prompt"):
            golden.add(f"{name}_lengths", [len(s) for s in case[name]])
        for name in ("chosen", "rejected", "ref_chosen", "ref_rejected", "prompt"):
            golden.add(name, case[name])
        runs = [(f"dpo/{n}", "dpo", v, lambda v=v: dpo(case, **v)) for n, v in DPO.items()]
        runs += [(f"cpo/{n}", "cpo", {"loss_type": n, **v}, lambda n=n, v=v: cpo(case, **{"loss_type": n, **v}))
                 for n, v in CPO.items()]
        runs.append(("orpo", "orpo", {}, lambda: without_reference(ORPOTrainer, case, case["prompt"])))
        for name, family, settings, run in runs:
            loss, chosen, rejected, prompt, metrics = run()
            golden.variants[name] = {"family": family, **settings}
            golden.add(f"{name}/loss", loss.double())
            sides = stub.gradients(loss, chosen + rejected + prompt)
            golden.add(f"{name}/d_chosen", sides[:rows])
            golden.add(f"{name}/d_rejected", sides[rows:2 * rows])
            if family == "orpo":
                golden.add(f"{name}/d_prompt", sides[2 * rows:])
            golden.metrics(name, metrics, ORPO if family == "orpo" else PAIR)
    golden.save("pairs.safetensors", metrics=PAIR, orpo_metrics=ORPO)


if __name__ == "__main__":
    main()
