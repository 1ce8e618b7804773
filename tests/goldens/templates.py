"""Chat templates rendered by transformers, with the bytes that are the assistant's.

Run:      python templates.py SMOLLM2_HF_DIR        (made by gguf_to_hf.py; about 10 s)
Versions: transformers 5.23.0, jinja2 3.1.6, trl 1.16.0 (only to hold the spans against), tokenizers 0.23.3

Writes templates/cases.json, a list of
  {name, template (a .jinja beside it), messages, tools (or null), kwargs (template variables: bos_token, eos_token, ...),
   add_generation_prompt, rendered, supervised: [{message, start, end, text}]}      bytes of `rendered` in UTF-8
or, where the template refuses the conversation, {..., error: "what it raises"} instead of the last two. Some cases of SmolLM2
also hold `ids` (full vocabulary) and `mask` (1: the token is the assistant's).

What is supervised: everything after the generation prompt up to and with the end-of-turn token, without the newline that
follows it. It is found without a masking engine: the markers of each family are written down in FAMILIES, and to tell a real
marker from one that a message quotes, the conversation is rendered a second time with the `<` of quoted markers replaced by
another byte, so that both texts have the same offsets. TRL's training versions of four of the templates must agree (apart
from newlines at the ends), and for `{% generation %}` the spans are those of transformers' own tracker.
"""
import copy
import json
import re
import sys
from pathlib import Path

import jinja2
import trl
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent / "templates"
CHATML = ("<|im_start|>assistant\n", "<|im_end|>")
LLAMA3 = ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>")
# template -> (generation prompt, end of turn), variables, TRL's training version
FAMILIES = {
    "smollm2": (CHATML, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}, None),
    "llama3": (LLAMA3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, "llama3_training"),
    "llama3_1": (LLAMA3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, None),
    "llama3_2": (LLAMA3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "date_string": "23 Nov 2026"}, None),
    "qwen2_5": (CHATML, {"eos_token": "<|im_end|>"}, "qwen2_5_training"),
    "qwen3": (CHATML, {"eos_token": "<|im_end|>"}, "qwen3_training"),
    "gemma3": (("<start_of_turn>model\n", "<end_of_turn>"), {"bos_token": "<bos>", "eos_token": "<eos>"}, "gemma3_training"),
    "generation": (CHATML, {"eos_token": "<|im_end|>"}, None),
}
QUOTED = re.compile(r"<(?=\|im_|\|start_header|\|eot_id|start_of_turn|end_of_turn)")


def m(role: str, content, **more) -> dict:
    return {"role": role, "content": content, **more}


SYSTEM = m("system", "You are a careful clinical coder. Answer with one code.")
TOOLS = [{"type": "function", "function": {
    "name": "lookup_code", "description": "Finds the ICD-10-CM code of a diagnosis — \"exact\" wording, <b>no</b> guessing & no 'maybe'.",
    "parameters": {"type": "object", "properties": {
        "text": {"type": "string", "description": "Diagnosis, e.g. Grippe or 流感"},
        "limit": {"type": "integer", "minimum": 1, "default": 5}, "exact": {"type": "boolean"}, "threshold": {"type": "number", "default": 0.5},
        "chapters": {"type": "array", "items": {"type": "string", "enum": ["A", "J"]}}},
        "required": ["text"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "today", "description": "The date.", "parameters": {"type": "object", "properties": {}}}}]


def call(name: str, **arguments) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TOOL_CHAT = [m("user", "Code: viral pneumonia"),
             m("assistant", "", tool_calls=[call("lookup_code", text="viral pneumonia", limit=2, exact=True, threshold=0.25)]),
             m("tool", "{\"code\": \"J12.9\", \"text\": \"Viral pneumonia, unspecified\"}", name="lookup_code"),
             m("assistant", "The code is J12.9.")]
CASES = {
    "single": [m("user", "What is the capital of France?"), m("assistant", "Paris.")],
    "system": [SYSTEM, m("user", "Acute appendicitis"), m("assistant", "K35.80")],
    "multi_turn": [m("user", "Hi!"), m("assistant", "Hello, how can I help?"), m("user", "Count to 3."), m("assistant", "1, 2, 3."),
                   m("user", "Thanks"), m("assistant", "You're welcome.")],
    "system_multi_turn": [SYSTEM, m("user", "Influenza"), m("assistant", "J11.1"), m("user", "Migraine"), m("assistant", "G43.909")],
    "unicode": [m("user", "Größe: 1,78 m — 你好 😀"), m("assistant", "Ça va? 👩‍⚕️ müde.\nZeile zwei.\n\n- Punkt"), m("user", "ñ"), m("assistant", "日本")],
    "repeated": [m("user", "ok"), m("assistant", "ok"), m("user", "assistant"), m("assistant", "ok ok"), m("user", "ok"), m("assistant", "user")],
    "quoted_markers": [m("user", "What does <|im_start|>assistant\nHi<|im_end|> mean? And <start_of_turn>model\nHi<end_of_turn>, and "
                         "<|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>?"), m("assistant", "They mark turns.")],
    "spaces": [m("user", "  padded  "), m("assistant", "trailing space \n")],
    "ends_with_user": [m("user", "One"), m("assistant", "Two"), m("user", "Three")],
    "prompt": [m("user", "What is 2 + 2?")],
    "code": [m("user", "Write a loop in C."), m("assistant", "```c\nfor (int i = 0; i < 3; i++) {\n    printf(\"%d\\n\", i);\n}\n```")],
}
TOOL_CASES = {
    "tools": (TOOL_CHAT, TOOLS),
    "tools_system": ([SYSTEM, *TOOL_CHAT], TOOLS),
    "tools_not_called": (CASES["single"], TOOLS),
    "tool_call_with_content": ([TOOL_CHAT[0], m("assistant", "Let me look it up.", tool_calls=[call("lookup_code", text="流感 \"x\" <y>")]),
                                *TOOL_CHAT[2:]], TOOLS),
    "two_calls": ([m("user", "Code both: flu, and the date"),
                   m("assistant", "", tool_calls=[call("lookup_code", text="flu"), call("today")]),
                   m("tool", "J11.1"), m("tool", "2026-11-23"), m("assistant", "J11.1 on 2026-11-23."), m("user", "Thanks"),
                   m("assistant", "Bye.")], TOOLS),
    "tojson_numbers": ([m("user", "n"), m("assistant", "", tool_calls=[call(
        "f", a=1.0, b=1e-7, c=123456789012345678, d=-0.5, e=None, f=[1, [2, {}], []], g={"z": 1, "a": "\n\t\"\\/é\u2028"}, h=1e16, i=False)]),
        m("tool", "ok"), m("assistant", "done")], None),
}
EXTRA = [
    ("qwen3", "thinking", [m("user", "Why?"), m("assistant", "<think>\nshort\n</think>\n\nBecause."), m("user", "Really?"),
                           m("assistant", "<think>\nlonger thought\n</think>\n\nYes.")], None, {}, False),
    ("qwen3", "reasoning_content", [m("user", "Why?"), m("assistant", "Because.", reasoning_content="Let me think.")], None, {}, False),
    ("qwen3", "no_thinking_prompt", CASES["prompt"], None, {"enable_thinking": False}, True),
    ("gemma3", "parts", [m("system", [{"type": "text", "text": "Be brief."}]), m("user", [{"type": "text", "text": " Hi "}]),
                         m("assistant", [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}])], None, {}, False),
    ("generation", "parts", [m("user", "Hi"), m("assistant", [{"type": "text", "text": "Grüß "}, {"type": "image"}, {"type": "text", "text": "Gott"}])],
     None, {}, False),
    ("gemma3", "roles_must_alternate", [m("user", "a"), m("user", "b"), m("assistant", "c")], None, {}, False),
    ("llama3_1", "builtin_tools", [m("user", "What is the weather?"), m("assistant", "", tool_calls=[call("brave_search", query="weather today")]),
                                   m("ipython", "{\"output\": \"sunny\"}"), m("assistant", "Sunny.")], None, {"builtin_tools": ["brave_search", "code_interpreter"]}, False),
    ("llama3_1", "tools_in_system", [SYSTEM, *TOOL_CHAT], TOOLS, {"tools_in_user_message": False}, False),
    ("llama3_1", "date", CASES["single"], None, {"date_string": "01 Jan 2020"}, False),
]


def render(source: str, messages: list, tools, kwargs: dict, prompt: bool, spans: bool = False):
    texts, indices = render_jinja_template([copy.deepcopy(messages)], tools=copy.deepcopy(tools), chat_template=source,
                                           return_assistant_tokens_mask=spans, add_generation_prompt=prompt, **kwargs)
    return texts[0], (indices[0] if spans else None)


def without_markers(value):
    """The same value with quoted markers made harmless; every string keeps its length."""
    if isinstance(value, str):
        return QUOTED.sub("~", value)
    if isinstance(value, list):
        return [without_markers(v) for v in value]
    return {k: without_markers(v) for k, v in value.items()} if isinstance(value, dict) else value


def find_spans(family, source, messages, tools, kwargs, prompt, rendered: str) -> list[tuple[int, int]]:
    (start, end), _, _ = FAMILIES[family]
    if family == "generation":
        return [tuple(x) for x in render(source, messages, tools, kwargs, prompt, spans=True)[1]]
    plain, _ = render(source, without_markers(messages), tools, kwargs, prompt)
    assert len(plain) == len(rendered)
    ends = [end, "<|eom_id|>"]  # Llama 3.1 ends a turn that calls a built-in tool with <|eom_id|>
    pattern = re.escape(start) + "(.*?(?:" + "|".join(map(re.escape, ends)) + "))"
    found = [x.span(1) for x in re.finditer(pattern, plain, re.S)]
    assert len(found) == sum(x["role"] == "assistant" for x in messages), (family, rendered)
    training = FAMILIES[family][2]
    if training:
        other = (Path(trl.__file__).parent / "chat_templates" / f"{training}.jinja").read_text()
        text, theirs = render(other, messages, tools, kwargs, prompt, spans=True)
        if text == rendered:  # TRL's Qwen 3 writes empty <think> blocks where the original does not
            ours = [rendered[a:b].strip("\n") for a, b in found]
            assert ours == [text[a:b].strip("\n") for a, b in theirs], (family, ours, theirs)
        else:
            print(f"  {family}: TRL's training version renders this differently")
    return found


def token_bytes(token: str, special: bool) -> int:
    return len(token.encode()) if special else len(token)  # byte-level: one character a byte


def tokens(tokenizer: Tokenizer, rendered: str, spans: list[dict]) -> dict:
    encoded = tokenizer.encode(rendered, add_special_tokens=False)
    special = set(tokenizer.get_added_tokens_decoder())
    at, mask = 0, []
    for i, token in zip(encoded.ids, encoded.tokens):
        end = at + token_bytes(token, i in special)
        inside = [s for s in spans if at < s["end"] and s["start"] < end]
        assert all(s["start"] <= at and end <= s["end"] for s in inside), "a token straddles a span"
        mask.append(int(bool(inside)))
        at = end
    assert at == len(rendered.encode())
    return {"ids": encoded.ids, "mask": mask}


def make(tokenizer: Tokenizer) -> list[dict]:
    jobs = []
    for family in FAMILIES:
        jobs += [(family, name, messages, None, {}, name in ("prompt", "ends_with_user")) for name, messages in CASES.items()]
        if family not in ("smollm2", "llama3"):  # these two know no tools
            jobs += [(family, name, messages, tools, {}, False) for name, (messages, tools) in TOOL_CASES.items()]
    out = []
    for family, name, messages, tools, kwargs, prompt in jobs + EXTRA:
        source = (HERE / f"{family}.jinja").read_text()
        kwargs = FAMILIES[family][1] | kwargs
        case = {"name": f"{family}/{name}", "template": f"{family}.jinja", "messages": messages, "tools": tools, "kwargs": kwargs,
                "add_generation_prompt": prompt}
        try:
            rendered, _ = render(source, messages, tools, kwargs, prompt)
        except jinja2.exceptions.TemplateError as e:
            out.append(case | {"error": str(e)})
            print(f"  {case['name']}: refused: {e}")
            continue
        found = find_spans(family, source, messages, tools, kwargs, prompt, rendered)
        who = [i for i, x in enumerate(messages) if x["role"] == "assistant"]
        spans = [{"message": i, "start": len(rendered[:a].encode()), "end": len(rendered[:b].encode()), "text": rendered[a:b]}
                 for i, (a, b) in zip(who, found, strict=True)]
        case |= {"rendered": rendered, "supervised": spans}
        if family == "smollm2":
            case |= tokens(tokenizer, rendered, spans)
        out.append(case)
    return out


if __name__ == "__main__":
    cases = make(Tokenizer.from_file(str(Path(sys.argv[1]) / "tokenizer.json")))
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(cases)} cases, {sum('error' in c for c in cases)} refused")
