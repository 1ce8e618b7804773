//! Templates that come with galen, under the names Axolotl's `chat_template:` has for them.

/// A template by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Its name in configuration files.
    pub name: &'static str,
    /// Its Jinja source.
    pub source: &'static str,
}

macro_rules! builtin {
    ($name:literal) => {
        Builtin { name: $name, source: include_str!(concat!("../../../../prompts/chat/", $name, ".jinja")) }
    };
}

/// All of them, in alphabetical order. A new one is a file in `prompts/chat/` and a line here.
pub const BUILTIN: &[Builtin] = &[
    builtin!("alpaca"),
    builtin!("chatml"),
    builtin!("gemma"),
    builtin!("gemma3"),
    builtin!("llama3"),
    builtin!("mistral_v1"),
    builtin!("mistral_v2v3"),
    builtin!("mistral_v3_tekken"),
    builtin!("phi_3"),
    builtin!("phi_35"),
    builtin!("qwen_25"),
];

/// The template called `name`.
pub fn builtin(name: &str) -> Option<&'static Builtin> {
    BUILTIN.iter().find(|b| b.name == name)
}
