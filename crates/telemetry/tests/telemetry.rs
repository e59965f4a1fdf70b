//! The public side of the crate: metrics as Prometheus reads them, and spans as a collector receives them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use connector_settings::load;
use connector_telemetry::metrics::{
    AuditResult, Delivery, InboundOutcome, ItemKind, Rebalance, TransactionResult, VerdictClass, WindowTransition, Word,
};
use connector_telemetry::{Metrics, TelemetryConfig, current_traceparent, init, span_from};

const PATIENCE: Duration = Duration::from_secs(10);

/// Moves every metric once.
fn used() -> Metrics {
    let metrics = Metrics::new("0.1.0", "abc\"def");
    let took = Duration::from_millis(3);
    let worker = metrics.consumer.worker("inbound-processor");
    let topic = Word::from("whatsapp.webhooks.v1");
    worker.polled(&topic, 5);
    worker.handled(&topic, 4);
    worker.dead_lettered(&topic, "undecodable");
    worker.batch_finished(took);
    TransactionResult::ALL.iter().for_each(|result| worker.transaction_ended(*result, took));
    worker.backlog(&topic, 3, 7, Duration::from_millis(1500));
    worker.lost(&topic, 2);
    worker.made_anew(&topic);
    worker.rebalanced(Rebalance::Assigned, 2);
    worker.paused(1);
    worker.waiting(1, 2);
    metrics.outbound.accepted();
    metrics.outbound.rejected("opt_in_required");
    metrics.outbound.attempted(took);
    VerdictClass::ALL.iter().for_each(|class| metrics.outbound.judged(*class, took));
    metrics.outbound.unconfirmed(2);
    metrics.outbound.unconfirmed(-1);
    metrics.outbound.paused_numbers(1);
    metrics.outbound.limited_here(1);
    metrics.outbound.views_away(1);
    Delivery::ALL.iter().for_each(|result| metrics.webhook.delivery(*result));
    ItemKind::ALL.iter().for_each(|kind| metrics.webhook.items(*kind, 1));
    metrics.webhook.acknowledged(took);
    InboundOutcome::ALL.iter().for_each(|outcome| metrics.inbound.item(*outcome));
    metrics.gate.applied(took);
    metrics.gate.conflict();
    metrics.gate.fenced();
    metrics.gate.healed();
    metrics.gate.rebuilt();
    AuditResult::ALL.iter().for_each(|result| metrics.gate.audited("open-windows", *result));
    metrics.gate.compared("open-windows", 100, 1);
    WindowTransition::ALL.iter().for_each(|transition| metrics.timers.window(*transition));
    metrics.timers.fired(Duration::from_secs(1));
    metrics.timers.oldest_overdue(Duration::ZERO);
    metrics.api.request("/v1/conversations/{id}", 200, took);
    metrics
}

#[test]
fn metrics_are_encoded_with_their_values() {
    let page = used().encode();
    for line in [
        r#"connector_build_info{version="0.1.0",revision="abc\"def"} 1"#,
        r#"connector_consumer_records_polled_total{group="inbound-processor",topic="whatsapp.webhooks.v1"} 5"#,
        r#"connector_consumer_lag_records{group="inbound-processor",topic="whatsapp.webhooks.v1",partition="3"} 7"#,
        r#"connector_consumer_oldest_age_seconds{group="inbound-processor",topic="whatsapp.webhooks.v1",partition="3"} 1.5"#,
        r#"connector_outbound_commands_rejected_total{reason="opt_in_required"} 1"#,
        r#"connector_outbound_unconfirmed_messages 1"#,
        r#"connector_timer_lateness_seconds_bucket{le="0.5"} 0"#,
        r#"connector_timer_lateness_seconds_bucket{le="1.0"} 1"#,
        r#"connector_api_requests_total{route="/v1/conversations/{id}",status="200"} 1"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn every_sample_belongs_to_a_metric_of_the_reference_and_the_other_way_round() {
    let metrics = used();
    let page = metrics.render_reference();
    let declared: HashSet<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let encoded = metrics.encode();
    let mut seen = HashSet::new();
    for sample in encoded.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = (sample.split(['{', ' ']).next().unwrap(), sample.rsplit(' ').next().unwrap());
        assert!(value.parse::<f64>().is_ok(), "no number in {sample}");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(declared.contains(base), "{base} is not in the reference");
        seen.insert(base);
    }
    assert_eq!(seen, declared);
}

#[test]
fn metric_names_follow_the_conventions() {
    for line in used().render_reference().lines().filter_map(|line| line.strip_prefix("| `")) {
        let mut cells = line.split(" | ");
        let name = cells.next().unwrap().trim_end_matches('`');
        let kind = cells.next().unwrap();
        assert!(name.starts_with("connector_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
    }
}

#[test]
fn a_revoked_partition_is_no_longer_shown() {
    let metrics = used();
    metrics.consumer.worker("inbound-processor").forget(&Word::from("whatsapp.webhooks.v1"), 3);
    assert!(!metrics.encode().contains("partition=\"3\""));
}

#[test]
fn two_processes_in_one_test_do_not_share_their_numbers() {
    let (one, other) = (Metrics::new("1", "a"), Metrics::new("1", "a"));
    one.outbound.accepted();
    assert!(one.encode().contains("connector_outbound_commands_accepted_total 1"));
    assert!(other.encode().contains("connector_outbound_commands_accepted_total 0"));
}

/// Takes one request, answers 200, and hands over its head and body.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        sender.send((head, body)).unwrap();
    });
    (endpoint, receiver)
}

/// The only test of this binary that starts logs and traces for the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_from_inside_a_runtime_and_a_second_start_changes_nothing() {
    let (endpoint, received) = collector();
    let source = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=planted"),
        ("RUST_LOG", "warn"),
    ];
    let config = load(&source, TelemetryConfig::from).unwrap();
    let guard = init(&config, "inbound-processor", "instance-7").unwrap();
    let second = init(&config, "another-service", "instance-8").unwrap();

    let upstream = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // RUST_LOG=warn quiets the log and must not take the spans away.
    span_from(Some(upstream), tracing::info_span!("process whatsapp.webhooks.v1")).in_scope(|| {
        assert!(current_traceparent().unwrap().contains("0af7651916cd43dd8448eb211c80319c"));
    });
    drop(second);
    drop(guard);

    let (head, body) = received.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(head.contains("x-api-key: planted"), "{head}");
    let body = String::from_utf8_lossy(&body).into_owned();
    for text in ["process whatsapp.webhooks.v1", "inbound-processor", "instance-7"] {
        assert!(body.contains(text), "{text} is not among the spans");
    }
    assert!(!body.contains("another-service"));
}
