//! The built program, started with an environment that nothing on this machine influences.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The program's path.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portfolio-mcp");

/// A path in this repository.
pub(crate) fn repository_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A temporary home directory for a program. Deleted when dropped.
#[derive(Debug)]
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A command that runs `program` with this home, the PATH, and no other variable.
    pub(crate) fn command(&self, program: &str) -> Command {
        let data = self.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", data)
            .current_dir(self.path());
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }
}

impl From<Home> for TempDir {
    fn from(home: Home) -> Self {
        home.0
    }
}
