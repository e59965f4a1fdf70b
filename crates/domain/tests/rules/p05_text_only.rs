//! P5: text messaging only; what else arrives is never lost and counts as a reply.

use connector_domain::command::{Content, ContentKind};
use connector_domain::composer::Composer;
use connector_domain::decide::Reason;

use crate::scenario::{HOUR, MINUTE, Scenario, called, of_kind, send, sent, t, text, wrote};

#[test]
fn what_is_not_text_cannot_be_sent() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    story.when(of_kind(ContentKind::Unknown)).then_rejects(Reason::UnsupportedContent);
}

#[test]
fn a_text_has_1_to_4096_characters_counted_the_longer_way() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello"));
    let story = story.when(text("")).then_rejects(Reason::Invalid);
    let story = story.when(text(" \n ")).then_rejects_field(Reason::Invalid, "content.text");
    let story = story.when(text(&"é".repeat(4096))).then_accepts();
    let story = story.when(text(&"é".repeat(4097))).then_rejects(Reason::Invalid);
    let story = story.when(text(&"🦊".repeat(2048))).then_accepts();
    let story = story.when(text(&"🦊".repeat(2049))).then_rejects(Reason::Invalid);
    let nothing = send(Content { text: None, ..Content::text("") });
    story.when(nothing).then_rejects_field(Reason::Invalid, "content.text");
}

#[test]
fn a_picture_counts_as_a_reply_and_what_whatsapp_says_itself_does_not() {
    for kind in ["image", "audio", "sticker", "location", "unsupported", "reaction", "something_new"] {
        let until = t(25, 0) - MINUTE;
        let story = Scenario::consented().and(sent(t(1, 0), kind));
        story.shows(&Composer::FreeForm { until, templates: true }).when(text("nice")).then_accepts();
    }
    for kind in ["system", "request_welcome"] {
        Scenario::consented().and(sent(t(1, 0), kind)).when(text("nice")).then_rejects(Reason::WindowClosed);
    }
}

#[test]
fn a_picture_renews_the_window() {
    let story = Scenario::consented().and(wrote(t(1, 0), "hello")).and(sent(t(20, 0), "image"));
    let story = story.at(t(1, 0) + 30 * HOUR).when(text("nice")).then_accepts();
    assert_eq!(story.conversation().window_since, Some(t(1, 0)));
}

#[test]
fn receipts_need_a_message_they_are_about_and_nothing_else() {
    for kind in [ContentKind::Read, ContentKind::Typing] {
        Scenario::consented().when(of_kind(kind)).then_rejects_field(Reason::Invalid, "content.reply_to");
        let by_phone = Scenario::consented().and(called(t(1, 0)));
        by_phone.when(of_kind(kind)).then_rejects_field(Reason::Invalid, "content.reply_to");
        let story = Scenario::consented().and(wrote(t(1, 0), "STOP")).at(t(50, 0));
        let story = story.when(of_kind(kind)).then_accepts();
        let nameless = of_kind(kind).with_send(|command| command.content.reply_to = None);
        story.when(nameless).then_rejects_field(Reason::Invalid, "content.reply_to");
    }
}
