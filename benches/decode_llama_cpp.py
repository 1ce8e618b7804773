"""Prefill and decoding with llama.cpp, timed as `decode.rs` does: the same ids, greedy, one JSON line.

pip install llama-cpp-python==0.3.36
python benches/decode_llama_cpp.py MODEL [PROMPT] [NEW] [THREADS]
"""

import json
import resource
import sys
import time

import numpy as np
from llama_cpp import Llama


def main() -> None:
    path = sys.argv[1]
    prompt, new, threads = (int(a) for a in (sys.argv[2:] + ["512", "64", "2"][len(sys.argv) - 2 :]))
    llm = Llama(
        path, n_ctx=prompt + new + 8, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    vocabulary = llm.n_vocab() - 200

    def ids(n: int) -> list[int]:
        return [100 + i * 2_654_435_761 % vocabulary for i in range(n)]

    def last() -> int:
        logits = llm._ctx.get_logits_ith(-1)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(llm.n_vocab(),))))

    # Warm, as `decode.rs` is.
    for token in ids(4):
        llm.eval([token])
    llm.reset()
    start, processor = time.perf_counter(), time.process_time()
    llm.eval(ids(prompt))
    prefill, prefill_processor = time.perf_counter() - start, time.process_time() - processor
    token, times, first = last(), [], []
    processor = time.process_time()
    for _ in range(new):
        start = time.perf_counter()
        llm.eval([token])
        token = last()
        times.append(time.perf_counter() - start)
        first.append(token)
    processor = time.process_time() - processor
    print(
        json.dumps(
            {
                "mode": "llama.cpp",
                "prompt_tokens": prompt,
                "new_tokens": new,
                "threads": threads,
                "prefill_tokens_per_second": prompt / prefill,
                "decode_tokens_per_second": new / sum(times),
                "prefill_processor_ms": prefill_processor * 1e3,
                "decode_processor_ms_per_step": processor / new * 1e3,
                "decode_median_step_ms": sorted(times)[new // 2] * 1e3,
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
                "first_tokens": first[:8],
            }
        )
    )


main()
