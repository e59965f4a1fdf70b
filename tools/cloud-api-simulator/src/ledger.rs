//! The record of every `POST /{phone_number_id}/messages`: checkers count the POSTs per attempt with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

/// What became of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// WhatsApp has the message (whatever the response said).
    Accepted,
    /// Answered by a Graph error of this code; not accepted.
    Refused(u32),
    /// Not accepted, and no Graph answer was given (connection closed, HTML, ...).
    Lost,
}

/// One POST.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) at_ms: i64,
    pub(crate) phone_number_id: String,
    /// Normalised recipient, or as asked for when it was not valid.
    pub(crate) to: Option<String>,
    pub(crate) opaque: Option<String>,
    /// `text`, `template`, ..., `read`, `typing_indicator`, or empty for an unreadable body.
    pub(crate) kind: String,
    /// The text of a text message: tests name their command there.
    pub(crate) text: Option<String>,
    pub(crate) wamid: Option<String>,
    pub(crate) outcome: Outcome,
    /// Name of the fault that decided the response.
    pub(crate) fault: Option<&'static str>,
}

/// All POSTs in the order their outcome was decided; the place is the sequence number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    posts: Vec<Post>,
}

/// Query of `GET /simulator/ledger`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct LedgerQuery {
    /// Sequence number to start at (`next` of the answer before).
    #[serde(default)]
    since: usize,
    /// Rows in `posts` at most; totals always cover everything from `since` on.
    limit: Option<usize>,
    /// Only this `biz_opaque_callback_data`.
    opaque: Option<String>,
    /// Only this business number.
    phone_number_id: Option<String>,
    /// Only this contact.
    to: Option<String>,
}

#[derive(Default)]
struct Count {
    posts: u64,
    accepted: u64,
}

impl Count {
    fn add(&mut self, post: &Post) {
        self.posts += 1;
        self.accepted += u64::from(post.outcome == Outcome::Accepted);
    }

    fn json(&self) -> Value {
        json!({"posts": self.posts, "accepted": self.accepted})
    }
}

impl Post {
    fn is_message(&self) -> bool {
        self.kind != "read" && self.kind != "typing_indicator"
    }

    fn json(&self, seq: usize) -> Value {
        let (outcome, code) = match self.outcome {
            Outcome::Accepted => ("accepted", None),
            Outcome::Refused(code) => ("refused", Some(code)),
            Outcome::Lost => ("lost", None),
        };
        json!({
            "seq": seq, "at_ms": self.at_ms, "phone_number_id": self.phone_number_id, "to": self.to, "type": self.kind,
            "text": self.text, "biz_opaque_callback_data": self.opaque, "id": self.wamid, "outcome": outcome,
            "code": code, "fault": self.fault,
        })
    }
}

impl Ledger {
    pub(crate) fn record(&mut self, post: Post) {
        self.posts.push(post);
    }

    pub(crate) fn clear(&mut self) {
        self.posts.clear();
    }

    /// List and totals. Mark-as-read and typing requests are listed, but the totals count messages only.
    pub(crate) fn report(&self, query: &LedgerQuery) -> Value {
        let wanted = |post: &Post| {
            query.opaque.as_ref().is_none_or(|opaque| post.opaque.as_ref() == Some(opaque))
                && query.phone_number_id.as_ref().is_none_or(|id| &post.phone_number_id == id)
                && query.to.as_ref().is_none_or(|to| post.to.as_ref() == Some(to))
        };
        let rows = || self.posts.iter().enumerate().skip(query.since).filter(|(_, post)| wanted(post));
        let mut total = Count::default();
        let (mut refused, mut lost) = (0u64, 0u64);
        let mut by_opaque: BTreeMap<&str, Count> = BTreeMap::new();
        let mut by_phone: BTreeMap<&str, Count> = BTreeMap::new();
        for (_, post) in rows().filter(|(_, post)| post.is_message()) {
            total.add(post);
            refused += u64::from(matches!(post.outcome, Outcome::Refused(_)));
            lost += u64::from(post.outcome == Outcome::Lost);
            by_phone.entry(&post.phone_number_id).or_default().add(post);
            if let Some(opaque) = &post.opaque {
                by_opaque.entry(opaque).or_default().add(post);
            }
        }
        let repeated: Vec<&str> = by_opaque.iter().filter(|(_, c)| c.posts > 1).map(|(opaque, _)| *opaque).collect();
        let twice: Vec<&str> = by_opaque.iter().filter(|(_, c)| c.accepted > 1).map(|(opaque, _)| *opaque).collect();
        let counts = |map: &BTreeMap<&str, Count>| -> Value {
            map.iter().map(|(key, count)| ((*key).to_owned(), count.json())).collect::<serde_json::Map<_, _>>().into()
        };
        let posts: Vec<Value> =
            rows().take(query.limit.unwrap_or(usize::MAX)).map(|(seq, post)| post.json(seq)).collect();
        let next = match (query.limit, posts.last()) {
            (Some(limit), Some(last)) if posts.len() == limit => last["seq"].as_u64().map_or(0, |seq| seq + 1),
            _ => self.posts.len() as u64,
        };
        json!({
            "totals": {"posts": total.posts, "accepted": total.accepted, "refused": refused, "lost": lost,
                "distinct": by_opaque.len(), "posted_more_than_once": repeated, "accepted_more_than_once": twice},
            "by_phone_number": counts(&by_phone), "by_opaque": counts(&by_opaque), "posts": posts, "next": next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(opaque: &str, outcome: Outcome) -> Post {
        Post {
            at_ms: 1,
            phone_number_id: "1".to_owned(),
            to: Some("16505551234".to_owned()),
            opaque: Some(opaque.to_owned()),
            kind: "text".to_owned(),
            text: None,
            wamid: None,
            outcome,
            fault: None,
        }
    }

    #[test]
    fn posts_are_counted_per_attempt() {
        let mut ledger = Ledger::default();
        for entry in [post("a", Outcome::Lost), post("a", Outcome::Accepted), post("b", Outcome::Refused(131_047))] {
            ledger.record(entry);
        }
        ledger.record(Post { kind: "read".to_owned(), opaque: None, ..post("", Outcome::Accepted) });
        let report = ledger.report(&LedgerQuery::default());
        assert_eq!(report["totals"]["posts"], 3);
        assert_eq!(report["totals"]["posted_more_than_once"], json!(["a"]));
        assert_eq!(report["totals"]["accepted_more_than_once"], json!([]));
        assert_eq!(report["by_opaque"]["a"], json!({"posts": 2, "accepted": 1}));
        assert_eq!(report["posts"].as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn a_reader_can_page_with_since_and_limit() {
        let mut ledger = Ledger::default();
        (0..3).for_each(|_| ledger.record(post("a", Outcome::Accepted)));
        let page = ledger.report(&LedgerQuery { since: 1, limit: Some(1), ..LedgerQuery::default() });
        assert_eq!((&page["posts"][0]["seq"], &page["next"]), (&json!(1), &json!(2)));
        let rest = ledger.report(&LedgerQuery { since: 2, ..LedgerQuery::default() });
        assert_eq!((&rest["totals"]["posts"], &rest["next"]), (&json!(1), &json!(3)));
    }
}
