//! Chat formats as what stands around each role's text: from that come both the Go template and its rendering, so that the
//! one cannot differ from the other.

use crate::source::Render;

/// What stands before and behind a text.
type Around = (&'static str, &'static str);

/// Where the system message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// In a turn of its own.
    Turn(Around),
    /// Before the first user's text, with this between.
    BeforeUser(&'static str),
}

/// A chat format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    pub(super) name: &'static str,
    system: System,
    user: Around,
    assistant: Around,
    pub(super) stops: &'static [&'static str],
}

/// Every format. Adding one is its entry here.
pub(super) static TEMPLATES: &[Template] = &[
    Template {
        name: "chatml",
        system: System::Turn(("<|im_start|>system\n", "<|im_end|>\n")),
        user: ("<|im_start|>user\n", "<|im_end|>\n"),
        assistant: ("<|im_start|>assistant\n", "<|im_end|>\n"),
        stops: &["<|im_end|>"],
    },
    Template {
        name: "llama3",
        system: System::Turn(("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>")),
        user: ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant: ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        stops: &["<|eot_id|>"],
    },
    Template {
        name: "gemma",
        system: System::BeforeUser("\n\n"),
        user: ("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant: ("<start_of_turn>model\n", "<end_of_turn>\n"),
        stops: &["<end_of_turn>"],
    },
    Template {
        name: "phi3",
        system: System::Turn(("<|system|>\n", "<|end|>\n")),
        user: ("<|user|>\n", "<|end|>\n"),
        assistant: ("<|assistant|>\n", "<|end|>\n"),
        stops: &["<|end|>"],
    },
    Template {
        name: "zephyr",
        system: System::Turn(("<|system|>\n", "</s>\n")),
        user: ("<|user|>\n", "</s>\n"),
        assistant: ("<|assistant|>\n", "</s>\n"),
        stops: &["</s>"],
    },
];

/// Chats that a template must render as the model's own does.
const CHATS: &[&[(&str, &str)]] = &[
    &[("system", "Be brief."), ("user", "One?")],
    &[("system", "Be brief."), ("user", "One?"), ("assistant", "Two."), ("user", "Three {{ four }}?")],
];
const PLAIN: &[(&str, &str)] = &[("user", "One?"), ("assistant", "Two."), ("user", "Three?")];

impl Template {
    /// What the Go template gives for a chat, the assistant's turn begun.
    pub(super) fn render(&self, chat: &[(&str, &str)]) -> String {
        let mut text = String::new();
        let mut system = None;
        for (i, (role, content)) in chat.iter().enumerate() {
            let (before, behind) = match (*role, self.system) {
                ("system", System::Turn(around)) => around,
                ("system", System::BeforeUser(_)) => {
                    system = Some(*content);
                    continue;
                }
                ("user", _) => self.user,
                _ => self.assistant,
            };
            text.push_str(before);
            if let (1, "user", System::BeforeUser(between), Some(system)) = (i, *role, self.system, system) {
                text.push_str(system);
                text.push_str(between);
            }
            text.push_str(content);
            text.push_str(behind);
        }
        text.push_str(self.assistant.0);
        text
    }

    /// The template in Go's language, as Ollama runs it.
    pub(super) fn go(&self) -> String {
        let turn = |role: &str, (before, behind): Around, inner: &str| {
            format!("if eq $m.Role \"{role}\" }}}}{before}{inner}{{{{ $m.Content }}}}{behind}")
        };
        let mut turns = Vec::new();
        let mut inner = String::new();
        match self.system {
            System::Turn(around) => turns.push(turn("system", around, "")),
            System::BeforeUser(between) => {
                inner =
                    format!("{{{{ if and (eq $i 1) $.System }}}}{{{{ $.System }}}}{between}{{{{ end }}}}");
            }
        }
        turns.push(turn("user", self.user, &inner));
        turns.push(turn("assistant", self.assistant, ""));
        let turns = turns.join("{{ else ");
        format!(
            "{{{{ range $i, $m := .Messages }}}}{{{{ {turns}{{{{ end }}}}{{{{ end }}}}{}",
            self.assistant.0
        )
    }

    /// Whether the model's own template gives the same: then the system message it puts where a chat has none, which may be
    /// empty.
    pub(super) fn matches(&self, render: &Render<'_>) -> Option<String> {
        if CHATS.iter().any(|chat| render(chat).as_deref() != Some(&self.render(chat))) {
            return None;
        }
        let (got, plain) = (render(PLAIN)?, self.render(PLAIN));
        if got == plain {
            return Some(String::new());
        }
        let System::Turn((before, behind)) = self.system else { return None };
        let own = got.strip_suffix(&plain)?.strip_prefix(before)?.strip_suffix(behind)?;
        Some(own.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_templates_by_eye() {
        assert_eq!(
            TEMPLATES[0].go(),
            "{{ range $i, $m := .Messages }}{{ if eq $m.Role \"system\" }}<|im_start|>system\n{{ $m.Content }}<|im_end|>\n\
             {{ else if eq $m.Role \"user\" }}<|im_start|>user\n{{ $m.Content }}<|im_end|>\n\
             {{ else if eq $m.Role \"assistant\" }}<|im_start|>assistant\n{{ $m.Content }}<|im_end|>\n\
             {{ end }}{{ end }}<|im_start|>assistant\n"
        );
        assert_eq!(
            TEMPLATES[2].go(),
            "{{ range $i, $m := .Messages }}{{ if eq $m.Role \"user\" }}<start_of_turn>user\n\
             {{ if and (eq $i 1) $.System }}{{ $.System }}\n\n{{ end }}{{ $m.Content }}<end_of_turn>\n\
             {{ else if eq $m.Role \"assistant\" }}<start_of_turn>model\n{{ $m.Content }}<end_of_turn>\n\
             {{ end }}{{ end }}<start_of_turn>model\n"
        );
    }

    #[test]
    fn a_templates_own_system_message_is_found() {
        let t = &TEMPLATES[0];
        let own = |chat: &[(&str, &str)]| {
            let rendered = t.render(chat);
            let plain = chat[0].0 != "system";
            Some(if plain { format!("<|im_start|>system\nBe kind.<|im_end|>\n{rendered}") } else { rendered })
        };
        assert_eq!(t.matches(&own), Some("Be kind.".to_owned()));
        assert_eq!(t.matches(&|chat| Some(t.render(chat))), Some(String::new()));
        for other in &TEMPLATES[1..] {
            assert_eq!(other.matches(&own), None, "{}", other.name);
            assert_eq!(
                other.matches(&|chat| Some(other.render(chat))),
                Some(String::new()),
                "{}",
                other.name
            );
        }
    }
}
