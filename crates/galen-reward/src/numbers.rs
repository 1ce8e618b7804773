//! Numbers in running text.

/// What groups digits and what begins the fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Separators {
    pub(crate) thousands: Option<char>,
    pub(crate) decimal: char,
}

/// Every number of `text`, in order; finite. Linear in its length.
///
/// A number is digits, in groups of three where `thousands` stands between them, a fraction, an exponent; a minus
/// counts where nothing it could subtract from stands before it (`10-12` is 10 and 12). Digits that continue a word
/// (`E11.9`) or a second fraction (`1.2.3`) are no numbers. Units may follow (`5mg`).
pub(crate) fn numbers(text: &str, separators: Separators) -> Vec<f64> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if begins(&chars, at, separators) {
            let (number, end) = scan(&chars, at, separators);
            found.extend(number.filter(|n| n.is_finite()));
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

fn digit(chars: &[char], at: usize) -> bool {
    chars.get(at).is_some_and(char::is_ascii_digit)
}

fn begins(chars: &[char], at: usize, separators: Separators) -> bool {
    let starts = digit(chars, at) || (chars[at] == separators.decimal && digit(chars, at + 1));
    let before = |n: usize| at.checked_sub(n).map(|i| chars[i]);
    let glued = before(1).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let second_fraction =
        before(1) == Some(separators.decimal) && before(2).is_some_and(|c| c.is_ascii_digit());
    starts && !glued && !second_fraction
}

fn is_negative(chars: &[char], at: usize) -> bool {
    let mut before = chars[..at].iter().rev().copied().peekable();
    before.next_if(|c| "$€£¥".contains(*c));
    let minus = before.next_if(|c| "-−–".contains(*c)).is_some();
    minus && before.next().is_none_or(|c| !(c.is_alphanumeric() || ")]}-−–".contains(c)))
}

/// The number that begins at `start`, and where it ends.
fn scan(chars: &[char], start: usize, separators: Separators) -> (Option<f64>, usize) {
    let mut clean = String::from(if is_negative(chars, start) { "-" } else { "" });
    let mut at = start;
    let digits = |clean: &mut String, mut at: usize| {
        while digit(chars, at) {
            clean.push(chars[at]);
            at += 1;
        }
        at
    };
    at = digits(&mut clean, at);
    if let Some(thousands) = separators.thousands.filter(|_| (1..=3).contains(&(at - start))) {
        let group = |at: usize| (1..=3).all(|i| digit(chars, at + i)) && !digit(chars, at + 4);
        loop {
            // TeX writes `1{,}000`, lest a space follow.
            let braced = chars.get(at) == Some(&'{') && chars.get(at + 2) == Some(&'}');
            let at_separator = if braced { at + 1 } else { at };
            let last = if braced { at + 2 } else { at };
            if chars.get(at_separator) != Some(&thousands) || !group(last) {
                break;
            }
            at = digits(&mut clean, last + 1);
        }
    }
    if chars.get(at) == Some(&separators.decimal) && digit(chars, at + 1) {
        clean.push('.');
        at = digits(&mut clean, at + 1);
    }
    if matches!(chars.get(at), Some('e' | 'E')) {
        let signed = usize::from(matches!(chars.get(at + 1), Some('+' | '-')));
        let mut exponent: String = chars[at..=at + signed].iter().collect();
        let end = digits(&mut exponent, at + 1 + signed);
        let word = chars.get(end).is_some_and(|c| c.is_alphanumeric());
        if digit(chars, at + 1 + signed) && !word {
            clean += &exponent;
            at = end;
        }
    }
    (clean.parse().ok(), at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENGLISH: Separators = Separators { thousands: Some(','), decimal: '.' };
    const GERMAN: Separators = Separators { thousands: Some('.'), decimal: ',' };
    const BARE: Separators = Separators { thousands: None, decimal: '.' };

    #[test]
    fn numbers_of_texts() {
        let check = |separators: Separators, cases: &[(&str, &[f64])]| {
            for (text, expect) in cases {
                assert_eq!(numbers(text, separators), *expect, "{text}");
            }
        };
        check(
            ENGLISH,
            &[
                ("", &[]),
                ("none", &[]),
                ("72", &[72.0]),
                ("72.", &[72.0]),
                ("3.5, 4,5", &[3.5, 4.0, 5.0]),
                ("1,234,567.89", &[1_234_567.89]),
                ("1{,}234{,}567.89", &[1_234_567.89]),
                ("{1}, {2}", &[1.0, 2.0]),
                ("it is \u{2013}5, or 3\u{2013}5", &[-5.0, 3.0, 5.0]),
                ("1,2345", &[1.0, 2345.0]),
                ("1234,567", &[1234.0, 567.0]),
                ("-5 −6 (-7) +8", &[-5.0, -6.0, -7.0, 8.0]),
                ("10-12", &[10.0, 12.0]),
                ("x-5", &[5.0]),
                ("--5", &[5.0]),
                ("-$1,000 and $-2", &[-1000.0, -2.0]),
                (".5 -.25", &[0.5, -0.25]),
                ("1.2.3", &[1.2]),
                ("E11.9 CO2 x_1", &[]),
                ("5mg 3e2 3e 3ex 2E-1", &[5.0, 300.0, 3.0, 3.0, 0.2]),
                ("1e999", &[]),
                ("\\boxed{42}", &[42.0]),
                ("答案是72。", &[72.0]),
                ("50%", &[50.0]),
                ("٣", &[]),
            ],
        );
        check(GERMAN, &[("1.234.567,89 und 0,5", &[1_234_567.89, 0.5])]);
        check(BARE, &[("1,234.5", &[1.0, 234.5])]);
    }

    #[test]
    fn a_long_text_takes_linear_time() {
        let text = "1,".repeat(300_000) + &"9".repeat(300_000) + &"e".repeat(300_000);
        assert_eq!(numbers(&text, ENGLISH).len(), 300_000);
    }

    fn grouped(n: u64) -> String {
        let digits = n.to_string();
        let mut out = String::new();
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(c);
        }
        out
    }

    proptest! {
        #[test]
        fn any_text_gives_finite_numbers(text in "\\PC*", dense in "[-−+$ .,0-9eE]{0,40}") {
            for text in [&text, &dense] {
                for separators in [ENGLISH, GERMAN, BARE] {
                    prop_assert!(numbers(text, separators).iter().all(|n| n.is_finite()));
                }
            }
        }

        #[test]
        fn what_is_written_is_read(n in any::<u64>(), cents in 0..100_u8, negative: bool) {
            let text = format!("so {}{}.{cents:02}.", if negative { "-" } else { "" }, grouped(n));
            let expect: f64 = text[3..text.len() - 1].replace(',', "").parse().unwrap();
            prop_assert_eq!(numbers(&text, ENGLISH), vec![expect]);
        }

        #[test]
        fn every_float_reads_back(x in proptest::num::f64::NORMAL) {
            prop_assert_eq!(numbers(&format!("({x:e})"), ENGLISH), vec![x]);
        }
    }
}
