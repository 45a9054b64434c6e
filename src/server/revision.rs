//! Which commit the program was built from.

use std::sync::OnceLock;

static REVISION: OnceLock<&'static str> = OnceLock::new();

/// Says which commit the program was built from, once, before [`super::run`]. The library cannot know:
/// it is not compiled again for a commit that does not change it.
pub fn set_revision(revision: &'static str) {
    // A second word would be the same one.
    let _ = REVISION.set(revision);
}

pub(super) fn revision() -> &'static str {
    REVISION.get().copied().unwrap_or("unknown")
}
