//! The ceiling of a receiver on this machine: the barest handler that still checks the signature and waits for the broker.
//!
//! It runs as a process of its own, as the receiver does. A delivery becomes as many records as it has messages, as everybody must do
//! who keeps conversations apart; or, told so, a single one.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use clap::Args;
use connector_whatsapp::signature::{SIGNATURE_HEADER, sign};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PATH;
use crate::fleet::APP_SECRET;
use crate::report::Outcome;

/// Where it listens and what it writes to.
#[derive(Debug, Args)]
pub(crate) struct BareReceiver {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    kafka: String,
    #[arg(long)]
    topic: String,
}

/// Beside [`PATH`]: the whole delivery as one record.
pub(crate) const WHOLE: &str = "/whole";

struct Handler {
    producer: FutureProducer,
    topic: String,
}

/// As much of a delivery as has to be read to find its messages.
#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    value: Value<'a>,
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// Serves until the process is ended, or says why it cannot.
pub(crate) async fn run(options: BareReceiver) -> ExitCode {
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare receiver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: BareReceiver) -> Outcome<()> {
    // What the receiver's own producer is told, too.
    let producer = ClientConfig::new()
        .set("bootstrap.servers", &options.kafka)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("socket.nagle.disable", "true")
        .create()?;
    let handler = Arc::new(Handler { producer, topic: options.topic });
    let router = Router::new()
        .route(PATH, post(split))
        .route(WHOLE, post(whole))
        .route("/readyz", get(|| async {}))
        .with_state(handler);
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    Ok(axum::serve(listener, router).await?)
}

async fn split(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !signed(&headers, &body) {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(delivery) = serde_json::from_slice::<Delivery<'_>>(&body) else { return StatusCode::BAD_REQUEST };
    let changes = delivery.entry.iter().flat_map(|entry| &entry.changes);
    let messages = changes.flat_map(|change| &change.value.messages);
    handler.produce(messages.map(|message| message.get().as_bytes())).await
}

async fn whole(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if signed(&headers, &body) { handler.produce([&*body]).await } else { StatusCode::UNAUTHORIZED }
}

fn signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let given = headers.get(SIGNATURE_HEADER).map(|value| value.as_bytes());
    given == Some(sign(APP_SECRET.as_bytes(), body).as_bytes())
}

impl Handler {
    async fn produce<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>) -> StatusCode {
        let record = |value| FutureRecord::<[u8], [u8]>::to(&self.topic).payload(value);
        let send = |value| self.producer.send_result(record(value)).ok();
        let sent: Vec<_> = records.into_iter().map(send).collect();
        for delivery in sent {
            let Some(delivery) = delivery else { return StatusCode::SERVICE_UNAVAILABLE };
            if !matches!(delivery.await, Ok(Ok(_))) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
        }
        StatusCode::OK
    }
}
