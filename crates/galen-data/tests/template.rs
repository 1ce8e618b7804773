//! Chat templates against transformers' renderings (`tests/goldens/templates`, made by `templates.py` beside it).

use galen_data::template::{
    BUILTIN, ChatTemplate, RenderOptions, SpecialTokens, TemplateError, TrainOnEos, builtin,
};
use galen_types::{Conversation, Message, Origin, Rendered};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/templates")
}

fn read(name: &str) -> String {
    let path = goldens().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cases() -> Vec<Value> {
    serde_json::from_str(&read("cases.json")).expect("JSON")
}

/// Control tokens of the families in the goldens, as their tokenizers list them.
const CONTROL: [&str; 12] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
];

fn special(kwargs: &Value) -> SpecialTokens {
    let named = kwargs.as_object().into_iter().flatten().filter(|(k, _)| k.ends_with("_token"));
    SpecialTokens {
        named: named.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect(),
        control: CONTROL.iter().map(|t| (*t).to_string()).collect(),
        eot: Vec::new(),
    }
}

fn conversation(messages: &Value, tools: &Value) -> Conversation {
    let message = |m: &Value| {
        let fields = m.as_object().expect("object").clone();
        let role = fields["role"].as_str().expect("role").to_string();
        Message { train: role == "assistant", role, fields }
    };
    Conversation::Chat {
        origin: Origin::new("cases.json", 1),
        messages: messages.as_array().expect("messages").iter().map(message).collect(),
        tools: (!tools.is_null()).then(|| tools.clone()),
        template_kwargs: Map::new(),
    }
}

fn supervised(rendered: &Rendered) -> Vec<&str> {
    rendered.spans().iter().map(|s| &rendered.text()[s.clone()]).collect()
}

/// Renders a golden case with `source`; the first difference, if any.
fn compare(case: &Value, source: &str) -> Result<(), String> {
    let template = ChatTemplate::new(source, special(&case["kwargs"])).map_err(|e| e.to_string())?;
    let add_generation_prompt = case["add_generation_prompt"] == json!(true);
    let kwargs = case["kwargs"].as_object().expect("kwargs").clone();
    let options = RenderOptions { add_generation_prompt, kwargs, ..RenderOptions::default() };
    let messages = case["messages"].as_array().expect("messages");
    let tools = Some(&case["tools"]).filter(|t| !t.is_null());
    let text = template.render_prompt(messages, tools, add_generation_prompt, &options);
    let Some(want) = case["rendered"].as_str() else {
        return text.map_or(Ok(()), |text| Err(format!("renders what transformers refuses: {text:?}")));
    };
    let text = text.map_err(|e| e.to_string())?;
    if text != want {
        return Err(format!("text\n  got {text:?}\n want {want:?}"));
    }
    let rendered = template.render(&conversation(&case["messages"], &case["tools"]), &options);
    let rendered = rendered.map_err(|e| e.to_string())?;
    if rendered.text() != want {
        return Err(format!("rendered text\n  got {:?}\n want {want:?}", rendered.text()));
    }
    let spans = case["supervised"].as_array().expect("supervised").iter();
    let spans: Vec<std::ops::Range<usize>> = spans
        .map(|s| s["start"].as_u64().expect("start") as usize..s["end"].as_u64().expect("end") as usize)
        .collect();
    if rendered.spans() != spans {
        let want: Vec<&str> = spans.iter().map(|s| &want[s.clone()]).collect();
        return Err(format!("mask\n  got {:?}\n want {want:?}", supervised(&rendered)));
    }
    Ok(())
}

#[test]
fn text_and_mask_equal_transformers() {
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let source = read(case["template"].as_str().expect("template"));
        if let Err(e) = compare(case, &source) {
            wrong.push(format!("{}: {e}", case["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn builtin_templates_render_as_the_published_ones() {
    let mut compared = 0;
    for (name, published) in
        [("llama3", "llama3.jinja"), ("gemma3", "gemma3.jinja"), ("qwen_25", "qwen2_5.jinja")]
    {
        let source = builtin(name).expect("built in").source;
        for case in cases().iter().filter(|c| c["template"] == published) {
            compare(case, source).unwrap_or_else(|e| panic!("{name}, {}: {e}", case["name"]));
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}

/// `[SYSTEM?, user, assistant, user, assistant]`, both answers trained.
fn two_turns() -> Value {
    json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "eins"},
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "zwei"},
    ])
}

fn render(
    source: &str,
    messages: &Value,
    special: SpecialTokens,
    options: &RenderOptions,
) -> Result<Rendered, TemplateError> {
    ChatTemplate::new(source, special)?.render(&conversation(messages, &Value::Null), options)
}

fn tokens(bos: &str, eos: &str, control: &[&str]) -> SpecialTokens {
    SpecialTokens {
        named: [("bos_token".to_string(), bos.to_string()), ("eos_token".to_string(), eos.to_string())]
            .into(),
        control: control.iter().map(|t| (*t).to_string()).collect(),
        eot: Vec::new(),
    }
}

#[test]
fn builtin_templates_by_hand() {
    let llama = || {
        tokens("<s>", "</s>", &["<s>", "</s>", "[INST]", "[/INST]", "<|end|>", "<|user|>", "<|assistant|>"])
    };
    let check = |name: &str, text: &str, trained: [&str; 2]| {
        let source = builtin(name).unwrap_or_else(|| panic!("{name}")).source;
        let rendered = render(source, &two_turns(), llama(), &RenderOptions::default()).expect(name);
        assert_eq!(rendered.text(), text, "{name}");
        assert_eq!(supervised(&rendered), trained, "{name}");
    };
    check(
        "alpaca",
        "<s>### Instruction:\none\n\n### Response:\neins</s>\n\n### Instruction:\ntwo\n\n### Response:\nzwei</s>",
        ["eins</s>", "zwei</s>"],
    );
    check(
        "mistral_v1",
        "<s> [INST] one [/INST] eins</s> [INST] two [/INST] zwei</s>",
        [" eins</s>", " zwei</s>"],
    );
    check(
        "mistral_v2v3",
        "<s>[INST] one[/INST] eins</s>[INST] two[/INST] zwei</s>",
        [" eins</s>", " zwei</s>"],
    );
    check(
        "mistral_v3_tekken",
        "<s>[INST]one[/INST]eins</s>[INST]two[/INST]zwei</s>",
        ["eins</s>", "zwei</s>"],
    );
    check(
        "phi_3",
        "<s><|user|>\none<|end|>\n<|assistant|>\neins<|end|>\n<|user|>\ntwo<|end|>\n<|assistant|>\nzwei<|end|>\n",
        ["eins<|end|>", "zwei<|end|>"],
    );
    check(
        "phi_35",
        "<|user|>\none<|end|>\n<|assistant|>\neins<|end|>\n<|user|>\ntwo<|end|>\n<|assistant|>\nzwei<|end|>\n",
        ["eins<|end|>", "zwei<|end|>"],
    );
    check(
        "chatml",
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\neins<|im_end|>\n\
         <|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\nzwei<|im_end|>\n",
        ["eins<|im_end|>", "zwei<|im_end|>"],
    );
    check(
        "gemma",
        "<s><start_of_turn>user\none<end_of_turn>\n<start_of_turn>model\neins<end_of_turn>\n\
         <start_of_turn>user\ntwo<end_of_turn>\n<start_of_turn>model\nzwei<end_of_turn>\n",
        ["eins<end_of_turn>", "zwei<end_of_turn>"],
    );
}

#[test]
fn every_builtin_template_compiles() {
    for template in BUILTIN {
        ChatTemplate::new(template.source, SpecialTokens::default())
            .unwrap_or_else(|e| panic!("{}: {e}", template.name));
    }
}

#[test]
fn mistral_tools_and_system_stay_exact_where_they_move() {
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "function": {"name": "get", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Welcome."},
    ]);
    let special =
        tokens("<s>", "</s>", &["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"]);
    let source = builtin("mistral_v2v3").expect("built in").source;
    let rendered = render(source, &messages, special, &RenderOptions::default()).expect("renders");
    let call =
        "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"city\": \"Rome\"}, \"id\": \"abcdefghi\"}]</s>";
    assert_eq!(supervised(&rendered), [call, " Sunny.</s>", " Welcome.</s>"]);
    assert!(rendered.text().contains("[INST] Be brief.\n\nThanks[/INST]"), "{}", rendered.text());
}

#[test]
fn train_on_eos_decides_on_end_tokens_only() {
    let end = "<|im_end|>";
    for (train_on_eos, expected) in [
        (TrainOnEos::None, vec!["eins", "zwei"]),
        (TrainOnEos::Turn, vec!["eins<|im_end|>", "zwei<|im_end|>"]),
        (TrainOnEos::Last, vec!["eins", "zwei<|im_end|>"]),
        (TrainOnEos::All, vec![end, "eins<|im_end|>", end, "zwei<|im_end|>"]),
    ] {
        let options = RenderOptions { train_on_eos, ..RenderOptions::default() };
        let source = builtin("chatml").expect("built in").source;
        let special = tokens("", end, &["<|im_start|>", end]);
        let rendered = render(source, &two_turns(), special, &options).expect("renders");
        assert_eq!(supervised(&rendered), expected, "{train_on_eos:?}");
    }
    for (name, value) in
        TrainOnEos::NAMES.iter().zip([TrainOnEos::All, TrainOnEos::Turn, TrainOnEos::Last, TrainOnEos::None])
    {
        assert_eq!(TrainOnEos::from_name(name), Some(value));
    }
}

/// Thinking is taken out of earlier turns and the prompt opens a `<think>`: no beginning is a beginning of the whole.
#[test]
fn a_template_that_rewrites_earlier_turns() {
    let source = "{%- for m in messages %}{% if m.role == 'user' %}{{ '<U>' + m.content }}{% else %}\
        {%- set text = m.content if loop.last else m.content.split('</think>')[-1].lstrip() %}{{ '<A>' + text + '<E>' }}\
        {%- endif %}{% endfor %}{% if add_generation_prompt %}{{ '<A><think>' }}{% endif %}";
    let messages = json!([
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>hm</think> first"},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "<think>hm</think> second"},
    ]);
    let rendered =
        render(source, &messages, tokens("", "", &["<U>", "<A>", "<E>"]), &RenderOptions::default());
    let rendered = rendered.expect("renders");
    assert_eq!(rendered.text(), "<U>q<A>first<E><U>r<A><think>hm</think> second<E>");
    assert_eq!(supervised(&rendered), ["first<E>", "hm</think> second<E>"]);
}

#[test]
fn generation_blocks_are_taken_as_they_are() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}<E>\n\
        {% endgeneration %}{% else %}U: {{ m.content }}\n{% endif %}{% endfor %}";
    let mut conversation = conversation(&two_turns(), &Value::Null);
    if let Conversation::Chat { messages, .. } = &mut conversation {
        messages[1].train = false;
    }
    let template = ChatTemplate::new(source, tokens("", "", &["<E>"])).expect("compiles");
    let rendered = template.render(&conversation, &RenderOptions::default()).expect("renders");
    assert_eq!(rendered.text(), "U: one\nA: eins<E>\nU: two\nA: zwei<E>\n");
    assert_eq!(supervised(&rendered), ["zwei<E>\n"]);
}

#[test]
fn what_a_template_leaves_out_is_an_error() {
    let calls = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get", "arguments": {"city": "Rome"}}}]},
    ]);
    let system = json!([
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"},
    ]);
    let no_system =
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}<E>{% endfor %}";
    for (source, messages, expected) in [
        (builtin("chatml").expect("built in").source, &calls, "tool call 1 of turn 2 (`assistant`)"),
        (no_system, &system, "the content of turn 1 (`system`)"),
    ] {
        let error = render(source, messages, tokens("", "", &["<E>"]), &RenderOptions::default());
        let error = error.expect_err("left out").to_string();
        assert!(
            error.starts_with("cases.json:1: ") && error.contains(expected) && error.contains("\nhint: "),
            "{error}"
        );
    }
}

#[test]
fn the_date_can_be_fixed() {
    let source = "{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%-d.%-m.') }}";
    let template = ChatTemplate::new(source, SpecialTokens::default()).expect("compiles");
    assert!(template.uses_date());
    let date = "2026-07-04T10:00:00".parse().ok();
    let options = RenderOptions { date, ..RenderOptions::default() };
    assert_eq!(template.render_prompt(&[], None, false, &options).expect("renders"), "04 Jul 2026|4.7.");
}

#[test]
fn python_in_templates() {
    let message =
        json!({"role": "user", "content": " a,b \u{1f}", "d": {"items": 1, "x": [true, null, 1.0, "it's"]}});
    for (source, expected) in [
        ("{{ messages[0].d }}", "{'items': 1, 'x': [True, None, 1.0, \"it's\"]}"),
        ("{{ 'n: ' ~ none ~ true ~ 1.5 }}", "n: NoneTrue1.5"),
        ("{{ messages[0].d | tojson }}", "{\"items\": 1, \"x\": [true, null, 1.0, \"it's\"]}"),
        ("{{ {'b': '<é>'} | tojson(indent=2) }}", "{\n  \"b\": \"<é>\"\n}"),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}{{ {} | tojson(indent=2) }}", "[1,2]{}"),
        ("{{ messages[0].content.strip() }}|{{ messages[0].content | trim }}", "a,b|a,b"),
        ("{% for k, v in messages[0].d.items() %}{{ k }};{% endfor %}", "items;x;"),
        ("{{ 'a-b-c'.rsplit('-', 1) }}{{ 'x'.zfill(3) }}{{ 'aXa'.count('') }}", "['a-b', 'c']00x4"),
        ("{{ messages[0].get('nope', 'no') }}{{ messages[0].missing is defined }}", "noFalse"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% set ns = namespace(n=0) %}{% for m in [1, 2] %}{% set ns.n = ns.n + m %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("    {% if true %}\n  x\n    {% endif %}\ny\n\n", "  x\ny\n"),
        ("{{ 'héllo'.find('l') }}{{ 'abc'[::-1] }}{{ 'abc'[1:] }}", "2cbabc"),
    ] {
        let template = ChatTemplate::new(source, SpecialTokens::default()).expect(source);
        let text =
            template.render_prompt(std::slice::from_ref(&message), None, false, &RenderOptions::default());
        assert_eq!(text.expect(source), expected, "{source}");
    }
}

/// Each must end soon, with an error or harmless text; none may panic, hang or eat the machine.
#[test]
fn hostile_templates() {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let refused: Vec<String> = vec![
        "{% for i in range(100000000) %}x{% endfor %}".into(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into(),
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".into(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        "{% include 'secret' %}".into(),
        "{% import '/etc/passwd' as p %}{{ p }}".into(),
        "{% extends 'base' %}".into(),
        "{{ ''.__class__.__mro__[1].__subclasses__() }}".into(),
        "{{ messages.__init__.__globals__ }}".into(),
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}".into(),
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".into(),
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aaaa') %}{% endfor %}".into(),
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}".into(),
        "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = ns.l + ['a' * 1000] %}{% endfor %}".into(),
        "{{ 'a' * 100000000 }}".into(),
        "{{ '{:>999999999}'.format(1) }}".into(),
        "{{ '%999999999d' | format(1) }}".into(),
        "{{ 'a' | indent(999999999) }}".into(),
        "{{ [1] | tojson(indent=999999999) }}".into(),
        "{{ 'a'.zfill(999999999) }}".into(),
        "{% for i in range(60000) %}{{ 'a' * 1000 }}{% endfor %}".into(),
        format!("{{% for i in range(90000) %}}{}{{% endfor %}}", "x".repeat(5000)),
        "{{ raise_exception('no') }}".into(),
        "{{ strftime_now('%Q%!') }}".into(),
        "{{ debug() }}".into(),
        "{{ undefined_function() }}".into(),
        "{{ messages[0].nope.nope }}".into(),
        format!("{{{{ {} }}}}", deep("(", ")", 5000)),
        format!("{{{{ {} }}}}", deep("[", "]", 5000)),
        format!("{}x{}", "{% if 1 %}".repeat(5000), "{% endif %}".repeat(5000)),
        format!("{{{{ {} }}}}", "1 + ".repeat(400_000) + "1"),
        "x".repeat((1 << 20) + 1),
        "{% for x in y".into(),
        "{{ 'unterminated".into(),
        "{% generation %}".into(),
    ];
    let message = json!({"role": "user", "content": "hi"});
    let run = |source: &str| {
        let start = std::time::Instant::now();
        let result = ChatTemplate::new(source, SpecialTokens::default()).and_then(|template| {
            template.render_prompt(std::slice::from_ref(&message), None, false, &RenderOptions::default())
        });
        let seconds = start.elapsed().as_secs_f64();
        let shown: String = source.chars().take(80).collect();
        assert!(seconds < 30.0, "{shown}: {seconds} s");
        (result, shown)
    };
    for source in &refused {
        let (result, shown) = run(source);
        assert!(result.is_err(), "{shown} renders {} bytes", result.map_or(0, |t| t.len()));
    }
    // Deep values and long chains are legal: they must be survived.
    for source in [
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}ok".to_string(),
        "{% set ns = namespace(x={}) %}{% for i in range(90000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x == ns.x }}".into(),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)),
        format!("{{{{ {} }}}}", "1 + ".repeat(900) + "1"),
        format!("{{{{ x{} }}}}", "|string".repeat(900)),
    ] {
        let (result, shown) = run(&source);
        drop(result);
        println!("survived {shown}");
    }
}
