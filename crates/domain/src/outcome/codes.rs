//! The table of Graph error codes (Meta's page of error codes, and what implementers report about it).

use std::time::Duration;

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
    /// Too fast for a number or an account.
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

/// The class of a code; `None` for codes nobody knows, and for those that no send can get.
#[must_use]
pub fn class(code: i64) -> Option<Class> {
    use Class as C;
    Some(match code {
        // The app and its token.
        0 | 3 | 10 | 33 | 104 | 190 | 200..=299 | 803 => C::Configuration,
        // "Unknown" and "temporary": Meta itself does not say whether the message left.
        1 | 2 | 131_000 => C::Ambiguous,
        4 | 613 | 80_007 | 80_008 => C::Throttle(Scope::Account),
        100 => C::Permanent,
        // The account or the number: restricted, locked, unpaid, unregistered, display name, allow-list of a test number.
        368 | 131_005 | 131_030 | 131_031 | 131_037 | 131_042 | 131_044 | 131_045 | 134_011 => C::Configuration,
        130_429 => C::Throttle(Scope::Number),
        130_472 => C::Wait(24 * HOUR),
        // Blocked by us, a country we may not write to, bad requests, recipients that cannot be reached.
        130_403 | 130_497 | 131_008 | 131_009 | 131_021 | 131_026 | 131_043 | 135_000 | 137_000 => C::Permanent,
        131_016 => C::Retry(5 * SECOND, Scope::Message),
        // The window closed on WhatsApp's side, marketing stopped by the contact, types WhatsApp does not take.
        131_047 | 131_050..=131_053 | 131_055 | 131_060 | 131_062 => C::Permanent,
        131_048 => C::Stop,
        131_049 => C::Wait(24 * HOUR),
        131_056 => C::ThrottlePair,
        131_057 => C::Retry(MINUTE, Scope::Number),
        // Marketing API only, marketing disabled, limited because of misclassified templates.
        131_061 | 131_063 | 131_064 => C::Configuration,
        132_000 | 132_001 | 132_005 | 132_007 | 132_008 | 132_012 | 132_016 | 132_018 | 132_068 => C::Permanent,
        // A template is paused for 3 hours, then for 6.
        132_015 => C::Wait(3 * HOUR),
        132_069 => C::Retry(MINUTE, Scope::Message),
        133_004 => C::Retry(30 * SECOND, Scope::Number),
        // The rest of the registration family.
        133_000..=133_999 => C::Configuration,
        134_100 => C::Permanent,
        // The template is still being copied, up to ten minutes.
        134_101 => C::Retry(MINUTE, Scope::Message),
        134_102 => C::Configuration,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Address;
    use crate::ids::Wamid;
    use crate::outcome::{Answer, BytesLeft, Exchange, GraphError, Transport, judge, judge_receipt};

    const POLICIES: [SendPolicy; 2] = [SendPolicy::AtMostOnce, SendPolicy::AtLeastOnce];

    fn http(status: u16, wamid: Option<&str>, code: Option<i64>, readable: bool) -> Exchange {
        let error = code.map(|code| GraphError { code, subcode: Some(2_494_055) });
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
        0, 3, 10, 33, 104, 190, 200, 210, 299, 368, 803, 131_005, 131_030, 131_031, 131_037, 131_042, 131_044, 131_045,
        131_061, 131_063, 131_064, 133_000, 133_005, 133_006, 133_008, 133_009, 133_010, 133_015, 133_016, 134_011,
        134_102,
    ];
    const PERMANENT: &[i64] = &[
        100, 130_403, 130_497, 131_008, 131_009, 131_021, 131_026, 131_043, 131_047, 131_050, 131_051, 131_052,
        131_053, 131_055, 131_060, 131_062, 132_000, 132_001, 132_005, 132_007, 132_008, 132_012, 132_016, 132_018,
        132_068, 134_100, 135_000, 137_000,
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
                for known in [4, 613, 80_007, 80_008] {
                    let throttled = Verdict::ThrottleNumber { code: known, scope: Scope::Account };
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
        for unknown in [5, 99, 131_999, 138_001, 147_001, 2_388_040, -1, i64::MAX] {
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
