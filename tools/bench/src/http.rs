//! Just enough HTTP/1.1 to post to a service of ours over a connection that stays, and to know to the microsecond when its answer
//! came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::report::Outcome;

const WITHIN: Duration = Duration::from_secs(10);

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When its last byte was there.
    pub(crate) at: Instant,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = timeout(WITHIN, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Outcome<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        timeout(WITHIN, self.exchange(head.as_bytes())).await?
    }

    /// Asks and returns the body.
    pub(crate) async fn get_body(&mut self, path: &str) -> Outcome<Vec<u8>> {
        let answer = self.get(path).await?;
        if answer.status != 200 {
            return Err(format!("{path} answers {}", answer.status).into());
        }
        let head = self.buffer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no head")?;
        Ok(self.buffer[head + 4..].to_vec())
    }

    /// Posts JSON with one more header and waits for the answer.
    pub(crate) async fn post(&mut self, path: &str, header: (&str, &str), body: &[u8]) -> Outcome<Answer> {
        timeout(WITHIN, self.exchange(&post_request(path, header, body))).await?
    }

    /// Sends a whole request; when its 200 came. Any other answer is an error. Without a bound: a timer per request would be a good
    /// part of what it costs.
    pub(crate) async fn accepted(&mut self, request: &[u8]) -> Outcome<Instant> {
        let answer = self.exchange(request).await?;
        if answer.status == 200 { Ok(answer.at) } else { Err(format!("the answer is {}", answer.status).into()) }
    }

    async fn exchange(&mut self, request: &[u8]) -> Outcome<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some((status, length)) = parse(&self.buffer)?
                && self.buffer.len() >= length
            {
                return Ok(Answer { status, at: Instant::now() });
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed in front of the answer".into());
            }
        }
    }
}

/// A POST of JSON with one more header, in the bytes of the wire.
pub(crate) fn post_request(path: &str, (name, value): (&str, &str), body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{name}: {value}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Status and whole length of an answer, when its head is complete.
fn parse(answer: &[u8]) -> Outcome<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status line")?.parse()?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    Ok(Some((status, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n";
        assert_eq!(parse(answer).unwrap(), Some((503, answer.len())));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27)));
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
