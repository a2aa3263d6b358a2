//! What a client of `/mcp` says that it reads.

use axum::http::{HeaderMap, HeaderValue, header};

/// What rmcp wants to see. It then answers a request with JSON, and with an event stream only where
/// more than the answer is sent.
const JSON_AND_EVENTS: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");

/// Serves a client that reads JSON, whether it says so or not: one without the header, with `*/*`
/// or with `application/json` alone, as curl and simple HTTP libraries send them. Whether the client
/// is one.
pub(super) fn complete(headers: &mut HeaderMap) -> bool {
    let reads_json = reads_json(headers);
    if reads_json {
        headers.insert(header::ACCEPT, JSON_AND_EVENTS);
    }
    reads_json
}

fn reads_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    values.peek().is_none()
        || values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(is_json_range)
}

/// Whether a media range such as `application/*;q=0.8` covers JSON.
fn is_json_range(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_excluded = parts.any(|parameter| {
        let weight = parameter
            .split_once('=')
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0))
    });
    !is_excluded
        && matches!(
            essence.as_str(),
            "*/*" | "application/*" | "application/json" | ""
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_read_json_are_served() {
        let served = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            reads_json(&headers)
        };

        for accepted in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json"],
            &["Application/JSON; charset=utf-8"],
            &["application/*;q=0.5"],
            &["text/html, */*;q=0.1"],
            &["text/html", "application/json"],
            &["text/event-stream, application/json"],
        ] {
            assert!(served(accepted), "{accepted:?}");
        }
        for refused in [
            &["text/html"][..],
            &["text/event-stream"],
            &["application/json;q=0"],
            &["*/*; q=0.0"],
            &["application/jsonx"],
        ] {
            assert!(!served(refused), "{refused:?}");
        }
    }
}
