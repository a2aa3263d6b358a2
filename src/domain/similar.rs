//! Which of the known names an unknown one was meant to be.

/// Longer names are not compared.
const MAX_NAME_CHARS: usize = 100;
/// In a shorter name, one other character makes another word.
const MIN_TYPO_CHARS: usize = 4;

/// The nearest of the `known` names, if one is near enough to be what was meant: the same words
/// written in another way, a typo, or one name that is the end of the other (`projectId`, `id`).
#[must_use]
pub fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str, IntoIter: Clone>,
) -> Option<String> {
    if is_too_long(name) {
        return None;
    }
    let (known, lower) = (known.into_iter(), name.to_lowercase());
    let same = known
        .clone()
        .find(|candidate| is_same_name(name, candidate));
    let near = || {
        known
            .clone()
            .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
            .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, candidate)| candidate)
    };
    same.or_else(near)
        .or_else(|| with_same_end(name, known.clone()))
        .map(ToOwned::to_owned)
}

/// The only known name that ends with the words of `name`, or whose words `name` ends with.
#[must_use]
pub(super) fn with_same_end<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if is_too_long(name) {
        return None;
    }
    let words = words(name);
    let mut matching = known.into_iter().filter(|candidate| {
        let others = self::words(candidate);
        !others.is_empty()
            && !words.is_empty()
            && (words.ends_with(&others) || others.ends_with(&words))
    });
    let only = matching.next()?;
    matching.next().is_none().then_some(only)
}

/// Whether both are the same words, whatever their case and what joins them: `longDescription`,
/// `long_description`, `LONG-DESCRIPTION`.
#[must_use]
pub fn is_same_name(name: &str, other: &str) -> bool {
    !is_too_long(name) && folded(name) == folded(other)
}

/// Whether one character is wrong, missing or too much, or two have changed places.
#[must_use]
pub(super) fn is_typo(name: &str, other: &str) -> bool {
    let (name, other) = (folded(name), folded(other));
    name.len() >= MIN_TYPO_CHARS && !is_too_long(&name) && distance(&name, &other) <= 1
}

fn is_too_long(name: &str) -> bool {
    name.chars().nth(MAX_NAME_CHARS).is_some()
}

fn distance(name: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(name, other)
}

fn folded(name: &str) -> String {
    words(name).concat()
}

/// The words of a name in lower case: `videoUrl`, `video_url` and `video-url` have the same two.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        let is_joiner = matches!(c, '_' | '-' | '.' | '/' | ' ');
        if is_joiner || (after_lower && c.is_uppercase()) {
            words.push(std::mem::take(&mut word));
        }
        if !is_joiner {
            word.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_numeric();
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_however_it_is_written() {
        const KNOWN: [&str; 6] = ["id", "dryRun", "expectedVersion", "tags", "title", "data"];
        for (name, meant) in [
            ("dry_run", Some("dryRun")),
            ("DRY-RUN", Some("dryRun")),
            ("expected_version", Some("expectedVersion")),
            ("titel", Some("title")),
            ("tag", Some("tags")),
            ("projectId", Some("id")),
            ("project_id", Some("id")),
            ("version", Some("expectedVersion")),
            ("grid", None),
            ("constructor", None),
            ("", None),
            ("_", None),
        ] {
            assert_eq!(nearest(name, KNOWN).as_deref(), meant, "{name}");
        }
        assert_eq!(nearest(&"d".repeat(10_000), KNOWN), None);
    }

    #[test]
    fn an_end_that_two_names_have_says_nothing() {
        assert_eq!(with_same_end("id", ["entityId", "auditId"]), None);
        assert_eq!(with_same_end("id", ["entityId", "grid"]), Some("entityId"));
    }
}
