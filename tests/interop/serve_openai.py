"""Asks a running `galen serve` with OpenAI's own client and with curl. Needs: `pip install openai`.

    galen serve --model smollm2-135m-instruct --adapter red=RUN1 blue=RUN2 green=RUN3 &
    python tests/interop/serve_openai.py --url http://127.0.0.1:8080

First every model answers a few prompts alone; then many clients ask at once, whole and streamed, some hanging up, and each
answer must be the one its own model gave alone. Prints latencies, and the throughput of sixteen clients against one.
"""

import argparse
import json
import random
import statistics
import subprocess
import threading
import time

import openai

PROMPTS = [
    "What is the capital of France?",
    "Name a colour.",
    "Write a short poem about the sea, please.",
    "Caf\u00e9 \u2615, na\u00efve, \u6f22\u5b57, \U0001f600: what are these?",
    "Count from one to ten.",
]


def ask(client, model, i, stream=False, tokens=48):
    """The text of an answer, by either way."""
    wanted = dict(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPTS[i % len(PROMPTS)]}],
        temperature=0.8 if i % 2 else 0,
        top_p=0.95,
        seed=i,
        max_completion_tokens=tokens,
    )
    if not stream:
        answer = client.chat.completions.create(**wanted)
        assert answer.model == model, answer
        return answer.choices[0].message.content, answer.usage.completion_tokens
    text, usage = "", None
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **wanted):
        assert chunk.model == model, chunk
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    return text, usage.completion_tokens


def shapes(client, models):
    """What the client's own types make of answers and errors."""
    model = models[0]
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], n=2, logprobs=True, top_logprobs=3, max_tokens=5, seed=1
    )
    assert len(chat.choices) == 2 and chat.choices[0].finish_reason in ("stop", "length")
    for token in chat.choices[0].logprobs.content:
        assert bytes(token.bytes).decode(errors="replace") and len(token.top_logprobs) == 3
        assert token.logprob <= 0 and token.top_logprobs[0].logprob >= token.top_logprobs[2].logprob
    text = client.completions.create(model=model, prompt=["One, two,", "A, b,"], max_tokens=4, logprobs=1, temperature=0)
    assert [c.index for c in text.choices] == [0, 1] and len(text.choices[0].logprobs.tokens) == 4
    stopped = client.completions.create(model=model, prompt="1 2 3 4", stop=["6"], max_tokens=30, temperature=0)
    assert "6" not in stopped.choices[0].text
    for wrong, kind in [
        (dict(model="no-such-model"), openai.NotFoundError),
        (dict(temperature=9), openai.BadRequestError),
        (dict(tools=[{"type": "function", "function": {"name": "f"}}]), openai.BadRequestError),
        (dict(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), openai.BadRequestError),
        (dict(extra_body={"no_such_field": 1}), openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(**{"model": model, "messages": [{"role": "user", "content": "Hi"}], **wrong})
            raise SystemExit(f"{wrong} was accepted")
        except kind as error:
            assert error.body["message"] and error.body["type"], error
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
              "additionalProperties": False}
    formatted = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "What is the capital of France? Answer in JSON."}], temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    assert "city" in json.loads(formatted.choices[0].message.content), formatted
    assert client.models.retrieve(model).id == model


def curl(url, model, key):
    body = json.dumps({"model": model, "prompt": "The sea is", "max_tokens": 8, "temperature": 0, "stream": True})
    said = subprocess.run(
        ["curl", "-sN", f"{url}/v1/completions", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {key}",
         "-d", body],
        check=True, capture_output=True, text=True,
    ).stdout
    lines = [line[6:] for line in said.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", said
    streamed = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
    whole = subprocess.run(
        ["curl", "-s", f"{url}/v1/completions", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {key}",
         "-d", body.replace("true", "false")],
        check=True, capture_output=True, text=True,
    ).stdout
    assert json.loads(whole)["choices"][0]["text"] == streamed, (whole, streamed)


def storm(make, models, alone, clients, requests):
    """Everybody at once; an eighth of the requests is broken off in the middle."""
    times, wrong, failures, gone = [], [], [], [0]

    def one(number):
        client, chance = make(), random.Random(number)
        for turn in range(requests):
            model, i = models[(number + turn) % len(models)], chance.randrange(len(PROMPTS) * 2)
            try:
                if chance.random() < 0.125:
                    stream = client.chat.completions.create(
                        model=model, messages=[{"role": "user", "content": PROMPTS[2]}], stream=True, max_tokens=200
                    )
                    next(iter(stream))
                    stream.close()
                    gone[0] += 1
                    continue
                begun = time.time()
                text, _ = ask(client, model, i, stream=chance.random() < 0.5)
                times.append(time.time() - begun)
                if text != alone[model, i]:
                    wrong.append((model, i, text, alone[model, i]))
            except Exception as error:  # noqa: BLE001: every failure is reported
                failures.append(repr(error))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(clients)]
    begun = time.time()
    [t.start() for t in threads]
    [t.join() for t in threads]
    times.sort()
    print(
        f"{clients} clients x {requests} requests over {len(models)} models in {time.time() - begun:.1f} s: "
        f"{len(times)} answers, {gone[0]} broken off, {len(wrong)} wrong, {len(failures)} failed; "
        f"p50 {statistics.median(times):.2f} s, p99 {times[int(len(times) * 0.99)]:.2f} s"
    )
    assert not wrong, wrong[:3]
    assert not failures, failures[:3]


def throughput(make, models, clients, requests):
    tokens = []

    def one(number):
        client = make()
        for turn in range(requests):
            tokens.append(ask(client, models[number % len(models)], 2 + 10 * turn, tokens=64)[1])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(clients)]
    begun = time.time()
    [t.start() for t in threads]
    [t.join() for t in threads]
    return sum(tokens) / (time.time() - begun)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--url", default="http://127.0.0.1:8080")
    flags.add_argument("--key", default="none")
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--requests", type=int, default=20)
    args = flags.parse_args()

    def make():
        return openai.OpenAI(base_url=f"{args.url}/v1", api_key=args.key, max_retries=0, timeout=600)

    client = make()
    models = [m.id for m in client.models.list()]
    print("models:", ", ".join(models))
    shapes(client, models)
    curl(args.url, models[0], args.key)
    alone = {(m, i): ask(client, m, i)[0] for m in models for i in range(len(PROMPTS) * 2)}
    for model in models:
        assert ask(client, model, 3, stream=True)[0] == alone[model, 3], model
        print(f"  {model}: {alone[model, 1]!r}")
    assert len({alone[m, 1] for m in models}) == len(models), "models answer alike: nothing is shown"
    storm(make, models[1:] or models, alone, args.clients, args.requests)
    for name in [models[0], "all"]:
        which = models if name == "all" else [name]
        for turn in range(2):
            one, many = throughput(make, which[-1:], 1, 3), throughput(make, which, 16, 3)
            print(f"{name}: {one:.1f} tokens/s for one client, {many:.1f} for sixteen ({many / one:.1f} x)")


main()
