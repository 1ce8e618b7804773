//! The tabular list's XML: `chapter > name`, `section id`, `diag > name, desc`, diagnoses within diagnoses.

use crate::DataError;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::io::BufReader;
use std::path::Path;

/// Largest file; the list of 2026 has 10 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Elements within one another.
const MAX_DEPTH: usize = 32;
/// Longest name or description, bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// One code of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// `E11.65`
    pub(super) code: String,
    /// `Type 2 diabetes mellitus with hyperglycemia`
    pub(super) text: String,
    /// `E08-E13`
    pub(super) section: String,
    /// `4`
    pub(super) chapter: String,
}

impl Diagnosis {
    /// The code's first three characters.
    pub(super) fn category(&self) -> &str {
        self.code.split_once('.').map_or(&*self.code, |(category, _)| category)
    }
}

/// Every diagnosis in the file's order.
pub(super) fn read(path: &Path) -> Result<Vec<Diagnosis>, DataError> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| DataError::io(&shown, e))?;
    let len = file.metadata().map_err(|e| DataError::io(&shown, e))?.len();
    if len > MAX_FILE_BYTES {
        return Err(DataError::file(shown, format!("`{len}` bytes are too many for the tabular list")));
    }
    let mut reader = Reader::from_reader(BufReader::new(file));
    let (mut walk, mut buffer) = (Walk::default(), Vec::new());
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|e| e.to_string());
        match event.and_then(|event| walk.take(&event)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(what) => {
                let at = format!("{shown}: byte {}", reader.buffer_position());
                return Err(DataError::file(at, format!("not the tabular list: {what}")));
            }
        }
    }
    if walk.out.is_empty() {
        return Err(DataError::file(shown, "not the tabular list: it has no diagnoses"));
    }
    Ok(walk.out)
}

#[derive(Default)]
struct Walk {
    /// Open elements, outermost first.
    open: Vec<Element>,
    text: String,
    chapter: String,
    section: String,
    /// The name of the innermost open diagnosis.
    code: String,
    out: Vec<Diagnosis>,
}

#[derive(Clone, Copy, PartialEq)]
enum Element {
    Chapter,
    Section,
    Diag,
    Name,
    Desc,
    Other,
}

impl Walk {
    /// False at the end of the document.
    fn take(&mut self, event: &Event<'_>) -> Result<bool, String> {
        match event {
            Event::Start(start) => self.start(start)?,
            Event::End(_) => self.end()?,
            Event::Text(text) => self.say(text)?,
            Event::CData(text) => self.say(text)?,
            Event::GeneralRef(name) => match &**name {
                "amp" => self.say("&")?,
                "lt" => self.say("<")?,
                "gt" => self.say(">")?,
                "quot" => self.say("\"")?,
                "apos" => self.say("'")?,
                _ => match name.resolve_char_ref().map_err(|e| e.to_string())? {
                    Some(c) => self.say(c.encode_utf8(&mut [0; 4]))?,
                    None => return Err(format!("unknown entity `{}`", &**name)),
                },
            },
            Event::DocType(_) => return Err("a document type definition".to_owned()),
            Event::Eof if self.open.is_empty() => return Ok(false),
            Event::Eof => return Err("the file ends within an element".to_owned()),
            Event::Empty(_) | Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
        }
        Ok(true)
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("elements nested deeper than `{MAX_DEPTH}`"));
        }
        let name = start.local_name();
        let name: &str = name.as_ref();
        self.open.push(match name {
            "chapter" => Element::Chapter,
            "section" => {
                let id = start.try_get_attribute("id").map_err(|e| e.to_string())?;
                self.section = id.map(|id| id.value.into_owned()).unwrap_or_default();
                Element::Section
            }
            "diag" => Element::Diag,
            "name" => Element::Name,
            "desc" => Element::Desc,
            _ => Element::Other,
        });
        self.text.clear();
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(closed) = self.open.pop() else { return Err("an element that never began ends".to_owned()) };
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        match (self.open.last(), closed) {
            (Some(Element::Chapter), Element::Name) => self.chapter = text,
            (Some(Element::Diag), Element::Name) => self.code = text,
            (Some(Element::Diag), Element::Desc) => {
                let code = std::mem::take(&mut self.code);
                if code.is_empty() || text.is_empty() || self.section.is_empty() {
                    return Err(format!("diagnosis `{code}` lacks its name, text or section"));
                }
                let (section, chapter) = (self.section.clone(), self.chapter.clone());
                self.out.push(Diagnosis { code, text, section, chapter });
            }
            _ => {}
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        if matches!(self.open.last(), Some(Element::Name | Element::Desc)) {
            if self.text.len() + text.len() > MAX_TEXT_BYTES {
                return Err(format!("a text of more than `{MAX_TEXT_BYTES}` bytes"));
            }
            self.text.push_str(text);
        }
        Ok(())
    }
}
