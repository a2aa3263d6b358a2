//! The house rules, checked on the repository itself: who may know what, the published contracts,
//! the documents.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use portfolio_mcp::mcp::{ContentServer, Toolset};
use serde_json::{Value, json};

#[test]
fn nothing_but_the_domain_makes_a_change() {
    for file in sources("src")
        .into_iter()
        .filter(|file| !file.ends_with("domain/change.rs"))
    {
        assert!(
            !knows(&code_of(&file), "Change {"),
            "{} builds a Change by hand",
            file.display()
        );
    }
}

#[test]
fn the_published_contracts_are_what_the_server_publishes() {
    let root = root();
    let accept = env::var_os("UPDATE_TOOLS").is_some();
    let tools = tools();
    for tool in &tools {
        let path = root
            .join("tools")
            .join(format!("{}.json", tool["name"].as_str().unwrap()));
        let published = format!("{}\n", serde_json::to_string_pretty(tool).unwrap());
        if accept {
            fs::create_dir_all(root.join("tools")).unwrap();
            fs::write(&path, &published).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            known,
            published,
            "{} differs; accept it with UPDATE_TOOLS=1 cargo test contracts",
            path.display()
        );
    }
    assert_eq!(
        fs::read_dir(root.join("tools")).unwrap().count(),
        tools.len(),
        "tools/ holds a tool that is not there any more"
    );

    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let with_table = with_table(&readme);
    if accept {
        fs::write(root.join("README.md"), &with_table).unwrap();
    } else {
        assert_eq!(
            readme, with_table,
            "README.md's table differs; accept it with UPDATE_TOOLS=1 cargo test contracts"
        );
    }
}

#[test]
fn every_tool_is_acceptable_to_strict_clients() {
    let tools = tools();

    assert_eq!(ContentServer::tools(Toolset::Content).len(), 8);
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        assert!(!tool["title"].as_str().unwrap().is_empty(), "{name}");
        assert!(tool["description"].as_str().unwrap().len() > 40, "{name}");
        for hint in [
            "readOnlyHint",
            "destructiveHint",
            "idempotentHint",
            "openWorldHint",
        ] {
            assert!(tool["annotations"][hint].is_boolean(), "{name}: {hint}");
        }
        assert_eq!(
            tool["annotations"]["readOnlyHint"],
            json!(name.starts_with("get_") || name.starts_with("list_")),
            "{name}"
        );
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name}: {schema}");
            plain(&tool[schema], &format!("{name}.{schema}"));
        }
        assert_eq!(
            tool["inputSchema"]["additionalProperties"],
            json!(false),
            "{name}"
        );
    }
}

/// Tokens of four characters. CONTRACT.md allows 3,000 for the default, and 5,000 for all toolsets;
/// the rest is for what is to come.
const MAX_DEFAULT_TOKENS: usize = 2800;
const MAX_TOKENS: usize = 4250;

#[test]
fn what_a_model_sees_of_the_tools_is_small() {
    assert_fit(&published([Toolset::Content]), MAX_DEFAULT_TOKENS);
    assert_fit(&tools(), MAX_TOKENS);
}

fn assert_fit(tools: &[Value], max_tokens: usize) {
    let seen = |tool: &Value| {
        let seen = json!({ "name": tool["name"], "description": tool["description"], "inputSchema": tool["inputSchema"] });
        seen.to_string().chars().count()
    };
    let sizes: Vec<(Value, usize)> = tools
        .iter()
        .map(|tool| (tool["name"].clone(), seen(tool)))
        .collect();
    let characters: usize = sizes.iter().map(|(_, size)| size).sum();

    assert!(
        characters.div_ceil(4) <= max_tokens,
        "{} tokens: {sizes:?}",
        characters.div_ceil(4)
    );
}

#[test]
fn published_arguments_hold_types_enums_counts_and_lengths_only() {
    for tool in tools() {
        let schema = tool["inputSchema"].to_string();
        for rule in [
            r#""pattern":"#,
            r#""minLength":"#,
            r#""format":"#,
            r#""default":"#,
        ] {
            assert!(!schema.contains(rule), "{}: {rule}", tool["name"]);
        }
    }
}

/// No references, one type each, and members that are object schemas.
fn plain(schema: &Value, path: &str) {
    let Some(members) = schema.as_object() else {
        return;
    };
    for keyword in ["$ref", "$defs", "anyOf", "oneOf", "allOf", "nullable"] {
        assert!(!members.contains_key(keyword), "{path} has {keyword}");
    }
    assert!(
        members.get("type").is_none_or(Value::is_string),
        "{path} has several types"
    );
    for (name, member) in members
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        assert!(member.is_object(), "{path}.{name} is published as {member}");
        plain(member, &format!("{path}.{name}"));
    }
    if let Some(items) = members.get("items") {
        assert!(items.is_object(), "{path}[] is published as {items}");
        plain(items, &format!("{path}[]"));
    }
}

#[test]
fn the_patch_of_an_update_publishes_no_field_that_the_server_owns() {
    for tool in tools().iter().filter(|tool| {
        ["update_project", "update_resource"].contains(&tool["name"].as_str().unwrap())
    }) {
        let fields = &tool["inputSchema"]["properties"]["data"]["properties"];

        assert!(fields.get("title").is_some());
        assert!(fields.get("id").is_none());
        assert!(fields["metadata"]["properties"].get("status").is_some());
        for owned in ["createdAt", "updatedAt"] {
            assert!(
                fields["metadata"]["properties"].get(owned).is_none(),
                "{owned}"
            );
        }
        assert!(
            !tool["inputSchema"]["properties"]["data"]
                .to_string()
                .contains("\"required\"")
        );
    }
}

#[test]
fn the_readme_tells_the_help_of_the_program() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_portfolio-mcp"))
        .args(["http", "--help"])
        .output()
        .unwrap();

    for option in String::from_utf8(help.stdout)
        .unwrap()
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
    {
        let option = option
            .trim_end_matches([',', '.', ']'])
            .split(['[', '='])
            .next()
            .unwrap();
        assert!(
            readme.contains(option) || matches!(option, "--help" | "--version"),
            "README.md does not explain {option}"
        );
    }
}

/// The tools of every toolset.
fn tools() -> Vec<Value> {
    published(Toolset::ALL)
}

fn published(toolsets: impl IntoIterator<Item = Toolset>) -> Vec<Value> {
    toolsets
        .into_iter()
        .flat_map(ContentServer::tools)
        .map(|tool| serde_json::to_value(tool).unwrap())
        .collect()
}

/// The README with its table of tools made anew.
fn with_table(readme: &str) -> String {
    let (begin, end) = (
        "<!-- tools: made by `UPDATE_TOOLS=1 cargo test contracts` -->\n",
        "<!-- /tools -->",
    );
    let (before, rest) = readme
        .split_once(begin)
        .expect("README.md has a place for the table of tools");
    let (_, after) = rest
        .split_once(end)
        .expect("README.md's table of tools ends");
    let mut table = "| toolset | tool | arguments | what it does |\n|---|---|---|---|\n".to_owned();
    let in_toolsets = Toolset::ALL.into_iter().flat_map(|toolset| {
        let tools = published([toolset]);
        tools.into_iter().map(move |tool| (toolset.as_str(), tool))
    });
    for (toolset, tool) in in_toolsets {
        let required = tool["inputSchema"]["required"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let arguments = tool["inputSchema"]["properties"]
            .as_object()
            .into_iter()
            .flatten();
        let arguments: Vec<String> = arguments
            .map(|(name, _)| {
                if required.contains(&json!(name)) {
                    format!("**{name}**")
                } else {
                    name.clone()
                }
            })
            .collect();
        let description = tool["description"]
            .as_str()
            .unwrap()
            .replace('\n', " ")
            .replace('|', "\\|");
        writeln!(
            table,
            "| `{toolset}` | `{}` | {} | {description} |",
            tool["name"].as_str().unwrap(),
            arguments.join(", ")
        )
        .unwrap();
    }
    format!("{before}{begin}{table}{end}{after}")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The source files of a module: its own and those in its folder.
fn sources(module: &str) -> Vec<PathBuf> {
    let path = root().join(module);
    let mut files = Vec::new();
    if path.is_file() {
        files.push(path.clone());
    } else if path.with_extension("rs").is_file() {
        files.push(path.with_extension("rs"));
    }
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
        {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    assert!(
        !files.is_empty(),
        "{module} is gone; this test has to follow"
    );
    files
}

/// The code without comments and without unit tests.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether `secret` stands in the code as a name of its own, and not within a text.
fn knows(code: &str, secret: &str) -> bool {
    code.lines().any(|line| {
        let outside_texts: String = line.split('"').step_by(2).collect();
        outside_texts.match_indices(secret).any(|(at, _)| {
            let before = outside_texts[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    })
}
