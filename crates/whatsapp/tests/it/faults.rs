//! Whatever a connection does, a send ends in the class that is safe for it, with one POST at most (R4).

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connector_domain::command::{Content, SendPolicy};
use connector_domain::outcome::{BytesLeft, Exchange, Scope, Verdict, judge};
use connector_ports::whatsapp::WhatsApp;
use connector_testkit::wait;
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::server::{Connection, accepted, client, config, outbound, serve};

/// How long the client of these tests waits for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What a server does to a connection.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Accepts and never reads a byte: the request lies in buffers.
    HalfOpen,
    /// Reads the request and never says anything.
    NoAnswer,
    /// Resets when the first byte of the request arrives.
    ResetBeforeBody,
    /// Reads the head, resets before it has read the body.
    ResetBetween,
    /// Reads everything, resets instead of answering.
    ResetAfterBody,
    /// Answers a byte at a time, too slowly.
    SlowLoris,
    /// Answers a byte at a time, and is done in time.
    Slow,
    /// 200, and nothing that is JSON.
    Garbage,
    /// 200, and JSON of somebody else.
    StrangeJson,
    /// 200, and the connection ends in the middle of the body.
    Truncated,
    /// 200 without a length, and the end of the connection is taken for the end of the body.
    TruncatedWithoutLength,
    /// The head of the answer is cut off.
    TruncatedHead,
    /// What comes is not HTTP.
    NotHttp,
    /// An informational answer, then nothing.
    Continue,
    /// 500 with a page of HTML.
    ServerError,
    /// 503 without a body.
    Unavailable,
    /// A Graph error of a known retryable code under a wrong status.
    Throttled,
}

use Fault::*;

const ALL: [Fault; 17] = [
    HalfOpen,
    NoAnswer,
    ResetBeforeBody,
    ResetBetween,
    ResetAfterBody,
    SlowLoris,
    Slow,
    Garbage,
    StrangeJson,
    Truncated,
    TruncatedWithoutLength,
    TruncatedHead,
    NotHttp,
    Continue,
    ServerError,
    Unavailable,
    Throttled,
];

impl Fault {
    /// What is observed, and so what is done.
    fn verdict(self) -> Verdict {
        let unconfirmed = |observed| Verdict::Unconfirmed { observed };
        match self {
            HalfOpen | NoAnswer | SlowLoris | Continue => unconfirmed("timeout"),
            ResetBeforeBody | ResetBetween | ResetAfterBody | Truncated | TruncatedHead | NotHttp => {
                unconfirmed("reset")
            }
            Garbage | StrangeJson | TruncatedWithoutLength => unconfirmed("unreadable"),
            ServerError | Unavailable => unconfirmed("server_error"),
            Slow => Verdict::Sent { wamid: Some("wamid.SLOW".into()), held: false },
            Throttled => Verdict::ThrottleNumber { code: 130_429, scope: Scope::Number },
        }
    }

    /// Whether the request is read to its end, so that the server has counted it.
    fn reads(self) -> bool {
        !matches!(self, HalfOpen | ResetBeforeBody | ResetBetween)
    }
}

/// Ends a connection with a reset instead of an orderly end.
fn reset(connection: Connection) {
    connection.stream.set_zero_linger().expect("linger is settable");
}

async fn drip(connection: &mut Connection, text: &str, pause: Duration) {
    for byte in text.as_bytes() {
        // The client may have gone already.
        if connection.stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn play(mut connection: Connection, fault: Fault) {
    match fault {
        HalfOpen => return pending().await,
        ResetBeforeBody => {
            connection.stream.peek(&mut [0; 1]).await.expect("something comes");
            return reset(connection);
        }
        ResetBetween => {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.stream.read_u8().await.expect("a head"));
            }
            return reset(connection);
        }
        _ => drop(connection.request().await),
    }
    let whole = http(200, &accepted("wamid.SLOW"));
    match fault {
        HalfOpen | ResetBeforeBody | ResetBetween => {}
        ResetAfterBody => reset(connection),
        NoAnswer => pending().await,
        SlowLoris => drip(&mut connection, &whole, Duration::from_millis(50)).await,
        Slow => drip(&mut connection, &whole, Duration::from_micros(100)).await,
        Garbage => connection.write(&http(200, "<!-- ok -->\u{0}{\"messages\":")).await,
        StrangeJson => connection.write(&http(200, r#"{"status":"ok"}"#)).await,
        Truncated => connection.write(&whole[..whole.len() - 10]).await,
        TruncatedWithoutLength => connection.write("HTTP/1.1 200 OK\r\n\r\n{\"messages\":[{\"id\":\"wamid.").await,
        TruncatedHead => connection.write(&whole[..20]).await,
        NotHttp => connection.write("220 mail.example ESMTP\r\n").await,
        Continue => {
            connection.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            pending().await
        }
        ServerError => connection.write(&http(500, "<html>Sorry</html>")).await,
        Unavailable => connection.write(&http(503, "")).await,
        Throttled => connection.write(&http(500, r#"{"error":{"code":130429}}"#)).await,
    }
}

/// One send; what came of it, how many connections were made and how many requests read.
async fn send(fault: Fault) -> (Exchange, usize, usize) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let (url, requests) = serve(move |connection| {
        count.fetch_add(1, Ordering::SeqCst);
        play(connection, fault)
    })
    .await;
    let client = GraphClient::new(GraphConfig { timeout: TIMEOUT, ..config(&url) }).expect("a client");
    let exchange = client.send(&outbound(Content::text("once"))).await;
    // Whoever asks again does so at once.
    let asked = async || requests.lock().expect("not poisoned").len();
    let requests = wait::still("requests", Duration::from_millis(50), Duration::from_secs(5), asked).await;
    (exchange, connections.load(Ordering::SeqCst), requests)
}

#[tokio::test]
async fn every_fault_ends_in_its_class_after_one_post() {
    for fault in ALL {
        let (exchange, connections, requests) = send(fault).await;
        assert_eq!(judge(&exchange, SendPolicy::AtMostOnce), fault.verdict(), "{fault:?}: {exchange:?}");
        assert_eq!(exchange.left, BytesLeft::Maybe, "{fault:?}");
        assert_eq!((connections, requests), (1, usize::from(fault.reads())), "{fault:?}");
    }
}

/// A port that nobody accepts on, with a full queue: what connects there hears nothing. Gives what fills the queue too.
async fn silent_port() -> (TcpListener, String, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.expect("the queue takes it"));
        assert!(waiting.len() < 64, "the queue does not fill");
    }
    (listener, format!("http://{address}"), waiting)
}

#[tokio::test]
async fn a_connection_that_is_never_made_means_nothing_left() {
    let (_listener, url, _waiting) = silent_port().await;
    let impatient = GraphConfig { connect_timeout: Duration::from_millis(200), ..config(&url) };
    let exchange = GraphClient::new(impatient).expect("a client").send(&outbound(Content::text("once"))).await;
    assert_eq!(exchange.left, BytesLeft::No);
    assert_eq!(judge(&exchange, SendPolicy::AtMostOnce), Verdict::NotSent);
}

#[tokio::test]
async fn a_kept_connection_that_ends_under_the_next_send_is_not_replaced_by_another_one() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let (url, requests) = serve(move |mut connection: Connection| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            connection.request().await;
            connection.answer(200, &accepted("wamid.FIRST")).await;
            // The server's patience ends just when the next request begins to arrive.
            if connection.stream.peek(&mut [0; 1]).await.is_ok_and(|bytes| bytes > 0) {
                reset(connection);
            }
        }
    })
    .await;
    let client = client(&url);
    let first = client.send(&outbound(Content::text("first"))).await;
    assert!(matches!(judge(&first, SendPolicy::AtMostOnce), Verdict::Sent { .. }), "{first:?}");
    let second = client.send(&outbound(Content::text("second"))).await;
    assert_eq!(judge(&second, SendPolicy::AtMostOnce), Verdict::Unconfirmed { observed: "reset" }, "{second:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 1, "nobody connected again for the same send");
    assert_eq!(requests.lock().expect("not poisoned").len(), 1);
}
