//! The checks of the fuzz targets, with the test kit that they use.

mod checks;

#[path = "../../tests/it/support"]
#[expect(dead_code, reason = "the integration tests use the rest of the kit")]
mod support {
    pub(crate) mod http;
    pub(crate) mod messages;
    pub(crate) mod sse;
    pub(crate) mod wait;
}

pub use checks::{cursor, folder, message, patch};
