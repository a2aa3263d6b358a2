//! Who else may read or write a file.

use std::path::Path;

/// The permissions of the group and of everybody.
const MAY_READ: u32 = 0o044;
const MAY_WRITE: u32 = 0o022;

/// Whether the group or everybody may read the file.
pub(super) fn others_may_read(path: &Path) -> bool {
    others_may(path, MAY_READ)
}

/// Whether the group or everybody may write the file.
pub(crate) fn others_may_write(path: &Path) -> bool {
    others_may(path, MAY_WRITE)
}

/// The user that owns the file, by number.
#[cfg(unix)]
pub(crate) fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(path).ok()?.uid())
}

/// Other systems name users differently.
#[cfg(not(unix))]
pub(crate) fn owner(_: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn others_may(path: &Path, permission: u32) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // A pipe, such as a shell's `<(…)`, is gone when it has been read.
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & permission != 0)
}

/// Other systems have lists of permissions, which are inherited from the user's folder.
#[cfg(not(unix))]
fn others_may(_: &Path, _: u32) -> bool {
    false
}
