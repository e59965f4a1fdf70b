//! The labels of the metrics: sets of labels, and the closed sets of words that are their values.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use super::registrar::Labels;

/// Says what the values of a label are, for the reference page.
pub(super) trait LabelValue {
    fn values() -> String;
}

/// A name that is known when the process starts: a topic, a consumer group. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(Arc<str>);

impl<T: AsRef<str>> From<T> for Word {
    fn from(text: T) -> Self {
        Self(text.as_ref().into())
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

impl LabelValue for Word {
    fn values() -> String {
        "a configured name".to_owned()
    }
}

impl LabelValue for &'static str {
    fn values() -> String {
        "a fixed word".to_owned()
    }
}

impl LabelValue for u32 {
    fn values() -> String {
        "a number".to_owned()
    }
}

impl LabelValue for u16 {
    fn values() -> String {
        "a number".to_owned()
    }
}

/// An enum whose variants are the values of a label.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word as it stands in the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }

        impl LabelValue for $name {
            fn values() -> String {
                [$(concat!("`", $word, "`")),+].join(", ")
            }
        }
    };
}

/// A struct whose fields are the labels of a metric.
macro_rules! labels {
    ($($name:ident { $($field:ident: $kind:ty),+ })+) => { $(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $field: $kind),+ }

        impl Labels for $name {
            fn describe() -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), <$kind as LabelValue>::values())),+]
            }
        }
    )+ };
}

labels! {
    BuildLabels { version: &'static str, revision: &'static str }
    GroupLabels { group: Word }
    TopicLabels { group: Word, topic: Word }
    DeadLetterLabels { group: Word, topic: Word, reason: &'static str }
    PartitionLabels { group: Word, topic: Word, partition: u32 }
    TransactionLabels { group: Word, result: TransactionResult }
    RebalanceLabels { group: Word, kind: Rebalance }
    ReasonLabels { reason: &'static str }
    VerdictLabels { class: VerdictClass }
    DeliveryLabels { result: Delivery }
    ItemLabels { kind: ItemKind }
    InboundLabels { outcome: InboundOutcome }
    WindowLabels { transition: WindowTransition }
    AuditLabels { view: &'static str, result: AuditResult }
    ViewLabels { view: &'static str }
    RouteLabels { route: &'static str }
    RequestLabels { route: &'static str, status: u16 }
}

words! {
    /// How a transaction ended.
    TransactionResult {
        /// Everything is written and the offsets are committed.
        Committed = "committed",
        /// Nothing is written.
        Aborted = "aborted",
        /// A newer owner has taken over.
        Fenced = "fenced",
        /// It is not known whether it is written; the producer was dropped.
        Uncertain = "uncertain",
    }
}

words! {
    /// What a rebalance did to a worker.
    Rebalance {
        /// Partitions came.
        Assigned = "assigned",
        /// Partitions went, after the worker had finished with them.
        Revoked = "revoked",
        /// Partitions went without asking.
        Lost = "lost",
    }
}

words! {
    /// What one POST to the Graph API led to (R6): the verdicts of the domain, without their details.
    VerdictClass {
        /// WhatsApp has taken the message.
        Sent = "sent",
        /// Nothing left; tried again, and not counted as an attempt of the message.
        NotSent = "not_sent",
        /// A failure that is safe to try again.
        Retry = "retry",
        /// The number, or its account, is over its rate.
        ThrottleNumber = "throttle_number",
        /// The pair of number and contact is over its rate.
        ThrottlePair = "throttle_pair",
        /// Not now, but possibly in hours; the message ends.
        Wait = "wait",
        /// This message will never be taken.
        Permanent = "permanent",
        /// Token, permission or billing; the number pauses. Alert on any.
        Configuration = "configuration",
        /// The limit for spam; the number stops. Alert on any.
        StopNumber = "stop_number",
        /// Not known whether WhatsApp has taken it.
        Unconfirmed = "unconfirmed",
    }
}

words! {
    /// How a delivery from Meta was answered.
    Delivery {
        /// 200: every item is on the broker.
        Acknowledged = "acknowledged",
        /// 401: the signature does not fit.
        BadSignature = "bad_signature",
        /// 400: not a delivery that can be split; it went to the dead letters or was refused.
        Unreadable = "unreadable",
        /// 413: larger than allowed.
        TooLarge = "too_large",
        /// 503: the broker did not acknowledge in time, Meta will come again. Alert when it lasts.
        Unavailable = "unavailable",
    }
}

words! {
    /// What an item of a delivery is.
    ItemKind {
        /// A contact's message.
        Message = "message",
        /// A status of one of our messages.
        Status = "status",
        /// A change of a template, an account or a number, or a shape not known yet; it is passed on all the same.
        Change = "change",
    }
}

words! {
    /// Where an item of a delivery ended (R3).
    InboundOutcome {
        /// One event in the log.
        Recorded = "recorded",
        /// One event in the log, too: the status of a message that another system sent from the same number.
        Foreign = "foreign",
        /// It had been recorded before.
        Duplicate = "duplicate",
        /// It cannot be understood and lies in the dead letters.
        DeadLetter = "dead_letter",
        /// It is understood and none of our business.
        Unhandled = "unhandled",
    }
}

words! {
    /// What became of a customer service window.
    WindowTransition {
        /// The contact wrote.
        Opened = "opened",
        /// It ends soon.
        ClosingSoon = "closing_soon",
        /// It has ended.
        Expired = "expired",
    }
}

words! {
    /// What came of a look at one partition of a projection.
    AuditResult {
        /// A sample was compared with the log.
        Compared = "compared",
        /// Not yet: the log is still being read up to there, or the projection is being built.
        Behind = "behind",
        /// It broke off: Redis or Kafka did not answer, or the projection was lost meanwhile.
        Failed = "failed",
    }
}
