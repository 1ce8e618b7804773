"""Adapters of mlx-lm's on tiny models, and what they compute there: what galen's reader is held against.

Run:      python mlx_adapters.py      (reads tiny/, writes adapters/mlx_*/ beside this file; 5 s)
Versions: mlx 0.32.4 (its CPU backend runs on Linux: `pip install mlx[cpu]`), mlx-lm 0.32.2

adapters/<name>/adapter_config.json, adapters.safetensors     as `mlx_lm.lora` saves them: the last block alone, or all
adapters/<name>/golden.safetensors   logits f32 [40, V] of the row `ids0` of tiny/<base>/golden.safetensors; <base> is in its metadata
"""
import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model, save_config
from safetensors import safe_open

HERE = Path(__file__).parent
CASES = {
    "mlx_lora": ("llama_tied", "lora", 1, dict(rank=3, scale=7.5, dropout=0.0, keys=["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"])),
    "mlx_dora": ("qwen2", "dora", 2, dict(rank=2, scale=1.5, dropout=0.05, keys=["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"])),
}


def open_base(base: str):
    """The base by the older form of its configuration: mlx-lm does not read `rope_parameters`."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(HERE / "tiny" / base / "config_legacy.json", Path(scratch) / "config.json")
        shutil.copy(HERE / "tiny" / base / "model.safetensors", scratch)
        model, _ = load_model(Path(scratch))
        mx.eval(model.parameters())
        return model


def main():
    mx.set_default_device(mx.cpu)
    for number, (name, (base, kind, layers, parameters)) in enumerate(CASES.items()):
        mx.random.seed(5 + number)
        with safe_open(HERE / "tiny" / base / "golden.safetensors", "numpy") as file:
            ids, wanted = mx.array(file.get_tensor("ids0"))[None], mx.array(file.get_tensor("logits0"))
        model = open_base(base)
        plain = model(ids)
        assert mx.abs(plain[0] - wanted).max().item() < 1e-3, "mlx reads another base than transformers"
        model.freeze()
        linear_to_lora_layers(model, layers, parameters, use_dora=kind == "dora")
        values = {}
        for key, value in tree_flatten(model.trainable_parameters()):
            noise = mx.random.normal(value.shape)
            values[key] = value * (1 + 0.2 * noise) if key.endswith(".m") else 0.2 * noise
        folder = HERE / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        mx.save_safetensors(str(folder / "adapters.safetensors"), values)
        config = dict(model=f"tiny/{base}", fine_tune_type=kind, num_layers=layers, lora_parameters=parameters)
        save_config(config, folder / "adapter_config.json")
        model = open_base(base)
        model = load_adapters(model, str(folder))
        model.eval()
        logits = model(ids)[0]
        mx.save_safetensors(str(folder / "golden.safetensors"), {"logits": logits.astype(mx.float32)}, metadata={"base": base})
        print(name, "differs from the base by", mx.abs(plain - logits).max().item(), list(values)[:3])


if __name__ == "__main__":
    main()
