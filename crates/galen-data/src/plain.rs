//! From pieces of text to [`Rendered`], for the dataset types that use no chat template.

use galen_types::{Conversation, InvariantError, Rendered};

/// Lays the pieces of a `Conversation::Pieces` end to end; `None` for a chat, which the template renders.
pub fn render_pieces(conversation: &Conversation) -> Option<Result<Rendered, InvariantError>> {
    let Conversation::Pieces { origin, pieces, append_eos } = conversation else { return None };
    let (mut text, mut spans) = (String::new(), Vec::<std::ops::Range<usize>>::new());
    for (piece, supervised) in pieces {
        let start = text.len();
        text.push_str(piece);
        if *supervised && !piece.is_empty() {
            match spans.last_mut() {
                Some(last) if last.end == start => last.end = text.len(),
                _ => spans.push(start..text.len()),
            }
        }
    }
    Some(Rendered::new(origin.clone(), text, spans, *append_eos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_types::Origin;

    #[test]
    fn spans_cover_the_supervised_pieces() {
        let pieces = [("ab", false), ("é", true), ("c", true), ("", true), ("d", false), ("e", true)];
        let conversation = Conversation::Pieces {
            origin: Origin::new("a", 1),
            pieces: pieces.iter().map(|(t, s)| ((*t).to_owned(), *s)).collect(),
            append_eos: true,
        };
        let rendered = render_pieces(&conversation).unwrap().unwrap();
        assert_eq!(rendered.text(), "abécde");
        assert_eq!(rendered.spans(), [2..5, 6..7]);
        assert!(rendered.append_eos());
    }
}
