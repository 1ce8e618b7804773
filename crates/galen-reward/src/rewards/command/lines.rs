//! Lines of bounded length.

use std::io::BufRead;

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end; at the end of input also one that has none.
    Whole(Vec<u8>),
    /// The beginning of a line that is longer than the limit; the rest follows.
    TooLong(Vec<u8>),
    /// The input ended, or failed.
    End,
}

/// The next line of at most `limit` bytes.
pub(super) fn read_line(reader: &mut impl BufRead, limit: usize) -> Line {
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return Line::End,
        };
        if chunk.is_empty() {
            return if line.is_empty() { Line::End } else { Line::Whole(line) };
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let room = limit - line.len();
        let take = end.unwrap_or(chunk.len());
        if take > room {
            line.extend_from_slice(&chunk[..room]);
            reader.consume(room);
            return Line::TooLong(line);
        }
        line.extend_from_slice(&chunk[..take]);
        reader.consume(take + usize::from(end.is_some()));
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Line::Whole(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn lines_of_any_chunking() {
        let text = b"ab\n\ncde\r\nfghijk\nl";
        for capacity in 1..20 {
            let mut reader = BufReader::with_capacity(capacity, &text[..]);
            let mut next = || read_line(&mut reader, 4);
            let whole = |t: &str| Line::Whole(t.into());
            assert_eq!(next(), whole("ab"));
            assert_eq!(next(), whole(""));
            assert_eq!(next(), whole("cde"));
            assert_eq!(next(), Line::TooLong("fghi".into()));
            assert_eq!(next(), whole("jk"));
            assert_eq!(next(), whole("l"));
            assert_eq!(next(), Line::End);
        }
    }
}
