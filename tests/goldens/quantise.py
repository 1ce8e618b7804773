"""ggml's quantiser on a few thousand values: what ours is held against.

Usage: quantise.py   (needs llama-cpp-python==0.3.36 for libggml-base, numpy, gguf==0.19.0, safetensors)

Writes quantise.safetensors: `values` f32 [48, 256]: rows of normal numbers, of Student's t with four degrees of freedom
(outliers), of uniform numbers away from zero, and of rows whose groups of 32 differ a hundredfold in size;
`<TYPE>.rmse` f64 [1]: root of the mean squared error of ggml's blocks (without importances); `<TYPE>.blocks` u8 for Q8_0,
whose blocks are defined to the bit.
"""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]


def quantiser():
    path = next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so"))
    chunk = ctypes.CDLL(str(path)).ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return chunk


def values():
    random = np.random.default_rng(5)
    scales = np.repeat(10.0 ** random.uniform(-2, 0, (12, 8)), 32, axis=1)
    parts = [
        random.standard_normal((12, 256)) * 0.05,
        random.standard_t(4, (12, 256)) * 0.03,
        random.uniform(0.02, 0.2, (12, 256)),
        random.standard_normal((12, 256)) * scales,
    ]
    return np.concatenate(parts).astype(np.float32)


def main():
    x = values()
    chunk = quantiser()
    out = {"values": x}
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        blocks = np.zeros(x.size * 4, np.uint8)
        n = chunk(kind.value, x.ctypes.data, blocks.ctypes.data, 0, len(x), x.shape[1], None)
        blocks = blocks[:n].reshape(len(x), -1)
        error = dequantize(blocks, kind).astype(np.float64) - x
        out[f"{name}.rmse"] = np.array([np.sqrt((error**2).mean())])
        if name == "Q8_0":
            out[f"{name}.blocks"] = blocks
        print(name, out[f"{name}.rmse"][0])
    save_file(out, Path(__file__).parent / "quantise.safetensors")


main()
