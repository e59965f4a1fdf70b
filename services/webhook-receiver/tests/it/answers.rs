//! Every answer, and what it promises.

use std::time::Duration;

use connector_contracts::decode;
use connector_contracts::headers::dlq;
use connector_domain::command::WebhookItem;
use connector_testkit::wait::until;
use connector_whatsapp::signature::sign;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scene::{Mood, PREVIOUS, SECRET, Scene, delivery};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn only_the_right_token_confirms_the_callback_url() {
    let scene = Scene::new(&[]).await;
    let ask = async |query: &str| {
        let answer = scene.http.get(scene.url(query)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let good = "?hub.mode=subscribe&hub.verify_token=token&hub.challenge=1158201444";
    assert_eq!(ask(good).await, (200, "1158201444".to_owned()));
    for wrong in
        ["", "?hub.mode=subscribe&hub.verify_token=tokem&hub.challenge=1", "?hub.verify_token=token&hub.challenge=1"]
    {
        assert_eq!(ask(wrong).await, (403, String::new()), "{wrong}");
    }
    let without = Scene::new(&[("WEBHOOK_VERIFY_TOKEN", "")]).await;
    let empty = "?hub.mode=subscribe&hub.verify_token=&hub.challenge=1";
    assert_eq!(without.http.get(without.url(empty)).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_delivery_signed_with_either_secret_is_durable_item_by_item_before_its_200() {
    let scene = Scene::new(&[]).await;
    assert_eq!(scene.status(scene.post(SECRET, delivery(&["A", "B", "C"]))).await, 200);
    assert_eq!(scene.status(scene.post(PREVIOUS, delivery(&["D"]))).await, 200);
    let records = scene.records();
    let items: Vec<WebhookItem> = records.iter().map(|r| decode(r.value.as_deref().unwrap()).unwrap()).collect();
    assert_eq!(items.len(), 4);
    assert!(records.iter().all(|record| record.key == records[0].key), "one person, one key");
    assert!(!String::from_utf8_lossy(records[0].key.as_deref().unwrap()).contains("15550100042"));
    assert_eq!(items[0].delivery_id, items[2].delivery_id);
    assert_ne!(items[0].delivery_id, items[3].delivery_id);
    assert!(scene.metrics.encode().contains(r#"webhook_items_total{kind="message"} 4"#));
}

#[tokio::test]
async fn what_is_not_signed_by_meta_is_refused_without_a_word_and_not_kept() {
    let scene = Scene::new(&[]).await;
    let forged = scene.post("another secret", delivery(&["A"])).send().await.unwrap();
    assert_eq!((forged.status().as_u16(), forged.text().await.unwrap()), (401, String::new()));
    let unsigned = scene.http.post(scene.url("")).header("content-type", "application/json").body(delivery(&["A"]));
    assert_eq!(scene.status(unsigned).await, 401);
    assert!(scene.records().is_empty() && scene.dead_letters().is_empty());
    // Without any secret the fault is ours: Meta has to come again.
    let none = Scene::new(&[("WHATSAPP_APP_SECRET", ""), ("WHATSAPP_APP_SECRET_PREVIOUS", "")]).await;
    assert_eq!(none.status(none.post("", delivery(&["A"]))).await, 503);
}

#[tokio::test]
async fn another_content_type_is_415_and_a_body_above_the_limit_is_413() {
    let scene = Scene::new(&[("WEBHOOK_MAX_BODY_BYTES", "2048")]).await;
    let form = scene.http.post(scene.url("")).header("content-type", "text/plain").body(delivery(&["A"]));
    assert_eq!(scene.status(form).await, 415);
    assert_eq!(scene.status(scene.post(SECRET, vec![b' '; 2049])).await, 413);
    // Without a declared length, too.
    let signature = sign(SECRET.as_bytes(), b"");
    let chunks = format!(
        "POST /webhooks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-hub-signature-256: {signature}\r\n\
         transfer-encoding: chunked\r\n\r\n1000\r\n"
    );
    let mut socket = TcpStream::connect(scene.address).await.unwrap();
    socket.write_all(chunks.as_bytes()).await.unwrap();
    socket.write_all(&[b' '; 0x1000]).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(scene.records().is_empty());
}

#[tokio::test]
async fn a_single_item_as_large_as_a_delivery_may_be_is_durable() {
    let scene = Scene::new(&[]).await;
    let body = delivery(&["A"]).replace("hi", &"x".repeat(3_100_000));
    assert_eq!(scene.status(scene.post(SECRET, body)).await, 200);
    assert_eq!(scene.records().len(), 1);
}

#[tokio::test]
async fn an_item_that_no_record_takes_is_413_and_not_503_for_ever() {
    let scene = Scene::new(&[("WEBHOOK_MAX_BODY_BYTES", "8388608")]).await;
    let body = delivery(&["A"]).replace("hi", &"x".repeat(5_000_000));
    assert_eq!(scene.status(scene.post(SECRET, body)).await, 413);
    assert!(scene.records().is_empty());
}

#[tokio::test]
async fn a_signed_delivery_that_cannot_be_split_is_kept_untouched_with_the_dead_letters() {
    let scene = Scene::new(&[]).await;
    assert_eq!(scene.status(scene.post(SECRET, "not json")).await, 200);
    let letters = scene.dead_letters();
    assert_eq!(letters[0].value.as_deref(), Some(b"not json".as_slice()));
    assert_eq!(letters[0].header(dlq::REASON).unwrap().as_ref(), b"not_json");
}

#[tokio::test]
async fn a_slow_client_is_cut_off_in_the_head_and_in_the_body() {
    let scene = Scene::new(&[("WEBHOOK_HEADER_TIMEOUT", "100ms"), ("WEBHOOK_BODY_TIMEOUT", "100ms")]).await;
    let signature = sign(SECRET.as_bytes(), b"");
    let body = format!(
        "POST /webhooks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
         x-hub-signature-256: {signature}\r\n\r\n{{"
    );
    for start in ["POST /webhooks HTTP/1.1\r\nho", &body] {
        let mut socket = TcpStream::connect(scene.address).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let cut = tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await;
        assert!(cut.is_ok(), "the connection stays open");
        assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn without_the_log_the_answer_is_503_and_later_200() {
    let scene = Scene::new(&[]).await;
    scene.mood.send_replace(Mood::Away);
    let answer = scene.post(SECRET, delivery(&["A"])).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(scene.records().is_empty());
    scene.mood.send_replace(Mood::Writes);
    assert_eq!(scene.status(scene.post(SECRET, delivery(&["A"]))).await, 200);
    assert_eq!(scene.records().len(), 1);
}

#[tokio::test]
async fn there_is_no_200_before_the_acknowledgement() {
    let scene = Scene::new(&[("WEBHOOK_ACK_TIMEOUT", "200ms")]).await;
    scene.mood.send_replace(Mood::Silent);
    // The record is written, and yet nobody has said so.
    assert_eq!(scene.status(scene.post(SECRET, delivery(&["A"]))).await, 503);
    assert_eq!(scene.records().len(), 1);
}

#[tokio::test]
async fn above_the_memory_budget_the_answer_is_503_and_the_budget_comes_back() {
    // 1 MiB is 16 deliveries of the least weight.
    let settings = [("WEBHOOK_MEMORY_BYTES", "1048576"), ("WEBHOOK_MAX_BODY_BYTES", "4096")];
    let scene = Scene::new(&settings).await;
    scene.mood.send_replace(Mood::Silent);
    let waiting: Vec<_> =
        (0..16).map(|n| tokio::spawn(scene.post(SECRET, delivery(&[&n.to_string()])).send())).collect();
    until("16 deliveries at work", SOON, async || (scene.records().len() == 16).then_some(())).await;
    assert_eq!(scene.status(scene.post(SECRET, delivery(&["one more"]))).await, 503);
    scene.mood.send_replace(Mood::Writes);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(scene.status(scene.post(SECRET, delivery(&["one more"]))).await, 200);
}

#[tokio::test]
async fn a_shutdown_finishes_what_was_accepted_and_takes_nothing_more() {
    let scene = Scene::new(&[]).await;
    scene.mood.send_replace(Mood::Silent);
    let accepted = tokio::spawn(scene.post(SECRET, delivery(&["A"])).send());
    until("the delivery is at work", SOON, async || (scene.records().len() == 1).then_some(())).await;
    scene.shutdown.cancel();
    until("nobody listens any more", SOON, async || TcpStream::connect(scene.address).await.is_err().then_some(()))
        .await;
    assert!(!scene.service.is_finished());
    scene.mood.send_replace(Mood::Writes);
    assert_eq!(accepted.await.unwrap().unwrap().status(), 200);
    tokio::time::timeout(SOON, scene.service).await.unwrap().unwrap().unwrap();
}
