"""The same prompts answered by llama.cpp, `BATCH` at a time in one batch, as `teacher.rs` has galen's engine do it: one JSON line.

pip install llama-cpp-python==0.3.36
python benches/teacher_llama_cpp.py MODEL [ROWS] [BATCH] [PROMPT] [NEW] [THREADS]

Rows come in groups of BATCH: their prompts in one batch, then greedy steps of BATCH tokens each. All answers have one length, so that
no place in a batch is ever empty: continuous batching would gain nothing.
"""

import json
import resource
import sys
import time

import llama_cpp
import numpy as np


def main() -> None:
    path = sys.argv[1]
    given = [int(a) for a in sys.argv[2:]]
    rows, batch, prompt, new, threads = given + [64, 16, 64, 96, 2][len(given) :]
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda *_: None)  # held: the library calls it later
    llama_cpp.llama_log_set(quiet, None)
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = batch * (prompt + new + 8), 2048, 512
    params.n_seq_max, params.n_threads, params.n_threads_batch = batch, threads, threads
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    memory = llama_cpp.llama_get_memory(context)

    def ids(row: int) -> list[int]:
        return [100 + (row * 7919 + i) * 2_654_435_761 % (vocabulary - 200) for i in range(prompt)]

    tokens = llama_cpp.llama_batch_init(2048, 0, 1)

    def put(entries: list[tuple[int, int, int, bool]]) -> None:
        tokens.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            tokens.token[i], tokens.pos[i], tokens.n_seq_id[i] = token, position, 1
            tokens.seq_id[i][0], tokens.logits[i] = sequence, wanted
        code = llama_cpp.llama_decode(context, tokens)
        assert code == 0, code

    def greedy(i: int) -> int:
        return int(np.argmax(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), shape=(vocabulary,))))

    def group(first: int, n: int, steps: int) -> int:
        llama_cpp.llama_memory_clear(memory, True)
        last = [0] * n
        room = max(1, 2048 // prompt)
        for begin in range(0, n, room):
            some = range(begin, min(n, begin + room))
            put([(t, p, s, p == prompt - 1) for s in some for p, t in enumerate(ids(first + s))])
            for i, s in enumerate(some):
                last[s] = greedy((i + 1) * prompt - 1)
        drawn = n
        for step in range(steps - 1):
            put([(last[s], prompt + step, s, True) for s in range(n)])
            last = [greedy(i) for i in range(n)]
            drawn += n
        return drawn

    group(0, batch, 4)
    start = time.perf_counter()
    drawn = sum(group(first, min(batch, rows - first), new) for first in range(0, rows, batch))
    seconds = time.perf_counter() - start
    print(json.dumps({
        "mode": "llama.cpp batched", "rows": rows, "batch": batch, "prompt_tokens": prompt, "new_tokens": new, "threads": threads,
        "answer_tokens": drawn, "seconds": seconds, "answer_tokens_per_second": drawn / seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }))


main()
