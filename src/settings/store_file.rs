//! A file that holds the address of the store, so that no configuration of a client has to hold a
//! password. Others must not be able to write it: they could name their own store.

use std::{fs, path::Path};

use super::{file_access, resolver::Resolver};
use crate::domain::text::shown_path;

/// The first line of the file.
///
/// # Errors
/// Why it cannot be used, without its content.
pub(super) fn read(file: &str, resolver: &mut Resolver<'_>) -> Result<String, String> {
    let path = resolver.path(file.trim());
    let name = shown_path(file.trim()).into_owned();
    let bytes = fs::read(&path).map_err(|error| {
        format!("`{name}` cannot be read: {error}; expected a file whose first line is the address of the store")
    })?;
    if file_access::others_may_write(&path) {
        return Err(format!(
            "`{name}` can be changed by other users, who could name a store of their own; run `chmod 600` on it"
        ));
    }
    warn_of_readers(&path, &name, resolver);
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("`{name}` is not UTF-8 (perhaps UTF-16); save it as UTF-8"))?;
    let line = text.trim_start_matches('\u{feff}').lines().next();
    match line.unwrap_or_default().trim() {
        "" => Err(format!(
            "found nothing in the first line of `{name}`; expected the address of the store"
        )),
        line => Ok(line.to_owned()),
    }
}

/// A warning if others can read the secret in a file.
pub(super) fn warn_of_readers(path: &Path, name: &str, resolver: &mut Resolver<'_>) {
    if file_access::others_may_read(path) {
        resolver.warn(
            "file access",
            format!("`{name}` can be read by other users of this machine"),
            "run `chmod 600` on it",
        );
    }
}
