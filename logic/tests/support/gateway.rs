//! A gateway that holds no clients: a real h2 server that keeps interest and batches as the records say, and can be slow,
//! silent, killed or restarted. Invariant: like the real one it applies a (logic, sequence) once.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use prost::Message;
use tidegate_protocol::records::*;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

/// What a test looks at and sets.
pub struct State {
    pub epoch: u64,
    pub id: u32,
    pub id_epoch: u32,
    /// Rooms and their members; users and their connections.
    pub rooms: BTreeMap<String, u64>,
    pub users: BTreeMap<String, u64>,
    pub connections: Vec<ConnectionInfo>,
    /// Deltas since the start; the cursor is how many.
    log: Vec<Interest>,
    /// What the log began after: an older cursor gets a snapshot.
    forgotten: usize,
    /// Names in a page of a snapshot.
    pub page: usize,
    /// The cursor of the last events request: what logic has acknowledged.
    pub acked: u64,
    /// Batches as they came, repeats included.
    pub received: Vec<PushBatch>,
    /// Pushes applied, each once.
    pub applied: Vec<Push>,
    replies: HashMap<(u64, u64), PushReply>,
    pub queries: Vec<QueryRequest>,
    pub commands: Vec<CommandRequest>,
    /// Answers pushes with this status instead.
    pub push_status: Option<StatusCode>,
    pub secret: Option<String>,
    pub outcome: Outcome,
    /// Waits that are open now.
    pub waits: usize,
    /// For how long each wait was to last.
    pub waits_ms: Vec<u32>,
    /// Applies the next batch, then closes the connection instead of replying.
    pub lose_next_reply: bool,
    /// It leaves, by its own word.
    pub is_draining: bool,
    /// It lets nobody in any more.
    pub is_closed: bool,
    /// As an older release: receipts name nobody.
    pub names_nobody: bool,
}

/// The gateway.
pub struct FakeGateway {
    pub addr: SocketAddr,
    pub state: Arc<Mutex<State>>,
    /// Push requests take one permit each before they are answered.
    pub gate: Arc<Semaphore>,
    changed: watch::Sender<u64>,
    /// While true nothing is read or written, as after SIGSTOP.
    frozen: watch::Sender<bool>,
    server: Mutex<Option<AbortHandle>>,
}

const OPEN: usize = 1 << 20;
/// As the real one's.
const STREAMS_MAX: u32 = 256;

impl FakeGateway {
    /// A gateway on a free port; `id` is the gateway part of its connection ids.
    pub async fn start(id: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let state = State {
            epoch: 1_000 + u64::from(id),
            id,
            id_epoch: 7,
            rooms: BTreeMap::new(),
            users: BTreeMap::new(),
            connections: Vec::new(),
            log: Vec::new(),
            forgotten: 0,
            page: 1_000,
            acked: 0,
            received: Vec::new(),
            applied: Vec::new(),
            replies: HashMap::new(),
            queries: Vec::new(),
            commands: Vec::new(),
            push_status: None,
            secret: None,
            outcome: Outcome { is_done: true, ..Outcome::default() },
            waits: 0,
            waits_ms: Vec::new(),
            lose_next_reply: false,
            is_draining: false,
            is_closed: false,
            names_nobody: false,
        };
        let gateway = Self {
            addr,
            state: Arc::new(Mutex::new(state)),
            gate: Arc::new(Semaphore::new(OPEN)),
            changed: watch::channel(0).0,
            frozen: watch::channel(false).0,
            server: Mutex::new(None),
        };
        gateway.serve(listener);
        gateway
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn name(&self) -> String {
        self.addr.to_string()
    }

    /// A member joins a room; returns the cursor that acknowledges it.
    pub fn join(&self, room: &str) -> u64 {
        self.note(InterestKind::Room, room, true)
    }

    pub fn leave(&self, room: &str) -> u64 {
        self.note(InterestKind::Room, room, false)
    }

    pub fn connect_user(&self, user: &str) -> u64 {
        self.note(InterestKind::User, user, true)
    }

    /// Something else has changed: whoever waits for news looks again.
    pub fn tell(&self) {
        self.note(InterestKind::Room, "news", true);
    }

    fn note(&self, kind: InterestKind, name: &str, is_present: bool) -> u64 {
        let cursor = {
            let mut state = self.state.lock();
            let names = if kind == InterestKind::Room { &mut state.rooms } else { &mut state.users };
            if is_present {
                *names.entry(name.into()).or_default() += 1;
            } else {
                names.remove(name);
            }
            state.log.push(Interest { kind: kind.into(), name: name.into(), is_present });
            1 + state.log.len() as u64
        };
        self.changed.send_modify(|n| *n += 1);
        cursor
    }

    /// Waits until logic has acknowledged a cursor.
    pub async fn acked(&self, cursor: u64) {
        super::until(|| async { self.state.lock().acked >= cursor }).await;
    }

    /// Holds back answers to pushes, until [`FakeGateway::open_gate`].
    pub fn close_gate(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub fn open_gate(&self) {
        self.gate.add_permits(OPEN);
    }

    /// SIGSTOP and SIGCONT: sockets stay open, nobody answers.
    pub fn freeze(&self, is_frozen: bool) {
        self.frozen.send_replace(is_frozen);
    }

    /// kill -9: the listener and every connection close.
    pub fn kill(&self) {
        self.server.lock().take().expect("running").abort();
    }

    /// A new process on the same port: new epoch, nothing remembered.
    pub async fn restart(&self) {
        {
            let mut state = self.state.lock();
            state.epoch += 1_000;
            state.id_epoch += 1;
            state.rooms.clear();
            state.users.clear();
            state.log.clear();
            state.replies.clear();
        }
        self.listen_again().await;
    }

    /// Every connection breaks; the process lives on.
    pub async fn break_connections(&self) {
        self.kill();
        self.listen_again().await;
    }

    async fn listen_again(&self) {
        self.serve(self.port().await);
    }

    /// The port of one that was killed, as soon as nobody else has it.
    pub async fn port(&self) -> TcpListener {
        let free = Mutex::new(None);
        super::until(|| async {
            let bound = TcpListener::bind(self.addr).await.ok();
            *free.lock() = bound;
            free.lock().is_some()
        })
        .await;
        free.into_inner().expect("it was waited for")
    }

    fn serve(&self, listener: TcpListener) {
        let (state, gate, changed) = (Arc::clone(&self.state), Arc::clone(&self.gate), self.changed.clone());
        let frozen = self.frozen.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                // As the real one: an answer must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true).expect("the socket is open");
                let (state, gate, changed) = (Arc::clone(&state), Arc::clone(&gate), changed.clone());
                let mut frozen = frozen.clone();
                connections.spawn(async move {
                    let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
                    let connection = h2::server::Builder::new()
                        .initial_window_size(4 << 20)
                        .initial_connection_window_size(16 << 20)
                        .max_concurrent_streams(STREAMS_MAX)
                        .handshake::<_, Bytes>(stream)
                        .await;
                    // The peer may have given up meanwhile.
                    let Ok(mut connection) = connection else { return };
                    let mut streams = JoinSet::new();
                    let (fuse, mut blown) = watch::channel(false);
                    loop {
                        let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
                        let next = tokio::select! {
                            next = connection.accept() => next,
                            _ = frozen.changed() => continue,
                            _ = blown.changed() => return,
                        };
                        let Some(Ok((request, respond))) = next else { return };
                        let (state, gate, changed) = (Arc::clone(&state), Arc::clone(&gate), changed.subscribe());
                        streams.spawn(answer(state, gate, changed, fuse.clone(), request, respond));
                    }
                });
            }
        });
        *self.server.lock() = Some(task.abort_handle());
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().take() {
            server.abort();
        }
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    gate: Arc<Semaphore>,
    changed: watch::Receiver<u64>,
    fuse: watch::Sender<bool>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let path = request.uri().path().to_owned();
    let bearer = request.headers().get("authorization").map(|v| v.to_str().unwrap_or_default().to_owned());
    let mut stream = request.into_body();
    let mut body = BytesMut::new();
    while let Some(Ok(chunk)) = stream.data().await {
        let _ = stream.flow_control().release_capacity(chunk.len());
        body.extend_from_slice(&chunk);
    }
    let secret = state.lock().secret.clone();
    let result = if secret.is_some_and(|s| bearer.as_deref() != Some(&format!("Bearer {s}"))) {
        Err(StatusCode::UNAUTHORIZED)
    } else {
        match path.as_str() {
            path::PUSH => push(&state, &gate, &fuse, PushBatch::decode(body).expect("batch")).await,
            path::EVENTS => Ok(events(&state, changed, EventsRequest::decode(body).expect("events")).await),
            path::QUERY => Ok(query(&state, QueryRequest::decode(body).expect("query"))),
            path::COMMAND => {
                let request = CommandRequest::decode(body).expect("command");
                let closed = request.close_connections.len() as u64 + u64::from(!request.close_user.is_empty());
                state.lock().commands.push(request);
                Ok(CommandReply { closed, ..CommandReply::default() }.encode_to_vec())
            }
            path::WAIT => {
                let request = WaitRequest::decode(body).expect("wait");
                let outcome = state.lock().outcome.clone();
                state.lock().waits_ms.push(request.timeout_ms);
                if !outcome.is_done {
                    state.lock().waits += 1;
                    // As the real one: it answers what is not done at the end of the time, by the clock of its sockets.
                    tokio::time::sleep(Duration::from_millis(request.timeout_ms.into())).await;
                    state.lock().waits -= 1;
                }
                let outcomes = request.tickets.iter().map(|t| Outcome { ticket: *t, ..outcome.clone() }).collect();
                Ok(WaitReply { outcomes }.encode_to_vec())
            }
            _ => Err(StatusCode::NOT_FOUND),
        }
    };
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(status) => (status, Vec::new()),
    };
    let response = Response::builder().status(status).body(()).expect("response");
    if let Ok(mut send) = respond.send_response(response, false) {
        let _ = send.send_data(Bytes::from(body), true);
    }
}

async fn push(
    state: &Mutex<State>,
    gate: &Semaphore,
    fuse: &watch::Sender<bool>,
    batch: PushBatch,
) -> Result<Vec<u8>, StatusCode> {
    let reply = {
        let mut state = state.lock();
        state.received.push(batch.clone());
        if let Some(status) = state.push_status {
            return Err(status);
        }
        if batch.epoch != state.epoch {
            return Err(StatusCode::CONFLICT);
        }
        let key = (batch.logic, batch.sequence);
        match state.replies.get(&key) {
            Some(reply) => reply.clone(),
            None => {
                let receipts = batch.pushes.iter().map(|p| receipt(&state, p)).collect();
                state.applied.extend(batch.pushes.iter().cloned());
                state.replies.insert(key, PushReply { receipts });
                state.replies[&key].clone()
            }
        }
    };
    if std::mem::take(&mut state.lock().lose_next_reply) {
        let _ = fuse.send(true);
        std::future::pending::<()>().await;
    }
    gate.acquire().await.expect("open").forget();
    gate.add_permits(1);
    Ok(reply.encode_to_vec())
}

fn receipt(state: &State, push: &Push) -> Receipt {
    let count = |t: &Target| match t.to.as_ref().expect("target") {
        target::To::All(_) => state.connections.len() as u64,
        target::To::Room(room) => state.rooms.get(room).copied().unwrap_or(0),
        target::To::User(user) => state.users.get(user).copied().unwrap_or(0),
        target::To::Connection(id) => state.connections.iter().filter(|c| c.id == id).count() as u64,
    };
    let matched = push.targets.iter().map(count).sum();
    let named = |t: &Target| match t.to.as_ref() {
        Some(target::To::User(user)) if !push.control.is_empty() && !state.names_nobody => {
            state.connections.iter().filter(|c| c.user == *user).map(|c| c.id.clone()).collect()
        }
        _ => Vec::new(),
    };
    Receipt {
        matched,
        queued: matched,
        dropped: Vec::new(),
        ticket: u64::from(push.wait_written),
        connections: push.targets.iter().flat_map(named).collect(),
    }
}

async fn events(state: &Mutex<State>, mut changed: watch::Receiver<u64>, request: EventsRequest) -> Vec<u8> {
    let hold = Duration::from_millis(request.hold_ms.into());
    {
        let mut state = state.lock();
        if request.epoch == state.epoch && request.page.is_empty() {
            state.acked = state.acked.max(request.cursor);
        }
    }
    let deadline = tokio::time::Instant::now() + hold;
    loop {
        if let Some(reply) = news(&state.lock(), &request, tokio::time::Instant::now() >= deadline) {
            return reply.encode_to_vec();
        }
        let _ = tokio::time::timeout_at(deadline, changed.changed()).await;
    }
}

/// Cursors count from 1, because 0 asks for a snapshot.
fn news(state: &State, request: &EventsRequest, is_late: bool) -> Option<EventsReply> {
    let info = GatewayInfo {
        name: format!("fake-{}", state.id),
        id: state.id,
        id_epoch: state.id_epoch,
        connections: state.connections.len() as u64,
        messages_written: state.applied.len() as u64,
        is_draining: state.is_draining,
        is_closed: state.is_closed,
        ..GatewayInfo::default()
    };
    let mut reply = EventsReply { epoch: state.epoch, gateway: Some(info), ..EventsReply::default() };
    reply.cursor = 1 + state.log.len() as u64;
    if request.epoch != state.epoch || request.cursor == 0 || !request.page.is_empty() {
        let from: usize = if request.epoch == state.epoch { request.page.parse().unwrap_or(0) } else { 0 };
        let rooms = state.rooms.keys().map(|name| (InterestKind::Room, name));
        let all = rooms.chain(state.users.keys().map(|name| (InterestKind::User, name)));
        let page = all.skip(from).take(state.page);
        reply.interest =
            page.map(|(kind, name)| Interest { kind: kind.into(), name: name.clone(), is_present: true }).collect();
        reply.is_snapshot = from == 0;
        if reply.interest.len() == state.page {
            reply.page = (from + state.page).to_string();
        }
        return Some(reply);
    }
    let told = usize::try_from(request.cursor - 1).expect("small");
    reply.interest = state.log[told.min(state.log.len())..].to_vec();
    (is_late || !reply.interest.is_empty()).then_some(reply)
}

fn query(state: &Mutex<State>, request: QueryRequest) -> Vec<u8> {
    let mut state = state.lock();
    state.queries.push(request.clone());
    let limit = request.limit as usize;
    let mut reply = QueryReply::default();
    match request.kind() {
        QueryKind::Connections => {
            let from: usize = request.cursor.parse().unwrap_or(0);
            let is_asked = |c: &&ConnectionInfo| {
                (request.user.is_empty() || c.user == request.user)
                    && (request.room.is_empty() || c.rooms.contains(&request.room))
                    && (request.platform.is_empty() || c.platform == request.platform)
            };
            let all: Vec<_> = state.connections.iter().filter(is_asked).cloned().collect();
            reply.connections = all.iter().skip(from).take(limit).cloned().collect();
            if from + limit < all.len() {
                reply.cursor = (from + limit).to_string();
            }
        }
        QueryKind::Connection => {
            reply.connections = state.connections.iter().filter(|c| c.id == request.connection).cloned().collect();
        }
        QueryKind::Rooms => {
            let rooms = state.rooms.iter().filter(|r| r.0.starts_with(&request.prefix) && *r.0 > request.cursor);
            let all: Vec<_> = rooms.collect();
            reply.rooms = all.iter().take(limit).map(|r| room(r.0, *r.1)).collect();
            if all.len() > limit {
                reply.cursor = reply.rooms.last().map(|r| r.name.clone()).unwrap_or_default();
            }
        }
        QueryKind::Room => {
            reply.rooms = state.rooms.get(&request.room).map(|n| room(&request.room, *n)).into_iter().collect();
        }
        QueryKind::Blocks => {
            // All at once: the real one pages, which its own tests show.
            reply.blocks = state.commands.iter().flat_map(|command| command.blocks.clone()).collect();
        }
    }
    reply.encode_to_vec()
}

fn room(name: &str, online: u64) -> RoomInfo {
    RoomInfo { name: name.into(), online, seq: 1, epoch: "e".into(), users: online, told: None }
}
