//! The fuzz targets' checks on their seeds; CONTRIBUTING.md says how to let a fuzzer look for more.

use std::{fs, path::Path};

#[expect(unreachable_pub, reason = "to the fuzz targets it is a crate")]
#[path = "../../fuzz/src/lib.rs"]
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
fn the_changes_of_a_patch_lead_there_and_back() {
    check("patch", checks::patch);
}

#[test]
fn a_cursor_gives_its_place_back_or_is_refused() {
    check("cursor", checks::cursor);
}

#[test]
fn both_entrances_serve_and_refuse_the_same_messages() {
    check("message", checks::message);
}

#[test]
fn a_folder_is_read_as_it_is_or_refused_with_every_reason() {
    check("folder", checks::folder);
}
