//! Text as a list of words, the one way for everything that compares texts.

use unicode_normalization::UnicodeNormalization as _;

/// Lower case runs of letters and digits; a character of a script written without spaces is a word of its own, and so is a sign that
/// says something: `x < 5` is not `x > 5`, nor `-5` 5. Letters with marks are the same however they are composed.
pub fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.nfc().flat_map(char::to_lowercase).collect();
    let mut out = Vec::new();
    let mut word = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let alone = stands_alone(c) || is_sign(&chars, at);
        if c.is_alphanumeric() && !alone {
            word.push(c);
            continue;
        }
        out.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()));
        if alone {
            out.push(c.to_string());
        }
    }
    out.extend(Some(word).filter(|w| !w.is_empty()));
    out
}

/// Whether a character stands for an operation, a comparison or a minus, and not for a bullet, a hyphen or emphasis.
fn is_sign(chars: &[char], at: usize) -> bool {
    let on_line = |c: &&char| !(c.is_whitespace() && **c != '\n');
    let between = || {
        let before = chars[..at].iter().rev().find(on_line);
        let after = chars[at + 1..].iter().find(on_line);
        before.is_some_and(|c| c.is_alphanumeric() || ")]}".contains(*c))
            && after.is_some_and(|c| c.is_alphanumeric() || "([{".contains(*c))
    };
    let next = chars.get(at + 1);
    match chars[at] {
        '<' | '>' | '=' | '≤' | '≥' | '≠' | '±' | '+' | '%' | '^' => true,
        '*' | '/' | '×' | '÷' => between(),
        '-' | '−' => {
            let previous = at.checked_sub(1).map(|i| chars[i]);
            let glued = previous.is_some_and(char::is_alphanumeric);
            let spaced = previous.is_some_and(char::is_whitespace) && next.is_some_and(|c| c.is_whitespace());
            (!glued && next.is_some_and(char::is_ascii_digit)) || (spaced && between())
        }
        _ => false,
    }
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
        // Signs that say something, and those that do not.
        let apart = [
            "x > 5",
            "x < 5",
            "x = a + b",
            "x = a - b",
            "x = a * b",
            "x = a / b",
            "delta is -5",
            "delta is 5",
            "5%",
            "5",
        ];
        for (i, one) in apart.iter().enumerate() {
            assert!(apart[..i].iter().all(|other| normalized(other) != normalized(one)), "{one}");
        }
        assert_eq!(normalized("- **bold**, 5-10 mg\n* type-2"), "bold 5 10 mg type 2");
        assert_eq!(
            normalized("infarctus ce\u{301}re\u{301}bral"),
            normalized("infarctus c\u{e9}r\u{e9}bral")
        );
        let of = |text: &str| hash(&words(text));
        assert_ne!(of("ab c"), of("a bc"));
        assert_eq!(of("A, b"), of("a B"));
    }
}
