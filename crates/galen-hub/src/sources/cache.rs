//! What an earlier run left, in galen's cache or the hub's.

use super::Source;
use super::hub::HubSpec;
use crate::catalogue::Entry;
use crate::error::Result;
use crate::options::Options;
use crate::store;
use std::path::PathBuf;

pub(super) struct Cache;

impl Source for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn describe(&self, _: &Entry) -> Result<Option<String>> {
        Ok(Some("cache".into()))
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn fetch(&self, entry: &Entry, options: &Options<'_>) -> Result<Option<PathBuf>> {
        let own = store::store_path(entry, options);
        let mut places = vec![own];
        if let Some(spec) = entry.source::<HubSpec>("hub")? {
            places.push(spec.cached_path(options));
        }
        let mut first_error = None;
        for path in places {
            match store::verified(&path, entry, options) {
                Ok(true) => return Ok(Some(path)),
                Ok(false) => {}
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        first_error.map_or(Ok(None), Err)
    }
}
