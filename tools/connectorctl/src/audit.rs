//! `connectorctl audit`: the views held against the log, by hand. Nothing is changed.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use connector_contracts::{Topic, Topics};
use connector_domain::settings::Rules;
use connector_host::{Backend, Backends};
use connector_ports::clock::SystemClock;
use connector_ports::{Clock, Gate, Log};
use connector_runtime::audit::{Auditor, Bounds, Look, Shadow};
use connector_runtime::platform::views;
use connector_settings::{Env, load};
use opt_in_tracker::Conversations;
use window_timer::Windows;

use crate::{Failed, open};

/// How long a view that is being built is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long between two looks at one.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this partition.
    #[arg(long)]
    partition: Option<u32>,
    /// Of each partition only a part, chosen anew each time: at most so many entries.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// What is compared, and what with.
struct Ground {
    log: Arc<dyn Log>,
    gate: Arc<dyn Gate>,
    clock: Arc<dyn Clock>,
    topics: Topics,
    rules: Rules,
}

pub(crate) async fn run(options: &Options, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let topics = open::topics()?;
    let (backend, rules) = load(&Env, |reader| {
        let (backend, rules) = (Backend::from(reader, Backends::Shared), connector_host::rules(reader));
        Some((backend?, rules?))
    })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (log, gate) = connector_host::open(&backend, &clock)?;
    compare(&Ground { log, gate, clock, topics, rules }, options, out).await
}

/// Whether views and log agree.
async fn compare(ground: &Ground, options: &Options, out: &mut (dyn Write + Send)) -> Result<bool, Failed> {
    let name = ground.topics.name(Topic::ConversationEvents).into();
    let facts = ground.log.topic(&name).await?;
    let partitions = facts.ok_or_else(|| Failed::NotFound(format!("there is no topic {name}")))?.partitions;
    let asked = match options.partition {
        Some(partition) if partition >= partitions => {
            return Err(Failed::Usage(format!("--partition: expected a number below {partitions}")));
        }
        Some(partition) => partition..partition + 1,
        None => 0..partitions,
    };
    let sample = options.sample.map_or(usize::MAX, |sample| usize::try_from(sample).unwrap_or(usize::MAX));
    let mut fine = true;
    for partition in asked {
        let rules = ground.rules.clone();
        let windows = auditor(ground, views::WINDOWS, move || Windows::new(&rules));
        fine &= view(ground, views::WINDOWS, windows, partition, sample, out).await?;
        let conversations = auditor(ground, views::CONVERSATIONS, Conversations::default);
        fine &= view(ground, views::CONVERSATIONS, conversations, partition, sample, out).await?;
    }
    writeln!(out, "{}", if fine { "views and log agree" } else { "VIEWS AND LOG DO NOT AGREE; nothing was changed" })?;
    Ok(fine)
}

fn auditor<S: Shadow>(ground: &Ground, view: &'static str, make: impl Fn() -> S + Send + 'static) -> Auditor<S> {
    let source = ground.topics.name(Topic::ConversationEvents).into();
    let turn = ground.clock.now().as_millis().unsigned_abs();
    Auditor::over(ground.gate.clone(), ground.log.clone(), view, source, Box::new(move |_| make())).from_turn(turn)
}

async fn view<S: Shadow>(
    ground: &Ground,
    name: &str,
    mut auditor: Auditor<S>,
    partition: u32,
    sample: usize,
    out: &mut (dyn Write + Send),
) -> Result<bool, Failed> {
    let bounds = Bounds { since: None, records: usize::MAX, sample };
    let until = ground.clock.now() + PATIENCE;
    loop {
        match auditor.look(partition, bounds).await? {
            Look::Compared { checked, drifted } => {
                writeln!(out, "{name}/{partition}: {checked} checked, {} drifted", drifted.len())?;
                for stream in &drifted {
                    writeln!(out, "  {stream}")?;
                }
                return Ok(drifted.is_empty());
            }
            Look::Behind | Look::Elsewhere if ground.clock.now() < until => ground.clock.sleep(PAUSE).await,
            Look::Behind | Look::Elsewhere => {
                writeln!(out, "{name}/{partition}: NOT CHECKED, it is empty or being built")?;
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connector_domain::event::TimeSource;
    use connector_domain::identity::StreamKeys;
    use connector_ports::Ids;
    use connector_ports::gate::{Change, View};
    use connector_ports::log::TopicSpec;
    use connector_ports::partition::partition_for;
    use connector_runtime::emit::Cause;
    use connector_runtime::platform::Platform;
    use connector_runtime::service::Service;
    use connector_runtime::situation::conversation_key;
    use connector_simulated::SimWorld;
    use connector_telemetry::Metrics;
    use connector_testkit::event::text_received;
    use tokio_util::sync::CancellationToken;

    const PARTITIONS: u32 = 3;

    fn stream(n: usize) -> String {
        format!("k1-{n:032x}")
    }

    async fn said(ground: &Ground, options: &Options) -> (bool, String) {
        let mut out = Vec::new();
        let fine = compare(ground, options, &mut out).await.expect("it can be compared");
        (fine, String::from_utf8(out).expect("text"))
    }

    /// Both projections over some conversations.
    async fn projected(world: &SimWorld) -> Ground {
        let topics = Topics::new("");
        for topic in [Topic::ConversationEvents, Topic::ConsentCommands, Topic::Directory, Topic::SendCommands] {
            for name in [topics.name(topic), topics.dlq(topic)] {
                let spec = TopicSpec { name: name.into(), partitions: PARTITIONS, replication: 1, settings: vec![] };
                world.calm_log().create_topic(&spec).await.expect("a topic");
            }
        }
        let (clock, gate): (Arc<dyn Clock>, Arc<dyn Gate>) = (world.clock(), Arc::new(world.calm_gate().clone()));
        let ids: Arc<dyn Ids> = world.ids();
        let rules = Rules::default();
        let platform = Platform {
            log: world.calm_log(),
            gate: gate.clone(),
            clock: clock.clone(),
            ids,
            topics: topics.clone(),
            partitions: PARTITIONS,
            keys: StreamKeys::new("k1", b"secret"),
            rules: rules.clone(),
            instance: "test".to_owned(),
            metrics: Arc::new(Metrics::new("0", "test")),
        };
        let at = clock.now();
        let mut appends = Vec::new();
        for n in 0..60 {
            let message = text_received(at + rules.window);
            let cause = Cause {
                organization_id: "acme".into(),
                stream_id: stream(n).as_str().into(),
                cause_id: n.to_string(),
                command_id: None,
                occurred_at: at,
                time_source: TimeSource::Whatsapp,
                traceparent: None,
            };
            appends.push(platform.emitter("test").emit(message, &cause).expect("an event"));
        }
        platform.log.appender().await.expect("an appender").append(appends).await.expect("appended");
        let mut service = Service::new(platform.clone(), CancellationToken::new());
        window_timer::start(window_timer::Config { audit: Duration::ZERO, ..Default::default() }, &mut service);
        opt_in_tracker::start(opt_in_tracker::Config { audit: Duration::ZERO, ..Default::default() }, &mut service);
        tokio::select! {
            _ = service.run() => panic!("it runs on"),
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
        Ground { log: platform.log, gate, clock, topics, rules }
    }

    #[tokio::test(start_paused = true)]
    async fn what_differs_is_named_by_its_id_and_nothing_is_changed() {
        let world = SimWorld::new(7);
        let ground = projected(&world).await;
        let everything = Options { partition: None, sample: None };
        let (fine, text) = said(&ground, &everything).await;
        assert!(fine && text.ends_with("views and log agree\n"), "{text}");
        let checked = |line: &str| line.split_once(": ")?.1.split(' ').next()?.parse::<usize>().ok();
        assert_eq!(text.lines().filter_map(checked).sum::<usize>(), 120, "{text}");
        assert_eq!(text.lines().count(), 7, "{text}");

        let home = |n| partition_for(stream(n).as_bytes(), PARTITIONS);
        let window = Change::Unschedule { key: format!("0.{}", stream(5)) };
        world.calm_gate().by_hand(&View::new(views::WINDOWS, home(5)), window);
        let key = conversation_key(&stream(9).as_str().into());
        let conversation = View::new(views::CONVERSATIONS, home(9));
        world.calm_gate().by_hand(&conversation, Change::Put { key: key.clone(), value: "{}".into() });
        let (fine, text) = said(&ground, &everything).await;
        assert!(!fine && text.contains("DO NOT AGREE"), "{text}");
        assert!(
            text.contains(&format!("\n  {}\n", stream(5))) && text.contains(&format!("\n  {}\n", stream(9))),
            "{text}"
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("  ")).count(), 2, "{text}");
        let stored = ground.gate.read(&conversation, &[key]).await.expect("the gate").answers;
        assert_eq!(stored, [Some("{}".into())], "it is as it was");

        let of = |partition| Options { partition: Some(partition), sample: None };
        for partition in 0..PARTITIONS {
            let (fine, text) = said(&ground, &of(partition)).await;
            assert_eq!(
                (fine, text.lines().filter(|l| l.contains("checked")).count()),
                (![home(5), home(9)].contains(&partition), 2)
            );
        }
        assert!(matches!(compare(&ground, &of(PARTITIONS), &mut Vec::new()).await, Err(Failed::Usage(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_a_part_and_a_view_that_is_not_there_is_not_fine() {
        let world = SimWorld::new(7);
        let ground = projected(&world).await;
        let (fine, text) = said(&ground, &Options { partition: None, sample: Some(8) }).await;
        assert!(fine, "{text}");
        for line in text.lines().filter(|line| line.contains(" checked, ")) {
            let checked = line.split([':', ' ']).filter_map(|word| word.parse::<usize>().ok()).next();
            assert!(checked.is_some_and(|checked| checked <= 8), "{line}");
        }
        world.calm_gate().wipe();
        let (fine, text) = said(&ground, &Options { partition: Some(0), sample: None }).await;
        assert!(!fine && text.contains("NOT CHECKED"), "{text}");
    }
}
