//! The sockets of an HTTP server: how many, how slow a client may be, whose connection is given up when there are too many, and how they
//! are closed without losing an accepted request. One for everything that listens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use connector_ports::Clock;
use connector_runtime::status::Status;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Largest head of a request that is read at all.
const MAX_HEAD: usize = 64 * 1024;

/// How often the loop says that it is alive, and looks again for a connection to give up.
const PULSE: Duration = Duration::from_secs(1);

/// A client that takes nothing of its answer for this long is cut off.
const STALLED: Duration = Duration::from_secs(30);

/// How long a connection without a request at work may take to close at the end.
const LAST: Duration = Duration::from_secs(1);

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. For one more, the connection is given up that has been waiting for its client longest.
    pub connections: usize,
    /// A client that takes longer for the head of a request, or stays idle for longer, is cut off.
    pub header_timeout: Duration,
    /// How long accepted requests may take after the shutdown has begun.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, header_timeout: Duration::from_secs(10), drain: Duration::from_secs(20) }
    }
}

/// From when on a request is work, for which its connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// When its head is complete: whoever asks is known by it.
    FromHead,
    /// When its handler says so ([`Client::at_work`]): before that nobody knows who asks.
    FromHandler,
}

/// A server that does not serve yet.
pub struct Server {
    /// A socket that is bound.
    pub listener: TcpListener,
    /// What answers.
    pub router: Router,
    /// The bounds.
    pub limits: Limits,
    /// What counts as work.
    pub work: Work,
}

impl Server {
    /// Serves until `shutdown` is cancelled, then waits for accepted requests, within the bound.
    pub async fn run(self, clock: Arc<dyn Clock>, status: Status, shutdown: CancellationToken) {
        let Self { listener, router, limits, work } = self;
        let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let mut http = http1::Builder::new();
        // Also ends connections that stay idle between two requests.
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(MAX_HEAD);
        let (crowd, connections, closing) = (Crowd::default(), TaskTracker::new(), CancellationToken::new());
        let mut pulse = tokio::time::interval(PULSE);
        status.set_ready();
        'serving: loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
                _ = pulse.tick() => {
                    status.alive(clock.now());
                    continue;
                }
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Usually out of file descriptors: others have to end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    crowd.give_up_longest();
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let place = loop {
                if let Ok(place) = places.clone().try_acquire_owned() {
                    break place;
                }
                crowd.give_up_longest();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break 'serving,
                    Ok(place) = places.clone().acquire_owned() => break place,
                    _ = pulse.tick() => status.alive(clock.now()),
                }
            };
            let client = Client::new(&crowd);
            let served = serve(http.clone(), stream, router.clone(), work, client, closing.clone());
            connections.spawn(async move {
                served.await;
                drop(place);
            });
        }
        status.set_draining();
        drop(listener);
        closing.cancel();
        connections.close();
        if timeout(limits.drain, connections.wait()).await.is_err() {
            tracing::warn!("requests were not finished in time");
        }
    }
}

async fn serve(
    http: http1::Builder,
    stream: TcpStream,
    router: Router,
    work: Work,
    client: Client,
    closing: CancellationToken,
) {
    let answering = client.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, client) = (router.clone(), answering.clone());
        async move {
            let mut request: Request = request.map(Body::new);
            // A request begins now, however long its connection was idle.
            client.renew();
            let request_at_hand = client.in_request();
            let at_work = (work == Work::FromHead).then(|| client.at_work());
            request.extensions_mut().insert(client);
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            // The body may be a stream: it is work until its end.
            let held = (request_at_hand, at_work);
            let response: Response = response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_its_end = &held;
                    frame
                }))
            });
            Ok::<_, Infallible>(response)
        }
    });
    let given_up = client.given_up.clone();
    let mut connection = pin!(http.serve_connection(TokioIo::new(Patient::new(stream)), service));
    let ended = tokio::select! {
        biased;
        () = given_up.cancelled() => return,
        ended = connection.as_mut() => Some(ended),
        () = closing.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => break ended,
                    // Half a head is no accepted request.
                    () = sleep(LAST) => if !client.has_request() { return },
                }
            }
        }
    };
    // A client that went away or was too slow is its own affair.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The connections that wait for their clients, in the order in which they began to.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    turn: u64,
    by_turn: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, token: &CancellationToken) -> u64 {
        let mut waiting = self.lock();
        waiting.turn += 1;
        let turn = waiting.turn;
        waiting.by_turn.insert(turn, token.clone());
        turn
    }

    fn leave(&self, turn: u64) {
        self.lock().by_turn.remove(&turn);
    }

    fn give_up_longest(&self) {
        if let Some((_, longest)) = self.lock().by_turn.pop_first() {
            longest.cancel();
        }
    }
}

/// The connection of a request, in its extensions. While it waits for its client (for a head, and for a body unless its request is
/// work) it may be given up for another one.
#[derive(Clone)]
pub struct Client {
    crowd: Crowd,
    given_up: CancellationToken,
    place: Arc<Place>,
}

struct Place {
    crowd: Crowd,
    /// The turn in the crowd, and how many keep it out of there.
    state: Mutex<(Option<u64>, usize)>,
    requests: AtomicUsize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(turn), _) = *self.state.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.crowd.leave(turn);
        }
    }
}

impl Client {
    fn new(crowd: &Crowd) -> Self {
        let given_up = CancellationToken::new();
        let state = Mutex::new((Some(crowd.enter(&given_up)), 0));
        let place = Arc::new(Place { crowd: crowd.clone(), state, requests: AtomicUsize::new(0) });
        Self { crowd: crowd.clone(), given_up, place }
    }

    fn state(&self) -> MutexGuard<'_, (Option<u64>, usize)> {
        self.place.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self) {
        let mut state = self.state();
        if let Some(turn) = state.0 {
            self.crowd.leave(turn);
            state.0 = Some(self.crowd.enter(&self.given_up));
        }
    }

    /// From now on this is work: until the guard is dropped the connection is not given up for another one.
    #[must_use]
    pub fn at_work(&self) -> AtWork {
        let mut state = self.state();
        state.1 += 1;
        if let Some(turn) = state.0.take() {
            self.crowd.leave(turn);
        }
        AtWork(self.clone())
    }

    fn in_request(&self) -> InRequest {
        self.place.requests.fetch_add(1, Ordering::Relaxed);
        InRequest(self.place.clone())
    }

    fn has_request(&self) -> bool {
        self.place.requests.load(Ordering::Relaxed) > 0
    }
}

/// A request is work as long as this exists.
pub struct AtWork(Client);

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.1 -= 1;
        if state.1 == 0 {
            state.0 = Some(self.0.crowd.enter(&self.0.given_up));
        }
    }
}

/// A request that has a head and no complete answer.
struct InRequest(Arc<Place>);

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket whose client must take something of its answer now and then.
struct Patient {
    stream: TcpStream,
    stalled: Pin<Box<Sleep>>,
    waits: bool,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: Box::pin(sleep(STALLED)), waits: false }
    }

    fn bounded<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = false;
            return polled;
        }
        if !self.waits {
            self.waits = true;
            self.stalled.as_mut().reset(Instant::now() + STALLED);
        }
        ready!(self.stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
