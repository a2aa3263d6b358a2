//! A new document: what a caller sends, with what the server sets, in the order of the declaration.

use serde_json::{Map, Value, json};

use super::{
    content_type::rules, kind::DocumentKey, patch, record::Record, slug::check_new_id,
    timestamp::Timestamp, violation::Violation,
};

/// The document that `data` describes, created at `now` and stored at `key`.
///
/// Nothing is there before it, so every rule that it breaks is one that the caller broke.
pub(super) fn new_record(
    key: &DocumentKey,
    data: &Map<String, Value>,
    now: Timestamp,
) -> Result<Record, Vec<Violation>> {
    let rules = rules(key.kind);
    // Clients send back whole documents, so the id may be among the fields.
    let known = Map::from_iter([("id".to_owned(), json!(key.id))]);
    let mut rejected: Vec<Violation> = check_new_id(&key.id).into_iter().collect();
    rejected.extend(rules.unknown_fields(data, &known));
    let mut document = patch::merge(&known, data);
    document.insert("id".to_owned(), json!(key.id));
    complete(&mut document, now);
    let record = Record::of(key.clone(), rules.ordered(document));
    for violation in record.violations().iter().filter(|it| it.path != "id") {
        let mut violation = violation.clone();
        if rules.is_optional(&violation.path) {
            violation.message.push_str("; or leave it out");
        }
        rejected.push(violation);
    }
    if rejected.is_empty() {
        Ok(record)
    } else {
        Err(rejected)
    }
}

/// Sets the times, and what `metadata` is where the caller does not say it.
fn complete(document: &mut Map<String, Value>, now: Timestamp) {
    let metadata = document.entry("metadata").or_insert_with(|| json!({}));
    // What else stands here breaks a rule.
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    for (name, value) in [("featured", json!(false)), ("status", json!("draft"))] {
        metadata.entry(name).or_insert(value);
    }
    for name in ["createdAt", "updatedAt"] {
        metadata.insert(name.to_owned(), json!(now.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;

    fn resource() -> Map<String, Value> {
        let data = json!({
            "gallery": [], "downloadLink": "https://example.com/a.pdf", "price": "Gratuit", "image": "/a.png",
            "tags": ["pdf"], "longDescription": "Long", "description": "Short", "title": "A",
        });
        data.as_object().unwrap().clone()
    }

    fn create(id: &str, data: &Map<String, Value>) -> Result<Record, Vec<Violation>> {
        let key = DocumentKey::new(Kind::Resource, id);
        new_record(&key, data, Timestamp::from_millis(1))
    }

    fn with(name: &str, value: Value) -> Map<String, Value> {
        let mut data = resource();
        data.insert(name.to_owned(), value);
        data
    }

    fn paths(result: Result<Record, Vec<Violation>>) -> Vec<String> {
        let rejected = result.unwrap_err().into_iter();
        let mut paths: Vec<String> = rejected.map(|violation| violation.path).collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn the_members_have_the_declared_order_and_the_server_adds_its_own() {
        let time = "1970-01-01T00:00:00.001Z";

        let record = create("a", &resource()).unwrap();

        let names: Vec<&str> = record.document().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "id",
                "title",
                "description",
                "longDescription",
                "tags",
                "image",
                "price",
                "downloadLink",
                "gallery",
                "metadata"
            ]
        );
        assert_eq!(
            record.document()["metadata"].to_string(),
            json!({ "createdAt": time, "updatedAt": time, "featured": false, "status": "draft" })
                .to_string()
        );
    }

    #[test]
    fn metadata_may_be_given_in_part_and_null_leaves_a_field_out() {
        for (given, status) in [
            (json!(null), "draft"),
            (json!({}), "draft"),
            (json!({ "status": null, "downloadCount": null }), "draft"),
            (json!({ "status": "published" }), "published"),
        ] {
            let record = create("a", &with("metadata", given)).unwrap();

            assert_eq!(record.document()["metadata"]["status"], status);
            assert_eq!(record.document()["metadata"].as_object().unwrap().len(), 4);
        }
    }

    #[test]
    fn every_mistake_is_named_at_its_own_path() {
        let mut data = with("metadata", json!({ "status": "live", "updatedAt": "2020" }));
        data.shift_remove("price");
        data.insert("titel".to_owned(), json!("A"));
        data.insert("image".to_owned(), json!("a.png"));

        assert_eq!(
            paths(create("A", &data)),
            [
                "id",
                "image",
                "metadata.status",
                "metadata.updatedAt",
                "price",
                "titel"
            ]
        );
        assert_eq!(
            paths(create("a", &with("metadata", json!("draft")))),
            ["metadata"]
        );
        assert!(create("a", &with("id", json!("a"))).is_ok());
        assert_eq!(paths(create("a", &with("id", json!("b")))), ["id"]);
    }
}
