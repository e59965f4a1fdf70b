//! A server of a few lines that does to a connection what proper servers rarely do, and counts what it was asked.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, PhoneNumber};
use connector_ports::whatsapp::Outbound;
use connector_settings::{Secret, SecretSource};
use connector_whatsapp::graph::{GraphClient, GraphConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) type Requests = Arc<Mutex<Vec<Request>>>;

/// Serves every connection with `script`; gives the base URL and the requests read so far.
pub(crate) async fn serve<F, R>(script: F) -> (String, Requests)
where
    F: Fn(Connection) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(Connection { stream, seen: Arc::clone(&seen) }));
        }
    });
    (url, requests)
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    seen: Requests,
}

impl Connection {
    /// The next request, `None` when the client has closed.
    pub(crate) async fn request(&mut self) -> Option<Request> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        let request = Request { head, body: String::from_utf8(body).unwrap() };
        self.seen.lock().unwrap().push(request.clone());
        Some(request)
    }

    pub(crate) async fn write(&mut self, text: &str) {
        // The client may have gone already; that is for the client's side of the test to judge.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    pub(crate) async fn answer(&mut self, status: u16, body: &str) {
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

pub(crate) fn accepted(wamid: &str) -> String {
    format!(
        r#"{{"messaging_product":"whatsapp","contacts":[{{"input":"+16505551234","wa_id":"16505551234"}}],"messages":[{{"id":"{wamid}"}}]}}"#
    )
}

pub(crate) fn config(url: &str) -> GraphConfig {
    GraphConfig {
        base_url: url.to_owned(),
        version: "v26.0".to_owned(),
        token: SecretSource::Fixed(Secret::new("token-1")),
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
        pool_size: 8,
        pool_idle: Duration::from_secs(15),
    }
}

pub(crate) fn client(url: &str) -> GraphClient {
    GraphClient::new(config(url)).unwrap()
}

pub(crate) fn attempt(number: u128) -> AttemptId {
    AttemptId(Uuid::from_u128(number))
}

pub(crate) fn phone() -> Address {
    Address { phone: Some(PhoneNumber::parse("15550100042").unwrap()), bsuid: None }
}

pub(crate) fn outbound(content: connector_domain::command::Content) -> Outbound {
    Outbound {
        phone_number_id: "200000000000001".into(),
        address: phone(),
        content,
        attempt_id: "0198f3a0-0000-7000-8000-000000000001".parse().unwrap(),
    }
}
