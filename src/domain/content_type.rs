//! What `Project` and `Resource` have in common: each declares the fields and rules of one kind.

use std::sync::LazyLock;

use super::{kind::Kind, project::Project, resource::Resource, rules::Rules};

/// A content type: what `Project` and `Resource` have in common.
///
/// The struct declares the fields and their rules; documents themselves stay JSON trees.
pub trait Document: schemars::JsonSchema + Send + Sync + 'static {
    /// Names the keys, the file and the audit entries of this type.
    const KIND: Kind;

    /// The rules that the declaration turns into, made once.
    fn rules() -> &'static Rules;
}

impl Document for Project {
    const KIND: Kind = Kind::Project;

    fn rules() -> &'static Rules {
        static RULES: LazyLock<Rules> = LazyLock::new(Rules::of::<Project>);
        &RULES
    }
}

impl Document for Resource {
    const KIND: Kind = Kind::Resource;

    fn rules() -> &'static Rules {
        static RULES: LazyLock<Rules> = LazyLock::new(Rules::of::<Resource>);
        &RULES
    }
}

/// The rules of a kind's documents.
#[must_use]
pub fn rules(kind: Kind) -> &'static Rules {
    match kind {
        Kind::Project => Project::rules(),
        Kind::Resource => Resource::rules(),
    }
}
