//! The metrics themselves, one struct for each part of the connector. Fields are private: a service says what happened,
//! and this module decides which numbers that moves.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{
    AuditLabels, AuditResult, DeadLetterLabels, Delivery, DeliveryLabels, GroupLabels, InboundLabels, InboundOutcome,
    ItemKind, ItemLabels, PartitionLabels, ReasonLabels, Rebalance, RebalanceLabels, RequestLabels, RouteLabels,
    TopicLabels, TransactionLabels, TransactionResult, VerdictClass, VerdictLabels, ViewLabels, WindowLabels,
    WindowTransition, Word,
};
use super::registrar::{Alert, FAST, Histograms, Registrar, SLOW, Seconds};

/// The consume loop. [`Consumer::worker`] gives a worker its own view.
#[derive(Debug, Clone)]
pub struct Consumer {
    polled: Family<TopicLabels, Counter>,
    handled: Family<TopicLabels, Counter>,
    dead_lettered: Family<DeadLetterLabels, Counter>,
    lost: Family<TopicLabels, Counter>,
    made_anew: Family<TopicLabels, Counter>,
    batch: Histograms<GroupLabels>,
    transaction: Histograms<TransactionLabels>,
    lag: Family<PartitionLabels, Gauge>,
    oldest_age: Family<PartitionLabels, Seconds>,
    rebalances: Family<RebalanceLabels, Counter>,
    assigned: Family<GroupLabels, Gauge>,
    paused: Family<GroupLabels, Gauge>,
    in_hand: Family<GroupLabels, Gauge>,
    aside: Family<GroupLabels, Gauge>,
}

impl Consumer {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            polled: registrar.counters("consumer_records_polled", "Records taken from the broker"),
            handled: registrar.counters("consumer_records_handled", "Records whose outcome is committed"),
            dead_lettered: registrar
                .alert(Alert::Any)
                .counters("consumer_records_dead_lettered", "Records put into the dead letter topic"),
            lost: registrar
                .alert(Alert::Any)
                .counters("consumer_records_lost", "Positions whose records were deleted before they were read"),
            made_anew: registrar.alert(Alert::Any).counters(
                "consumer_partitions_made_anew",
                "Partitions that end before the position up to which they were read: their topic was made anew",
            ),
            batch: registrar.histograms("consumer_batch_duration", "From a polled batch to its commit", FAST),
            transaction: registrar.histograms(
                "consumer_transaction_duration",
                "From begin to the end of a transaction",
                FAST,
            ),
            lag: registrar
                .gauges("consumer_lag_records", "Records between the committed offset and the end of the partition"),
            oldest_age: registrar
                .alert(Alert::Above(300))
                .seconds_by("consumer_oldest_age", "Age of the oldest record that is not finished"),
            rebalances: registrar.counters("consumer_rebalances", "Changes of assignment"),
            assigned: registrar.gauges("consumer_assigned_partitions", "Partitions this process works on"),
            paused: registrar.gauges("consumer_paused_partitions", "Partitions that wait for room or for a dependency"),
            in_hand: registrar.gauges("consumer_records_in_hand", "Records that wait in memory"),
            aside: registrar
                .gauges("consumer_records_aside", "Records that wait in the log and are read again when they may go"),
        }
    }

    /// The view of one worker; `group` is its consumer group. Several workers may share a process.
    pub fn worker(&self, group: impl Into<Word>) -> Worker {
        Worker { group: group.into(), families: self.clone() }
    }
}

/// The metrics of one worker's consume loop.
#[derive(Debug, Clone)]
pub struct Worker {
    group: Word,
    families: Consumer,
}

impl Worker {
    /// Records were taken from the broker.
    pub fn polled(&self, topic: &Word, records: u64) {
        self.families.polled.get_or_create(&self.topic(topic)).inc_by(records);
    }

    /// Records came to their end and their offsets are committed.
    pub fn handled(&self, topic: &Word, records: u64) {
        self.families.handled.get_or_create(&self.topic(topic)).inc_by(records);
    }

    /// A record went to the dead letters.
    pub fn dead_lettered(&self, topic: &Word, reason: &'static str) {
        let labels = DeadLetterLabels { group: self.group.clone(), topic: topic.clone(), reason };
        self.families.dead_lettered.get_or_create(&labels).inc();
    }

    /// So many positions of a topic were deleted before they were read.
    pub fn lost(&self, topic: &Word, positions: u64) {
        self.families.lost.get_or_create(&self.topic(topic)).inc_by(positions);
    }

    /// A partition was found to end before the position up to which it was read.
    pub fn made_anew(&self, topic: &Word) {
        self.families.made_anew.get_or_create(&self.topic(topic)).inc();
    }

    /// A batch is finished.
    pub fn batch_finished(&self, took: Duration) {
        self.families.batch.get_or_create(&self.group()).observe(took.as_secs_f64());
    }

    /// A transaction has ended.
    pub fn transaction_ended(&self, result: TransactionResult, took: Duration) {
        let labels = TransactionLabels { group: self.group.clone(), result };
        self.families.transaction.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// How far a partition is behind: records up to its end, and the age of the oldest unfinished one (zero when there is none).
    pub fn backlog(&self, topic: &Word, partition: u32, records: u64, oldest: Duration) {
        let labels = self.partition(topic, partition);
        self.families.lag.get_or_create(&labels).set(i64::try_from(records).unwrap_or(i64::MAX));
        self.families.oldest_age.get_or_create(&labels).set(oldest.as_secs_f64());
    }

    /// A partition went to another worker: what was known of its backlog is no longer shown here.
    pub fn forget(&self, topic: &Word, partition: u32) {
        let labels = self.partition(topic, partition);
        self.families.lag.remove(&labels);
        self.families.oldest_age.remove(&labels);
    }

    /// The assignment has changed and holds that many partitions now.
    pub fn rebalanced(&self, kind: Rebalance, assigned: usize) {
        let labels = RebalanceLabels { group: self.group.clone(), kind };
        self.families.rebalances.get_or_create(&labels).inc();
        self.families.assigned.get_or_create(&self.group()).set(gauge_value(assigned));
    }

    /// How many partitions are paused now.
    pub fn paused(&self, partitions: usize) {
        self.families.paused.get_or_create(&self.group()).set(gauge_value(partitions));
    }

    /// How many records wait in memory, and of how many only the place is kept.
    pub fn waiting(&self, in_hand: usize, aside: usize) {
        self.families.in_hand.get_or_create(&self.group()).set(gauge_value(in_hand));
        self.families.aside.get_or_create(&self.group()).set(gauge_value(aside));
    }

    fn group(&self) -> GroupLabels {
        GroupLabels { group: self.group.clone() }
    }

    fn topic(&self, topic: &Word) -> TopicLabels {
        TopicLabels { group: self.group.clone(), topic: topic.clone() }
    }

    fn partition(&self, topic: &Word, partition: u32) -> PartitionLabels {
        PartitionLabels { group: self.group.clone(), topic: topic.clone(), partition }
    }
}

/// Admission and dispatch of messages.
#[derive(Debug, Clone)]
pub struct Outbound {
    accepted: Counter,
    rejected: Family<ReasonLabels, Counter>,
    attempts: Counter,
    verdicts: Family<VerdictLabels, Counter>,
    post: Histogram,
    overhead: Histogram,
    unconfirmed: Gauge,
    paused_numbers: Gauge,
    limited_here: Gauge,
    views_away: Gauge,
    journals_blocked: Gauge,
}

impl Outbound {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            accepted: registrar.counter("outbound_commands_accepted", "Send commands that were accepted"),
            rejected: registrar
                .counters("outbound_commands_rejected", "Send commands that were rejected, by the rule that did"),
            attempts: registrar.counter("outbound_attempts", "POSTs to the Graph API"),
            verdicts: registrar
                .alert(Alert::AnyOf("class", &["configuration", "stop_number"]))
                .counters("outbound_verdicts", "What the POSTs led to"),
            post: registrar.histogram("outbound_post_duration", "How long the Graph API took to answer", FAST),
            overhead: registrar.histogram(
                "outbound_dispatch_overhead",
                "From a message being free to leave to its POST",
                FAST,
            ),
            unconfirmed: registrar
                .gauge("outbound_unconfirmed_messages", "Messages of which it is not known whether WhatsApp has them"),
            paused_numbers: registrar
                .alert(Alert::Any)
                .gauge("outbound_paused_numbers", "Numbers that send nothing until someone acts"),
            limited_here: registrar.gauge(
                "outbound_locally_limited_numbers",
                "Numbers whose limiter in the gate does not answer: each worker keeps to its share of the limit",
            ),
            views_away: registrar.gauge(
                "outbound_views_away",
                "Pairs of partitions, a conversation's and a user's, whose views do not answer: their messages wait",
            ),
            journals_blocked: registrar.alert(Alert::Any).gauge(
                "outbound_blocked_journals",
                "Partitions from which nothing is sent because their journal has a record that cannot be read",
            ),
        }
    }

    /// A command was accepted.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A command was rejected; `reason` is a word of the domain.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A POST is about to leave, `overhead` after nothing but ourselves kept it from leaving.
    pub fn attempted(&self, overhead: Duration) {
        self.attempts.inc();
        self.overhead.observe(overhead.as_secs_f64());
    }

    /// A POST was answered, or given up, after `took`.
    pub fn judged(&self, class: VerdictClass, took: Duration) {
        self.verdicts.get_or_create(&VerdictLabels { class }).inc();
        self.post.observe(took.as_secs_f64());
    }

    /// A message became unconfirmed (+1), or one was settled (-1). Workers of one process share the number.
    pub fn unconfirmed(&self, change: i64) {
        self.unconfirmed.inc_by(change);
    }

    /// How many numbers are paused now.
    pub fn paused_numbers(&self, numbers: usize) {
        self.paused_numbers.set(gauge_value(numbers));
    }

    /// From how many numbers this worker sends with its own share of the limit.
    pub fn limited_here(&self, numbers: usize) {
        self.limited_here.set(gauge_value(numbers));
    }

    /// From how many partitions nothing is sent because their journal cannot be read.
    pub fn journals_blocked(&self, partitions: usize) {
        self.journals_blocked.set(gauge_value(partitions));
    }

    /// For how many pairs of partitions messages wait because a view does not answer.
    pub fn views_away(&self, pairs: usize) {
        self.views_away.set(gauge_value(pairs));
    }
}

/// Deliveries from Meta.
#[derive(Debug, Clone)]
pub struct Webhook {
    deliveries: Family<DeliveryLabels, Counter>,
    items: Family<ItemLabels, Counter>,
    ack: Histogram,
}

impl Webhook {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            deliveries: registrar.counters("webhook_deliveries", "Deliveries from Meta, by how they were answered"),
            items: registrar.counters("webhook_items", "Items of acknowledged deliveries"),
            ack: registrar.histogram(
                "webhook_ack_duration",
                "From the request's end to the broker's acknowledgement",
                FAST,
            ),
        }
    }

    /// A delivery was answered.
    pub fn delivery(&self, result: Delivery) {
        self.deliveries.get_or_create(&DeliveryLabels { result }).inc();
    }

    /// Items of a delivery are on the broker.
    pub fn items(&self, kind: ItemKind, items: u64) {
        self.items.get_or_create(&ItemLabels { kind }).inc_by(items);
    }

    /// The broker has acknowledged all items of a delivery.
    pub fn acknowledged(&self, took: Duration) {
        self.ack.observe(took.as_secs_f64());
    }
}

/// Items taken from deliveries.
#[derive(Debug, Clone)]
pub struct Inbound {
    items: Family<InboundLabels, Counter>,
}

impl Inbound {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self { items: registrar.counters("inbound_items", "Items of deliveries, by where they ended") }
    }

    /// An item came to its end.
    pub fn item(&self, outcome: InboundOutcome) {
        self.items.get_or_create(&InboundLabels { outcome }).inc();
    }
}

/// The projection of the log that sends are decided on.
#[derive(Debug, Clone)]
pub struct Gate {
    applies: Histogram,
    conflicts: Counter,
    fenced: Counter,
    heals: Counter,
    rebuilds: Counter,
    audits: Family<AuditLabels, Counter>,
    checked: Family<ViewLabels, Counter>,
    drifted: Family<ViewLabels, Counter>,
}

impl Gate {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            applies: registrar.histogram("gate_apply_duration", "How long one atomic step took", FAST),
            conflicts: registrar
                .counter("gate_apply_conflicts", "Steps refused because the projection stood elsewhere"),
            fenced: registrar.counter("gate_apply_fenced", "Steps refused because a newer owner has taken over"),
            heals: registrar.counter("gate_heals", "Partitions taken back to the offset found in the projection"),
            rebuilds: registrar
                .alert(Alert::Any)
                .counter("gate_rebuilds", "Partitions built again from the beginning of the log"),
            audits: registrar
                .counters("gate_audits", "Looks at one partition of a projection, to compare it with the log"),
            checked: registrar
                .counters("gate_audit_checked", "Streams of a projection that were compared with the log"),
            drifted: registrar.alert(Alert::Any).counters(
                "gate_audit_drifted",
                "Streams among them that were not what the log says; their partition is built again",
            ),
        }
    }

    /// A step was applied.
    pub fn applied(&self, took: Duration) {
        self.applies.observe(took.as_secs_f64());
    }

    /// A step met another offset than expected.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    /// A step was refused for a newer owner.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// A partition goes back to the offset of the projection.
    pub fn healed(&self) {
        self.heals.inc();
    }

    /// A partition begins again at the beginning of the log.
    pub fn rebuilt(&self) {
        self.rebuilds.inc();
    }

    /// A partition of a projection was looked at.
    pub fn audited(&self, view: &'static str, result: AuditResult) {
        self.audits.get_or_create(&AuditLabels { view, result }).inc();
    }

    /// So many streams of a projection were compared with the log, and so many of them were not what it says.
    pub fn compared(&self, view: &'static str, checked: usize, drifted: usize) {
        let labels = ViewLabels { view };
        self.checked.get_or_create(&labels).inc_by(checked as u64);
        self.drifted.get_or_create(&labels).inc_by(drifted as u64);
    }
}

/// Windows and their deadlines.
#[derive(Debug, Clone)]
pub struct Timers {
    windows: Family<WindowLabels, Counter>,
    lateness: Histogram,
    overdue: Seconds,
}

impl Timers {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            windows: registrar.counters("timer_windows", "Windows, by what became of them"),
            lateness: registrar.histogram("timer_lateness", "From a deadline to its event in the log", SLOW),
            overdue: registrar
                .alert(Alert::Above(5))
                .seconds("timer_oldest_overdue", "How long the oldest deadline without its event has passed"),
        }
    }

    /// An event about a window was written.
    pub fn window(&self, transition: WindowTransition) {
        self.windows.get_or_create(&WindowLabels { transition }).inc();
    }

    /// A deadline's event was written so long after the deadline.
    pub fn fired(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// How long the oldest deadline that still waits for its event has passed; zero when there is none.
    pub fn oldest_overdue(&self, overdue: Duration) {
        self.overdue.set(overdue.as_secs_f64());
    }
}

/// HTTP requests.
#[derive(Debug, Clone)]
pub struct Api {
    requests: Family<RequestLabels, Counter>,
    durations: Histograms<RouteLabels>,
}

impl Api {
    pub(super) fn new(registrar: &mut Registrar) -> Self {
        Self {
            requests: registrar.counters("api_requests", "HTTP requests, by route and status"),
            durations: registrar.histograms("api_request_duration", "From a request to its answer", FAST),
        }
    }

    /// A request was answered. `route` is the pattern (`/v1/conversations/{id}`), never the path: paths hold ids.
    pub fn request(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.durations.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
