//! Patches of JSON objects: JSON Merge Patch (RFC 7396).

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{content_type::Document, depth::check_depth, json::parse};

/// A part of a document of type `D`, to be merged into a stored one.
#[derive(Debug, Clone)]
pub struct Patch<D> {
    members: Map<String, Value>,
    document: PhantomData<fn() -> D>,
}

impl<D> Patch<D> {
    /// The members that the patch names.
    #[must_use]
    pub fn into_members(self) -> Map<String, Value> {
        self.members
    }
}

impl<'de, D> Deserialize<'de> for Patch<D> {
    fn deserialize<De: Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
        Ok(Self {
            members: Map::deserialize(deserializer)?,
            document: PhantomData,
        })
    }
}

impl<D: Document> JsonSchema for Patch<D> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Patch", D::schema_name()))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(D::rules().patch_schema().clone()).unwrap_or_default()
    }
}

/// Replaces a string that holds JSON of the wanted type by that: some clients send objects and arrays
/// as strings.
pub fn parse_json_string(value: &mut Value, is_wanted: fn(&Value) -> bool) {
    if let Value::String(text) = value
        && check_depth(text.as_bytes()).is_ok()
        && let Ok((parsed, _)) = parse(text)
        && is_wanted(&parsed)
    {
        *value = parsed;
    }
}

/// `target` with `patch` merged into it (RFC 7396). The order of members stays: json-patch's
/// `merge` would swap the last member into the gap of a removed one, and replaying the log would no
/// longer give the stored bytes.
#[must_use]
pub fn merge(target: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = target.clone();
    for (name, value) in patch {
        match value {
            Value::Null => {
                merged.shift_remove(name);
            }
            Value::Object(members) => {
                let empty = Map::new();
                let below = merge(
                    merged
                        .get(name)
                        .and_then(Value::as_object)
                        .unwrap_or(&empty),
                    members,
                );
                merged.insert(name.clone(), Value::Object(below));
            }
            _ => {
                merged.insert(name.clone(), value.clone());
            }
        }
    }
    merged
}

/// The dotted paths whose values `patch` sets or removes.
#[must_use]
pub fn paths_set(patch: &Map<String, Value>) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, value) in patch {
        match value {
            Value::Object(members) if !members.is_empty() => {
                paths.extend(
                    paths_set(members)
                        .into_iter()
                        .map(|below| format!("{name}.{below}")),
                );
            }
            _ => paths.push(name.clone()),
        }
    }
    paths
}

/// The dotted paths of the objects in `patch` that have no members, and so change nothing within
/// what they name.
#[must_use]
pub fn empty_objects(patch: &Map<String, Value>) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, value) in patch {
        match value {
            Value::Object(members) if members.is_empty() => paths.push(name.clone()),
            Value::Object(members) => {
                let below = empty_objects(members).into_iter();
                paths.extend(below.map(|path| format!("{name}.{path}")));
            }
            _ => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::diff::{FieldChange, apply, creation, diff, revert};

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ];

        for (target, patch, expected) in cases {
            assert_eq!(
                Value::Object(merge(&object(target), &object(patch))),
                expected
            );
        }
    }

    #[test]
    fn a_member_with_a_dot_in_its_name_is_compared_within_its_parent() {
        let (old, new) = (
            object(json!({"a":{"b.c":1,"d":2}})),
            object(json!({"a":{"b.c":2,"d":3}})),
        );

        let changes = diff(&old, &new);

        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].field, "a");
        assert_eq!(apply(old, &changes), new);
    }

    #[test]
    fn a_document_with_a_name_that_has_no_path_is_created_whole() {
        for document in [
            json!({"a.b":1,"c":2}),
            json!({"":5}),
            json!({"a":{"b.c":1}}),
        ]
        .map(object)
        {
            assert_eq!(apply(Map::new(), &creation(&document)), document);
        }
    }

    #[test]
    fn an_empty_object_null_and_absence_stay_different() {
        let documents = [
            json!({}),
            json!({"a":null}),
            json!({"a":{}}),
            json!({"a":{"b":null}}),
            json!({"a":{"b":1}}),
            json!({"a":[]}),
        ]
        .map(object);

        for old in &documents {
            for new in &documents {
                let changes = diff(old, new);
                assert_eq!(changes.is_empty(), old == new);
                let read_back: Vec<FieldChange> =
                    serde_json::from_str(&serde_json::to_string(&changes).unwrap()).unwrap();
                assert_eq!(&apply(old.clone(), &read_back), new);
                assert_eq!(&revert(new, &read_back), old);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c.é]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec(("[a-d.]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn document() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::vec(("[a-d.]{0,2}", tree()), 0..5)
            .prop_map(|members| members.into_iter().collect())
    }

    /// Whether every path that is not at, above or below one of `named` has the same value in both.
    fn untouched(
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        patch: &Map<String, Value>,
    ) -> bool {
        old.iter().all(
            |(name, before)| match (patch.get(name), before, new.get(name)) {
                (None, _, after) => after == Some(before),
                (Some(Value::Object(patch)), Value::Object(before), Some(Value::Object(after))) => {
                    untouched(before, after, patch)
                }
                (Some(_), _, _) => true,
            },
        ) && new
            .keys()
            .all(|name| old.contains_key(name) || patch.contains_key(name))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_patch_touches_only_what_it_names(old in document(), patch in document()) {
            prop_assert!(untouched(&old, &merge(&old, &patch), &patch));
        }

        #[test]
        fn merging_twice_is_merging_once(old in document(), patch in document()) {
            let once = merge(&old, &patch);

            prop_assert_eq!(merge(&once, &patch), once);
        }

        #[test]
        fn the_changes_lead_from_the_old_document_to_the_new_one_and_back(old in document(), new in document()) {
            let changes = diff(&old, &new);

            prop_assert_eq!(&apply(old.clone(), &changes), &new);
            prop_assert_eq!(&revert(&new, &changes), &old);
        }

        #[test]
        fn the_changes_of_a_merge_give_it_byte_for_byte(old in document(), patch in document()) {
            let new = merge(&old, &patch);

            let replayed = apply(old.clone(), &diff(&old, &new));

            prop_assert_eq!(serde_json::to_string(&replayed).unwrap(), serde_json::to_string(&new).unwrap());
        }
    }
}
