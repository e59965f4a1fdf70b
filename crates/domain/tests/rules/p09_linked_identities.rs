//! P9 for one person under several identities (R10): what is closed under one of them is closed under all.

use std::collections::BTreeMap;

use connector_domain::command::ConsentAction;
use connector_domain::consent::ConsentStatus;
use connector_domain::conversation::{Conversation, heeding};
use connector_domain::decide::{Reason, announce_ordered, carry_over};
use connector_domain::event::{ConversationLinked, Event, OptOutCarriedOver};
use connector_domain::ids::{EventId, StreamId};
use connector_domain::settings::Rules;
use connector_domain::time::Timestamp;

use crate::scenario::{
    Fact, HOUR, Scenario, asked, consent, conversation, enabled, import, imported, in_contacts, marketing,
    request_ended, revoked, t, tapped, template, text, wrote,
};

fn alias() -> StreamId {
    "k1-alias".into()
}

fn linked(at: Timestamp, to: &StreamId) -> Fact {
    Fact { at, event: ConversationLinked { canonical: to.clone() }.into() }
}

/// What was carried over to the conversation of the scenarios: a no that was said at `since`.
fn carried(at: Timestamp, since: Timestamp) -> Fact {
    Fact { at, event: OptOutCarriedOver { alias: alias(), since, marketing_only: false }.into() }
}

/// What is carried over when `fact` comes to the alias after `facts`.
fn carries(facts: &[Fact], fact: &Fact) -> Vec<Event> {
    let before = fold(facts);
    let mut after = before.clone();
    after.evolve(&fact.event, EventId::derived("the last"), fact.at);
    let Some((to, events)) = carry_over(&before, &after, &alias()) else { return Vec::new() };
    assert_eq!(to, conversation());
    events
}

fn fold(facts: &[Fact]) -> Conversation {
    let mut conversation = Conversation::default();
    for (n, fact) in facts.iter().enumerate() {
        conversation.evolve(&fact.event, EventId::derived(&format!("alias/{n}")), fact.at);
    }
    conversation
}

fn no(since: Timestamp, marketing_only: bool) -> Event {
    OptOutCarriedOver { alias: alias(), since, marketing_only }.into()
}

#[test]
fn a_link_carries_over_every_kind_of_no_with_its_moment() {
    let link = linked(t(5, 0), &conversation());
    let declined = [asked(t(0, 0)), wrote(t(1, 0), "no")];
    assert_eq!(carries(&[wrote(t(1, 0), "STOP")], &link), [no(t(1, 0), false)]);
    assert_eq!(carries(&declined, &link), [no(t(1, 0), false)]);
    assert_eq!(carries(&[revoked(t(2, 0))], &link), [no(t(2, 0), false)]);
    assert_eq!(carries(&[marketing(t(3, 0), true)], &link), [no(t(3, 0), true)]);
    let both = [wrote(t(1, 0), "STOP"), marketing(t(3, 0), true)];
    assert_eq!(carries(&both, &link), [no(t(1, 0), false), no(t(3, 0), true)]);
}

#[test]
fn nothing_is_carried_over_where_there_is_no_no_or_where_it_was_undone() {
    let link = linked(t(5, 0), &conversation());
    assert_eq!(carries(&[], &link), []);
    assert_eq!(carries(&[imported(t(1, 0))], &link), []);
    assert_eq!(carries(&[wrote(t(1, 0), "STOP"), wrote(t(2, 0), "START")], &link), []);
    assert_eq!(carries(&[marketing(t(1, 0), true), marketing(t(2, 0), false)], &link), []);
    assert_eq!(carries(&[wrote(t(1, 0), "STOP")], &linked(t(5, 0), &alias())), [], "a link to itself leads nowhere");
    assert_eq!(carries(&[wrote(t(1, 0), "STOP")], &wrote(t(2, 0), "STOP")), [], "it is linked nowhere");
}

#[test]
fn what_comes_to_the_alias_after_the_link_is_carried_over_once() {
    let before = [wrote(t(1, 0), "STOP"), linked(t(5, 0), &conversation())];
    assert_eq!(carries(&before[1..], &wrote(t(6, 0), "STOP")), [no(t(6, 0), false)]);
    assert_eq!(carries(&before, &wrote(t(6, 0), "STOP")), [no(t(6, 0), false)], "START may have undone the first");
    assert_eq!(carries(&before, &revoked(t(6, 0))), [no(t(6, 0), false)]);
    assert_eq!(carries(&before, &wrote(t(6, 0), "hello")), []);
    assert_eq!(carries(&before, &before[1]), [], "the same link again");
    assert_eq!(carries(&before, &carried(t(6, 0), t(1, 0))), [], "a circle brings it back");
    assert_eq!(carries(&before, &marketing(t(6, 0), true)), [no(t(6, 0), true)]);
}

#[test]
fn a_no_that_is_carried_over_closes_the_way_whatever_allowed_it() {
    let accepted = Scenario::given([enabled(), in_contacts(), asked(t(2, 0)), wrote(t(2, 1), "yes")]);
    let story = accepted.when(text("one")).then_accepts().when(template()).then_accepts();
    let story = story.and(carried(t(5, 0), t(1, 0)));
    assert_eq!(
        story.clone().dispatching(),
        [Err(Reason::OptedOut), Err(Reason::OptedOut)],
        "older than the yes in words"
    );
    let story =
        story.when(text("two")).then_rejects(Reason::OptedOut).when(import("form")).then_rejects(Reason::OptedOut);
    let story = story.and(wrote(t(6, 0), "START"));
    assert_eq!(story.conversation().consent.status, ConsentStatus::Accepted);
    let story = story.and(carried(t(7, 0), t(1, 0)));
    assert_eq!(story.conversation().consent.status, ConsentStatus::Accepted, "undone is undone");
    assert!(story.and(carried(t(7, 0), t(6, 30))).conversation().blocked(), "a later one is not");
}

#[test]
fn only_the_contacts_own_start_or_tap_stands_against_an_earlier_no() {
    let given = || Scenario::given([enabled(), in_contacts(), asked(t(2, 0))]);
    let no = || carried(t(5, 0), t(1, 0));
    for undoes in [wrote(t(3, 0), "START"), tapped(t(3, 0), "OPT_IN_ACCEPT", "Yes")] {
        assert!(!given().and(undoes.clone()).and(no()).conversation().blocked());
        assert!(given().and(undoes).and(carried(t(5, 0), t(4, 0))).conversation().blocked());
    }
    for allows in [imported(t(3, 0)), wrote(t(3, 0), "yes"), wrote(t(3, 0), "hello")] {
        assert!(given().and(allows).and(no()).conversation().blocked());
    }
    let later = given().and(wrote(t(4, 0), "STOP")).and(no());
    assert_eq!(later.conversation().consent.since, Some(t(4, 0)), "a START between the two undoes neither");
}

#[test]
fn marketing_goes_by_what_was_said_last() {
    let stop = |since| Fact { at: t(9, 0), event: no(since, true) };
    assert!(Scenario::consented().and(stop(t(1, 0))).conversation().marketing_stopped);
    let resumed = || Scenario::consented().and(marketing(t(3, 0), false));
    assert!(!resumed().and(stop(t(1, 0))).conversation().marketing_stopped);
    assert!(resumed().and(stop(t(4, 0))).conversation().marketing_stopped);
    assert!(!resumed().and(stop(t(4, 0))).conversation().blocked(), "everything else goes on");
}

#[test]
fn it_is_announced_once() {
    let says = |story: &Scenario, fact: &Fact| {
        let (id, before) = (EventId::derived("no"), story.conversation());
        let mut after = before.clone();
        after.evolve(&fact.event, id, fact.at);
        let events = announce_ordered(before, &after, id, &fact.event);
        events.iter().map(Event::type_name).collect::<Vec<_>>()
    };
    let story = Scenario::consented();
    assert_eq!(says(&story, &carried(t(5, 0), t(1, 0))), ["OptedOut"]);
    let story = story.and(carried(t(5, 0), t(1, 0)));
    assert_eq!(says(&story, &carried(t(6, 0), t(2, 0))), [""; 0]);
}

fn people(streams: &[(&str, &[Fact])]) -> BTreeMap<StreamId, Conversation> {
    streams.iter().map(|(stream, facts)| (StreamId::from(*stream), fold(facts))).collect()
}

#[test]
fn requests_to_one_person_count_together_under_whatever_identity_they_were_made() {
    let day = 24 * HOUR;
    let known = people(&[
        ("a", &[asked(t(0, 0)), request_ended(t(0, 0) + 7 * day, t(0, 0)), linked(t(0, 0) + 8 * day, &"b".into())]),
        ("b", &[asked(t(1, 0)), request_ended(t(1, 0) + 7 * day, t(1, 0)), asked(t(2, 0) + 8 * day)]),
    ]);
    let rules = Rules::default();
    let may_ask_again = |stream: &str, now| heeding(&stream.into(), &known).consent.may_ask_again(&rules, now);
    let now = t(3, 0) + 8 * day;
    assert_eq!(may_ask_again("b", now), Some(t(0, 0) + rules.opt_in_period), "three times");
    assert_eq!(may_ask_again("b", t(0, 0) + rules.opt_in_period), None);
    assert_eq!(may_ask_again("a", now), None);
}

#[test]
fn a_no_counts_where_it_leads_before_it_is_carried_over() {
    let stop = || wrote(t(1, 0), "STOP");
    let to = |stream: &str| linked(t(5, 0), &stream.into());
    let known = people(&[
        ("a", &[stop(), to("b")]),
        ("b", &[imported(t(2, 0)), to("c")]),
        ("c", &[imported(t(3, 0))]),
        // A circle; the alias of its one stream is linked to the other.
        ("x", &[imported(t(0, 0)), to("y")]),
        ("y", &[imported(t(0, 0)), to("x")]),
        ("z", &[stop(), marketing(t(1, 0), true), to("y")]),
        // Undone where the link leads.
        ("m", &[stop(), to("n")]),
        ("n", &[wrote(t(2, 0), "START"), imported(t(3, 0)), to("o")]),
        ("o", &[imported(t(0, 0))]),
    ]);
    let blocked = |stream: &str| heeding(&stream.into(), &known).blocked();
    assert!(["a", "b", "c", "x", "y", "z", "m"].into_iter().all(blocked));
    assert!(!["n", "o"].into_iter().any(blocked));
    assert!(heeding(&"x".into(), &known).marketing_stopped && !heeding(&"c".into(), &known).marketing_stopped);
    assert_eq!(heeding(&"nobody".into(), &known), Conversation::default());
}

#[test]
fn nothing_is_accepted_or_leaves_while_a_no_is_on_its_way() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello")).when(text("one")).then_accepts();
    let mut before = story.clone();
    before.situation.conversation.heed(&fold(&[wrote(t(0, 30), "STOP")]));
    assert_eq!(before.clone().dispatching(), [Err(Reason::OptedOut)]);
    before.when(text("two")).then_rejects(Reason::OptedOut);
    // An alias that is not linked by an event of its own yet.
    let mut own = story.conversation().clone();
    own.aliases.push(alias());
    let known = BTreeMap::from([(conversation(), own), (alias(), fold(&[wrote(t(0, 30), "STOP")]))]);
    assert!(heeding(&conversation(), &known).blocked());
    // Withdrawing goes on; it makes only quieter.
    story.when(consent(ConsentAction::Revoke)).then_records(&["ConsentRevoked"]);
}
