//! The ids of new documents: what is allowed, and which id was meant.

use super::{kind::is_slug, search::fold, text::truncate, violation::Violation};

/// The longest id of a new document.
const MAX_CHARACTERS: usize = 100;

const EXPECTED: &str = "expected a slug: words of lower-case letters a to z and digits, joined by single hyphens, such as `rdv-artisan`; at most 100 characters, at least one letter, and not `true`, `false`, `null` or a number such as `1e7`";

/// What is wrong with the id of a new document, with the slug that was meant, if one follows from it.
pub(super) fn check_new_id(id: &str) -> Option<Violation> {
    if is_slug(id) {
        return None;
    }
    let suggestion = slug_of(id);
    let hint = suggestion
        .as_ref()
        .map_or_else(String::new, |slug| format!("; did you mean `{slug}`?"));
    let message = format!("{EXPECTED}; found `{}`{hint}", truncate(id));
    Some(Violation {
        suggestion,
        ..Violation::new("id", "slug", message)
    })
}

/// The words of a text as a slug: `L'Été à Paris` is `l-ete-a-paris`.
fn slug_of(text: &str) -> Option<String> {
    let folded = fold(text);
    let words = folded
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words {
        let joiner = if slug.is_empty() { "" } else { "-" };
        if slug.len() + joiner.len() + word.len() > MAX_CHARACTERS {
            break;
        }
        slug.push_str(joiner);
        slug.push_str(word);
    }
    is_slug(&slug).then_some(slug)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion(id: &str) -> Option<String> {
        check_new_id(id).unwrap().suggestion
    }

    #[test]
    fn a_slug_is_accepted_and_a_name_suggests_one() {
        assert_eq!(check_new_id("rdv-artisan"), None);
        for (id, slug) in [
            ("RDV Artisan", "rdv-artisan"),
            ("rdv_artisan", "rdv-artisan"),
            ("-a--b-", "a-b"),
            ("L'Été à Paris", "l-ete-a-paris"),
            ("Cœur & Straße", "coeur-strasse"),
            ("/projects/x", "projects-x"),
        ] {
            assert_eq!(suggestion(id).as_deref(), Some(slug), "{id}");
        }
        let long = ["word"; 40].join("-");
        assert_eq!(suggestion(&long).unwrap().len(), 99);
    }

    #[test]
    fn what_has_no_slug_suggests_none() {
        for id in [
            "",
            "---",
            "2024",
            "TRUE",
            "null",
            "1E7",
            "日本",
            &"a".repeat(101),
        ] {
            let violation = check_new_id(id).unwrap();

            assert_eq!(violation.suggestion, None, "{id}");
            assert!(violation.message.contains("expected a slug"), "{violation}");
        }
    }
}
