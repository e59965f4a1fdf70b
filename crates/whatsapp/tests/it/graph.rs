//! Sends against servers that misbehave: what is observed, whether bytes left, and never a second POST (R4).

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connector_domain::command::{Content, ContentKind};
use connector_domain::identity::Address;
use connector_domain::ids::{PhoneNumber, Wamid};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, GraphError, Transport};
use connector_ports::whatsapp::{Outbound, WhatsApp};
use connector_settings::{SecretFile, SecretSource};
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use tokio::net::TcpListener;

use crate::server::{Connection, accepted, attempt, client, config, header, outbound, serve};

fn text() -> Outbound {
    outbound(Content::text("a secret between us"))
}

fn failed(left: BytesLeft, transport: Transport) -> Exchange {
    Exchange { left, answer: Answer::Transport(transport) }
}

fn unreadable(status: u16) -> Exchange {
    let answer =
        Answer::Http { status, wamid: None, held: false, person: Address::default(), error: None, readable: false };
    Exchange { left: BytesLeft::Maybe, answer }
}

/// Sends once to a server that answers every request with these bytes and then ends the connection.
async fn send_to(bytes: String) -> (Exchange, usize) {
    let bytes = Arc::new(bytes);
    let (url, requests) = serve(move |mut connection: Connection| {
        let bytes = Arc::clone(&bytes);
        async move {
            if connection.request().await.is_some() {
                connection.write(&bytes).await;
            }
        }
    })
    .await;
    let exchange = client(&url).send(&text()).await;
    let count = requests.lock().unwrap().len();
    (exchange, count)
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_accepted_send_gives_the_message_id() {
    let (exchange, count) = send_to(http(200, &accepted("wamid.OUT1"))).await;
    let Answer::Http { status: 200, wamid, held: false, person, error: None, readable: true } = exchange.answer else {
        panic!("{exchange:?}")
    };
    assert_eq!((wamid, exchange.left, count), (Some(Wamid::from("wamid.OUT1")), BytesLeft::Maybe, 1));
    assert_eq!(person, Address { phone: PhoneNumber::parse("16505551234").ok(), bsuid: None });
    let held = r#"{"messages":[{"id":"w","message_status":"held_for_quality_assessment"}]}"#;
    assert!(matches!(send_to(http(200, held)).await.0.answer, Answer::Http { held: true, .. }));
}

#[tokio::test]
async fn a_refused_connection_means_nothing_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(client(&url).send(&text()).await, failed(BytesLeft::No, Transport::Connect));
}

#[tokio::test]
async fn a_failed_tls_handshake_means_nothing_left() {
    let (url, requests) =
        serve(|mut connection| async move { connection.write("this is not TLS at all\r\n\r\n").await }).await;
    let exchange = client(&url.replace("http://", "https://")).send(&text()).await;
    assert_eq!(exchange, failed(BytesLeft::No, Transport::Connect));
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_reset_while_the_request_is_written_is_ambiguous() {
    let (url, _) = serve(|connection| async move {
        // There is something to read, and it is thrown away: the system answers with a reset.
        assert_eq!(connection.stream.peek(&mut [0; 1]).await.unwrap(), 1);
    })
    .await;
    assert_eq!(client(&url).send(&text()).await, failed(BytesLeft::Maybe, Transport::Reset));
}

#[tokio::test]
async fn a_request_that_was_read_and_never_answered_is_ambiguous() {
    let (exchange, count) = send_to(String::new()).await;
    assert_eq!((exchange, count), (failed(BytesLeft::Maybe, Transport::Reset), 1));
}

#[tokio::test]
async fn silence_is_a_timeout_and_ambiguous() {
    let (url, requests) = serve(|mut connection| async move {
        connection.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let client = GraphClient::new(GraphConfig { timeout: Duration::from_millis(300), ..config(&url) }).unwrap();
    assert_eq!(client.send(&text()).await, failed(BytesLeft::Maybe, Transport::Timeout));
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_a_timeout_too() {
    let (url, _) = serve(|mut connection| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"messages\":[{\"id\":\"w").await;
        std::future::pending::<()>().await;
    })
    .await;
    let client = GraphClient::new(GraphConfig { timeout: Duration::from_millis(300), ..config(&url) }).unwrap();
    assert_eq!(client.send(&text()).await, failed(BytesLeft::Maybe, Transport::Timeout));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_ambiguous() {
    let whole = http(200, &accepted("wamid.OUT1"));
    let (exchange, _) = send_to(whole[..whole.len() - 4].to_owned()).await;
    assert_eq!(exchange, failed(BytesLeft::Maybe, Transport::Reset));
    let (exchange, _) = send_to("HTTP/1.1 200 OK\r\ncontent-le".to_owned()).await;
    assert_eq!(exchange, failed(BytesLeft::Maybe, Transport::Reset));
}

#[tokio::test]
async fn what_is_no_graph_answer_is_unreadable() {
    for (status, body) in [(200, "<html>gateway</html>"), (502, "bad gateway"), (200, ""), (429, "slow down")] {
        assert_eq!(send_to(http(status, body)).await.0, unreadable(status), "{status} {body}");
    }
    // Complete JSON that says nothing is readable, and says nothing.
    let (exchange, _) = send_to(http(200, r#"{"messages":[]}"#)).await;
    assert!(matches!(exchange.answer, Answer::Http { wamid: None, error: None, readable: true, .. }));
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (url, _) = serve(|mut connection| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
        while connection.stream.writable().await.is_ok() {
            if tokio::io::AsyncWriteExt::write_all(&mut connection.stream, chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await;
    assert_eq!(client(&url).send(&text()).await, unreadable(200));
}

#[tokio::test]
async fn a_graph_error_is_read_under_any_status() {
    let full = r#"{"error":{"message":"(#130429) Rate limit hit","type":"OAuthException","code":130429,
        "error_data":{"messaging_product":"whatsapp","details":"+15550100042"},"error_subcode":2494055,"fbtrace_id":"A"}}"#;
    for status in [200, 400, 429, 500] {
        let Answer::Http { status: seen, error, wamid: None, readable: true, .. } =
            send_to(http(status, full)).await.0.answer
        else {
            panic!("{status}")
        };
        assert_eq!((seen, error), (status, Some(GraphError { code: 130_429, subcode: Some(2_494_055) })));
    }
    let (exchange, _) = send_to(http(400, r#"{"error":{"code":"131047","error_data":"a string"}}"#)).await;
    let Answer::Http { error, .. } = exchange.answer else { panic!() };
    assert_eq!(error, Some(GraphError { code: 131_047, subcode: None }));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_a_new_request() {
    // 301 to 303 would become a GET without the body, 307 and 308 a second POST.
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!("HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(send_to(redirect).await, (unreadable(status), 1));
    }
}

#[tokio::test]
async fn read_receipts_and_typing_are_accepted_without_an_id() {
    let (url, _) = serve(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer(200, r#"{"success":true}"#).await;
        }
    })
    .await;
    for kind in [ContentKind::Read, ContentKind::Typing] {
        let content = Content { kind, reply_to: Some("wamid.IN1".into()), ..Content::text("") };
        let exchange = client(&url).send(&outbound(content)).await;
        assert!(matches!(exchange.answer, Answer::Http { status: 200, wamid: None, error: None, readable: true, .. }));
    }
}

#[tokio::test]
async fn what_cannot_be_a_request_is_refused_without_asking() {
    let (url, requests) = serve(|mut connection| async move { drop(connection.request().await) }).await;
    let client = client(&url);
    let no_text = Content { text: None, ..Content::text("") };
    let unknown = Content { kind: ContentKind::Unknown, ..Content::text("") };
    let mut cases = vec![outbound(no_text), outbound(unknown), Outbound { address: Address::default(), ..text() }];
    for id in ["", "1/../2", "1?x", "..", "1%2F"] {
        cases.push(Outbound { phone_number_id: id.into(), ..text() });
    }
    for outbound in cases {
        let exchange = client.send(&outbound).await;
        assert_eq!(exchange.left, BytesLeft::No);
        assert!(matches!(exchange.answer, Answer::Http { error: Some(GraphError { code: 100, .. }), .. }));
    }
    assert!(requests.lock().unwrap().is_empty());
}

/// Ends connections at moments drawn from a fixed seed: instead of answering, after answering, or while idle.
async fn moody(mut connection: Connection, dice: Arc<AtomicU64>) {
    while let Some(request) = connection.request().await {
        let roll = dice.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| {
            Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        });
        match (roll.unwrap() >> 33) % 5 {
            0 => return,
            1 => return connection.answer(200, &accepted(&opaque(&request.body))).await,
            _ => connection.answer(200, &accepted(&opaque(&request.body))).await,
        }
    }
}

fn opaque(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    json["biz_opaque_callback_data"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_send_is_ever_posted_twice_however_connections_end() {
    let dice = Arc::new(AtomicU64::new(7));
    let (url, requests) = serve(move |connection| moody(connection, Arc::clone(&dice))).await;
    let client = client(&url);
    let mut outcomes = HashMap::new();
    for round in 0..75_u128 {
        // Four at a time, so that several connections are pooled and some go stale.
        let sends = (0..4).map(|lane| {
            let outbound = Outbound { attempt_id: attempt(round * 4 + lane), ..text() };
            let client = client.clone();
            async move { (outbound.attempt_id.to_string(), client.send(&outbound).await) }
        });
        outcomes.extend(futures::future::join_all(sends).await);
    }
    let mut posts: HashMap<String, usize> = HashMap::new();
    for request in requests.lock().unwrap().iter() {
        *posts.entry(opaque(&request.body)).or_default() += 1;
    }
    assert_eq!(outcomes.len(), 300);
    let (mut answered, mut ambiguous) = (0, 0);
    for (attempt, exchange) in outcomes {
        let count = posts.get(&attempt).copied().unwrap_or(0);
        match (&exchange.answer, exchange.left) {
            (Answer::Http { wamid, .. }, _) => {
                answered += 1;
                assert_eq!((count, wamid.as_ref().map(Wamid::as_str)), (1, Some(attempt.as_str())));
            }
            (Answer::Transport(_), BytesLeft::No) => assert_eq!(count, 0, "said that nothing left: {exchange:?}"),
            (Answer::Transport(failure), BytesLeft::Maybe) => {
                ambiguous += 1;
                assert_eq!(*failure, Transport::Reset);
                assert!(count <= 1, "posted {count} times");
            }
        }
    }
    assert!(answered > 150 && ambiguous > 20, "{answered} answered, {ambiguous} ambiguous: the server was not moody");
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nothing() {
    let closed = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&closed);
    let (url, requests) = serve(move |mut connection| {
        let told = Arc::clone(&told);
        async move {
            connection.request().await;
            connection.answer(200, &accepted("w")).await;
            drop(connection);
            told.notify_one();
        }
    })
    .await;
    let client = client(&url);
    for _ in 0..20 {
        let exchange = client.send(&text()).await;
        // Whether the client noticed the end before it picked the connection is a race; a wrong claim is not.
        assert_ne!(exchange.left, BytesLeft::No);
        // A request on a connection that was closed meanwhile reaches nobody, and nothing is closed after it.
        if matches!(exchange.answer, Answer::Http { .. }) {
            closed.notified().await;
        }
    }
    assert!(requests.lock().unwrap().len() <= 20);
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes_and_without_a_token_nothing_is_sent() {
    let (url, requests) = serve(|mut connection| async move {
        while connection.request().await.is_some() {
            connection.answer(200, &accepted("w")).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let token = SecretSource::File(SecretFile::new(&path));
    let client = GraphClient::new(GraphConfig { token, ..config(&url) }).unwrap();
    assert_eq!(client.send(&text()).await, failed(BytesLeft::No, Transport::Other));
    for token in ["first", "the second"] {
        std::fs::write(&path, token).unwrap();
        client.send(&text()).await;
        let request = requests.lock().unwrap().pop().unwrap();
        assert_eq!(header(&request.head, "authorization"), Some(format!("Bearer {token}").as_str()));
    }
}

#[tokio::test]
async fn neither_the_recipient_nor_the_text_is_in_what_is_reported() {
    let echo = r#"{"error":{"message":"+15550100042 a secret between us","code":131026}}"#;
    let (refused, _) = send_to(http(400, echo)).await;
    let (garbage, _) = send_to(http(200, "+15550100042 a secret between us")).await;
    for exchange in [refused, garbage, send_to(String::new()).await.0] {
        let said = format!("{exchange:?}");
        assert!(!said.contains("15550100042") && !said.contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    const MARK: &str = "IN_A_PROCESS_WITH_A_PROXY";
    if std::env::var_os(MARK).is_none() {
        // The environment of a running process cannot be changed safely: the same test in a process that has a proxy.
        let proxy = "http://127.0.0.1:1";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "graph::a_proxy_in_the_environment_is_not_used"])
            .envs([("HTTP_PROXY", proxy), ("http_proxy", proxy), ("ALL_PROXY", proxy), (MARK, "1")])
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .status()
            .unwrap();
        return assert!(status.success());
    }
    let (exchange, count) = send_to(http(200, &accepted("w"))).await;
    assert_eq!((exchange.left, count), (BytesLeft::Maybe, 1));
}
