//! The field's words (HOUSE 7) and plain English (HOUSE 8): names and phrases that were replaced
//! stay out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

/// Names that were replaced. Whole identifiers, compared exactly.
const NAMES: &str = "
    Line Leave KeptOff kept_off turned_away Proves ItServes Entrance Presented Door introduce Pulse pulse carry carried_score
    recall remember Cached Publication KEPT to_keep of_kept SavedCopy saved Held keep_copy CONFIRM FOLLOW Purpose
    Circumstances circumstances settled settle Committed strangers Listing listing listings Place places place Site Probe
    Whole Rows Provenance provenance Answer tidied opened broken refuse cut said unread not_let_in is_distrust is_away
    DEEPEST LONGEST LONGEST_MESSAGE MOST_CALLS MOST_BYTES SHORTEST PATIENCE RACE PLACE PLACES TOGETHER PIECE READ COMMIT CACHE LOAD
    PAUSE REFUSED FULL BURST FIRST REMEDY forget_the_silent visible excerpt on_one_line escaped Examination examination examine
    Trial strays printed ENTRY_BEGINNING unwrapped OWNED
";

/// Phrases that were replaced, in messages, documentation comments and documents.
const PHRASES: &[&str] = &[
    "mend",
    "mended",
    "told",
    "whoever",
    "kept off",
    "keeps off",
    "turned away",
    "turn away",
    "so many",
    "saved copy",
    "last copy",
    "let in",
    "lets in",
    "lets it in",
    "lets the server in",
    "good token",
    "who presents",
    "serve only who",
    "for so long",
    "says nothing for",
    "with another content",
    "left and listed",
    "whole number",
    "expected a text",
    "is not a text",
    "is signed by nobody",
    "there is no tls with",
    "is not to be had",
    "of the caller's making",
    "put right",
    "in the meantime written",
    "at a standstill",
    "takes its leave",
];

#[test]
fn replaced_names_stay_out_of_the_code() {
    let banned: BTreeSet<&str> = NAMES.split_whitespace().collect();
    let mut found = Vec::new();
    for file in code() {
        let tokens: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        let mut names = BTreeSet::new();
        collect(tokens, &mut names, &mut Vec::new());
        for name in names.iter().filter(|name| banned.contains(name.as_str())) {
            found.push(format!("{}: {name}", shown(&file)));
        }
    }

    assert!(
        found.is_empty(),
        "use the words of HOUSE 7 instead of:\n{}",
        found.join("\n")
    );
}

#[test]
fn replaced_phrases_stay_out_of_what_people_read() {
    let mut found = Vec::new();
    for file in code()
        .into_iter()
        .filter(|file| file.starts_with(root().join("src")))
    {
        let tokens: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        let mut texts = Vec::new();
        collect(tokens, &mut BTreeSet::new(), &mut texts);
        // Documentation comments have a literal for each line, and a phrase may be wrapped.
        let wrapped = texts.windows(2).map(|lines| lines.join(" "));
        let texts: Vec<String> = wrapped.chain(texts.first().cloned()).collect();
        for text in texts {
            found.extend(
                phrases_in(&text).map(|phrase| format!("{}: \"{phrase}\" in {text}", shown(&file))),
            );
        }
    }
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for paragraph in text.split("\n\n") {
            found.extend(
                phrases_in(paragraph)
                    .map(|phrase| format!("{}: \"{phrase}\" in {paragraph}", shown(&file))),
            );
        }
    }

    assert!(
        found.is_empty(),
        "write what a native speaker would say instead of:\n{}",
        found.join("\n")
    );
}

/// The names and the literals (documentation comments are literals too) of a piece of code.
fn collect(tokens: TokenStream, names: &mut BTreeSet<String>, literals: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), names, literals),
            TokenTree::Ident(ident) => drop(names.insert(ident.to_string())),
            TokenTree::Literal(literal) => literals.push(literal.to_string()),
            TokenTree::Punct(_) => {}
        }
    }
}

fn phrases_in(text: &str) -> impl Iterator<Item = &'static str> {
    let words: String = text
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '\'' {
                c
            } else {
                ' '
            }
        })
        .collect();
    let words = format!(
        " {} ",
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    PHRASES
        .iter()
        .copied()
        .filter(move |phrase| words.contains(&format!(" {phrase} ")))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().display().to_string()
}

/// Every source file but this one.
fn code() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests/it", "examples", "fuzz/src"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests/it/words.rs")
            {
                files.push(path);
            }
        }
    }
    files
}

fn documents() -> Vec<PathBuf> {
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/operations.md",
        "docs/architecture.md",
        "docs/clients.md",
    ]
    .map(|file| root().join(file))
    .into()
}
