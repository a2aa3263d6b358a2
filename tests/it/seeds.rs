//! The checks of the fuzz targets on their seeds. CONTRIBUTING.md describes how to run a fuzzer.

use std::{fs, path::Path};

#[expect(unreachable_pub, reason = "the fuzz crate publishes them")]
#[path = "../../fuzz/src/checks.rs"]
mod checks;

/// Runs a check on each of its target's seeds.
fn check(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(seeds.len() > 3, "{} holds too few seeds", folder.display());
    for seed in seeds {
        eprintln!("--- {}", seed.display());
        check(&fs::read(&seed).unwrap());
    }
}

#[test]
fn the_changes_of_a_patch_can_be_applied_and_reverted() {
    check("patch", checks::patch);
}

#[test]
fn a_cursor_gives_its_position_back_or_is_rejected() {
    check("cursor", checks::cursor);
}

#[test]
fn both_transports_serve_and_reject_the_same_messages() {
    check("message", checks::message);
}

#[test]
fn a_folder_is_read_unchanged_or_rejected_with_every_reason() {
    check("folder", checks::folder);
}
