"""What the scripts beside this file share: trainers of TRL without a model, random ragged batches, the golden file.

A trainer is made without its constructor and given the few attributes its loss reads; the loss code that runs is TRL's
own. The model it calls is a stand-in that returns given log-probabilities (TRL's fused head) or two logits a token whose
softmax gives them. All tensors are f64 unless TRL itself narrows them.

Versions: torch 2.15.0, transformers 5.23.0, trl 1.16.0, safetensors 0.8.0
"""
import contextlib
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

CASES = 64
HERE = Path(__file__).parent


def trainer(kind, **attributes):
    """An instance of a trainer class with these attributes."""
    made = kind.__new__(kind)
    model = torch.nn.Identity().train()
    model.is_gradient_checkpointing = False
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=True, is_main_process=True,
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
        autocast=contextlib.nullcontext, unwrap_model=lambda m: m)
    defaults = dict(
        accelerator=accelerator, model=model, aux_loss_enabled=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1)
    for name, value in {**defaults, **attributes}.items():
        object.__setattr__(made, name, value)
    return made


def fused(log_probs):
    """A model with TRL's fused head that returns `log_probs[m]` for inputs full of the number m."""
    def model(input_ids=None, **_):
        values = log_probs[int(input_ids[0, 0])]
        zeros = torch.zeros_like(values).detach()
        return SimpleNamespace(log_probs=values, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), aux_loss=None)
    return model


def logits_of(log_probs):
    """Two logits a token: token 0 has the wanted log-probability."""
    return torch.stack([log_probs, torch.log1p(-torch.exp(log_probs))], dim=-1)


def padded(sequences, left=0, fill=0.0):
    """Sequences as one tensor: `left` positions of `fill`, the values, `fill` up to the longest."""
    width = left + max(len(s) for s in sequences)
    rows = [torch.cat([s.new_full((left,), fill), s, s.new_full((width - left - len(s),), fill)]) for s in sequences]
    return torch.stack(rows)


def mask(sequences, left=0):
    return padded([torch.ones_like(s) for s in sequences], left).detach().long()


def leaves(sequences):
    return [s.double().requires_grad_() for s in sequences]


def gradients(loss, sequences):
    """d loss / d each sequence, flat."""
    found = torch.autograd.grad(loss, sequences, allow_unused=True)
    return [torch.zeros_like(s) if g is None else g for g, s in zip(found, sequences)]


def coarse(values):
    """Multiples of 2^-10 below 0: their sums are exact in f32 too, so that where TRL narrows to f32 little is lost."""
    return ((values * 1024).round() / 1024).clamp(max=-1 / 1024)


def answers(random, lengths, scale):
    """f32 log-probabilities of answers of these lengths, around -scale, never 0."""
    draw = lambda n: -torch.empty(n).exponential_(1.0 / scale, generator=random).clamp(max=30.0)
    return [coarse(draw(n)) for n in lengths]


def near(random, sequences, spread):
    """Log-probabilities of the same answers under a policy not far away."""
    return [coarse(s + spread * torch.randn(len(s), generator=random)) for s in sequences]


class Golden:
    """Tensors of a file; ragged ones are appended case by case."""

    def __init__(self):
        self.parts, self.variants = defaultdict(list), {}

    def add(self, name, values):
        values = values if isinstance(values, list) else [values]
        self.parts[name] += [torch.as_tensor(v).detach().reshape(-1) for v in values]

    def metrics(self, variant, trainer_metrics, names):
        """The last value of each metric, NaN where there is none."""
        self.add(f"{variant}/metrics", [[(trainer_metrics.get(n) or [float("nan")])[-1] for n in names]])

    def save(self, name, **metadata):
        tensors = {}
        for key, parts in self.parts.items():
            values = torch.cat(parts)
            narrow = torch.int32 if not values.is_floating_point() else torch.float32
            tensors[key] = values.to(torch.float64 if key.endswith("/loss") else narrow).contiguous()
            assert tensors[key].isfinite().all() or key.endswith("/metrics") or key == "rewards", key
        metadata["variants"] = self.variants
        # One entry: the writer keeps no order among several, and the file is to be the same at every run.
        save_file(tensors, HERE / name, {"golden": json.dumps(metadata)})
        print(name, (HERE / name).stat().st_size, "bytes,", len(self.variants), "variants")
