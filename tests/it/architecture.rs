//! Who may know what (HOUSE 4), read from the program's own source: every `use`, whatever its form,
//! and every path in code.
//!
//! A path is followed through re-exports to the file that defines what it names. From these
//! references follow the rules of the layers, and that no two files need each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility, visit::Visit};

/// Stands for a reference that this check cannot read.
const UNREADABLE: &str = "#unreadable";
const UNREADABLE_PATH: &str = "crate::#unreadable";

/// Segments of a path, such as `["crate", "store", "Repository"]`.
type Segments = Vec<String>;

/// A layer, and what its files must not refer to: modules of ours (`crate::…`), other crates, parts
/// of std.
struct Layer {
    module: &'static str,
    forbidden: &'static [&'static str],
    because: &'static str,
}

const EDGES: [&str; 4] = ["crate::mcp", "crate::http", "crate::cli", "crate::commands"];

const LAYERS: [Layer; 9] = [
    Layer {
        module: "domain",
        forbidden: &[
            "crate::store",
            "crate::service",
            "crate::deadline",
            "crate::caller",
            "crate::folder",
            "crate::doctor",
            "crate::settings",
            "redis",
            "rusqlite",
            "rmcp",
            "tokio",
            "axum",
            "tracing",
            "metrics",
            "std::fs",
            "tokio::fs",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "the domain is pure: no IO, no clock, no logging",
    },
    Layer {
        module: "store",
        forbidden: &[
            "crate::service",
            "crate::doctor",
            "crate::settings",
            "crate::folder",
            "crate::domain::project",
            "crate::domain::resource",
            "rmcp",
            "clap",
            "axum",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "a store knows kinds, not content types, and no protocol",
    },
    Layer {
        module: "service",
        forbidden: &[
            "crate::store::redis",
            "crate::store::sqlite",
            "crate::doctor",
            "crate::settings",
            "crate::folder",
            "rmcp",
            "redis",
            "rusqlite",
            "axum",
            "clap",
            "std::fs",
            "tokio::fs",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "the use cases know no backend and no protocol",
    },
    Layer {
        module: "mcp",
        forbidden: &[
            "crate::store",
            "crate::http",
            "crate::cli",
            "crate::commands",
            "crate::settings",
            "crate::folder",
            "crate::doctor",
            "redis",
            "rusqlite",
            "axum",
            "std::fs",
            "tokio::fs",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "the MCP edge knows the service, and neither stores nor files nor HTTP servers",
    },
    Layer {
        module: "http",
        forbidden: &[
            "crate::store",
            "crate::cli",
            "crate::commands",
            "crate::settings",
            "crate::folder",
            "crate::doctor",
            "redis",
            "rusqlite",
            "std::fs",
            "tokio::fs",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "the HTTP edge knows the service and the MCP handler, and neither stores nor files",
    },
    Layer {
        module: "caller",
        forbidden: &[
            "crate::store",
            "crate::service",
            "crate::mcp",
            "crate::http",
            "axum",
            "rmcp",
        ],
        because: "who calls is known to both edges, so it knows neither",
    },
    Layer {
        module: "folder",
        forbidden: &["crate::store", "crate::service", "rmcp", "redis", "tokio"],
        because: "the folder knows files and documents alone",
    },
    Layer {
        module: "doctor",
        forbidden: &[
            "crate::mcp",
            "crate::http",
            "crate::service",
            "crate::commands",
            "rmcp",
            "axum",
        ],
        because: "diagnostics look at the store, not at what serves it",
    },
    Layer {
        module: "commands",
        forbidden: &[
            "redis",
            "rusqlite",
            "axum",
            "std::env",
            "std::time::SystemTime",
        ],
        because: "commands use the parts, not their insides",
    },
];

#[test]
fn every_layer_knows_only_what_it_may() {
    let sources = Sources::of_this_program();

    let found = broken_rules(&sources, &LAYERS);

    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_two_files_need_each_other() {
    let cycles = Sources::of_this_program().cycles();

    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

#[test]
fn every_reference_can_be_read() {
    let sources = Sources::of_this_program();
    let everywhere = sources.files.keys().map(|module| (module.clone(), ()));
    let unreadable: Vec<String> = everywhere
        .filter(|(module, ())| {
            let references = sources.references(module);
            references
                .iter()
                .any(|path| sources.resolve(module, path) == UNREADABLE_PATH)
        })
        .map(|(module, ())| module)
        .collect();

    assert!(
        unreadable.is_empty(),
        "extern crate, #[path] or include! in {}",
        unreadable.join(", ")
    );
}

/// A `Current` is what a change is made from, so only stores make one; `doctor` invents one for a
/// document that does not exist.
#[test]
fn only_stores_make_the_state_that_a_change_is_made_from() {
    let sources = Sources::of_this_program();
    let allowed = [
        "store",
        "doctor::commit",
        "domain::current",
        "domain::change",
    ];
    let mut found = Vec::new();
    for module in sources.files.keys() {
        if allowed.iter().any(|above| is_at_or_below(module, above)) {
            continue;
        }
        for path in &sources.references(module) {
            if let [.., name, function] = path.as_slice()
                && name == "Current"
                && ["read", "remembered"].contains(&function.as_str())
            {
                found.push(format!("`{module}` calls `{}`", path.join("::")));
            }
        }
    }

    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_layer_below_the_edges_knows_them() {
    let sources = Sources::of_this_program();
    let below = ["domain", "store", "service"].map(|module| Layer {
        module,
        forbidden: &EDGES,
        because: "what is below must not know what is above",
    });

    let found = broken_rules(&sources, &below);

    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A sentence for each reference that a layer must not have.
fn broken_rules(sources: &Sources, layers: &[Layer]) -> Vec<String> {
    let mut found = Vec::new();
    for layer in layers {
        for module in sources.files.keys() {
            if !is_at_or_below(module, layer.module) {
                continue;
            }
            for path in &sources.references(module) {
                let target = sources.resolve(module, path);
                if let Some(forbidden) = layer
                    .forbidden
                    .iter()
                    .find(|forbidden| is_at_or_below(&target, forbidden))
                {
                    found.push(format!(
                        "`{module}` refers to `{forbidden}` as `{}`: {}",
                        path.join("::"),
                        layer.because
                    ));
                }
            }
        }
    }
    found
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The modules of a program by path (`store::redis`), the root being the empty path.
struct Sources {
    files: BTreeMap<String, File>,
}

/// What a module's file says.
#[derive(Default)]
struct File {
    /// Every path that it refers to, as written.
    paths: BTreeSet<Segments>,
    /// What it re-exports.
    facade: BTreeSet<Segments>,
    /// Names of one segment, which a glob may have brought in.
    single: BTreeSet<String>,
    /// The names of its own items.
    items: BTreeSet<String>,
    /// Names that its `use` declarations bring in, and what each stands for; `*` for globs.
    names: Vec<(String, Segments)>,
}

impl Sources {
    fn of_this_program() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let module = path.strip_prefix(&root).unwrap().with_extension("");
                    let module = module.to_str().unwrap().replace('/', "::");
                    let text = fs::read_to_string(&path).unwrap();
                    // main.rs is another crate, which uses this one from outside; http/tests.rs is
                    // only in tests.
                    match module.as_str() {
                        "main" | "http::tests" => {}
                        "lib" => files.push((String::new(), text)),
                        _ => files.push((module, text)),
                    }
                }
            }
        }
        Self::parse(files)
    }

    fn parse(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut files = BTreeMap::new();
        for (module, text) in texts {
            let mut file = File::default();
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{module}: {error}"));
            let mut collector = Collector { file: &mut file };
            for item in &parsed.items {
                collector.file.items.extend(name_of(item));
                collector.visit_item(item);
            }
            files.insert(module, file);
        }
        Self { files }
    }

    /// What a path in `module` names: a path from `crate::` to the module that defines it and on,
    /// or that of another crate.
    fn resolve(&self, module: &str, path: &[String]) -> String {
        match path {
            [_, name] if name == UNREADABLE => UNREADABLE_PATH.to_owned(),
            path => self.follow(module, path, 0),
        }
    }

    fn follow(&self, module: &str, path: &[String], depth: usize) -> String {
        assert!(depth < 32, "`{}` in `{module}` has no end", path.join("::"));
        let mut here: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let mut rest = path.iter().map(String::as_str).peekable();
        let mut relative = false;
        match rest.peek().copied() {
            Some("crate") => {
                here.clear();
                relative = true;
                rest.next();
            }
            Some("self" | "super") => {
                relative = true;
                rest.next_if_eq(&"self");
                while rest.next_if_eq(&"super").is_some() {
                    here.pop();
                }
            }
            _ => {}
        }
        while let Some(name) = rest.next() {
            let current = here.join("::");
            let child = [&here[..], &[name]].concat().join("::");
            if self.files.contains_key(&child) {
                here.push(name);
                relative = true;
                continue;
            }
            let file = &self.files[&current];
            let imported = file.names.iter().find(|(bound, target)| {
                // A name may be brought in under itself: that is another crate.
                bound == name && target.first().map(String::as_str) != Some(name)
            });
            if let Some((_, target)) = imported {
                let on = target.iter().cloned().chain(rest.map(ToOwned::to_owned));
                return self.follow(&current, &on.collect::<Segments>(), depth + 1);
            }
            // The module's own items come before what a glob brings in.
            let globs = file
                .names
                .iter()
                .filter(|(bound, _)| bound == "*" && !file.items.contains(name));
            for (_, target) in globs {
                if !is_ours(target) {
                    continue;
                }
                let whole = self.follow(&current, target, depth + 1);
                let inside = whole.strip_prefix("crate::").unwrap_or_default();
                if let Some(below) = self.files.get(inside)
                    && (below.names.iter().any(|(bound, _)| bound == name)
                        || self.files.contains_key(&format!("{inside}::{name}")))
                {
                    let on = [name.to_owned()]
                        .into_iter()
                        .chain(rest.map(ToOwned::to_owned));
                    return self.follow(inside, &on.collect::<Segments>(), depth + 1);
                }
            }
            if !relative {
                return path.join("::"); // another crate, or a local name
            }
            break; // defined here
        }
        let parts: Vec<&str> = ["crate"].into_iter().chain(here).collect();
        parts.join("::")
    }

    /// Every path that a module refers to, re-exports included.
    fn references(&self, module: &str) -> Vec<Segments> {
        let file = &self.files[module];
        let single = file
            .single
            .iter()
            .filter(|_| file.names.iter().any(|(bound, _)| bound == "*"))
            .map(|name| vec![name.clone()]);
        let written = file.paths.iter().chain(&file.facade).cloned();
        written.chain(single).collect()
    }

    /// The files that a file needs. A re-export from a module below it is a name for others, not a
    /// need of its own.
    fn needs(&self, module: &str) -> BTreeSet<String> {
        let file = &self.files[module];
        let references = self.references(module);
        let targets = references.iter().filter_map(|path| {
            let target = self.resolve(module, path);
            let below = format!("crate::{module}::").replace("crate::::", "crate::");
            let is_facade = file.facade.contains(path) && !file.paths.contains(path);
            (!(is_facade && target.starts_with(&below))).then_some(target)
        });
        targets
            .filter_map(|target| {
                let inside = target.strip_prefix("crate")?;
                Some(inside.trim_start_matches("::").to_owned())
            })
            .filter(|target| target != module && self.files.contains_key(target))
            .collect()
    }

    /// Each cycle of files, once.
    fn cycles(&self) -> Vec<String> {
        let needs: BTreeMap<&str, BTreeSet<String>> = self
            .files
            .keys()
            .map(|module| (module.as_str(), self.needs(module)))
            .collect();
        let mut cycles = BTreeMap::new();
        for start in self.files.keys() {
            if let Some(cycle) = shortest_way_back(&needs, start) {
                let files: BTreeSet<String> = cycle.iter().cloned().collect();
                cycles
                    .entry(files)
                    .or_insert_with(|| format!("{} needs itself: {}", start, cycle.join(" -> ")));
            }
        }
        cycles.into_values().collect()
    }
}

/// Whether a path begins in this program, as far as its first segment tells.
fn is_ours(path: &[String]) -> bool {
    matches!(
        path.first().map(String::as_str),
        Some("crate" | "self" | "super")
    )
}

/// The shortest way from `start` back to it.
fn shortest_way_back(needs: &BTreeMap<&str, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in &needs[way.last()?.as_str()] {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

struct Collector<'a> {
    file: &'a mut File,
}

impl Collector<'_> {
    fn import(&mut self, tree: &UseTree, before: &Segments, public: bool) {
        match tree {
            UseTree::Path(path) => {
                let on = [before.clone(), vec![path.ident.to_string()]].concat();
                self.import(&path.tree, &on, public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, public);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                let bound = before.last().cloned().unwrap_or_default();
                self.bind(bound, before.clone(), public);
            }
            UseTree::Name(name) => {
                let on = [before.clone(), vec![name.ident.to_string()]].concat();
                self.bind(name.ident.to_string(), on, public);
            }
            UseTree::Rename(rename) => {
                let on = match rename.ident.to_string().as_str() {
                    "self" => before.clone(),
                    name => [before.clone(), vec![name.to_owned()]].concat(),
                };
                self.bind(rename.rename.to_string(), on, public);
            }
            UseTree::Glob(_) => self.bind("*".to_owned(), before.clone(), public),
        }
    }

    fn bind(&mut self, name: String, path: Segments, public: bool) {
        self.file.names.push((name, path.clone()));
        if public {
            self.file.facade.insert(path);
        } else {
            self.file.paths.insert(path);
        }
    }

    /// Paths inside the tokens of a macro call, which have no other form than `a::b::c`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                }
                TokenTree::Group(group) => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                    self.tokens(group.stream());
                }
                TokenTree::Ident(ident) => {
                    self.add(std::mem::replace(&mut path, vec![ident.to_string()]));
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.add(path);
    }

    /// A path of one segment names something local or something that was brought in by a `use`;
    /// only a glob does not say which.
    fn add(&mut self, path: Segments) {
        let path: Segments = path
            .into_iter()
            .map(|name| name.trim_start_matches("r#").to_owned())
            .collect();
        if path.len() > 1 {
            self.file.paths.insert(path);
        } else if let [name] = path.as_slice()
            && !["crate", "self", "super", "Self"].contains(&name.as_str())
        {
            self.file.single.insert(name.clone());
        }
    }
}

impl Visit<'_> for Collector<'_> {
    fn visit_item(&mut self, item: &Item) {
        // Forms whose targets are not followed, and which nothing here needs.
        let unknown = matches!(item, Item::ExternCrate(_))
            || attributes(item)
                .iter()
                .any(|attribute| attribute.path().is_ident("path"));
        if unknown {
            self.file
                .paths
                .insert(vec!["crate".to_owned(), UNREADABLE.to_owned()]);
        }
        if is_test_only(attributes(item)) {
            return;
        }
        if let Item::Use(item) = item {
            let public = !matches!(item.vis, Visibility::Inherited);
            self.import(&item.tree, &Vec::new(), public);
            return;
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments = path.segments.iter();
        self.add(segments.map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        if call.path.is_ident("include") {
            self.file
                .paths
                .insert(vec!["crate".to_owned(), UNREADABLE.to_owned()]);
        }
        self.tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    match item {
        Item::Const(item) => Some(item.ident.to_string()),
        Item::Enum(item) => Some(item.ident.to_string()),
        Item::Fn(item) => Some(item.sig.ident.to_string()),
        Item::Static(item) => Some(item.ident.to_string()),
        Item::Struct(item) => Some(item.ident.to_string()),
        Item::Trait(item) => Some(item.ident.to_string()),
        Item::Type(item) => Some(item.ident.to_string()),
        _ => None,
    }
}

fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// The checks themselves, on programs of a few lines.
mod tests {
    use super::*;

    const RULE: Layer = Layer {
        module: "mcp",
        forbidden: &["crate::store", "redis", "std::fs", UNREADABLE_PATH],
        because: "a test",
    };

    fn sources(files: &[(&str, &str)]) -> Sources {
        let texts = files.iter().map(|(module, text)| {
            let module = module.trim_start_matches("lib");
            (module.to_owned(), (*text).to_owned())
        });
        Sources::parse(texts)
    }

    /// The rules that `code`, as the text of `mcp::tool`, breaks.
    fn broken_by(code: &str) -> Vec<String> {
        let program = sources(&[
            ("lib", "pub mod mcp; pub mod store; pub mod service;"),
            ("mcp", "pub use crate::service::Error; mod tool;"),
            ("mcp::tool", code),
            (
                "service",
                "pub use crate::store::StoreError as Failure; pub struct Error; mod read; pub use self::read::*;",
            ),
            ("service::read", "pub use crate::store::Store;"),
            (
                "store",
                "mod redis; pub struct StoreError; pub struct Store; pub use redis::Keys;",
            ),
            ("store::redis", "pub struct Keys;"),
        ]);
        broken_rules(&program, &[RULE])
    }

    #[test]
    fn every_form_of_a_forbidden_reference_is_found() {
        for code in [
            "use crate::service::*; fn f(_: Failure) {}",
            "use self::super::super::store::Store;",
            "fn f(_: crate::r#store::Store) {}",
            "extern crate redis;",
            "#[path = \"store.rs\"] mod store;",
            "include!(\"store.rs\");",
            "use crate::store::StoreError;",
            "use crate::{service::Error, store::StoreError};",
            "use crate::{service, store::{self, Store}};",
            "use crate::store as s;",
            "use crate::store::*;",
            "use super::super::store::Store;",
            "use super::super::{service, store};",
            "use crate::service::Failure;",
            "use crate::service::Store;",
            "use crate::store::Keys;",
            "pub use crate::store::Store;",
            "fn f(store: &crate::store::Store) {}",
            "fn f() { crate::store::open() }",
            "fn f() { let _ = vec![crate::store::Store]; }",
            "use crate::store; fn f() {}",
            "use crate::service as s; fn f(_: s::Failure) {}",
            "use redis::Cmd;",
            "use {redis::Cmd, std::io};",
            "fn f() { redis::cmd() }",
            "fn f() { println!(\"{}\", redis::cmd()) }",
            "use std::{fs, io};",
            "fn f() { std::fs::read(\"x\") }",
            "#[derive(redis::Thing)] struct S;",
        ] {
            assert!(!broken_by(code).is_empty(), "not found: {code}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_reported() {
        for code in [
            "use crate::service::Error;",
            "use super::Error;",
            "use crate::{mcp, service};",
            "use std::io;",
            "fn f(store: u8) { let redis = store; }",
            "#[cfg(test)] mod tests { use crate::store::Store; }",
            "// use crate::store::Store;\nconst TEXT: &str = \"crate::store::Store\";",
        ] {
            assert_eq!(broken_by(code), Vec::<String>::new(), "{code}");
        }
    }

    #[test]
    fn a_cycle_is_found_whatever_the_form_of_its_imports() {
        for (a, b) in [
            (
                "use crate::b::B; pub struct A;",
                "use crate::a::A; pub struct B;",
            ),
            (
                "use crate::{b::B}; pub struct A;",
                "pub struct B; fn f(_: super::a::A) {}",
            ),
            (
                "use crate::c::B; pub struct A;",
                "use crate::a::*; pub struct B;",
            ),
            (
                "pub struct A; fn f() { vec![crate::b::B] }",
                "use super::{a}; pub struct B;",
            ),
        ] {
            let program = sources(&[
                ("lib", "mod a; mod b; mod c;"),
                ("a", a),
                ("b", b),
                ("c", "pub use crate::b::B;"),
            ]);

            assert_eq!(program.cycles().len(), 1, "{a} {b}: {:?}", program.cycles());
        }
    }

    #[test]
    fn a_parent_and_a_child_that_use_each_other_are_a_cycle() {
        let program = sources(&[
            ("lib", "mod a;"),
            ("a", "mod b; use b::helper; pub struct A;"),
            ("a::b", "use super::A; pub fn helper() {}"),
        ]);

        assert_eq!(program.cycles().len(), 1, "{:?}", program.cycles());
    }

    #[test]
    fn a_parent_that_only_re_exports_its_child_is_none() {
        let program = sources(&[
            ("lib", "mod a;"),
            ("a", "mod b; mod c; pub use b::B; pub struct A;"),
            ("a::b", "use super::{A, C}; pub struct B;"),
            ("a::c", "pub struct C;"),
        ]);

        assert_eq!(program.cycles(), Vec::<String>::new());
    }
}
