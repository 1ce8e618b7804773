"""Adapters of PEFT's on tiny models, and what they compute: what galen's reader and its DoRA are held against.

Run:      python adapters.py      (reads tiny/, writes adapters/<name>/ beside this file; 20 s)
Versions: torch 2.15.0 (CPU, f32, eager attention), transformers 5.23.0, peft 0.21.2, safetensors 0.8.0

adapters/<name>/adapter_config.json, adapter_model.safetensors    as `save_pretrained` writes them
adapters/<name>/golden.safetensors
  logits f32 [40, V]      of the row `ids0` of tiny/<base>/golden.safetensors; <base> is in the file's metadata
of `dora` too:
  merged f32 [40, V]      logits after `merge_and_unload`
  loss f64 [1], <module>.lora_A.grad, .lora_B.grad, .lora_magnitude_vector.grad      of the rows ids0 and ids1 under mask0 and mask1
  dropped_loss f64 [1], the same keys with `dropped.` before them                    in training with `lora_dropout` 0.25
Magnitudes are moved away from the norms, so that a gain of 1 would be seen; ranks and alphas differ by module.

The dropout masks are galen's (`galen-ops/src/ops/dropout.rs`): functions of (seed 7, epoch 0, module, row, position, feature), row 0
being ids0 and row 1 ids1. `dropout_bits` below is that function; what PEFT does with a dropped input is PEFT's.
"""
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
SEED, P = 7, 0.25
CASES = {
    "patterns": ("llama_tied", dict(
        r=4, lora_alpha=8, rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6},
        alpha_pattern={r"layers\.[01]\.self_attn\.v_proj": 5, "^model.layers.0.mlp.up_proj": 3, "q_proj": 16})),
    "rslora": ("qwen2", dict(
        r=3, lora_alpha=5, use_rslora=True, rank_pattern={"k_proj": 5}, alpha_pattern={"o_proj": 2},
        target_modules=["q_proj", "k_proj", "o_proj", "gate_proj"])),
    "dora": ("qwen2", dict(r=4, lora_alpha=10, use_dora=True, rank_pattern={"v_proj": 2})),
}


def mix(z):
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def name_key(name: str) -> int:
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return h


def dropout_bits(layer: int, module: str, row: int, tokens: int, width: int) -> np.ndarray:
    """1 where a feature stays."""
    key = np.uint64((layer << 32) ^ name_key(module))
    base = mix(mix(mix(np.uint64(SEED)) ^ np.uint64(0)) ^ key)
    token = mix(mix(base ^ np.uint64(row)) ^ np.arange(tokens, dtype=np.uint64))
    bits = mix(token[:, None] ^ np.arange(width, dtype=np.uint64)[None])
    return (bits >> np.uint64(32)) >= np.uint64(int(P * 2**32))


class Masked(torch.nn.Module):
    """Dropout with galen's masks of the row at hand."""

    def __init__(self, layer: int, module: str):
        super().__init__()
        self.place, self.row = (layer, module), 0

    def forward(self, x):
        mask = dropout_bits(*self.place, self.row, x.shape[1], x.shape[2])
        return x * torch.from_numpy(mask).to(x.dtype) / (1 - P)


def targets(model):
    for i, layer in enumerate(model.base_model.model.model.layers):
        for name, module in layer.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                yield i, name, module


def grads(model, golden, prefix: str, out: dict):
    model.zero_grad()
    total, count = 0.0, 0
    for row in range(2):
        for _, _, module in targets(model):
            if isinstance(module.lora_dropout["default"], Masked):
                module.lora_dropout["default"].row = row
        ids, mask = golden[f"ids{row}"].long()[None], golden[f"mask{row}"].bool()
        logp = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
        chosen = logp.gather(1, ids[0, 1:, None])[:, 0][mask[1:]]
        total, count = total - chosen.sum(), count + int(mask[1:].sum())
    loss = total / count
    loss.backward()
    out[f"{prefix}loss"] = loss.detach().double()[None]
    for i, name, module in targets(model):
        key = f"{prefix}model.layers.{i}.{name}"
        out[f"{key}.lora_A.grad"] = module.lora_A["default"].weight.grad.clone()
        out[f"{key}.lora_B.grad"] = module.lora_B["default"].weight.grad.clone()
        out[f"{key}.lora_magnitude_vector.grad"] = module.lora_magnitude_vector["default"].weight.grad.clone()


def main():
    for number, (name, (base, options)) in enumerate(CASES.items()):
        torch.manual_seed(100 + number)
        golden = load_file(HERE / "tiny" / base / "golden.safetensors")
        model = AutoModelForCausalLM.from_pretrained(HERE / "tiny" / base, dtype=torch.float32, attn_implementation="eager")
        options = {"target_modules": "all-linear", **options}
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        for _, _, module in targets(model):
            module.lora_A["default"].weight.data.normal_(0, 0.2)
            module.lora_B["default"].weight.data.normal_(0, 0.2)
            if options.get("use_dora"):
                m = module.lora_magnitude_vector["default"].weight.data
                m *= 1 + 0.2 * torch.randn_like(m)
        folder = HERE / "adapters" / name
        model.peft_config["default"].base_model_name_or_path = f"tiny/{base}"
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        ids = golden["ids0"].long()[None]
        out = {"logits": model(input_ids=ids).logits[0].detach()}
        if options.get("use_dora"):
            grads(model, golden, "", out)
            for i, module_name, module in targets(model):
                module.lora_dropout["default"] = Masked(i, module_name)
            model.train()
            grads(model, golden, "dropped.", out)
            model.eval()
            out["merged"] = model.merge_and_unload()(input_ids=ids).logits[0].detach()
            assert (out["merged"] - out["logits"]).abs().max() < 1e-3
            assert (out["dropped.loss"] - out["loss"]).abs() > 0.01
        save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden.safetensors", metadata={"base": base})
        for file in folder.iterdir():
            file.chmod(0o644)
        plain = AutoModelForCausalLM.from_pretrained(HERE / "tiny" / base, dtype=torch.float32)(input_ids=ids).logits[0]
        print(name, "differs from the base by", float((plain.detach() - out["logits"]).abs().max()))


if __name__ == "__main__":
    main()
