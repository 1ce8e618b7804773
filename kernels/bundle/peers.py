"""What PyTorch takes at the shapes of galen-gpu-check: matmul (cuBLAS), SDPA (FlashAttention), and a QLoRA layer by PEFT and
bitsandbytes where those are installed. Usage: peers.py OUT.json [CARD]"""

import json
import sys

import torch
import torch.nn.functional as F


def median_ms(work, runs=15):
    for _ in range(3):
        work()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[runs // 2]


def bf16(*shape, grad=False):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=grad)


def matmuls():
    for m, n, k in [(1, 4096, 14336), (16, 4096, 14336), (4096, 4096, 4096)]:
        x, w = bf16(m, k), bf16(n, k)
        ms = median_ms(lambda: F.linear(x, w))
        yield {"what": "matmul", "work": f"m {m}, n {n}, k {k}", "ms": ms, "tflops": 2 * m * n * k / ms * 1e-9}


def attention():
    # 16,384 tokens as segments of one length; keys and values are repeated, as SDPA wants them.
    for d in [64, 96, 128, 256]:
        for tokens in [512, 4096]:
            # As many as galen-gpu-check has: four to a head of keys.
            heads, batch = 4096 // d // 4 * 4, 16384 // tokens
            q, k, v = (bf16(batch, heads, tokens, d, grad=True) for _ in range(3))
            flops = 2 * 2 * 16384 * tokens / 2 * heads * d
            forward = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            g = torch.randn_like(o)
            backward = median_ms(lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True))
            work = f"{batch} segments of {tokens}, {heads} heads of {d}"
            yield {"what": "sdpa forward", "work": work, "ms": forward, "tflops": flops / forward * 1e-9}
            yield {"what": "sdpa backward", "work": work, "ms": backward, "tflops": 2.5 * flops / backward * 1e-9}


def in_four_bits(model):
    """Every projection as bitsandbytes' NF4; moving it to the card quantises it."""
    import bitsandbytes as bnb

    for name, old in list(model.named_modules()):
        if not isinstance(old, torch.nn.Linear) or name == "lm_head":
            continue
        new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias=False, compute_dtype=torch.bfloat16,
                                compress_statistics=True, quant_type="nf4")
        new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return model


def qlora_layer():
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = 4096
    config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=2, num_attention_heads=32,
                         num_key_value_heads=8, vocab_size=1024, max_position_embeddings=tokens)
    model = in_four_bits(LlamaForCausalLM(config).to(torch.bfloat16)).to("cuda")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets))
    ids = torch.randint(0, 1024, (tokens // 512, 512), device="cuda")

    def step():
        model(input_ids=ids, labels=ids).loss.backward()

    torch.cuda.reset_peak_memory_stats()
    ms = median_ms(step, 7) / 2
    rate = tokens / (ms * 1e-3 * 32)
    yield {"what": "qlora layer (PEFT, bitsandbytes)", "work": f"{tokens} tokens; 32 such layers: {rate:.0f} tokens/s", "ms": ms,
           "bytes": torch.cuda.max_memory_allocated()}


def main():
    rows, failed = [], []
    torch.cuda.set_device(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for part in (matmuls, attention, qlora_layer):
        try:
            for row in part():
                print(row)
                rows.append(row)
        except Exception as error:  # a peer that is absent or broken is said, not hidden
            failed.append(f"{part.__name__}: {error!r}")
    report = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "timings": rows, "failed": failed}
    with open(sys.argv[1], "w") as out:
        json.dump(report, out, indent=1)


main()
