"""The native engine beside mistralrs-core on the same GGUF: `galen run-batch` with each, taking turns. One JSON line an engine.

python benches/teacher_mistralrs.py GALEN MODEL.gguf [ROWS] [BATCH] [PROMPT] [NEW] [THREADS] [TURNS]

GALEN: a binary built with `--features mistralrs` and RUSTFLAGS="-C target-cpu=native" (candle's kernels choose by the compiler's
target, galen's own when they run). Rows are different prompts of about PROMPT tokens, answered greedily with NEW tokens each: no
answer may end before. A second file asks for one token of the same prompts; time and tokens are what the first takes more, so that
loading and prompts are in neither.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

WORDS = "fever cough pain acute chronic left right heart kidney bone skin fracture old new with without of the in and".split()
NEVER = {"0": -100, "2": -100}  # SmolLM2's ends of text and of a turn


def requests(path: str, rows: int, prompt: int, new: int) -> None:
    draw = random.Random(7)
    with open(path, "w") as out:
        for i in range(rows):
            text = " ".join(draw.choice(WORDS) for _ in range(prompt))
            body = {"model": "m", "prompt": text, "max_tokens": new, "temperature": 0, "logit_bias": NEVER}
            out.write(json.dumps({"custom_id": f"{i}", "method": "POST", "url": "/v1/completions", "body": body}) + "\n")


def run(galen: str, model: str, engine: str, batch: int, threads: int, asked: str) -> tuple[float, int]:
    answers = asked + ".out"
    command = [galen, "run-batch", "-i", asked, "-o", answers, "-m", model, "--served-model-name", "m", "--engine", engine]
    command += ["--max-num-seqs", str(batch), "--threads", str(threads), "--offline"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"RAYON_NUM_THREADS": str(threads)})
    seconds = time.perf_counter() - start
    with open(answers) as lines:
        tokens = sum(json.loads(line)["response"]["body"]["usage"]["completion_tokens"] for line in lines)
    os.remove(answers)
    return seconds, tokens


def main() -> None:
    galen, model = sys.argv[1:3]
    given = [int(a) for a in sys.argv[3:]]
    rows, batch, prompt, new, threads, turns = given + [64, 16, 64, 96, 2, 3][len(given) :]
    rates: dict[str, list[float]] = {"native": [], "mistralrs": []}
    with tempfile.TemporaryDirectory() as folder:
        long, short = os.path.join(folder, "long.jsonl"), os.path.join(folder, "short.jsonl")
        requests(long, rows, prompt, new)
        requests(short, rows, prompt, 1)
        for _ in range(turns):
            for engine, found in rates.items():
                a, b = (run(galen, model, engine, batch, threads, asked) for asked in (long, short))
                found.append((a[1] - b[1]) / (a[0] - b[0]))
    for engine, found in rates.items():
        print(json.dumps({
            "mode": engine, "rows": rows, "batch": batch, "prompt_tokens": prompt, "new_tokens": new, "threads": threads,
            "answer_tokens_per_second": statistics.median(found), "turns": found,
        }))


main()
