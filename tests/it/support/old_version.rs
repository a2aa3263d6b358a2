//! Version 0.1.0: the program, and stores that it filled. Newer versions go on with its stores, and
//! it goes on working beside them.
//!
//! `tests/fixtures/0.1.0` holds its source, with two changes: the program is called
//! `portfolio-mcp-0-1-0`, and its dependencies include those of its tests. So both versions share
//! one build directory, and each dependency is built once.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use redis::Cmd;
use tempfile::TempDir;

use super::{
    program::{PROGRAM, repository_path},
    redis::RedisServer,
    stores::Store,
};

/// The path of the program, which is built the first time.
pub(crate) fn program() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> String {
    let profile = Path::new(PROGRAM).parent().unwrap();
    let target = profile.parent().unwrap();
    let source = target.join("0.1.0");
    fs::create_dir_all(&source).unwrap();
    run(Command::new("tar")
        .arg("-xzf")
        .arg(fixture("source.tar.gz"))
        .arg("-C")
        .arg(&source));
    run(Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--locked", "--target-dir"])
        .arg(target)
        .current_dir(&source));
    let program = target.join("debug").join("portfolio-mcp-0-1-0");
    program.to_str().unwrap().to_owned()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn fixture(name: &str) -> PathBuf {
    repository_path("tests/fixtures/0.1.0").join(name)
}

/// A copy of each store that it filled: eight imported documents, one that was there before,
/// six updates, and eight entries of a still older program.
pub(crate) fn stores() -> [Store; 2] {
    let commands: Vec<Vec<String>> =
        serde_json::from_slice(&fs::read(fixture("redis.json")).unwrap()).unwrap();
    let server = RedisServer::start();
    for command in commands {
        let mut words = command.iter();
        let mut filled = Cmd::new();
        words.by_ref().for_each(|word| {
            filled.arg(word);
        });
        server.run::<()>(&filled);
    }
    let folder = TempDir::new().unwrap();
    fs::copy(fixture("store.db"), folder.path().join("content.db")).unwrap();
    [Store::on(&server.into(), ""), Store::sqlite_in(folder)].map(Store::with_older_writers)
}
