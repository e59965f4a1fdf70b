//! P13 and P9: who wants no marketing gets none, as the refusals and words that tell of it say, before any call.

use connector_domain::consent::ConsentStatus;
use connector_domain::decide::Reason;
use connector_domain::template::Template;

use crate::scenario::{
    HOUR, MINUTE, Scenario, greeting, marketing, refused, refused_later, t, tapped, template, text, wrote,
};

/// The greeting is a marketing template here.
fn offering(story: Scenario) -> Scenario {
    story.with_template(Some(Template { category: "MARKETING".to_owned(), ..greeting() }))
}

fn consented() -> Scenario {
    offering(Scenario::consented())
}

#[test]
fn the_refusal_that_a_contact_has_stopped_marketing_counts_like_their_own_word_until_they_resume() {
    for told in [refused(t(1, 0), 131_050), refused_later(t(1, 0), 131_050)] {
        let story = consented().when(template()).then_accepts().and(told);
        let story =
            story.at(t(1000, 0)).when(template()).then_rejects_field(Reason::MarketingStopped, "content.template.name");
        assert_eq!(story.clone().at(t(1, 0)).dispatching(), [Err(Reason::MarketingStopped)], "also what is queued");
        let utility = story.clone().with_template(Some(greeting()));
        utility.when(template()).then_accepts();
        story.clone().and(marketing(t(1001, 0), false)).when(template()).then_accepts();
        story.clone().and(wrote(t(1001, 0), "START")).when(template()).then_accepts();
        let overtaken = story.and(marketing(t(0, 59), false));
        overtaken.when(template()).then_rejects(Reason::MarketingStopped);
    }
}

#[test]
fn what_whatsapp_keeps_from_a_contact_for_now_is_held_back_for_a_while_with_its_end() {
    for code in [131_049, 130_472] {
        for told in [refused(t(1, 0), code), refused_later(t(1, 0), code)] {
            let story = consented().and(wrote(t(0, 30), "hello")).and(told);
            let tried = story.clone().when(template());
            let rejection = tried.result.as_ref().expect_err("held back");
            assert!(rejection.remedy.contains("2023-11-15T23:13:20.000Z"), "{}", rejection.remedy);
            let story = tried.then_rejects_field(Reason::MarketingStopped, "content.template.name");
            let story = story.when(text("but typing goes on")).then_accepts();
            let story = story.and(marketing(t(2, 0), false)).at(t(25, 0) - MINUTE);
            let story = story.when(template()).then_rejects(Reason::MarketingStopped);
            let story = story.at(t(25, 0)).when(template()).then_accepts();
            let again = story.and(refused_later(t(26, 0), code)).and(refused(t(3, 0), code));
            again.at(t(26, 0) + 24 * HOUR - MINUTE).when(template()).then_rejects(Reason::MarketingStopped);
        }
    }
}

#[test]
fn other_refusals_say_nothing_about_marketing() {
    for code in [131_026, 131_047, 131_051, 131_048, 132_015] {
        consented().and(refused(t(1, 0), code)).and(refused_later(t(1, 0), code)).when(template()).then_accepts();
    }
}

#[test]
fn stop_promotions_stops_marketing_and_nothing_else() {
    for told in [
        wrote(t(1, 0), "Stop promotions"),
        tapped(t(1, 0), "Stop promotions", "Stop promotions"),
        tapped(t(1, 0), "offer-7", "Detener promociones"),
    ] {
        let story = consented().and(told).when(template()).then_rejects(Reason::MarketingStopped);
        assert_eq!(story.conversation().consent.status, ConsentStatus::Accepted);
        let story = story.when(text("As you like.")).then_accepts();
        story.and(wrote(t(2, 0), "START")).when(template()).then_accepts();
    }
    // Whoever was never asked has written, no more.
    let story = Scenario::given([wrote(t(1, 0), "Stop promotions")]);
    assert_eq!(story.conversation().consent.status, ConsentStatus::Implied);
    assert!(story.conversation().marketing_stopped);
    let late = consented().and(wrote(t(3, 0), "START")).and(wrote(t(1, 0), "Stop promotions"));
    late.when(template()).then_accepts();
}
