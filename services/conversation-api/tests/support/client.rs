//! HTTP/1.1 as far as these tests need it: one request per connection, and server-sent events.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// A client with a token.
pub(crate) struct Client {
    address: SocketAddr,
    token: String,
}

/// An open stream of events.
pub(crate) struct Live(BufReader<TcpStream>);

impl Client {
    /// Of an API that listens here.
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned() }
    }

    async fn open(&self, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        BufReader::new(socket)
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let exchange = async {
            let mut text = String::new();
            self.open(method, path, body).await.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status >= 400 {
            assert!(head.contains("application/problem+json"), "{head}");
        }
        if status == 202 && method == "POST" && path.starts_with("/v1/commands") {
            assert!(head.contains("location: /v1/commands/"), "{head}");
        }
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.call("DELETE", path, "").await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, &body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, &body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> (u16, Value) {
        self.call("POST", path, body).await
    }

    /// Asks again and again until the answer is as it should be.
    pub(crate) async fn until(&self, path: &str, is: impl Fn(&Value) -> bool) -> Value {
        connector_testkit::wait::until(path, PATIENCE, async || {
            let (status, answer) = self.get(path).await;
            (status == 200 && is(&answer)).then_some(answer)
        })
        .await
    }

    /// Opens a stream of events.
    pub(crate) async fn stream(&self, path: &str) -> Live {
        Live(self.open("GET", path, "").await)
    }
}

impl Live {
    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        let next = async {
            loop {
                let mut line = String::new();
                assert_ne!(self.0.read_line(&mut line).await.unwrap(), 0, "the stream has ended");
                if let Some(data) = line.trim_end().strip_prefix("data:") {
                    return serde_json::from_str(data.trim()).unwrap();
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("an event")
    }
}
