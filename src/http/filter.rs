//! Which of the published documents a visitor asks for: `?featured=true&tag=…`.

use crate::domain::{ListQuery, Record, search::fold_tag};

/// The filters of a list in the website's API.
///
/// Other parameters and values that mean nothing are ignored, as the site's API always did: a page
/// must not fail because a link to it carries a parameter more.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    featured: Option<bool>,
    /// A document has all of them.
    tags: Vec<String>,
}

impl Filter {
    /// The filter in the parameters of a query.
    pub(super) fn of_query(parameters: &[(String, String)]) -> Self {
        let mut filter = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "featured" => filter.featured = parse_bool(value).or(filter.featured),
                "tag" if !value.trim().is_empty() => filter.tags.push(fold_tag(value.trim())),
                _ => {}
            }
        }
        filter
    }

    /// Whether it lets every document pass.
    pub(super) fn is_empty(&self) -> bool {
        self.featured.is_none() && self.tags.is_empty()
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        let query = |tag: Option<String>| ListQuery {
            featured: self.featured,
            tag,
            ..ListQuery::default()
        };
        let entry = record.index_entry();
        query(None).matches(entry)
            && self
                .tags
                .iter()
                .all(|tag| query(Some(tag.clone())).matches(entry))
    }
}

/// The words that the program's own options accept.
fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(parameters: &[(&str, &str)]) -> Filter {
        let owned: Vec<(String, String)> = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Filter::of_query(&owned)
    }

    #[test]
    fn values_that_mean_nothing_filter_nothing() {
        for ignored in [
            &[][..],
            &[("featured", "")],
            &[("featured", "maybe")],
            &[("tag", "")],
            &[("tag", " ")],
            &[("Featured", "true")],
            &[("page", "2"), ("utm_source", "x")],
        ] {
            assert!(filter(ignored).is_empty(), "{ignored:?}");
        }
        for (value, featured) in [
            ("TRUE", true),
            ("1", true),
            ("false", false),
            ("off", false),
        ] {
            assert_eq!(filter(&[("featured", value)]).featured, Some(featured));
        }
        assert_eq!(
            filter(&[("featured", "true"), ("featured", "x")]).featured,
            Some(true)
        );
        assert_eq!(filter(&[("tag", "SaaS"), ("tag", "Web")]).tags.len(), 2);
    }
}
