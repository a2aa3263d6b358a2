//! How clients with many tools find ours: words to search for, and which tools to load at once.

use rmcp::model::{JsonObject, MetaObject};
use serde_json::json;

use super::tool_name::{Effect, ToolName};
use crate::domain::Kind;

/// The `_meta` of a tool. The reading tools are always loaded, because each request begins with one.
pub(super) fn meta(tool: ToolName) -> MetaObject {
    let mut meta = JsonObject::new();
    meta.insert("anthropic/searchHint".to_owned(), json!(search_hint(tool)));
    if tool.effect() == Effect::Reads {
        meta.insert("anthropic/alwaysLoad".to_owned(), json!(true));
    }
    MetaObject(meta)
}

/// What somebody may search for who needs the tool.
fn search_hint(tool: ToolName) -> &'static str {
    match tool {
        ToolName::List(Kind::Project) => {
            "find website projects, portfolio case studies, drafts, published pages"
        }
        ToolName::List(Kind::Resource) => {
            "find website resources, downloads, prices, drafts, published pages"
        }
        ToolName::Get(Kind::Project) => "read a website project, portfolio case study, its text",
        ToolName::Get(Kind::Resource) => "read a website resource, download, its text and price",
        ToolName::Update(Kind::Project) => {
            "edit, publish, unpublish, feature or archive a website project, portfolio case study"
        }
        ToolName::Update(Kind::Resource) => {
            "edit, publish, price, feature or archive a website resource, download"
        }
        ToolName::AuditLog => "history of website content, who changed what, old values",
        ToolName::AuditStats => "number of changes of website content, recent activity",
        ToolName::History => "who wrote which field of website content, versions, blame",
        ToolName::Compare => "compare website content of two times, what changed since",
        ToolName::Create(Kind::Project) => {
            "add, create a new website project, portfolio case study"
        }
        ToolName::Create(Kind::Resource) => "add, create a new website resource, download",
        ToolName::Delete(Kind::Project) => "delete, remove a website project, portfolio case study",
        ToolName::Delete(Kind::Resource) => "delete, remove a website resource, download",
        ToolName::UpdateMany => "edit, publish, archive many website projects or resources at once",
        ToolName::UndoChanges => "undo, revert or roll back changes of website content",
    }
}
