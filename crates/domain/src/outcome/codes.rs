//! The table of Graph error codes (Meta's page of error codes, and what implementers report about it).

use std::ops::RangeInclusive;
use std::time::Duration;

use Class as C;

use super::{Scope, Verdict};
use crate::command::SendPolicy;

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// What a code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again after so many seconds at least.
    Retry(u64, Scope),
    /// Too fast for a number, an account or the app.
    Throttle(Scope),
    /// Too fast for this recipient.
    ThrottlePair,
    /// Not before so many seconds: the message ends.
    Wait(u64),
    /// Never this message.
    Permanent,
    /// The account, the number or the app is not set up for it.
    Configuration,
    /// Spam limit.
    Stop,
    /// May have been sent although it is an error.
    Ambiguous,
}

impl Class {
    pub(super) fn verdict(self, code: i64, policy: SendPolicy) -> Verdict {
        match self {
            Self::Retry(secs, scope) => Verdict::Retry { after: Duration::from_secs(secs), scope, code },
            Self::Throttle(scope) => Verdict::ThrottleNumber { code, scope },
            Self::ThrottlePair => Verdict::ThrottlePair,
            Self::Wait(secs) => Verdict::Wait { code, at_least: Duration::from_secs(secs) },
            Self::Permanent => Verdict::Permanent { code },
            Self::Configuration => Verdict::Configuration { code },
            Self::Stop => Verdict::StopNumber { code },
            Self::Ambiguous => match policy {
                SendPolicy::AtMostOnce => Verdict::Unconfirmed { observed: "server_error" },
                SendPolicy::AtLeastOnce => {
                    Verdict::Retry { after: Duration::from_secs(5), scope: Scope::Message, code }
                }
            },
        }
    }
}

/// One row of the table.
struct Row {
    /// The codes, both ends included.
    codes: RangeInclusive<i64>,
    /// The subcode it is about; `None`: any, and none.
    subcode: Option<i64>,
    class: Class,
    /// Where the code is described, and what it says.
    source: &'static str,
}

const fn row(code: i64, class: Class, source: &'static str) -> Row {
    range(code, code, class, source)
}

const fn range(first: i64, last: i64, class: Class, source: &'static str) -> Row {
    Row { codes: first..=last, subcode: None, class, source }
}

const fn sub(code: i64, subcode: i64, class: Class, source: &'static str) -> Row {
    Row { codes: code..=code, subcode: Some(subcode), class, source }
}

/// Every code that Meta's pages and the notes of implementers name, in the order of the codes; a row with a subcode stands before the row
/// of its code. Sources: *error codes* is Meta's page `whatsapp/support/error-codes` (2026-09-11), *Graph* its page `graph-api/guides/error-handling`,
/// *changelog* the WhatsApp changelog of 2026, *field* what public clients report.
///
/// `Configuration` pauses a number and is only for what every message of the number meets; what concerns one message, one template or one
/// recipient ends that message.
const TABLE: &[Row] = &[
    row(0, C::Configuration, "error codes: the app user cannot be authenticated"),
    row(
        1,
        C::Ambiguous,
        "error codes: invalid request or possible server error; does not say whether the message left",
    ),
    row(2, C::Ambiguous, "error codes: temporary, downtime or overload; does not say whether the message left"),
    row(3, C::Configuration, "error codes: capability or permission"),
    row(4, C::Throttle(Scope::App), "error codes: the app's call limit"),
    row(10, C::Configuration, "error codes: permission not granted or removed"),
    row(17, C::Throttle(Scope::App), "field: Graph's user request limit"),
    row(32, C::Throttle(Scope::App), "field: Graph's page request limit"),
    row(33, C::Configuration, "error codes: the business phone number has been deleted"),
    sub(100, 33, C::Configuration, "field: the number is not there for this token (moved, permission lost)"),
    row(100, C::Permanent, "error codes: unsupported or misspelt parameter, or too long"),
    row(102, C::Configuration, "Graph: session or access token no longer valid"),
    row(104, C::Configuration, "Graph: an access token is required"),
    row(190, C::Configuration, "error codes: access token expired or invalid, whatever the subcode"),
    range(200, 299, C::Configuration, "error codes: permission not granted or removed"),
    row(341, C::Throttle(Scope::App), "Graph: application limit reached"),
    row(368, C::Configuration, "error codes: the account is restricted for violating a policy"),
    row(613, C::Throttle(Scope::App), "Graph: calls to this endpoint exceed the rate limit"),
    row(803, C::Configuration, "field: the number's node does not exist for this token"),
    row(80_007, C::Throttle(Scope::Account), "error codes: the account's rate limit"),
    row(80_008, C::Throttle(Scope::Account), "error codes: too many calls to this account"),
    row(130_403, C::Permanent, "error codes: the business has blocked this user"),
    row(130_429, C::Throttle(Scope::Number), "error codes: the number's message throughput"),
    row(130_472, C::Wait(24 * HOUR), "error codes: the recipient is part of an experiment"),
    row(130_497, C::Permanent, "error codes: the account may not message users in this country"),
    row(131_000, C::Ambiguous, "error codes: unknown error; does not say whether the message left"),
    row(131_005, C::Configuration, "error codes: permission not granted or removed"),
    row(131_008, C::Permanent, "error codes: required parameter missing"),
    row(131_009, C::Permanent, "error codes: parameter value not valid"),
    row(131_016, C::Retry(5 * SECOND, Scope::Message), "error codes: service temporarily unavailable"),
    row(131_021, C::Permanent, "error codes: sender and recipient are the same"),
    row(131_026, C::Permanent, "error codes: undeliverable"),
    row(131_030, C::Permanent, "error codes: the recipient is not in the allow-list of a test number"),
    row(131_031, C::Configuration, "error codes: the account is locked"),
    row(131_037, C::Configuration, "error codes: the number's display name is not approved"),
    row(131_042, C::Configuration, "error codes: payment method"),
    row(131_043, C::Permanent, "field: the message expired"),
    row(131_044, C::Configuration, "field: payment"),
    row(131_045, C::Configuration, "error codes: the number's certificate or registration"),
    row(131_047, C::Permanent, "error codes: the customer service window is closed"),
    row(131_048, C::Stop, "error codes: the number's limit for spam"),
    row(131_049, C::Wait(24 * HOUR), "error codes: not delivered for a healthy ecosystem"),
    row(131_050, C::Permanent, "error codes: the recipient stopped marketing messages"),
    row(131_051, C::Permanent, "error codes: unsupported message type"),
    row(131_052, C::Permanent, "error codes: media download"),
    row(131_053, C::Permanent, "error codes: media upload"),
    row(131_055, C::Permanent, "error codes: method not allowed for this message"),
    row(131_056, C::ThrottlePair, "error codes: too many messages to this recipient"),
    row(
        131_057,
        C::Retry(MINUTE, Scope::Number),
        "error codes: the number is in maintenance, an upgrade of its throughput say",
    ),
    row(131_059, C::Permanent, "error codes: paging cursor; no send gets it"),
    row(131_060, C::Permanent, "error codes: message unavailable; only in what is received"),
    row(131_061, C::Permanent, "changelog: a template with a maximum price is sent by another endpoint"),
    row(131_062, C::Permanent, "error codes: no business-scoped user id for this kind of message"),
    row(131_063, C::Permanent, "changelog: marketing templates of this account are sent by another endpoint"),
    row(
        131_064,
        C::Configuration,
        "error codes: the account's messaging limit because of misclassified templates; lifts by itself",
    ),
    row(
        131_065,
        C::Permanent,
        "changelog: a template with a maximum price is not available in the recipient's country",
    ),
    row(131_070, C::Permanent, "changelog: another responder owns the thread"),
    row(132_000, C::Permanent, "error codes: number of template parameters"),
    row(132_001, C::Permanent, "error codes: no such approved template in this language"),
    row(132_005, C::Permanent, "error codes: the filled template is too long"),
    row(132_007, C::Permanent, "error codes: the template's content violates a policy"),
    row(132_008, C::Permanent, "error codes: value of a template parameter"),
    row(132_012, C::Permanent, "error codes: format of a template parameter"),
    row(132_015, C::Wait(3 * HOUR), "error codes: the template is paused for 3 hours, then for 6"),
    row(132_016, C::Permanent, "error codes: the template is disabled"),
    row(132_018, C::Permanent, "changelog: text of a template parameter, e.g. a line break"),
    row(132_068, C::Permanent, "error codes: the flow is blocked"),
    row(132_069, C::Retry(MINUTE, Scope::Message), "error codes: the flow is throttled"),
    range(133_000, 133_003, C::Configuration, "error codes: registration of the number"),
    row(133_004, C::Retry(30 * SECOND, Scope::Number), "error codes: the server for registrations is unavailable"),
    range(
        133_005,
        133_999,
        C::Configuration,
        "error codes: registration of the number (PIN, not registered, too many attempts)",
    ),
    row(134_011, C::Configuration, "error codes: terms of payment not accepted"),
    row(134_100, C::Permanent, "error codes: only marketing messages by this endpoint"),
    row(
        134_101,
        C::Retry(MINUTE, Scope::Message),
        "error codes: the template is still being copied, up to ten minutes",
    ),
    row(134_102, C::Configuration, "error codes: the endpoint for marketing is not available to the account"),
    row(135_000, C::Permanent, "error codes: generic error of the request's parameters"),
    row(137_000, C::Permanent, "error codes: the recipient's identity key has changed"),
    range(138_000, 138_999, C::Permanent, "error codes: calls; no send gets it"),
    range(139_000, 139_999, C::Permanent, "error codes: flows and blocked users; no send gets it"),
    range(147_000, 147_999, C::Permanent, "changelog: user names; no send gets it"),
    range(200_005, 200_007, C::Permanent, "error codes: template insights; no send gets it"),
    range(2_388_000, 2_388_999, C::Permanent, "error codes: templates are created; no send gets it"),
    row(2_494_100, C::Permanent, "error codes: maintenance of templates; no send gets it"),
    range(2_593_107, 2_593_109, C::Permanent, "error codes: history of a number; no send gets it"),
];

fn find(code: i64, subcode: Option<i64>) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.codes.contains(&code) && row.subcode.is_none_or(|wanted| Some(wanted) == subcode))
}

/// The class of a code with its subcode; `None` for codes that nobody knows.
#[must_use]
pub fn class(code: i64, subcode: Option<i64>) -> Option<Class> {
    find(code, subcode).map(|row| row.class)
}

/// What a code with its subcode says and where it is described, for people; `None` for codes that nobody knows.
#[must_use]
pub fn meaning(code: i64, subcode: Option<i64>) -> Option<&'static str> {
    find(code, subcode).map(|row| row.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Address;
    use crate::ids::Wamid;
    use crate::outcome::{Answer, BytesLeft, Exchange, GraphError, Transport, judge, judge_receipt};

    const POLICIES: [SendPolicy; 2] = [SendPolicy::AtMostOnce, SendPolicy::AtLeastOnce];

    fn http(status: u16, wamid: Option<&str>, code: Option<i64>, readable: bool) -> Exchange {
        answered(status, wamid, code.map(|code| GraphError { code, subcode: Some(2_494_055) }), readable)
    }

    fn answered(status: u16, wamid: Option<&str>, error: Option<GraphError>, readable: bool) -> Exchange {
        let answer = Answer::Http {
            status,
            wamid: wamid.map(Wamid::from),
            held: false,
            person: Address::default(),
            error,
            readable,
        };
        Exchange { left: BytesLeft::Maybe, answer }
    }

    fn code(status: u16, code: i64, policy: SendPolicy) -> Verdict {
        judge(&http(status, None, Some(code), true), policy)
    }

    /// The codes as the reference notes list them, by their class.
    const CONFIGURATION: &[i64] = &[
        0, 3, 10, 33, 102, 104, 190, 200, 210, 299, 368, 803, 131_005, 131_031, 131_037, 131_042, 131_044, 131_045,
        131_064, 133_000, 133_005, 133_006, 133_008, 133_009, 133_010, 133_015, 133_016, 134_011, 134_102,
    ];
    const PERMANENT: &[i64] = &[
        100, 130_403, 130_497, 131_008, 131_009, 131_021, 131_026, 131_030, 131_043, 131_047, 131_050, 131_051,
        131_052, 131_053, 131_055, 131_059, 131_060, 131_061, 131_062, 131_063, 131_065, 131_070, 132_000, 132_001,
        132_005, 132_007, 132_008, 132_012, 132_016, 132_018, 132_068, 134_100, 135_000, 137_000, 138_000, 138_038,
        139_100, 147_001, 147_005, 200_005, 200_007, 2_388_019, 2_388_040, 2_494_100, 2_593_107, 2_593_109,
    ];

    #[test]
    fn every_code_of_the_table_means_the_same_under_every_http_status() {
        for status in [200, 400, 401, 403, 404, 429, 500, 503] {
            for policy in POLICIES {
                for known in CONFIGURATION {
                    assert_eq!(code(status, *known, policy), Verdict::Configuration { code: *known });
                }
                for known in PERMANENT {
                    assert_eq!(code(status, *known, policy), Verdict::Permanent { code: *known });
                }
                for (known, scope) in [
                    (4, Scope::App),
                    (17, Scope::App),
                    (32, Scope::App),
                    (341, Scope::App),
                    (613, Scope::App),
                    (80_007, Scope::Account),
                    (80_008, Scope::Account),
                ] {
                    let throttled = Verdict::ThrottleNumber { code: known, scope };
                    assert_eq!(code(status, known, policy), throttled);
                }
                for known in [131_016, 131_057, 132_069, 133_004, 134_101] {
                    assert!(matches!(code(status, known, policy), Verdict::Retry { code, .. } if code == known));
                }
                for (known, hours) in [(130_472, 24), (131_049, 24), (132_015, 3)] {
                    let wait = Verdict::Wait { code: known, at_least: Duration::from_secs(hours * HOUR) };
                    assert_eq!(code(status, known, policy), wait);
                }
                let throttled = Verdict::ThrottleNumber { code: 130_429, scope: Scope::Number };
                assert_eq!(code(status, 130_429, policy), throttled);
                assert_eq!(code(status, 131_056, policy), Verdict::ThrottlePair);
                assert_eq!(code(status, 131_048, policy), Verdict::StopNumber { code: 131_048 });
            }
        }
    }

    #[test]
    fn a_subcode_counts_where_the_table_names_it_and_nowhere_else() {
        let judged = |code, subcode| {
            let error = Some(GraphError { code, subcode });
            judge(&answered(400, None, error, true), SendPolicy::AtMostOnce)
        };
        assert_eq!(judged(100, Some(33)), Verdict::Configuration { code: 100 });
        assert_eq!(
            judge_receipt(&answered(400, None, Some(GraphError { code: 100, subcode: Some(33) }), true)),
            Verdict::Configuration { code: 100 }
        );
        for other in [None, Some(0), Some(34), Some(2_388_040), Some(2_494_010)] {
            assert_eq!(judged(100, other), Verdict::Permanent { code: 100 });
        }
        for subcode in [None, Some(33), Some(458), Some(460), Some(463), Some(467), Some(492)] {
            assert_eq!(judged(190, subcode), Verdict::Configuration { code: 190 });
            assert_eq!(judged(131_026, subcode), Verdict::Permanent { code: 131_026 });
        }
    }

    #[test]
    fn the_rows_stand_in_the_order_of_their_codes_and_name_their_sources() {
        for rows in TABLE.windows(2) {
            let (first, next) = (&rows[0], &rows[1]);
            let refined = first.subcode.is_some() && first.codes == next.codes;
            assert!(refined || first.codes.end() < next.codes.start(), "{:?} {:?}", first.codes, next.codes);
        }
        let named =
            |row: &Row| row.source.split_once(": ").is_some_and(|(page, says)| !page.is_empty() && !says.is_empty());
        assert!(TABLE.iter().all(named));
    }

    #[test]
    fn the_three_codes_that_may_hide_a_success_follow_the_policy_of_the_command() {
        for ambiguous in [1, 2, 131_000] {
            let unconfirmed = Verdict::Unconfirmed { observed: "server_error" };
            assert_eq!(code(500, ambiguous, SendPolicy::AtMostOnce), unconfirmed);
            let retried = code(400, ambiguous, SendPolicy::AtLeastOnce);
            assert!(matches!(retried, Verdict::Retry { scope: Scope::Message, .. }));
        }
    }

    #[test]
    fn an_unknown_code_refuses_in_a_4xx_and_proves_nothing_elsewhere() {
        for unknown in [5, 99, 131_999, 300, 136_000, 2_389_000, -1, i64::MAX] {
            for policy in POLICIES {
                assert_eq!(code(400, unknown, policy), Verdict::Permanent { code: unknown });
                assert_eq!(code(500, unknown, policy), Verdict::Unconfirmed { observed: "server_error" });
                assert_eq!(code(200, unknown, policy), Verdict::Unconfirmed { observed: "unreadable" });
            }
        }
    }

    #[test]
    fn a_wamid_in_a_2xx_is_sent_and_nothing_else_is() {
        for policy in POLICIES {
            let sent = Verdict::Sent { wamid: Some("wamid.A".into()), held: false };
            assert_eq!(judge(&http(200, Some("wamid.A"), None, true), policy), sent);
            for (status, observed) in
                [(200, "unreadable"), (204, "unreadable"), (302, "unreadable"), (400, "unreadable")]
            {
                for readable in [true, false] {
                    let verdict = judge(&http(status, None, None, readable), policy);
                    assert_eq!(verdict, Verdict::Unconfirmed { observed });
                }
            }
            for status in [500, 502, 503, 504, 599] {
                let verdict = judge(&http(status, Some("wamid.A"), None, true), policy);
                assert_eq!(verdict, Verdict::Unconfirmed { observed: "server_error" });
            }
            assert_eq!(judge(&http(408, None, None, true), policy), Verdict::Unconfirmed { observed: "timeout" });
            let gateway = Verdict::ThrottleNumber { code: 429, scope: Scope::Number };
            assert_eq!(judge(&http(429, None, None, true), policy), gateway);
            assert_eq!(judge(&http(429, None, None, false), policy), Verdict::Unconfirmed { observed: "unreadable" });
        }
    }

    #[test]
    fn without_an_answer_only_a_request_that_provably_never_left_is_free_to_repeat() {
        use Transport::{Connect, Dns, Other, Reset, Timeout, Tls};
        for transport in [Connect, Timeout, Reset, Tls, Dns, Other] {
            let exchange = |left| Exchange { left, answer: Answer::Transport(transport) };
            for policy in POLICIES {
                assert_eq!(judge(&exchange(BytesLeft::No), policy), Verdict::NotSent);
                assert!(!judge(&exchange(BytesLeft::Maybe), policy).is_definite());
            }
        }
    }

    #[test]
    fn a_receipt_needs_no_id_to_have_been_sent() {
        assert_eq!(judge_receipt(&http(200, None, None, true)), Verdict::Sent { wamid: None, held: false });
        assert_eq!(judge_receipt(&http(500, None, Some(131_000), true)), Verdict::Permanent { code: 131_000 });
        assert_eq!(judge_receipt(&http(400, None, Some(131_056), true)), Verdict::ThrottlePair);
    }
}
