//! A TCP proxy in this process that cuts and delays connections at the worst moment.
//!
//! It never passes on bytes that it has swallowed: they are lost with the connection.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering},
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
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::redis::{PASSWORD, free_port};

/// What the proxy does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything.
    Pass,
    /// Passes the next commit to the server and cuts the connection instead of passing on the
    /// reply. Then passes everything.
    CutReply,
    /// Cuts the connection instead of passing on the next commit. Then passes everything.
    CutRequest,
    /// Cuts the connection instead of passing on the next request of any kind. Then passes
    /// everything.
    CutAnyRequest,
    /// Cuts the connection instead of passing on the next reply of any kind. Then passes
    /// everything.
    CutAnyReply,
    /// Passes half of the next reply and cuts the connection. Then passes everything.
    CutMidReply,
    /// Delays everything, in both directions.
    Slow,
    /// Passes replies byte by byte.
    Trickle,
    /// Passes replies at one megabyte a second.
    Narrow,
    /// Accepts connections and bytes and passes nothing on. Such a connection stays silent for
    /// ever, as after a router restarted.
    Swallow,
    /// Passes everything, but makes the server look like an older one, whose scripts cannot check
    /// permissions.
    Older,
    /// Cuts every connection and accepts no new one.
    Refuse,
}

/// A line across the internet, shared by all connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowNetwork {
    /// In each direction.
    pub(crate) bytes_per_second: u32,
    /// From a request to the first byte of its reply, beside what the line takes for the bytes.
    pub(crate) round_trip: Duration,
}

/// What passed the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Requests of the clients, each command of a pipeline counted.
    pub(crate) commands: u64,
    /// In both directions.
    pub(crate) bytes: u64,
}

/// The delay of [`Mode::Slow`] in each direction.
const SLOW_DELAY: Duration = Duration::from_millis(150);
/// The delay of each byte with [`Mode::Trickle`]: a document of a few thousand bytes takes longer
/// than any deadline.
const TRICKLE_DELAY: Duration = Duration::from_millis(5);

/// A proxy to a server on this machine.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
    /// Ends every connection when its value changes.
    cut_all: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    target: AtomicU16,
    mode: Mutex<Mode>,
    cuts: AtomicUsize,
    changed_scripts: AtomicUsize,
    line: Option<SlowNetwork>,
    /// When each direction of the line has passed what it was given: requests, replies.
    free_at: [Mutex<Instant>; 2],
    commands: AtomicU64,
    bytes: AtomicU64,
}

impl State {
    fn new(target: u16, line: Option<SlowNetwork>) -> Self {
        Self {
            target: AtomicU16::new(target),
            mode: Mutex::new(Mode::Pass),
            cuts: AtomicUsize::new(0),
            changed_scripts: AtomicUsize::new(0),
            line,
            free_at: [Instant::now(), Instant::now()].map(Mutex::new),
            commands: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// When the line has passed `count` more bytes in a direction.
    fn passed(&self, line: SlowNetwork, direction: usize, count: usize) -> Instant {
        let mut free_at = self.free_at[direction].lock().unwrap();
        let time = Duration::from_secs(count as u64) / line.bytes_per_second;
        *free_at = (*free_at).max(Instant::now()) + time;
        *free_at
    }

    /// Counts what passes; `requests` counts the requests, for the direction that has them.
    fn count(&self, bytes: &[u8], requests: Option<&mut RequestCounter>) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        if let Some(counter) = requests {
            let commands = counter.count(bytes);
            self.commands.fetch_add(commands, Ordering::SeqCst);
        }
    }

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
    /// A proxy to the port `target` of this machine. It lives as long as the test's runtime.
    pub(crate) async fn start(target: u16) -> Self {
        Self::start_with(State::new(target, None)).await
    }

    /// A proxy to the port `target` of this machine, over a slow line. Its mode stays
    /// [`Mode::Pass`].
    pub(crate) async fn start_slow(target: u16, line: SlowNetwork) -> Self {
        Self::start_with(State::new(target, Some(line))).await
    }

    async fn start_with(state: State) -> Self {
        let mut proxy = Self {
            port: free_port(),
            state: Arc::new(state),
            listening: None,
            cut_all: watch::Sender::new(0),
        };
        while !proxy.listen().await {
            proxy.port = free_port();
        }
        proxy
    }

    /// The address of the server through this proxy.
    pub(crate) fn redis_url(&self) -> RedisUrl {
        RedisUrl::parse(&self.url()).unwrap()
    }

    /// The same as a program argument.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same for a user that [`RedisServer::user`](super::redis::RedisServer::user) made.
    pub(crate) fn redis_url_of(&self, user: &str) -> RedisUrl {
        RedisUrl::parse(&format!(
            "redis://{user}:{PASSWORD}@127.0.0.1:{}",
            self.port
        ))
        .unwrap()
    }

    /// Sets what the proxy does from now on.
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
                "the proxy's port {} was taken while it was down",
                self.port
            );
        }
    }

    /// Lets another server take over, at the port `target` of this machine.
    pub(crate) fn fail_over(&self, target: u16) {
        self.state.target.store(target, Ordering::SeqCst);
        self.cut_all.send_modify(|times| *times += 1);
    }

    /// How many connections were cut at a commit.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// How many scripts were changed by [`Mode::Older`].
    pub(crate) fn changed_scripts(&self) -> usize {
        self.state.changed_scripts.load(Ordering::SeqCst)
    }

    /// What passed so far.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            commands: self.state.commands.load(Ordering::SeqCst),
            bytes: self.state.bytes.load(Ordering::SeqCst),
        }
    }

    /// What passed so far, when nothing more does for longer than a server delays what follows a call.
    pub(crate) fn traffic_at_rest(&self) -> Traffic {
        const POLL_INTERVAL: Duration = Duration::from_millis(100);
        const POLLS: usize = 35;
        let (mut traffic, mut still) = (self.traffic(), 0);
        while still < POLLS {
            std::thread::sleep(POLL_INTERVAL);
            let now = self.traffic();
            still = if now == traffic { still + 1 } else { 0 };
            traffic = now;
        }
        traffic
    }

    async fn listen(&mut self) -> bool {
        let Ok(listener) = TcpListener::bind(("127.0.0.1", self.port)).await else {
            return false;
        };
        let (state, cut_all) = (Arc::clone(&self.state), self.cut_all.subscribe());
        self.listening = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = state.target.load(Ordering::SeqCst);
                // While the server is down, the client sees its connection end.
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let mut cuts_seen = cut_all.clone();
                cuts_seen.mark_unchanged();
                tokio::spawn(pass(client, server, Arc::clone(&state), cuts_seen));
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

/// Passes one connection, until one of its directions ends.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    state: Arc<State>,
    mut cuts_seen: watch::Receiver<u64>,
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let commit_sent = AtomicBool::new(false);
    if let Some(line) = state.line {
        return tokio::select! {
            () = slowly(from_client, to_server, &state, line, 0) => {}
            () = slowly(from_server, to_client, &state, line, 1) => {}
            _ = cuts_seen.changed() => {}
        };
    }
    tokio::select! {
        () = requests(from_client, to_server, &state, &commit_sent) => {}
        () = replies(from_server, to_client, &state, &commit_sent) => {}
        _ = cuts_seen.changed() => {}
    }
}

/// Passes one direction at the pace of the line; what is under way does not hold up what follows.
async fn slowly(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    line: SlowNetwork,
    direction: usize,
) {
    const PIECE_BYTES: usize = 4096;
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let send = async {
        let mut counter = RequestCounter::default();
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..count];
            state.count(bytes, (direction == 0).then_some(&mut counter));
            let passed = state.passed(line, direction, count);
            sleep_until(passed).await;
            let _ = sender.send((passed + line.round_trip / 2, bytes.to_vec()));
        }
    };
    let deliver = async {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = send => {}, () = deliver => {} }
}

/// Counts the requests in a stream of them.
#[derive(Debug, Default)]
struct RequestCounter {
    /// The end of a line that has not ended yet.
    line: Vec<u8>,
    /// How many bytes of a text follow, its line break included.
    text: usize,
}

impl RequestCounter {
    /// How many requests begin in `bytes`, which follow those of the last call.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.text > 0 {
                let passed = self.text.min(bytes.len());
                self.text -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            bytes = rest;
            self.line.push(first);
            if first == b'\n' {
                let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
                self.line.clear();
                begun += u64::from(line.starts_with('*'));
                if let Some(length) = line.strip_prefix('$') {
                    self.text = length.parse::<usize>().unwrap() + 2;
                }
            }
        }
        begun
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    commit_sent: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut counter = RequestCounter::default();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..count];
        state.count(bytes, Some(&mut counter));
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
                state
                    .changed_scripts
                    .fetch_add(make_older(bytes), Ordering::SeqCst);
            }
        }
        if state.is(Mode::Slow) {
            sleep(SLOW_DELAY).await;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Reads on, so that the other side takes its connection for a working one.
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
        state.count(bytes, None);
        // After NOSCRIPT the commit was not run; the client sends the script next.
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
            sleep(SLOW_DELAY).await;
        }
        if state.is(Mode::Narrow) {
            sleep(Duration::from_micros(count as u64)).await;
        }
        for piece in bytes.chunks(if state.is(Mode::Trickle) { 1 } else { count }) {
            if state.is(Mode::Trickle) {
                sleep(TRICKLE_DELAY).await;
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
        }
    }
}

/// Whether `bytes` has the beginning of a request that runs a script, as commits do.
fn is_commit(bytes: &[u8]) -> bool {
    [b"\r\nEVAL\r\n".as_slice(), b"\r\nEVALSHA\r\n"]
        .iter()
        .any(|name| bytes.windows(name.len()).any(|window| window == *name))
}

/// Replaces the function that older servers lack with one that no server has; gives the number of
/// scripts changed.
fn make_older(bytes: &mut [u8]) -> usize {
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
