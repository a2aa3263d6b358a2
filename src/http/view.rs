//! Which content a visitor asks for: that of now, with `?asOf=TIME` that of the past, or with
//! `?plan=ID` that after a plan.

use axum::{extract::Query, http::Uri};

use crate::domain::Timestamp;

const AS_OF: &str = "asOf";
const PLAN: &str = "plan";

/// The content to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// That of now.
    Now,
    /// That of a time in the past.
    AsOf(Timestamp),
    /// That after the plan with this id.
    Plan(String),
}

impl View {
    /// The view in the parameters of a query, or what is wrong with them.
    pub(super) fn of_query(parameters: &[(String, String)]) -> Result<Self, String> {
        let mut asked = parameters.iter().filter(|(name, _)| is_view(name));
        let Some((name, value)) = asked.next() else {
            return Ok(Self::Now);
        };
        if let Some((other, _)) = asked.next() {
            return Err(if other == name {
                format!("send `{name}` once")
            } else {
                format!("send either `{name}` or `{other}`")
            });
        }
        if name == PLAN {
            return Ok(Self::Plan(value.clone()));
        }
        Timestamp::parse(value).map(Self::AsOf).ok_or_else(|| {
            format!("`{name}` has to be an RFC 3339 time such as `2026-11-22T10:15:30Z`")
        })
    }

    /// Whether a request asks for another view than that of now, in whatever form.
    pub(super) fn is_asked_for(uri: &Uri) -> bool {
        // Read in the same way as by the routes, so that no spelling gets past.
        let parameters = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Ok(Query(parameters)) = parameters else {
            return true;
        };
        parameters.iter().any(|(name, _)| is_view(name))
    }
}

/// Whether a parameter chooses the view.
fn is_view(name: &str) -> bool {
    name == AS_OF || name == PLAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_seen_in_every_spelling() {
        for (query, asked) in [
            ("", false),
            ("?featured=true&asof=x", false),
            ("?x=asOf", false),
            ("?asOf", true),
            ("?tag=a&asOf=2026-01-01T00:00:00Z", true),
            ("?%61s%4ff=2026-01-01T00:00:00Z", true),
            ("?asOf=1&asOf=2", true),
            ("?plan=x", true),
            ("?Plan=x", false),
        ] {
            let uri: Uri = format!("/api/projects{query}").parse().unwrap();

            assert_eq!(View::is_asked_for(&uri), asked, "{query}");
        }
    }

    #[test]
    fn a_view_is_one_time() {
        let view = |parameters: &[(&str, &str)]| {
            let owned: Vec<(String, String)> = parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            View::of_query(&owned)
        };

        assert_eq!(view(&[("tag", "x")]), Ok(View::Now));
        assert_eq!(
            view(&[("asOf", "1970-01-01T00:00:01Z")]),
            Ok(View::AsOf(Timestamp::from_millis(1000)))
        );
        let time = ("asOf", "1970-01-01T00:00:01Z");
        let plan = ("plan", "x");
        assert_eq!(view(&[plan]), Ok(View::Plan("x".to_owned())));
        for wrong in [
            &[("asOf", "")][..],
            &[("asOf", "yesterday")],
            &[time, time],
            &[time, plan],
            &[plan, plan],
        ] {
            assert!(view(wrong).is_err(), "{wrong:?}");
        }
    }
}
