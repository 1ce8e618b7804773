//! SentencePiece BPE as ranked merges: a pair may merge if its text is a piece, better scores first.

use std::collections::HashMap;

/// Merges, best first, of the mergeable pieces `(text, id, score)`. A piece's score ranks every way to make it;
/// among equal scores longer left parts come first, as in transformers' converter.
///
/// Near-linear in the total length of the pieces: each is cut at each of its characters.
pub(super) fn merges(pieces: &[(&str, u32, f32)]) -> Vec<(String, String)> {
    let ids: HashMap<&str, u32> = pieces.iter().map(|(text, id, _)| (*text, *id)).collect();
    // (score, characters left, characters right, left id, right id, text, cut)
    let mut found = Vec::with_capacity(pieces.len() * 2);
    for &(text, _, score) in pieces {
        let first = found.len();
        let length = text.chars().count();
        for (n, (cut, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(cut);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((score, n, length - n, l, r, text, cut));
            }
        }
        if let Some(own) = found.get_mut(first..) {
            own.sort_by_key(|&(.., l, r, _, _)| (l, r));
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    found
        .into_iter()
        .map(|(.., text, cut)| {
            let (left, right) = text.split_at(cut);
            (left.to_string(), right.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_merge_first() {
        let pieces = [
            ("a", 0, -9.0),
            ("b", 1, -9.0),
            ("c", 2, -9.0),
            ("ab", 3, -2.0),
            ("bc", 4, -1.0),
            ("abc", 5, -3.0),
        ];
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(merges(&pieces), [pair("b", "c"), pair("a", "b"), pair("ab", "c"), pair("a", "bc")]);
    }

    #[test]
    fn cuts_between_characters_only() {
        assert_eq!(merges(&[("é", 0, 0.0), ("éé", 1, 0.0)]), [("é".to_string(), "é".to_string())]);
    }
}
