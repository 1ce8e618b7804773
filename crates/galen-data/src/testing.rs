//! A tokenizer for tests whose tokens can be told by looking: a word with the space before it is one token, so is
//! every `<...>`, so is every other character.

use cap::Cap;
use galen_types::TextEncoder;
use std::alloc::System;
use std::ops::Range;
use std::sync::Mutex;

/// Bytes the test binary may hold: a parser that sizes a buffer by a number it did not check aborts it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 1 << 30);

pub(crate) const BOS: u32 = 1;
pub(crate) const EOS: u32 = 2;

#[derive(Default)]
pub(crate) struct Words {
    pub(crate) adds_bos: bool,
    pub(crate) adds_eos: bool,
    pub(crate) no_eos: bool,
    pub(crate) seen: Mutex<Vec<String>>,
}

impl Words {
    fn id(&self, token: &str) -> u32 {
        match token {
            "<s>" => return BOS,
            "</s>" => return EOS,
            _ => {}
        }
        let mut seen = self.seen.lock().unwrap();
        let at = seen.iter().position(|t| t == token).unwrap_or_else(|| {
            seen.push(token.to_owned());
            seen.len() - 1
        });
        at as u32 + 10
    }
}

impl TextEncoder for Words {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<(u32, Range<usize>)>, String> {
        if text.contains("UNTOKENIZABLE") {
            return Err("it is said to be".to_owned());
        }
        let mut out = Vec::new();
        if add_special_tokens && self.adds_bos {
            out.push((BOS, 0..0));
        }
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let word = |s: &str| s.find(|c: char| !c.is_alphanumeric()).unwrap_or(s.len());
            let len = match rest.as_bytes()[0] {
                b'<' => rest.find('>').map_or(1, |e| e + 1),
                b' ' => 1 + word(&rest[1..]),
                _ => word(rest).max(rest.chars().next().unwrap().len_utf8()),
            };
            out.push((self.id(&rest[..len]), at..at + len));
            at += len;
        }
        if add_special_tokens && self.adds_eos {
            out.push((EOS, at..at));
        }
        Ok(out)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        let seen = self.seen.lock().unwrap();
        let text = ids.iter().map(|id| match *id {
            BOS | EOS if skip_special => "",
            BOS => "<s>",
            EOS => "</s>",
            id => seen.get(id as usize - 10).map_or("?", |s| s),
        });
        Ok(text.collect())
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        Some(self.id(token))
    }

    fn bos(&self) -> Option<(u32, &str)> {
        self.adds_bos.then_some((BOS, "<s>"))
    }

    fn eos(&self) -> Option<(u32, &str)> {
        (!self.no_eos).then_some((EOS, "</s>"))
    }

    fn vocab_size(&self) -> usize {
        1 << 20
    }
}
