//! Text as a list of words, the one way for everything that compares texts.

/// Lower case runs of letters and digits; a character of a script written without spaces is a word of its own.
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if stands_alone(c) {
            out.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()));
            out.push(c.to_string());
        } else if c.is_alphanumeric() {
            word.push(c);
        } else {
            out.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()));
        }
    }
    out.extend(Some(word).filter(|w| !w.is_empty()));
    out
}

/// The words of a text with one space between them: two texts that differ in case, spacing and punctuation are one.
pub fn normalized(text: &str) -> String {
    words(text).join(" ")
}

/// The beginning of a text on one line, to show which one is meant: whole words of at most `chars` characters.
pub fn beginning(text: &str, chars: usize) -> String {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let mut out: String = first.chars().take(chars).collect();
    let mut cut = out.len() < first.len();
    for word in words {
        cut = cut || out.chars().count() + 1 + word.chars().count() > chars;
        if cut {
            break;
        }
        out.push(' ');
        out.push_str(word);
    }
    if cut {
        out.push_str(" ...");
    }
    out
}

/// Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar letters.
fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff
        | 0xf900..=0xfaff | 0x2_0000..=0x3_134f)
        && c.is_alphanumeric()
}

/// 64 bits of a run of words; the separator keeps `ab c` from `a bc`.
pub(crate) fn hash(words: &[String]) -> u64 {
    // FNV-1a, then a finaliser, since FNV's high bits are weak on short texts.
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for word in words {
        for byte in word.bytes().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(state)
}

/// MurmurHash3's finaliser: every bit of the input moves every bit of the output.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^ (z >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_a_line() {
        assert_eq!(beginning(" a\n\tb  c ", 100), "a b c");
        let long = beginning(&"word ".repeat(60), 100);
        assert!(long.ends_with("word ...") && long.chars().count() <= 104, "{long}");
        assert_eq!(beginning(&"ä".repeat(300), 100), format!("{} ...", "ä".repeat(100)));
        assert_eq!(beginning("", 3), "");
    }

    #[test]
    fn words_of_texts() {
        assert_eq!(normalized("  Type-2 DIABETES, (mellitus)\n"), "type 2 diabetes mellitus");
        assert_eq!(normalized("糖尿病 E11"), "糖 尿 病 e11");
        assert_eq!(normalized("...!"), "");
        let of = |text: &str| hash(&words(text));
        assert_ne!(of("ab c"), of("a bc"));
        assert_eq!(of("A, b"), of("a B"));
    }
}
