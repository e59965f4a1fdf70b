//! The embedded log on a real disk: batches of a hundred events, each synced before its append is answered.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_contracts::{Topic, Topics, encode_event, event_headers};
use connector_ports::clock::SystemClock;
use connector_ports::log::{Append, TopicName};
use connector_ports::{Appender, Log};
use connector_runtime::provision;

use crate::report::{Outcome, Report, folder, medium, millis, percentile};
use crate::samples::mixed;

/// Records of one append.
pub(crate) const BATCH: usize = 100;
const PARTITIONS: u32 = 6;
/// Appenders at the same time, as the services of one process are: the log syncs for all that wait.
const CALLERS: usize = 16;

pub(crate) async fn measure(report: &mut Report) -> Outcome<()> {
    if !report.wants("embedded_append_per_s") && !report.wants("disk_sync_ms_p50") {
        return Ok(());
    }
    eprintln!("measuring the embedded log");
    // In the target folder and not in the temporary one, which is memory on many machines.
    let home = tempfile::Builder::new().prefix("log-").tempdir_in(folder()?)?;
    let (sync, medium) = (sync_time(home.path())?, medium(home.path()));
    report.add("disk_sync_ms_p50", sync, "ms", format!("write of 64 kB and fdatasync, {medium}"));

    let log = connector_embedded::open(&home.path().join("log.sqlite"), Arc::new(SystemClock))?;
    let topics = Topics::default();
    provision::apply(&log, &provision::specs(&topics, PARTITIONS, 1)).await?;
    let batch = batch(&topics.name(Topic::ConversationEvents).into())?;
    let period = report.period(Duration::from_secs(4));
    append(&log, &batch, CALLERS, period / 4).await?;
    let together = append(&log, &batch, CALLERS, period).await?;
    let note = format!("batches of {BATCH} events by {CALLERS} appenders, each synced; {medium}");
    report.add("embedded_append_per_s", together, "1/s", note);
    let alone = append(&log, &batch, 1, period).await?;
    let note = format!("the same by one appender, which waits for the sync of each batch; {medium}");
    report.add("embedded_append_per_s_one_appender", alone, "1/s", note);
    Ok(())
}

/// A batch of events as a service writes them, spread over conversations.
pub(crate) fn batch(topic: &TopicName) -> Outcome<Vec<Append>> {
    let record = |recorded| -> Outcome<Append> {
        Ok(Append {
            topic: topic.clone(),
            partition: None,
            key: Some(Bytes::from(recorded_key(recorded))),
            value: Some(encode_event(recorded)?.into()),
            headers: event_headers(recorded),
        })
    };
    mixed(BATCH / 10).iter().map(|(_, recorded)| record(recorded)).collect()
}

fn recorded_key(recorded: &connector_domain::event::Recorded) -> String {
    recorded.envelope.stream_id.as_str().to_owned()
}

/// Records a second that `callers` append together.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn append(log: &dyn Log, batch: &[Append], callers: usize, period: Duration) -> Outcome<f64> {
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..callers {
        let (appender, batch) = (log.appender().await?, batch.to_vec());
        running.push(tokio::spawn(append_until(appender, batch, start + period)));
    }
    let mut appended = 0;
    for caller in running {
        appended += caller.await??;
    }
    Ok(appended as f64 / start.elapsed().as_secs_f64())
}

async fn append_until(appender: Box<dyn Appender>, batch: Vec<Append>, end: Instant) -> Outcome<usize> {
    let mut appended = 0;
    while Instant::now() < end {
        appended += appender.append(batch.clone()).await?.len();
    }
    Ok(appended)
}

/// How long this disk takes to keep 64 kB, about what a batch leaves in the file: the floor under every synced append.
fn sync_time(folder: &Path) -> Outcome<f64> {
    let mut file = File::create(folder.join("sync"))?;
    let block = vec![7; 64 * 1024];
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(millis(start.elapsed()));
    }
    Ok(percentile(&times, 0.5))
}
