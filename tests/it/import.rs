//! `import` of data that is not in shape: what is wrong, what was found instead, equal causes once.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fixtures::{project, resource},
    program::{Home, PROGRAM, repository_path},
    redis::RedisServer,
    server::HttpServer,
    stores::Store,
};

/// Runs `import` on a folder with one file; gives its exit code and its report.
fn import(file: &str, bytes: impl AsRef<[u8]>) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(file), bytes).unwrap();
    import_folder(folder.path(), &[])
}

fn import_folder(folder: &Path, variables: &[(&str, &str)]) -> (i32, String) {
    let output = Home::new()
        .command(PROGRAM)
        .arg("import")
        .arg(folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

fn list(documents: impl IntoIterator<Item = Value>) -> String {
    documents.into_iter().collect::<Value>().to_string()
}

#[test]
fn most_documents_that_are_no_case_studies_are_summed_up_too() {
    let posts =
        (1..=30).map(|n| json!({ "id": format!("post-{n}"), "title": "Post", "body": "x" }));
    let mut half = project("half");
    half.remove("result");
    let good = [project("a"), project("b"), half].map(Value::Object);

    let (_, report) = import("projects.json", list(posts.clone().chain(good)));
    let (_, of_all) = import("projects.json", list(posts.chain([project("a").into()])));

    assert!(
        report.contains("30 of the 33 projects have none of result, tags, image, client"),
        "{report}"
    );
    assert!(report.contains("31 projects: result: missing"), "{report}");
    assert!(!report.contains("projects: client: missing"), "{report}");
    assert!(!of_all.contains("projects: result: missing"), "{of_all}");
}

#[test]
fn a_store_that_fails_is_reported_once_and_in_plain_words() {
    let web = HttpServer::start(&Store::sqlite(), &[]);
    let redis = RedisServer::start();
    let no_database = format!("redis://127.0.0.1:{}/99", redis.port());
    for (store, cause) in [
        (
            format!("redis://{}", web.address),
            "does not answer like Redis",
        ),
        (no_database, "has no database with the number"),
        ("redis://127.0.0.1:1".to_owned(), "cannot be reached"),
    ] {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command.args([
            "import",
            &repository_path("examples/content").display().to_string(),
        ]);
        let output = command.args(["--store", &store]).output().unwrap();

        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert_eq!(errors.matches(cause).count(), 1, "{errors}");
        for word in ["Incompatible", "Parse error", "ResponseError"] {
            assert!(!errors.contains(word), "{errors}");
        }
    }
}

#[test]
fn documents_that_are_no_case_studies_are_summed_up() {
    let posts = (1..=500).map(|n| json!({ "id": format!("post-{n}"), "title": format!("Post {n}"), "tags": "none", "body": "x" }));

    let (code, report) = import("projects.json", list(posts));

    assert_eq!(code, 0, "{report}");
    assert!(
        report.contains("none of the 500 projects has result, image, client, challenge"),
        "{report}"
    );
    assert!(report.contains("do not look like case studies"), "{report}");
    assert!(
        report.contains("500 projects: tags: expected an array"),
        "{report}"
    );
    assert!(report.contains("500 created"), "{report}");
    assert!(report.lines().count() < 24, "{report}");
}

#[test]
fn equal_causes_are_told_once_with_the_titles() {
    let posts =
        (1..=500).map(|n| json!({ "slug": format!("post-{n}"), "title": format!("Post {n}") }));

    let (code, report) = import("projects.json", list(posts));

    assert_eq!(code, 1);
    assert!(report.contains("there is `slug`: name it `id`"), "{report}");
    assert!(report.contains("1 “Post 1”, 2 “Post 2”"), "{report}");
    assert!(report.contains("and 490 more"), "{report}");
    assert!(report.contains("none of the 500 projects has"), "{report}");
    assert!(report.lines().count() < 10, "{report}");
}

#[test]
fn what_stands_in_the_place_of_a_list_is_named() {
    for (text, named) in [
        (
            r#"{"projects":[{"id":"a"}]}"#,
            "put that list alone in the file",
        ),
        (r#"{"id":"a"}"#, "put it in brackets"),
        ("", "the file is empty"),
        ("{\"id\":\"a\"}\n{\"id\":\"b\"}\n", "JSON Lines"),
        ("[1,]", "take out the comma"),
        ("// all\n[]", "no comments"),
        ("[{id: 'a'}]", "double quotation marks"),
        ("[5]", "expected a JSON object, found a number"),
    ] {
        let (code, report) = import("projects.json", text);
        assert_eq!(code, 1, "{text}: {report}");
        assert!(report.contains(named), "{text}: {report}");
    }
}

#[test]
fn encodings_other_than_utf_8_are_named() {
    let utf_16: Vec<u8> = "\u{feff}[]"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (bytes, named) in [
        (utf_16.clone(), "is UTF-16"),
        (utf_16[2..].to_vec(), "is UTF-16"),
        (b"[\"caf\xe9\"]".to_vec(), "Latin-1"),
    ] {
        let (code, report) = import("projects.json", bytes);
        assert_eq!(code, 1);
        assert!(report.contains(named), "{report}");
    }
    let marked = format!("\u{feff}{}", list([Value::Object(project("a"))]));
    assert_eq!(import("projects.json", marked).0, 0);
}

#[test]
fn a_missing_folder_is_not_an_empty_one() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("nowhere");
    let file = folder.path().join("file");
    fs::write(&file, "[]").unwrap();

    for (path, named) in [
        (missing.as_path(), "does not exist"),
        (file.as_path(), "is a file"),
    ] {
        let (code, report) = import_folder(path, &[]);
        assert_eq!(code, 1);
        assert!(report.contains(named), "{report}");
    }
}

#[test]
fn equal_numbers_make_no_difference() {
    let folder = TempDir::new().unwrap();
    let home = Home::new();
    let text = list([Value::Object(resource("a"))]).replace(r#""gallery""#, r#""n":1.0,"gallery""#);
    for (number, counted) in [
        ("1.0", "1 created"),
        ("10e-1", "1 unchanged"),
        ("2", "1 skipped"),
    ] {
        let text = text.replace(r#""n":1.0"#, &format!(r#""n":{number}"#));
        fs::write(folder.path().join("resources.json"), text).unwrap();
        let output = home
            .command(PROGRAM)
            .arg("import")
            .arg(folder.path())
            .output();
        let report = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(report.contains(counted), "{number}: {report}");
    }
}

#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("projects.json"), "5").unwrap();
    let has_colours = |variables: &[(&str, &str)]| {
        let (_, report) = import_folder(folder.path(), variables);
        assert!(report.contains("error"), "{report}");
        report.contains('\u{1b}')
    };

    assert!(!has_colours(&[]), "this is a pipe");
    assert!(has_colours(&[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colours(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
