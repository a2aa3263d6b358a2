//! A faulty line: a TCP proxy in this process that cuts connections at the worst moment.
//!
//! It never holds bytes back to pass them on later, which a real line cannot do either: what it swallows ends with the
//! connection.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use portfolio_mcp::store::RedisUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use super::redis_server::{PASSWORD, free_port};

/// What the line does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything.
    Pass,
    /// Passes the next commit to the server, waits for its answer, and cuts the line instead of passing the answer on.
    /// Then passes everything again.
    CutReply,
    /// Cuts the line instead of passing the next commit to the server. Then passes everything again.
    CutRequest,
    /// Cuts the line instead of passing the next request, of whatever kind. Then passes everything again.
    CutAnyRequest,
    /// Passes the next request, of whatever kind, and cuts the line instead of passing its answer on. Then passes everything again.
    CutAnyReply,
    /// Passes half of what the server answers next and cuts the line. Then passes everything again.
    CutMidReply,
    /// Takes some time for everything that passes, in each direction.
    Slow,
    /// Passes what the server answers byte by byte.
    Trickle,
    /// Passes what the server answers at a megabyte a second.
    Narrow,
    /// Takes connections and bytes and passes nothing on. A connection that met this stays silent for ever, as behind a router that
    /// forgot it.
    Swallow,
    /// Passes everything, but the server seems to be an older one, whose scripts cannot ask what their user may do.
    Older,
    /// Has cut every connection, and takes no new one.
    Refuse,
}

/// How long everything takes on a slow line, in each direction.
const SLOW: Duration = Duration::from_millis(150);
/// How long each byte takes when they trickle: a document of some thousand takes longer than anybody waits.
const TRICKLE: Duration = Duration::from_millis(5);

/// A line to a server on this machine.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    target: u16,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
    /// Ends every connection when its value changes.
    cut_all: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    mode: Mutex<Mode>,
    cuts: AtomicUsize,
    aged: AtomicUsize,
}

impl State {
    /// Whether the mode is `mode`, which is then over.
    fn take(&self, mode: Mode) -> bool {
        let mut current = self.mode.lock().unwrap();
        let taken = *current == mode;
        if taken {
            *current = Mode::Pass;
        }
        taken
    }

    fn is(&self, mode: Mode) -> bool {
        *self.mode.lock().unwrap() == mode
    }
}

impl Proxy {
    /// A line to `target`, a port of this machine. It lives as long as the test's runtime.
    pub(crate) async fn start(target: u16) -> Self {
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Pass),
            cuts: AtomicUsize::new(0),
            aged: AtomicUsize::new(0),
        });
        let mut proxy = Self {
            port: free_port(),
            target,
            state,
            listening: None,
            cut_all: watch::Sender::new(0),
        };
        while !proxy.listen().await {
            proxy.port = free_port();
        }
        proxy
    }

    /// The address of the server through this line.
    pub(crate) fn redis_url(&self) -> RedisUrl {
        RedisUrl::parse(&self.url()).unwrap()
    }

    /// The same as an argument of the program.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same for a user that [`RedisServer::user`](super::redis_server::RedisServer::user) made.
    pub(crate) fn redis_url_of(&self, user: &str) -> RedisUrl {
        RedisUrl::parse(&format!(
            "redis://{user}:{PASSWORD}@127.0.0.1:{}",
            self.port
        ))
        .unwrap()
    }

    /// What the line does from now on.
    pub(crate) async fn set(&mut self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
        if mode == Mode::Refuse {
            if let Some(listening) = self.listening.take() {
                listening.abort();
                let _ = listening.await;
            }
            self.cut_all.send_modify(|times| *times += 1);
        } else if self.listening.is_none() {
            assert!(
                self.listen().await,
                "the line's port {} was taken while it was down",
                self.port
            );
        }
    }

    /// How many connections were cut at a commit.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// How many scripts were told that the server is an older one.
    pub(crate) fn aged(&self) -> usize {
        self.state.aged.load(Ordering::SeqCst)
    }

    async fn listen(&mut self) -> bool {
        let Ok(listener) = TcpListener::bind(("127.0.0.1", self.port)).await else {
            return false;
        };
        let (target, state, cut_all) = (
            self.target,
            Arc::clone(&self.state),
            self.cut_all.subscribe(),
        );
        self.listening = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A server that is down refuses; the client then sees its connection end.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let mut cut = cut_all.clone();
                cut.mark_unchanged();
                tokio::spawn(pass(client, server, Arc::clone(&state), cut));
            }
        }));
        true
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// One connection: it ends as soon as one of its directions does, because both halves are dropped then.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    state: Arc<State>,
    mut cut: watch::Receiver<u64>,
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let commit_sent = AtomicBool::new(false);
    tokio::select! {
        () = requests(from_client, to_server, &state, &commit_sent) => {}
        () = replies(from_server, to_client, &state, &commit_sent) => {}
        _ = cut.changed() => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    commit_sent: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..count];
        if state.is(Mode::Swallow) {
            return swallow(from).await;
        }
        if state.take(Mode::CutAnyRequest) {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if is_commit(bytes) {
            if state.take(Mode::CutRequest) {
                state.cuts.fetch_add(1, Ordering::SeqCst);
                return;
            }
            commit_sent.store(state.is(Mode::CutReply), Ordering::SeqCst);
            if state.is(Mode::Older) {
                state.aged.fetch_add(age(bytes), Ordering::SeqCst);
            }
        }
        if state.is(Mode::Slow) {
            sleep(SLOW).await;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Reads on, so that the other side believes in its connection.
async fn swallow(mut from: OwnedReadHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    commit_sent: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        // A server that does not know the script yet has not run it: the client sends it whole then.
        let ran = commit_sent.load(Ordering::SeqCst) && !bytes.starts_with(b"-NOSCRIPT");
        if ran && state.take(Mode::CutReply) || state.take(Mode::CutAnyReply) {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if state.take(Mode::CutMidReply) {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            let _ = to.write_all(&bytes[..count / 2]).await;
            return;
        }
        if state.is(Mode::Slow) {
            sleep(SLOW).await;
        }
        if state.is(Mode::Narrow) {
            sleep(Duration::from_micros(count as u64)).await;
        }
        for piece in bytes.chunks(if state.is(Mode::Trickle) { 1 } else { count }) {
            if state.is(Mode::Trickle) {
                sleep(TRICKLE).await;
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
        }
    }
}

/// Whether a request begins in `bytes` that runs a script, which is how a commit is sent.
fn is_commit(bytes: &[u8]) -> bool {
    [b"\r\nEVAL\r\n".as_slice(), b"\r\nEVALSHA\r\n"]
        .iter()
        .any(|name| bytes.windows(name.len()).any(|window| window == *name))
}

/// Makes the scripts in `bytes` ask for a function that no server has instead of one that older servers lack; says how many do.
fn age(bytes: &mut [u8]) -> usize {
    const NAME: &[u8] = b"if redis.acl_check_cmd then";
    let mut found = 0;
    for at in 0..bytes.len().saturating_sub(NAME.len()) {
        if bytes[at..].starts_with(NAME) {
            bytes[at..at + NAME.len()].copy_from_slice(b"if redis.acl_check_old then");
            found += 1;
        }
    }
    found
}
