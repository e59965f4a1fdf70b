//! The ceiling of a receiver on this machine: the barest handler that still checks the signature and waits for the broker.
//!
//! It runs as a process of its own, as the receiver does. A delivery becomes as many records as it has messages, keyed by who wrote, as
//! everybody must do who keeps a conversation in one partition. Told so it leaves out the keys, and then a producer fills one partition
//! at a time with fewer and larger requests; or it leaves the delivery a single record.

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

/// Beside [`PATH`]: records without keys.
pub(crate) const KEYLESS: &str = "/keyless";
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

/// As much of a message as has to be read to find whose it is.
#[derive(Deserialize)]
struct Message<'a> {
    from: &'a str,
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
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("socket.nagle.disable", "true")
        .create()?;
    let handler = Arc::new(Handler { producer, topic: options.topic });
    let router = Router::new()
        .route(PATH, post(split))
        .route(KEYLESS, post(keyless))
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
    handler.produce(messages(&delivery).map(|message| (sender(message), message.get().as_bytes()))).await
}

async fn keyless(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !signed(&headers, &body) {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(delivery) = serde_json::from_slice::<Delivery<'_>>(&body) else { return StatusCode::BAD_REQUEST };
    handler.produce(messages(&delivery).map(|message| (None, message.get().as_bytes()))).await
}

fn sender(message: &RawValue) -> Option<&str> {
    serde_json::from_str::<Message<'_>>(message.get()).ok().map(|message| message.from)
}

fn messages<'a>(delivery: &'a Delivery<'a>) -> impl Iterator<Item = &'a RawValue> {
    let changes = delivery.entry.iter().flat_map(|entry| &entry.changes);
    changes.flat_map(|change| change.value.messages.iter().copied())
}

async fn whole(State(handler): State<Arc<Handler>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if signed(&headers, &body) { handler.produce([(None, &*body)]).await } else { StatusCode::UNAUTHORIZED }
}

fn signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let given = headers.get(SIGNATURE_HEADER).map(|value| value.as_bytes());
    given == Some(sign(APP_SECRET.as_bytes(), body).as_bytes())
}

impl Handler {
    async fn produce<'a>(&self, records: impl IntoIterator<Item = (Option<&'a str>, &'a [u8])>) -> StatusCode {
        let send = |(key, value): (Option<&'a str>, &'a [u8])| {
            let record = FutureRecord::<str, [u8]>::to(&self.topic).payload(value);
            let record = match key {
                Some(key) => record.key(key),
                None => record,
            };
            self.producer.send_result(record).ok()
        };
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
