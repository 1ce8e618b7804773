//! Python's `str.format` with named places, as the prompt formats of Axolotl use it.

/// A format text cut at its `{places}`; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FormatText(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Place(String),
}

impl FormatText {
    /// Errors: an unclosed or lone brace, or a place that is not one of `places`.
    pub(super) fn parse(text: &str, places: &[&str]) -> Result<Self, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let (place, behind) = rest
                .split_once('}')
                .filter(|_| brace == "{")
                .ok_or_else(|| format!("a lone `{brace}` in `{text}`; write `{brace}{brace}` for a brace"))?;
            if !places.contains(&place) {
                return Err(format!(
                    "unknown place `{{{place}}}` in `{text}`; known: `{}`",
                    places.join("`, `")
                ));
            }
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Place(place.to_owned()));
            rest = behind;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Fills every place in one pass: braces within values stay as they are.
    pub(super) fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Place(name) => {
                    out.push_str(values.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_like_python() {
        let places = ["instruction", "input"];
        for (format, expect) in [
            ("Q: {instruction}\nA:", Some("Q: {input}\nA:")),
            ("{{{instruction}}} {input}", Some("{{input}} x")),
            ("{instruction", None),
            ("}", None),
            ("{other}", None),
        ] {
            let filled = FormatText::parse(format, &places)
                .map(|f| f.fill(&[("instruction", "{input}"), ("input", "x")]));
            assert_eq!(filled.ok().as_deref(), expect, "{format}");
        }
    }
    #[test]
    fn fuzz() {
        let places = ["instruction", "input"];
        let corpus = galen_testkit::fuzz::corpus("format_text");
        let inputs = galen_testkit::fuzz::run("format_text", &corpus, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(format) = FormatText::parse(&text, &places) {
                let filled = format.fill(&[("instruction", "{"), ("input", "}")]);
                assert!(filled.len() <= text.len(), "{text:?} {filled:?}");
            }
        });
        println!("format_text: {inputs} inputs");
    }
}
