//! What holds for every story, however the writers' events interleave.

use connector_domain::command::Content;
use connector_domain::composer::{Composer, compose};
use connector_domain::consent::{ConsentWords, Intent, classify, tapped};
use connector_domain::conversation::Conversation;
use connector_domain::decide::{Reason, announce, decide_expiry, decide_send};
use connector_domain::event::{
    Event, MessageReceived, OptInAccepted, OptInDeclined, OptedBackIn, OptedOut, WindowCause, WindowClosingSoon,
    WindowOpened,
};
use connector_domain::ids::EventId;
use connector_domain::settings::Rules;
use connector_domain::status::{DeliveryStatus, MessageState, advance};
use connector_domain::template::{placeholders, preview};
use connector_domain::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::scenario::{
    Fact, Scenario, Try, asked, called, disabled, enabled, greeting, greeting_call, imported, in_contacts, marketing,
    out_of_contacts, quick_reply, request_ended, request_failed, revoked, send, t, template_accepted, window_expired,
    wrote,
};

fn moment() -> impl Strategy<Value = Timestamp> {
    (0_i64..240, 0_i64..60).prop_map(|(hours, minutes)| t(hours, minutes))
}

fn intent() -> impl Strategy<Value = Intent> {
    select(vec![Intent::Other, Intent::Accept, Intent::Decline, Intent::Stop, Intent::StopMarketing, Intent::Start])
}

fn message(at: Timestamp, intent: Intent, message_type: &str) -> Fact {
    let mut fact = wrote(at, "…");
    if let Event::MessageReceived(received) = &mut fact.event {
        received.intent = intent;
        received.message_type = message_type.to_owned();
        if message_type == "system" {
            received.window_deadline = None;
        }
    }
    fact
}

/// A message.
fn inbound() -> impl Strategy<Value = Fact> {
    (moment(), intent(), select(vec!["text", "button", "image", "system"]))
        .prop_map(|(at, intent, kind)| message(at, intent, kind))
}

/// What the inbound processor writes.
fn contact() -> impl Strategy<Value = Fact> {
    prop_oneof![4 => inbound(), 1 => moment().prop_map(called)]
}

/// What the tracker says about somebody's answer, true or stale.
fn announcement() -> impl Strategy<Value = Fact> {
    (moment(), 0_u8..4, "[a-d]").prop_map(|(at, kind, source)| {
        let source = EventId::derived(&source);
        let event = match kind {
            0 => OptInAccepted { source, how: "text".to_owned() }.into(),
            1 => OptInDeclined { source }.into(),
            2 => OptedOut { source, how: "stop_word".to_owned() }.into(),
            _ => OptedBackIn { source }.into(),
        };
        Fact { at, event }
    })
}

/// What the tracker writes on its own, but for the withdrawal by an operator and the failure of a request: the former and a START, the
/// latter and a "yes" in words are in the order of the log.
fn tracker() -> impl Strategy<Value = Fact> {
    prop_oneof![
        moment().prop_map(asked),
        moment().prop_map(imported),
        (moment(), moment()).prop_map(|(at, asked_at)| request_ended(at, asked_at)),
        announcement(),
    ]
}

/// What the timer writes.
fn timer() -> impl Strategy<Value = Fact> {
    (moment(), 0_u8..3).prop_map(|(deadline, kind)| match kind {
        0 => window_expired(deadline),
        1 => Fact { at: deadline, event: WindowClosingSoon { deadline }.into() },
        _ => Fact {
            at: deadline,
            event: WindowOpened { deadline, source: EventId::derived("a"), cause: WindowCause::Message }.into(),
        },
    })
}

/// What the sender writes.
fn sender() -> impl Strategy<Value = Fact> {
    moment().prop_map(template_accepted)
}

fn anything() -> impl Strategy<Value = Fact> {
    prop_oneof![
        4 => contact(),
        3 => tracker(),
        1 => timer(),
        1 => sender(),
        1 => moment().prop_map(revoked),
        1 => (moment(), moment(), select(vec![None, Some(131_026)]))
            .prop_map(|(at, asked_at, code)| request_failed(at, asked_at, code)),
        1 => (moment(), any::<bool>()).prop_map(|(at, stopped)| marketing(at, stopped)),
        1 => moment().prop_map(disabled),
        1 => moment().prop_map(out_of_contacts),
        2 => select(vec![enabled(), in_contacts()]),
    ]
}

/// One log out of several writers' streams: each keeps its own order, `turns` says who is next.
fn interleave(mut streams: Vec<Vec<Fact>>, turns: &[Index]) -> Vec<Fact> {
    let mut log = Vec::new();
    for turn in turns.iter().cycle() {
        streams.retain(|stream| !stream.is_empty());
        if streams.is_empty() {
            break;
        }
        let at = turn.index(streams.len());
        log.push(streams[at].remove(0));
    }
    log
}

fn fold(facts: &[Fact]) -> Conversation {
    let mut conversation = Conversation::default();
    for (at, fact) in facts.iter().enumerate() {
        conversation.evolve(&fact.event, EventId::derived(&at.to_string()), fact.at);
    }
    conversation
}

fn received(fact: &Fact) -> Option<&MessageReceived> {
    match &fact.event {
        Event::MessageReceived(received) => Some(received),
        _ => None,
    }
}

fn story(facts: Vec<Fact>, now: Timestamp) -> Scenario {
    let start = Scenario::given([enabled(), in_contacts()]);
    facts.into_iter().fold(start, Scenario::and).at(now)
}

fn decided(scenario: &Scenario, attempt: &Try, now: Timestamp) -> Result<(), Reason> {
    let Try::Send(command) = attempt else { panic!("only sends") };
    let decision = decide_send(&scenario.situation, command, Some(&greeting()), &scenario.rules, now);
    decision.map(drop).map_err(|rejection| rejection.reason)
}

proptest! {
    #[test]
    fn every_interleaving_of_the_writers_is_equally_safe(
        asked_first in any::<bool>(),
        contact in vec(contact(), 0..8),
        tracked in vec(tracker(), 0..6),
        timed in vec(timer(), 0..4),
        sent in vec(sender(), 0..3),
        turns in (vec(any::<Index>(), 24), vec(any::<Index>(), 24)),
    ) {
        // An answer follows its question in the log: the opt-in message leaves after its request was recorded.
        let question = if asked_first { vec![asked(t(0, 0))] } else { vec![] };
        let tracked: Vec<_> = tracked
            .into_iter()
            .filter(|fact| asked_first || !matches!(fact.event, Event::OptInRequested(_)))
            .collect();
        let streams = vec![contact, tracked, timed, sent];
        let log = |turns| [question.clone(), interleave(streams.clone(), turns)].concat();
        let (one, other) = (fold(&log(&turns.0)), fold(&log(&turns.1)));
        prop_assert_eq!(one.blocked(), other.blocked());
        prop_assert_eq!(one.deadline, other.deadline);
        prop_assert_eq!(one.last_inbound, other.last_inbound);
        prop_assert_eq!(one.last_template, other.last_template);
    }

    #[test]
    fn a_stop_is_never_lost(
        before in vec(anything(), 0..12),
        after in vec(anything(), 0..12),
        at in moment(),
        now in moment(),
    ) {
        let quiet = |fact: &Fact| received(fact).is_none_or(|m| !matches!(m.intent, Intent::Start | Intent::Accept));
        let after: Vec<_> = after.into_iter().filter(quiet).collect();
        // What the contact said later, and was read earlier, stands.
        let before: Vec<_> = before.into_iter().filter(|fact| quiet(fact) || fact.at <= at).collect();
        let facts = [before, vec![message(at, Intent::Stop, "text")], after].concat();
        prop_assert!(fold(&facts).blocked());
        let told = story(facts, now).and(enabled()).and(in_contacts()).at(now);
        for attempt in [send(Content::text("hi")), send(Content::template(greeting_call("Bob")))] {
            let attempt = attempt.with_send(|command| command.not_after = Some(now));
            prop_assert_eq!(decided(&told, &attempt, now), Err(Reason::OptedOut));
        }
    }

    #[test]
    fn of_stop_and_start_the_later_one_counts_however_they_are_delivered(
        said in vec((moment(), select(vec![Intent::Stop, Intent::Start, Intent::Other])), 1..10),
        order in vec(any::<Index>(), 10),
        again in vec(any::<Index>(), 0..4),
    ) {
        let mut rest = said.clone();
        let mut log = Vec::new();
        for index in order.iter().cycle().take(said.len()) {
            log.push(rest.remove(index.index(rest.len())));
        }
        log.extend(again.iter().map(|index| *index.get(&said)));
        let facts: Vec<_> = log.into_iter().map(|(at, intent)| message(at, intent, "text")).collect();
        let latest = |intent| said.iter().filter(|(_, other)| *other == intent).map(|(at, _)| *at).max();
        let (stop, start) = (latest(Intent::Stop), latest(Intent::Start));
        // Within a second the order of the log decides.
        prop_assume!(stop != start || stop.is_none());
        prop_assert_eq!(fold(&facts).blocked(), stop > start);
    }

    #[test]
    fn the_composer_and_the_gate_never_disagree(facts in vec(anything(), 0..16), now in moment()) {
        let told = story(facts, now);
        let composer = compose(&told.situation, &told.rules, now);
        let text = send(Content::text("hi")).with_send(|command| command.not_after = Some(now));
        let template = send(Content::template(greeting_call("Bob"))).with_send(|command| command.not_after = Some(now));
        let free_form = matches!(composer, Composer::FreeForm { until, .. } if now < until);
        let templates = matches!(composer, Composer::FreeForm { templates: true, .. } | Composer::TemplateOnly { .. });
        prop_assert_eq!(decided(&told, &text, now).is_ok(), free_form, "{:?}", composer);
        prop_assert_eq!(decided(&told, &template, now).is_ok(), templates, "{:?}", composer);
        let refusal = match composer {
            Composer::NotEnabled => Some(Reason::NotEnabled),
            Composer::NotAContact => Some(Reason::NotAContact),
            Composer::OptedOut => Some(Reason::OptedOut),
            Composer::OptInRequired { .. } => Some(Reason::OptInRequired),
            Composer::OptInPending { .. } => Some(Reason::OptInPending),
            Composer::TemplateOnly { .. } => Some(Reason::WindowClosed),
            Composer::FreeForm { .. } => None,
        };
        prop_assert_eq!(decided(&told, &text, now).err(), refusal);
    }

    #[test]
    fn the_deadline_is_the_latest_of_all_and_only_moves_forward(facts in vec(anything(), 0..24)) {
        let mut deadline = None;
        for upto in 0..=facts.len() {
            let folded = fold(&facts[..upto]).deadline;
            prop_assert!(folded >= deadline);
            deadline = folded;
        }
        let opened = |fact: &Fact| match &fact.event {
            Event::CallReceived(call) => Some(call.window_deadline),
            _ => received(fact)?.window_deadline,
        };
        prop_assert_eq!(deadline, facts.iter().filter_map(opened).max());
    }

    #[test]
    fn a_window_expires_exactly_once_however_often_its_timers_fire(
        messages in vec((moment(), 0_i64..5), 1..8),
        firings in vec((any::<Index>(), 0_i64..60), 0..30),
    ) {
        let mut messages = messages;
        messages.sort();
        let mut conversation = Conversation::default();
        let mut deadlines = Vec::new();
        let mut expired = Vec::new();
        let mut firings = firings.into_iter();
        let mut fire = |conversation: &mut Conversation, deadline, now| {
            if let Some(event) = decide_expiry(conversation, deadline, now) {
                conversation.evolve(&event, EventId::derived("expiry"), now);
                expired.push(deadline);
            }
        };
        for (number, (at, _)) in messages.iter().enumerate() {
            let fact = message(*at, Intent::Other, "text");
            conversation.evolve(&fact.event, EventId::derived(&number.to_string()), fact.at);
            deadlines.extend(conversation.deadline);
            // Any timer that was ever set may fire now, early, late or again.
            for (which, minutes) in firings.by_ref().take(4) {
                let now = *at + std::time::Duration::from_secs(minutes.unsigned_abs() * 3600);
                fire(&mut conversation, *which.get(&deadlines), now);
            }
        }
        let last = conversation.deadline.expect("the contact wrote");
        for _ in 0..3 {
            for deadline in &deadlines {
                fire(&mut conversation, *deadline, t(1000, 0));
            }
        }
        let mut once = expired.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), expired.len(), "no expiry twice");
        prop_assert_eq!(expired.last(), Some(&last), "the last window always expires");
    }

    #[test]
    fn announcements_change_nothing_however_late_or_often_they_come(
        facts in vec(anything(), 0..12),
        later in vec(announcement(), 0..6),
    ) {
        let folded = fold(&facts);
        prop_assert_eq!(fold(&[facts, later].concat()), folded);
    }

    #[test]
    fn what_the_tracker_announces_is_what_the_message_changed(facts in vec(anything(), 0..12), fact in inbound()) {
        let id = EventId::derived("the-message");
        let before = fold(&facts);
        let mut after = before.clone();
        after.evolve(&fact.event, id, fact.at);
        let said = announce(&before, &after, id, received(&fact).expect("inbound"));
        let gate_changed = before.consent.status != after.consent.status
            && after.consent.status != connector_domain::consent::ConsentStatus::Implied;
        prop_assert_eq!(said.len(), usize::from(gate_changed));
    }

    #[test]
    fn a_call_moves_the_window_forward_and_nothing_that_was_agreed(facts in vec(anything(), 0..12), at in moment()) {
        let before = fold(&facts);
        let mut after = before.clone();
        after.evolve(&called(at).event, EventId::derived("the-call"), at);
        prop_assert_eq!(after.deadline, before.deadline.max(Some(at + Rules::default().window)));
        prop_assert_eq!((&after.consent, after.last_inbound), (&before.consent, before.last_inbound));
    }

    #[test]
    fn a_state_survives_being_stored(facts in vec(anything(), 0..12)) {
        let folded = fold(&facts);
        let stored = serde_json::to_string(&folded).expect("serializes");
        prop_assert_eq!(serde_json::from_str::<Conversation>(&stored).expect("deserializes"), folded);
    }

    #[test]
    fn statuses_lead_to_the_same_state_in_any_order(
        statuses in vec(select(vec![
            DeliveryStatus::Sent, DeliveryStatus::Delivered, DeliveryStatus::Read, DeliveryStatus::Played,
            DeliveryStatus::Failed, DeliveryStatus::Deleted, DeliveryStatus::Warning, DeliveryStatus::Unknown,
        ]), 0..8),
    ) {
        let fold = |state, status: &DeliveryStatus| advance(state, *status);
        let forwards = statuses.iter().fold(MessageState::Accepted, fold);
        let backwards = statuses.iter().rev().fold(MessageState::Accepted, fold);
        prop_assert_eq!(forwards, backwards);
    }

    #[test]
    fn no_text_is_too_strange_for_the_classifier_or_the_preview(text in any::<String>(), payload in any::<Option<String>>()) {
        let _ = tapped(&ConsentWords::default(), payload.as_deref(), Some(&text));
        let _ = classify(&ConsentWords::default(), &text);
        let mut template = greeting();
        template.body.clone_from(&text);
        template.buttons.push(quick_reply(&text));
        prop_assert!(preview(&template, &greeting_call(&text)).len() >= template.buttons.len());
        let braces = format!("{{{{{text}}}}}{{{{1}}}}{text}");
        prop_assert!(placeholders(&braces).len() <= braces.len());
    }

    #[test]
    fn no_clock_is_too_strange_for_the_window(whatsapp in any::<i64>(), received in any::<i64>(), now in any::<i64>()) {
        let rules = Rules::default();
        let (whatsapp, received, now) = (Timestamp(whatsapp), Timestamp(received), Timestamp(now));
        let deadline = connector_domain::window::deadline(whatsapp, received, &rules);
        prop_assert!(deadline <= received + rules.window);
        let open = connector_domain::window::is_open(deadline, rules.margin, now);
        prop_assert!(!(open && connector_domain::window::expiry_due(deadline, now)));
    }
}
