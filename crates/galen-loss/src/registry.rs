//! Looking a name up in a registry. A registry is a slice of statics; the slice is the only list there is.

use crate::{LossError, Result};

/// An entry of a registry.
pub trait Named {
    /// The configuration's key whose values these are.
    const KEY: &'static str;

    /// Name in the configuration.
    fn name(&self) -> &'static str;

    /// One line: what it is, paper and equation.
    fn doc(&self) -> &'static str;
}

/// The entry of this name; an error lists all names, the nearest first.
pub fn find<T: Named>(registry: &[&'static T], name: &str) -> Result<&'static T> {
    if let Some(found) = registry.iter().copied().find(|e| e.name() == name) {
        return Ok(found);
    }
    let similarity = |e: &&&'static T| strsim::jaro_winkler(&name.to_lowercase(), e.name());
    let nearest = registry.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let nearest = nearest.filter(|e| similarity(e) > 0.75);
    let nearest = nearest.map(|e| format!("did you mean `{}`? ", e.name())).unwrap_or_default();
    let all = registry.iter().map(|e| format!("`{}`", e.name())).collect::<Vec<_>>().join(", ");
    Err(LossError::Unknown { key: T::KEY, name: name.to_owned(), hint: format!("{nearest}There is {all}") })
}

/// `Named` of a struct with fields `name` and `doc`, and a `Debug` that prints the name.
macro_rules! named {
    ($type:ty, $key:literal) => {
        impl $crate::registry::Named for $type {
            const KEY: &'static str = $key;

            fn name(&self) -> &'static str {
                self.name
            }

            fn doc(&self) -> &'static str {
                self.doc
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name)
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.name == other.name
            }
        }
    };
}
pub(crate) use named;
