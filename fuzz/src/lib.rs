//! What must hold for any input, written once: the fuzz targets try it on what the fuzzer makes, `tests/it/seeds.rs` on the seeds.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    slice,
    sync::{Arc, LazyLock, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use portfolio_mcp::{
    clock,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Kind, ListQuery, Operation, Origin, Record,
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

type Object = Map<String, Value>;

/// A document and a patch: the JSON text `[document, patch]`, or any bytes, which stand for some.
///
/// # Panics
/// When the merge touches what the patch does not name, or the changes do not lead there and back.
pub fn patch(input: &[u8]) {
    let (old, patch) =
        if let Ok((Value::Object(old), Value::Object(patch))) = serde_json::from_slice(input) {
            (old, patch)
        } else {
            let mut bytes = input.iter();
            (members(&mut bytes, 0), members(&mut bytes, 0))
        };

    let new = merge(&old, &patch);
    assert!(
        untouched(&old, &new, &patch),
        "the merge touches what the patch does not name"
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

    for kind in Kind::ALL {
        let key = DocumentKey::new(kind, "a");
        let record = Record::of(key.clone(), old.clone());
        let current = Current::read(key, Some(record), None::<&str>);
        match Change::update(&current, &patch, write_context()) {
            Ok(Update::Change(change, left)) => {
                let changes = &change.entry().changes;
                assert_eq!(
                    compact_json(&apply(old.clone(), changes)),
                    change.text(),
                    "the log does not tell what is stored"
                );
                assert_eq!(
                    revert(change.next().document(), changes),
                    old,
                    "the log does not tell what was stored"
                );
                assert!(!changes.is_empty(), "a change without changes");
                assert!(
                    left.iter()
                        .all(|violation| shows_all(&violation.to_string()))
                );
                let read = Record::parse(change.key().clone(), change.text().to_owned())
                    .expect("what is stored can be read");
                assert_eq!(
                    read.document(),
                    change.next().document(),
                    "what is stored reads otherwise"
                );
            }
            Ok(Update::Missing) => panic!("there is a document"),
            Ok(Update::Unchanged) => {}
            Err(violations) => {
                assert!(!violations.is_empty(), "refused for no reason");
                assert!(
                    violations
                        .iter()
                        .all(|violation| shows_all(&violation.to_string()))
                );
            }
        }
    }
}

/// A cursor as a client sends it, or the JSON of a place in a list or in the log.
///
/// # Panics
/// When a place does not come back from its cursor, or a list goes wrong after it.
pub fn cursor(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (query, other) = (json!(["a"]), json!(["b"]));
    if let Err(violation) = cursors::decode_any(&text) {
        assert!(violation.path == "cursor" && shows_all(&violation.message));
    }
    assert!(
        cursors::decode::<Value>(&query, &text).is_err(),
        "nobody guesses a query's fingerprint"
    );

    if let Ok(place) = serde_json::from_str::<(Option<i64>, String)>(&text) {
        let sent = cursors::encode(&query, &place);
        assert_eq!(
            cursors::decode::<(Option<i64>, String)>(&query, &sent).as_ref(),
            Ok(&place)
        );
        assert!(cursors::decode::<(Option<i64>, String)>(&other, &sent).is_err());
        check_page(place.0, place.1);
    }
    if let Ok(place) = serde_json::from_str::<(i64, String)>(&text) {
        let sent = cursors::encode(&query, &place);
        assert_eq!(cursors::decode::<(i64, String)>(&query, &sent), Ok(place));
    }
}

/// After any place, a list gives what sorts behind it, in order, each once.
fn check_page(updated: Option<i64>, id: String) {
    let listing = |id: &str, updated: &str| {
        let document = json!({ "metadata": { "updatedAt": updated } });
        IndexEntry::of(
            &DocumentKey::new(Kind::Project, id),
            document.as_object().expect("an object"),
        )
    };
    let entries = [
        listing("a", "2026-01-01T00:00:00Z"),
        listing("b", "2025-01-01T00:00:00Z"),
        listing("c", "?"),
        listing("", ""),
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

/// A message, given to both entrances: as a line of standard input, and as a body of `/messages`.
///
/// # Panics
/// When an answer is no JSON-RPC, or when one entrance serves what the other refuses or leaves unanswered.
pub fn message(input: &[u8]) {
    static ENTRANCES: LazyLock<Mutex<Entrances>> = LazyLock::new(|| Mutex::new(Entrances::new()));
    let mut entrances = ENTRANCES.lock().unwrap_or_else(PoisonError::into_inner);

    let over_stdio = entrances.stdio(input);
    for answer in &over_stdio {
        check_answer(answer);
    }
    let (status, refusal) = entrances.post(input);
    // Lines have ends, may have a mark at their beginning and may be empty; bodies may not.
    let line = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let comparable = !input.contains(&b'\n')
        && line.len() == input.len()
        && line.trim_ascii() == line
        && !line.is_empty();
    match status {
        202 if comparable => {
            for _ in &over_stdio {
                check_answer(
                    &entrances
                        .answers
                        .recv_timeout(Duration::from_secs(20))
                        .expect("one entrance answers and the other does not"),
                );
            }
        }
        // How many answers are due is not known, so they are left to the next session.
        202 => entrances.reopen(),
        400 => {
            let refusal = serde_json::from_slice(&refusal).expect("a refusal is JSON");
            check_answer(&refusal);
            if comparable {
                assert_eq!(
                    over_stdio.len(),
                    1,
                    "one entrance refuses and the other does not"
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
        entrances.answers.try_recv().is_err(),
        "an answer that nothing asked for"
    );
}

/// JSON-RPC 2.0: a result or an error, and the error's words show all they do.
fn check_answer(answer: &Value) {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    assert!(
        answer.get("id").is_some()
            && answer.get("result").is_some() != answer.get("error").is_some(),
        "{answer}"
    );
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().expect("an error says something");
        assert!(error["code"].is_i64() && shows_all(message), "{answer}");
        assert!(
            message.chars().count() < 1000,
            "an error repeats what it was given: {answer}"
        );
    }
}

/// A server of an empty store, and the ways into it.
struct Entrances {
    runtime: Runtime,
    server: ContentServer,
    address: SocketAddr,
    connection: BufReader<TcpStream>,
    endpoint: String,
    answers: mpsc::Receiver<Value>,
    _folder: TempDir,
}

impl Entrances {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let runtime = Runtime::new().expect("a runtime");
        let (content, server, listener) = runtime.block_on(async {
            let store = open(&Location::Sqlite(folder.path().join("content.db"))).expect("a store");
            let content = Arc::new(ContentService::new(store, clock));
            let server = ContentServer::new(Arc::clone(&content), None, None);
            (
                content,
                server,
                TcpListener::bind("127.0.0.1:0").await.expect("a port"),
            )
        });
        let address = listener.local_addr().expect("an address");
        runtime.spawn(http::serve(
            listener,
            server.clone(),
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
            server,
            address,
            connection: connect(address),
            endpoint,
            answers,
            _folder: folder,
        }
    }

    /// A session in which nothing is due.
    fn reopen(&mut self) {
        (self.endpoint, self.answers) = session(self.address);
    }

    /// All that is answered to `input` as the whole of standard input.
    fn stdio(&self, input: &[u8]) -> Vec<Value> {
        let (output, mut answers) = tokio::io::duplex(1 << 20);
        let serving = stdio::serve_on(
            self.server.clone(),
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

    /// Status and body of what `/messages` answers at once.
    fn post(&mut self, input: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.endpoint,
            input.len()
        );
        let request = [head.as_bytes(), input].concat();
        self.connection
            .get_mut()
            .write_all(&request)
            .expect("the connection stays");
        let (status, length) = response_head(&mut self.connection);
        let mut body = vec![0; length];
        self.connection
            .read_exact(&mut body)
            .expect("a body of its length");
        (status, body)
    }
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    BufReader::new(stream)
}

/// Reads a response up to its body; gives the status and the announced length.
fn response_head(connection: &mut impl BufRead) -> (u16, usize) {
    let mut line = String::new();
    connection.read_line(&mut line).expect("a status line");
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).expect("a header");
        match line.trim_end().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().expect("a length"),
            Some(_) => {}
            None => return (status, length),
        }
    }
}

/// Opens a session and gives where to post to, and what comes on its stream.
fn session(address: SocketAddr) -> (String, mpsc::Receiver<Value>) {
    let mut stream = connect(address);
    stream
        .get_mut()
        .write_all(b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("the server reads");
    assert_eq!(response_head(&mut stream).0, 200);
    // The sizes of chunks are lines too, and begin with no name of a field.
    let mut fields = stream
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("data: ").map(ToOwned::to_owned));
    let endpoint = fields.next().expect("an endpoint");
    let (sender, answers) = mpsc::channel();
    // Ends, and closes the stream, with the first answer that nobody waits for.
    thread::spawn(move || {
        fields.try_for_each(|data| {
            sender
                .send(serde_json::from_str(&data).expect("data is JSON"))
                .map_err(drop)
        })
    });
    (endpoint, answers)
}

/// A folder to import. A line `--- NAME` begins each file; without one it is all `projects.json`.
///
/// # Panics
/// When what is read is not what the files say, or a refusal has no reason.
pub fn folder(input: &[u8]) {
    static PLACE: LazyLock<Mutex<TempDir>> =
        LazyLock::new(|| Mutex::new(TempDir::new().expect("a temporary directory")));
    let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = files(input);
    for name in NAMES {
        match files.iter().find(|(of, _)| *of == name) {
            Some((_, content)) => fs::write(place.path().join(name), content).expect("a file"),
            None => drop(fs::remove_file(place.path().join(name))),
        }
    }

    let folder = match Folder::read(place.path()) {
        Ok(folder) => folder,
        Err(error) => {
            assert!(!error.0.is_empty(), "refused for no reason");
            assert!(
                error
                    .0
                    .iter()
                    .all(|problem| shows_all(problem) && problem.chars().count() < 1000),
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
        assert_eq!(
            compact_json(&apply(Map::new(), &change.entry().changes)),
            change.text()
        );
        assert!(
            change
                .next()
                .violations()
                .iter()
                .all(|violation| shows_all(&violation.to_string()))
        );
        let _ = (
            change.next().index_entry(),
            change.next().is_published(),
            change.next().is_featured(),
        );
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

    // Written as the contract says and read again, it is the same.
    check_again(place.path(), &folder);
}

fn check_again(place: &Path, folder: &Folder) {
    for kind in Kind::ALL {
        let documents: Vec<&Object> = folder
            .documents
            .iter()
            .filter(|(key, _)| key.kind == kind)
            .map(|(_, document)| document)
            .collect();
        let text = serde_json::to_string_pretty(&documents).expect("JSON");
        fs::write(place.join(format!("{}.json", kind.plural())), text).expect("a file");
    }
    let lines: Vec<&str> = folder.entries.iter().map(StoredEntry::text).collect();
    fs::write(place.join("audit.jsonl"), lines.join("\n")).expect("a file");
    let _ = fs::remove_file(place.join("audit.json"));

    let again = Folder::read(place).expect("what was read can be read again");

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

/// Whether every member that `patch` does not name is in both, with the same value and at any depth.
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

fn shows_all(text: &str) -> bool {
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

/// The members that some bytes stand for; names that documents have, and names that paths cannot say.
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

/// The next byte; nothing but zeros after the last.
fn next(bytes: &mut slice::Iter<'_, u8>) -> u8 {
    bytes.next().copied().unwrap_or_default()
}
