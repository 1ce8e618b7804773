//! The bytes a token stands for, which need not be whole characters.

use super::Tokenizer;
use tokenizers::DecoderWrapper;

impl Tokenizer {
    /// The bytes of one token of a text, exactly: a token may be part of a character. `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.token(id)?;
        let byte_level = self.inner.get_decoder().is_some_and(is_byte_level);
        // An added token is written as it reads, but for spaces where the vocabulary writes them so.
        let added = self.inner.get_added_tokens_decoder().get(&id).map(|t| t.special);
        if added == Some(true) || (added.is_some() && byte_level) {
            return Some(token.into_bytes());
        }
        if byte_level {
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            return Some(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        let fallback = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
        match fallback.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => Some(vec![byte]),
            None => Some(token.replace('\u{2581}', " ").into_bytes()),
        }
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// The byte that GPT-2's vocabulary writes as this character: printable ones are themselves, the others follow from
/// U+0100 on in their order.
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|b| printable(*b)),
        code => (0..=255).filter(|b| !printable(*b)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut found: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        found.sort_unstable();
        assert_eq!(found, (0..=255).collect::<Vec<u8>>());
        // From the published table of GPT-2: the space is G with a dot, the line feed C with a dot.
        assert_eq!(
            (byte_of('\u{120}'), byte_of('\u{10a}'), byte_of('A')),
            (Some(b' '), Some(b'\n'), Some(b'A'))
        );
    }
}
