//! What must hold for any input. The fuzz targets check it on generated input, `tests/it/seeds.rs`
//! on the seeds.

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::Path,
    slice,
    sync::{Arc, LazyLock, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use portfolio_mcp::{
    clock,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Edit, Kind, ListQuery, Operation, Origin, Record,
        Source, StoredEntry, Timestamp, Update, WriteContext,
        diff::{apply, creation, diff, revert},
        is_slug,
        list::{IndexEntry, ListPosition},
        patch::merge,
        text::is_hidden,
    },
    folder::Folder,
    http,
    mcp::{ContentServer, cursor as cursors, stdio},
    service::ContentService,
    store::{Location, open},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

use crate::support::{
    http::{Connection, with_json_headers},
    sse::SseSession,
};

type Object = Map<String, Value>;

/// A document, a patch and edits: the JSON text `[document, patch]` or `[document, patch, edits]`, or
/// bytes that they are generated from.
///
/// # Panics
/// When the merge changes what the patch does not name, or the changes do not lead to the new
/// document and back.
pub fn patch(input: &[u8]) {
    let (old, patch, edits) = document_and_change(input);

    let new = merge(&old, &patch);
    assert!(
        untouched(&old, &new, &patch),
        "the merge changes what the patch does not name"
    );
    assert_eq!(merge(&new, &patch), new, "a second merge changes something");
    let changes = diff(&old, &new);
    assert_eq!(
        compact_json(&apply(old.clone(), &changes)),
        compact_json(&new),
        "the changes do not lead to the new document"
    );
    assert_eq!(revert(&new, &changes), old, "the changes do not lead back");
    // Any two documents, not only one and what a patch makes of it.
    let changes = diff(&new, &patch);
    assert_eq!(apply(new.clone(), &changes), patch);
    assert_eq!(revert(&patch, &changes), new);
    assert_eq!(apply(Map::new(), &creation(&old)), old);

    check_update(&old, &patch, &[]);
    check_update(&old, &patch, &edits);
    check_update(&old, &Map::new(), &edits);
}

/// The entry of an update holds all that it changes.
fn check_update(old: &Object, patch: &Object, edits: &[Edit]) {
    for kind in Kind::ALL {
        let key = DocumentKey::new(kind, "a");
        let record = Record::of(key.clone(), old.clone());
        let current = Current::read(key, Some(record), None::<&str>);
        match Change::update(&current, patch, edits, write_context()) {
            Ok(Update::Change(change, left)) => {
                let changes = &change.entry().changes;
                let next = change.next().expect("an update leaves a document");
                assert_eq!(
                    compact_json(&apply(old.clone(), changes)),
                    next.text(),
                    "the log does not have what is stored"
                );
                assert_eq!(
                    revert(next.document(), changes),
                    *old,
                    "the log does not have what was stored"
                );
                assert!(!changes.is_empty(), "a change without changes");
                assert!(
                    left.iter()
                        .all(|violation| is_visible(&violation.to_string()))
                );
                let read = Record::parse(change.key().clone(), next.text().to_owned())
                    .expect("what is stored can be read");
                assert_eq!(
                    read.document(),
                    next.document(),
                    "what is stored is read differently"
                );
            }
            Ok(Update::Missing) => panic!("there is a document"),
            Ok(Update::Unchanged(_)) => {}
            Err(violations) => {
                assert!(!violations.is_empty(), "rejected without a reason");
                assert!(
                    violations
                        .iter()
                        .all(|violation| is_visible(&violation.to_string()))
                );
            }
        }
    }
}

/// A cursor as a client sends it, or the JSON of a position in a list or in the log.
///
/// # Panics
/// When a cursor does not give its position back, or a list continues wrongly after it.
pub fn cursor(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (query, other) = (json!(["a"]), json!(["b"]));
    if let Err(violation) = cursors::decode_any(&text) {
        assert!(violation.path == "cursor" && is_visible(&violation.message));
    }
    assert!(
        cursors::decode::<Value>(&query, &text).is_err(),
        "a cursor of another query is accepted"
    );

    if let Ok(position) = serde_json::from_str::<(Option<i64>, String)>(&text) {
        let sent = cursors::encode(&query, &position);
        assert_eq!(
            cursors::decode::<(Option<i64>, String)>(&query, &sent).as_ref(),
            Ok(&position)
        );
        assert!(cursors::decode::<(Option<i64>, String)>(&other, &sent).is_err());
        check_page(position.0, position.1);
    }
    if let Ok(position) = serde_json::from_str::<(i64, String)>(&text) {
        let sent = cursors::encode(&query, &position);
        assert_eq!(
            cursors::decode::<(i64, String)>(&query, &sent),
            Ok(position)
        );
    }
}

/// After any position, a list gives everything that sorts behind it, in order, once.
fn check_page(updated: Option<i64>, id: String) {
    let entry = |id: &str, updated: &str| {
        let document = json!({ "metadata": { "updatedAt": updated } });
        IndexEntry::of(
            &DocumentKey::new(Kind::Project, id),
            document.as_object().expect("an object"),
        )
    };
    let entries = [
        entry("a", "2026-01-01T00:00:00Z"),
        entry("b", "2025-01-01T00:00:00Z"),
        entry("c", "?"),
        entry("", ""),
    ];
    let all = ListQuery {
        limit: 10,
        ..ListQuery::default()
    }
    .page(entries.clone())
    .positions;
    let after = ListPosition {
        updated: std::cmp::Reverse(updated.map(Timestamp::from_micros)),
        id,
    };
    let query = ListQuery {
        after: Some(after.clone()),
        limit: 10,
        ..ListQuery::default()
    };

    let page = query.page(entries);

    assert_eq!((page.total, page.next), (all.len(), None));
    assert_eq!(
        page.positions,
        all.into_iter()
            .filter(|position| *position > after)
            .collect::<Vec<_>>()
    );
    if let Some(instant) = after.updated.0 {
        let _ = (
            instant.to_string(),
            instant.millis_ceil(),
            instant.after(Some(instant)),
            AuditQuery {
                since: Some(instant),
                ..AuditQuery::default()
            },
        );
    }
}

/// A message, sent over both transports: as a line of standard input and as a body of `/messages`.
///
/// # Panics
/// When an answer is not JSON-RPC, or when one transport serves what the other rejects or does not
/// answer.
pub fn message(input: &[u8]) {
    static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| Mutex::new(Server::new()));
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);

    let over_stdio = server.stdio(input);
    for answer in &over_stdio {
        check_answer(answer);
    }
    let (status, refusal) = server.post(input);
    // Lines end, and may be empty; bodies may not.
    let line = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let comparable = !input.contains(&b'\n') && !line.trim_ascii().is_empty();
    match status {
        202 if comparable => {
            for _ in &over_stdio {
                check_answer(
                    &server
                        .answers
                        .recv_timeout(Duration::from_secs(20))
                        .expect("one transport answers and the other does not"),
                );
            }
        }
        // How many answers are due is not known, so they are left to the next session.
        202 => server.reopen(),
        400 => {
            let refusal = serde_json::from_str(&refusal).expect("a refusal is JSON");
            check_answer(&refusal);
            if comparable {
                assert_eq!(
                    over_stdio.len(),
                    1,
                    "one transport rejects and the other does not"
                );
                assert_eq!(
                    over_stdio[0]["error"]["code"], refusal["error"]["code"],
                    "{over_stdio:?} {refusal}"
                );
            }
        }
        other => panic!("/messages answers {other}"),
    }
    assert!(
        server.answers.try_recv().is_err(),
        "an answer that nothing asked for"
    );
}

/// An answer is JSON-RPC 2.0, a result or an error, and an error has no hidden characters.
fn check_answer(answer: &Value) {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    assert!(
        answer.get("id").is_some()
            && answer.get("result").is_some() != answer.get("error").is_some(),
        "{answer}"
    );
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().expect("an error says something");
        assert!(error["code"].is_i64() && is_visible(message), "{answer}");
        assert!(
            message.chars().count() < 1000,
            "an error repeats its input: {answer}"
        );
    }
}

/// A server of an empty store, and its clients.
struct Server {
    runtime: Runtime,
    handler: ContentServer,
    address: SocketAddr,
    connection: Option<Connection>,
    endpoint: String,
    answers: mpsc::Receiver<Value>,
    _folder: TempDir,
}

impl Server {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let runtime = Runtime::new().expect("a runtime");
        let (content, handler, listener) = runtime.block_on(async {
            let store = open(&Location::Sqlite(folder.path().join("content.db"))).expect("a store");
            let content = Arc::new(ContentService::new(store, clock));
            let handler = ContentServer::new(Arc::clone(&content), None, None);
            (
                content,
                handler,
                TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            )
        });
        let address = listener.local_addr().expect("an address");
        runtime.spawn(http::serve(
            listener,
            handler.clone(),
            http::SiteRoutes {
                content,
                metrics: None,
            },
            http::Settings::default(),
            CancellationToken::new(),
        ));
        let (endpoint, answers) = session(address);
        Self {
            runtime,
            handler,
            address,
            connection: Some(Connection::open(address)),
            endpoint,
            answers,
            _folder: folder,
        }
    }

    /// Opens a session in which no answers are due.
    fn reopen(&mut self) {
        (self.endpoint, self.answers) = session(self.address);
    }

    /// All answers to `input` as the whole of standard input.
    fn stdio(&self, input: &[u8]) -> Vec<Value> {
        let (output, mut answers) = tokio::io::duplex(1 << 20);
        let serving = stdio::serve_on(
            self.handler.clone(),
            std::io::Cursor::new(input.to_vec()),
            output,
            CancellationToken::new(),
        );
        let mut text = String::new();
        self.runtime.block_on(async {
            let serving = tokio::spawn(serving);
            answers
                .read_to_string(&mut text)
                .await
                .expect("answers are UTF-8");
            serving
                .await
                .expect("serving does not panic")
                .expect("serving does not fail");
        });
        text.lines()
            .map(|line| serde_json::from_str(line).expect("an answer is JSON in one line"))
            .collect()
    }

    /// Status and body of the response of `/messages`.
    fn post(&mut self, input: &[u8]) -> (u16, String) {
        let connection = self.connection.take().expect("a connection");
        let response = connection.send("POST", &self.endpoint, &with_json_headers(&[]), input);
        let status = response.status;
        let (body, connection) = response.into_parts();
        self.connection = Some(connection);
        (status, body)
    }
}

/// Opens a session and gives its endpoint and what comes on its stream.
fn session(address: SocketAddr) -> (String, mpsc::Receiver<Value>) {
    let session = SseSession::open(address);
    let endpoint = session.endpoint().to_owned();
    let mut events = session.into_events();
    let (sender, answers) = mpsc::channel();
    // Ends, and closes the stream, with the first answer after the receiver is dropped.
    thread::spawn(move || {
        while let Some(message) = events.next_message() {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    (endpoint, answers)
}

/// A folder to import. A line `--- NAME` starts each file; without one, everything is
/// `projects.json`.
///
/// # Panics
/// When the folder read differs from the files, or an error has no reason.
pub fn folder(input: &[u8]) {
    static DIRECTORY: LazyLock<Mutex<TempDir>> =
        LazyLock::new(|| Mutex::new(TempDir::new().expect("a temporary directory")));
    let directory = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner);
    let files = files(input);
    for name in NAMES {
        match files.iter().find(|(of, _)| *of == name) {
            Some((_, content)) => fs::write(directory.path().join(name), content).expect("a file"),
            None => drop(fs::remove_file(directory.path().join(name))),
        }
    }

    let folder = match Folder::read(directory.path()) {
        Ok(folder) => folder,
        Err(error) => {
            assert!(!error.0.is_empty(), "rejected without a reason");
            assert!(
                error
                    .0
                    .iter()
                    .all(|problem| is_visible(problem) && problem.chars().count() < 1000),
                "{error}"
            );
            return;
        }
    };
    let ids: HashSet<&DocumentKey> = folder.documents.iter().map(|(key, _)| key).collect();
    assert_eq!(
        ids.len(),
        folder.documents.len(),
        "two documents under one id"
    );
    for (key, document) in &folder.documents {
        assert!(is_slug(&key.id) && document.get("id") == Some(&json!(key.id)));
        let absent = Current::read(key.clone(), None, None::<&str>);
        let change = Change::put(&absent, document, write_context())
            .expect("what does not exist can be created");
        let next = change.next().expect("a creation leaves a document");
        assert_eq!(
            compact_json(&apply(Map::new(), &change.entry().changes)),
            next.text()
        );
        assert!(
            next.violations()
                .iter()
                .all(|violation| is_visible(&violation.to_string()))
        );
        let _ = (next.index_entry(), next.is_published(), next.is_featured());
    }
    for entry in &folder.entries {
        assert!(
            serde_json::from_str::<Object>(entry.text()).is_ok(),
            "an entry is an object"
        );
        assert!(entry.import_score(Timestamp::from_millis(1)) <= 1);
        let _ = (
            entry.identity(),
            entry.timestamp(),
            entry.seq(),
            entry.changes(),
            AuditQuery::default().matches(entry),
        );
    }

    // Written in the contract's form and read again, it is the same.
    check_again(directory.path(), &folder);
}

fn check_again(directory: &Path, folder: &Folder) {
    for kind in Kind::ALL {
        let documents: Vec<&Object> = folder
            .documents
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(_, document)| document)
            .collect();
        let text = serde_json::to_string_pretty(&documents).expect("JSON");
        fs::write(directory.join(format!("{}.json", kind.plural())), text).expect("a file");
    }
    let lines: Vec<&str> = folder.entries.iter().map(StoredEntry::text).collect();
    fs::write(directory.join("audit.jsonl"), lines.join("\n")).expect("a file");
    let _ = fs::remove_file(directory.join("audit.json"));

    let again = Folder::read(directory).expect("what was read can be read again");

    assert_eq!(again.documents, folder.documents);
    assert_eq!(again.entries, folder.entries);
}

const NAMES: [&str; 4] = [
    "projects.json",
    "resources.json",
    "audit.jsonl",
    "audit.json",
];

/// The files that an input stands for.
fn files(input: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let begun = NAMES.into_iter().find(|name| {
            line.strip_prefix(b"--- ")
                .is_some_and(|rest| rest.trim_ascii() == name.as_bytes())
        });
        match (begun, files.last_mut()) {
            (Some(name), _) => files.push((name, Vec::new())),
            (None, Some((_, content))) => content.extend_from_slice(line),
            (None, None) => files.push(("projects.json", line.to_vec())),
        }
    }
    files
}

/// Whether every member that `patch` does not name is in both with the same value, at any depth.
fn untouched(old: &Object, new: &Object, patch: &Object) -> bool {
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

fn is_visible(text: &str) -> bool {
    !text.contains(is_hidden)
}

fn compact_json(object: &Object) -> String {
    serde_json::to_string(object).expect("JSON")
}

fn write_context() -> WriteContext {
    let operation = Operation::once("key", json!({}));
    WriteContext {
        origin: Origin::new(Source::Mcp),
        operation,
        entry_id: "entry".to_owned(),
        now: Timestamp::from_millis(1),
    }
}

/// Members generated from bytes: with names that documents have, and names that paths cannot
/// express.
/// What the input of [`patch`] says.
fn document_and_change(input: &[u8]) -> (Object, Object, Vec<Edit>) {
    let whole = serde_json::from_slice::<(Value, Value, Vec<Edit>)>(input);
    if let Ok((Value::Object(old), Value::Object(patch), edits)) = whole {
        return (old, patch, edits);
    }
    if let Ok((Value::Object(old), Value::Object(patch))) = serde_json::from_slice(input) {
        return (old, patch, Vec::new());
    }
    let mut bytes = input.iter();
    let (old, patch) = (members(&mut bytes, 0), members(&mut bytes, 0));
    let edits = (0..next(&mut bytes) % 4).filter_map(|_| edit(&mut bytes));
    let edits = edits.collect();
    (old, patch, edits)
}

/// An edit of a field that may be there.
fn edit(bytes: &mut slice::Iter<'_, u8>) -> Option<Edit> {
    const PATHS: [&str; 8] = [
        "title",
        "tags",
        "tags[0]",
        "client.size",
        "metadata.status",
        "image",
        "a",
        "",
    ];
    const OPS: [&str; 6] = ["append", "prepend", "insert", "remove", "replace", "find"];
    let mut edit = json!({
        "path": PATHS[usize::from(next(bytes) % 8)],
        "op": OPS[usize::from(next(bytes) % 6)],
        "value": tree(bytes, 4),
    });
    if next(bytes).is_multiple_of(2) {
        edit["with"] = tree(bytes, 4);
    }
    if next(bytes).is_multiple_of(2) {
        edit["at"] = json!(next(bytes) % 4);
    }
    serde_json::from_value(edit).ok()
}

fn members(bytes: &mut slice::Iter<'_, u8>, depth: u8) -> Object {
    const NAMES: [&str; 16] = [
        "a",
        "b",
        "title",
        "tags",
        "metadata",
        "status",
        "updatedAt",
        "createdAt",
        "published",
        "client",
        "size",
        "id",
        "",
        ".",
        "a.b",
        "\u{1b}",
    ];
    let count = next(bytes) % 5;
    (0..count)
        .map(|_| {
            (
                NAMES[usize::from(next(bytes) % 16)].to_owned(),
                tree(bytes, depth + 1),
            )
        })
        .collect()
}

fn tree(bytes: &mut slice::Iter<'_, u8>, depth: u8) -> Value {
    const TEXTS: [&str; 6] = [
        "",
        "a",
        "2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999Z",
        "published",
        "\u{202e}",
    ];
    match next(bytes) % 10 {
        0 => Value::Null,
        1 => json!(next(bytes).is_multiple_of(2)),
        2 => json!(next(bytes)),
        3 => json!(f64::from_bits(u64::from_le_bytes([
            next(bytes),
            0,
            0,
            0,
            0,
            0,
            next(bytes),
            next(bytes)
        ]))),
        4 | 5 => json!(TEXTS[usize::from(next(bytes) % 6)]),
        6 if depth < 6 => (0..next(bytes) % 4)
            .map(|_| tree(bytes, depth + 1))
            .collect(),
        _ if depth < 6 => Value::Object(members(bytes, depth)),
        _ => json!({}),
    }
}

/// The next byte, or zero after the last.
fn next(bytes: &mut slice::Iter<'_, u8>) -> u8 {
    bytes.next().copied().unwrap_or_default()
}
