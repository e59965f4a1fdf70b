//! Clients that mean harm keep nobody else from delivering.

use std::time::Duration;

use connector_testkit::wait::until;
use connector_whatsapp::signature::sign;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::scene::{SECRET, Scene, delivery};

/// Nobody is cut off by a timeout while these tests run.
const PATIENT: [(&str, &str); 2] = [("WEBHOOK_HEADER_TIMEOUT", "10m"), ("WEBHOOK_BODY_TIMEOUT", "10m")];
const SOON: Duration = Duration::from_secs(20);

fn head(length: &str, signature: &str) -> String {
    format!(
        "POST /webhooks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\
         x-hub-signature-256: {signature}\r\n\r\n"
    )
}

/// What such a client sends before it falls silent.
fn openings() -> Vec<(&'static str, Vec<u8>)> {
    // Well-formed, and of nothing.
    let forged = sign(b"not the secret", b"nothing");
    let with = |length: &str, signature: &str, body: usize| {
        let mut bytes = head(length, signature).into_bytes();
        bytes.extend(std::iter::repeat_n(b' ', body));
        bytes
    };
    let mut chunked = with("transfer-encoding: chunked", &forged, 0);
    chunked.extend(b"80000\r\n");
    chunked.extend(std::iter::repeat_n(b' ', 0x60000));
    vec![
        ("says nothing", Vec::new()),
        ("half a head", b"POST /webhooks HTTP/1.1\r\nhost: x\r\nx-slow: ".to_vec()),
        ("a length and no body", with("content-length: 3000000", &forged, 0)),
        ("a length, no body and no signature", with("content-length: 3000000", "", 0)),
        ("a length that nobody may have", with("content-length: 99999999999", &forged, 0)),
        ("most of a body", with("content-length: 3000000", &forged, 2_900_000)),
        ("a body without a length", chunked),
        ("a whole body under a wrong signature", with("content-length: 500000", &forged, 500_000)),
    ]
}

async fn hostile(scene: &Scene, each: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..each {
        for (_, opening) in openings() {
            let mut socket = TcpStream::connect(scene.address).await.unwrap();
            // Whoever was refused or cut off meanwhile cannot write any more.
            let _ = tokio::time::timeout(Duration::from_millis(200), socket.write_all(&opening)).await;
            held.push(socket);
        }
    }
    held
}

async fn honest_deliveries_arrive(scene: &Scene) {
    let mut took = Vec::new();
    for n in 0..9 {
        let body = delivery(&[&format!("honest{n}")]).replace("hi", &"x".repeat(900_000));
        let begun = Instant::now();
        assert_eq!(scene.status(scene.post(SECRET, body)).await, 200, "delivery {n}");
        took.push(begun.elapsed());
    }
    took.sort();
    // The one in the middle: a busy machine may hold up a single one.
    assert!(took[4] < Duration::from_secs(1), "{took:?}");
    assert_eq!(scene.records().len(), 9);
}

#[tokio::test]
async fn honest_deliveries_arrive_within_a_second_whatever_others_hold_back() {
    // The bodies that are held back would take several times the memory there is.
    let scene = Scene::new(&[PATIENT[0], PATIENT[1], ("WEBHOOK_MEMORY_BYTES", "18874368")]).await;
    let held = hostile(&scene, 25).await;
    honest_deliveries_arrive(&scene).await;
    drop(held);
}

#[tokio::test]
async fn honest_deliveries_arrive_when_every_connection_is_taken() {
    let scene = Scene::new(&[PATIENT[0], PATIENT[1], ("WEBHOOK_CONNECTIONS", "16")]).await;
    let held = hostile(&scene, 6).await;
    honest_deliveries_arrive(&scene).await;
    drop(held);
}

#[tokio::test]
async fn what_carries_no_signature_is_refused_before_its_body_is_read() {
    let scene = Scene::new(&PATIENT).await;
    for (signature, status) in [("", "401"), ("sha256=00", "401"), (&"0".repeat(71), "401")] {
        let mut socket = TcpStream::connect(scene.address).await.unwrap();
        socket.write_all(head("content-length: 3000000", signature).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(SOON, socket.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "without a word: {answer}");
    }
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_end() {
    let scene = Scene::new(&PATIENT).await;
    let mut half = TcpStream::connect(scene.address).await.unwrap();
    half.write_all(b"POST /webhooks HTTP/1.1\r\nho").await.unwrap();
    scene.shutdown.cancel();
    until("nobody listens any more", SOON, async || TcpStream::connect(scene.address).await.is_err().then_some(()))
        .await;
    tokio::time::timeout(Duration::from_secs(10), scene.service).await.expect("it ends").unwrap().unwrap();
}
