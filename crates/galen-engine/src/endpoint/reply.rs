//! What an endpoint answered.

use crate::answer::{Finish, Piece};
use crate::request::Input;
use galen_endpoint::{Failure, Fault, Unread, shorten};
use serde_json::Value;

/// Of a text that is no answer, shown.
const SHOWN_CHARS: usize = 200;

#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    pub piece: Piece,
    pub finish: Finish,
    /// As far as the endpoint says; its sum over choices is right.
    pub tokens: usize,
}

#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub prompt_tokens: usize,
    pub choices: Vec<Choice>,
}

/// Errors, in words: not an answer to `n` completions of this input.
pub(super) fn read(text: &str, input: &Input, n: usize) -> Result<Reply, Unread> {
    let wrong = |what: &str| format!("answered `{}`, {what}", shorten(text, SHOWN_CHARS));
    // Nesting is bounded by the parser, the size by the client.
    let body: Value = serde_json::from_str(text).map_err(|e| wrong(&format!("which is not JSON: {e}")))?;
    if let Some(error) = body.get("error").filter(|e| !e.is_null()) {
        let said = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
        return Err(format!("answered an error: `{}`", shorten(&said, SHOWN_CHARS)).into());
    }
    let Some(list) = body["choices"].as_array() else { return Err(wrong("which has no `choices`").into()) };
    if list.len() == 1 && n > 1 {
        // It would never give more, and each try costs.
        let hint =
            "this server gives one choice whatever `n` asks for: take one that knows `n`, or ask for one"
                .into();
        let what = format!("answered 1 choice of {n}");
        return Err(Unread::Never(Failure { what, hint: Some(hint), fault: Fault::Every }));
    }
    if list.len() != n {
        return Err(wrong(&format!("which has {} choices of {n}", list.len())).into());
    }
    let count = |name: &str| body["usage"][name].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let tokens = count("completion_tokens");
    let mut choices: Vec<Option<Choice>> = list.iter().map(|_| None).collect();
    for (place, choice) in list.iter().enumerate() {
        let at = choice["index"].as_u64().map_or(place, |i| usize::try_from(i).unwrap_or(usize::MAX));
        let finish = match choice["finish_reason"].as_str() {
            Some("length") => Finish::Length,
            // Not the answer that was asked for, or not all of it.
            Some(reason @ ("content_filter" | "tool_calls" | "function_call")) => {
                return Err(Unread::Never(wrong(&format!("which ended by `{reason}`")).into()));
            }
            _ => Finish::Stop,
        };
        let text = match input {
            Input::Chat(_) => &choice["message"]["content"],
            Input::Text(_) | Input::Tokens(_) => &choice["text"],
        };
        let text = match text {
            Value::String(text) => text.clone(),
            // A refusal stands beside an empty content.
            Value::Null => {
                let refusal = choice["message"]["refusal"].as_str();
                refusal.ok_or_else(|| wrong("in which a choice has no text"))?.to_owned()
            }
            _ => return Err(wrong("in which a choice's text is none").into()),
        };
        let tokens = tokens / n + usize::from(place < tokens % n);
        let slot = choices.get_mut(at).filter(|slot| slot.is_none());
        let slot = slot.ok_or_else(|| wrong("whose choices have other indices than 0 to n"))?;
        *slot = Some(Choice { piece: Piece { text, tokens: Vec::new() }, finish, tokens });
    }
    Ok(Reply { prompt_tokens: count("prompt_tokens"), choices: choices.into_iter().flatten().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_what_is_none() {
        let chat = Input::Chat(Vec::new());
        let check = |text: &str, n: usize, expect: Result<&[&str], &str>| match (read(text, &chat, n), expect)
        {
            (Ok(reply), Ok(texts)) => {
                let got: Vec<&str> = reply.choices.iter().map(|c| c.piece.text.as_str()).collect();
                assert_eq!(got, texts, "{text}");
            }
            (Err(Unread::Again(e)), Err(part)) => assert!(e.contains(part), "{text}: {e}"),
            other => panic!("{text}: {other:?}"),
        };
        let one = r#"{"choices": [{"message": {"content": "a"}, "finish_reason": "length"}],
                      "usage": {"prompt_tokens": 3, "completion_tokens": 5}}"#;
        let reply = read(one, &chat, 1).unwrap();
        assert_eq!((reply.prompt_tokens, reply.choices[0].tokens), (3, 5));
        assert_eq!(reply.choices[0].finish, Finish::Length);
        check(
            r#"{"choices": [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}]}"#,
            2,
            Ok(&["a", "b"]),
        );
        check(
            r#"{"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}"#,
            1,
            Ok(&["I cannot"]),
        );
        check(r#"{"choices": [{"message": {"content": null}}]}"#, 1, Err("no text"));
        check(r#"{"choices": [{"message": {"content": 7}}]}"#, 1, Err("text is none"));
        check(
            r#"{"choices": [{"index": 0, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}]}"#,
            2,
            Err("indices"),
        );
        check(r#"{"choices": [{"index": 7, "message": {"content": "b"}}]}"#, 1, Err("indices"));
        let never = |text: &str, n: usize| match read(text, &chat, n) {
            Err(Unread::Never(failure)) => failure,
            other => panic!("{text}: {other:?}"),
        };
        let fewer = never(one, 2);
        assert_eq!((fewer.fault, fewer.what.as_str()), (Fault::Every, "answered 1 choice of 2"));
        for reason in ["content_filter", "tool_calls"] {
            let text =
                format!(r#"{{"choices": [{{"message": {{"content": "a"}}, "finish_reason": "{reason}"}}]}}"#);
            let failure = never(&text, 1);
            assert!(failure.fault == Fault::Request && failure.what.contains(reason), "{failure:?}");
        }
        check(
            r#"{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}"#,
            3,
            Err("2 choices of 3"),
        );
        check(r#"{"error": {"message": "overloaded"}}"#, 1, Err("`overloaded`"));
        check(r#"{"choices": 1}"#, 1, Err("no `choices`"));
        check("<html>", 1, Err("not JSON"));
        check(&"[".repeat(100_000), 1, Err("recursion"));
    }

    /// Whatever an endpoint answers is an answer or an error in words.
    #[test]
    fn fuzz() {
        let whole = serde_json::json!({
            "choices": [{"index": 0, "message": {"content": "a"}, "text": "b", "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5}, "error": null,
        });
        let corpus = vec![whole.to_string().into_bytes(), b"{\"error\": {\"message\": 1}}".to_vec()];
        let mut read_well = 0_u64;
        let inputs = galen_testkit::fuzz::run("reply", &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for input in [Input::Chat(Vec::new()), Input::Text(String::new())] {
                match read(&text, &input, 1) {
                    Ok(reply) => {
                        assert_eq!(reply.choices.len(), 1);
                        read_well += 1;
                    }
                    Err(Unread::Again(what) | Unread::Never(Failure { what, .. })) => {
                        assert!(what.chars().count() < 600);
                    }
                }
            }
        });
        println!("reply: {inputs} inputs, {read_well} read");
        assert!(read_well > 0);
    }
}
