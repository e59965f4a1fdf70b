//! Deliveries in every documented shape: what comes out, and that nothing is lost or changed.

use std::path::{Path, PathBuf};

use connector_domain::command::{WebhookItem, WebhookKind};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::AttemptId;
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;
use connector_whatsapp::webhook::{
    Change, InboundMessage, InboundStatus, Split, SplitError, parse_change, parse_message, parse_status, split,
};

const ARRIVED: Timestamp = Timestamp(1_790_000_100_000);

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn items(body: &[u8]) -> Vec<Split> {
    split(body, ARRIVED, "delivery-1").unwrap()
}

fn only(name: &str) -> Split {
    let mut found = items(&fixture(name));
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}

fn message(name: &str) -> InboundMessage {
    parse_message(&only(name).item).unwrap()
}

fn status(name: &str) -> InboundStatus {
    parse_status(&only(name).item).unwrap()
}

fn change(name: &str) -> Change {
    parse_change(&only(name).item).unwrap()
}

fn known_by(address: &Address) -> &'static str {
    match (&address.phone, &address.bsuid) {
        (None, Some(id)) if id.expose().starts_with("group:") => "group",
        (Some(_), Some(_)) => "phone+bsuid",
        (Some(_), None) => "phone",
        (None, Some(_)) => "bsuid",
        (None, None) => "nobody",
    }
}

/// One line per item, so that a table can say what is expected.
fn summary(split: &Split) -> String {
    let item = &split.item;
    match item.kind {
        WebhookKind::Message => match parse_message(item) {
            Ok(message) => {
                assert_eq!(message.address, split.address, "the receiver's key and the processor's stream must agree");
                let carried = if message.unsupported { "unsupported" } else { "carried" };
                let window = if message.opens_window() { "opens" } else { "-" };
                format!("message {} {carried} {window} {}", message.message_type, known_by(&message.address))
            }
            Err(error) => format!("message {}", error.reason),
        },
        WebhookKind::Status => match parse_status(item) {
            Ok(status) => {
                assert_eq!(status.address, split.address);
                format!("status {:?} {}", status.status, known_by(&status.address))
            }
            Err(error) => format!("status {}", error.reason),
        },
        _ => match parse_change(item) {
            Ok(change) => {
                if let Change::Call(call) = &change {
                    assert_eq!(call.address, split.address);
                }
                let debug = format!("{change:?}");
                let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                format!("change {variant} {}", known_by(&split.address))
            }
            Err(error) => format!("change {}", error.reason),
        },
    }
}

const TABLE: &[(&str, &[&str])] = &[
    ("text", &["message text carried opens phone"]),
    ("text_bsuid_only", &["message text carried opens bsuid"]),
    ("text_bsuid_in_from", &["message text carried opens bsuid"]),
    ("text_numeric_timestamp_no_contact", &["message text carried opens phone"]),
    ("text_reply_with_referral", &["message text carried opens phone"]),
    ("text_in_group", &["message text carried - group"]),
    ("button", &["message button carried opens phone"]),
    ("button_without_context", &["message button carried opens phone"]),
    ("interactive_button_reply", &["message interactive carried opens phone"]),
    ("interactive_list_reply", &["message interactive carried opens phone"]),
    ("interactive_flow_reply", &["message interactive unsupported opens phone"]),
    ("image", &["message image unsupported opens phone"]),
    ("location", &["message location unsupported opens phone"]),
    ("contacts", &["message contacts unsupported opens phone"]),
    ("order", &["message order unsupported opens phone"]),
    ("reaction", &["message reaction unsupported opens phone"]),
    ("reaction_removed", &["message reaction unsupported opens phone"]),
    ("edit", &["message edit carried - phone"]),
    ("revoke", &["message revoke unsupported - phone"]),
    ("system_new_number", &["message system carried - phone"]),
    ("system_new_user_id", &["message system carried - phone"]),
    ("system_identity", &["message system carried - phone"]),
    ("system_user_id_rotated", &["message system carried - bsuid"]),
    ("system_user_id_rotated_new_sender", &["message system carried - bsuid"]),
    ("system_number_and_user_id", &["message system carried - phone+bsuid"]),
    ("standby_text", &["message text carried - phone"]),
    ("standby_status", &["status Delivered phone"]),
    ("standby_echo", &["change Other nobody"]),
    ("standby_empty", &["change Other nobody"]),
    ("handover", &["change Other nobody"]),
    ("status_free_service", &["status Sent phone+bsuid"]),
    ("username_revoked", &["change Other nobody"]),
    ("template_correct_category", &["change Other nobody"]),
    ("text_with_conversation_context", &["message text carried opens phone", "change Other nobody"]),
    ("user_actions", &["change Other nobody"]),
    ("unsupported", &["message unsupported unsupported opens phone"]),
    ("type_from_the_future", &["message hologram unsupported opens phone", "change Other nobody"]),
    ("status_sent", &["status Sent phone"]),
    ("status_delivered_bsuid", &["status Delivered bsuid"]),
    ("status_read_numeric", &["status Read phone"]),
    ("status_played", &["status Played phone"]),
    ("status_failed", &["status Failed phone"]),
    ("status_failed_old", &["status Failed phone"]),
    ("status_failed_nameless", &["status Failed nobody"]),
    ("status_group", &["status Read group"]),
    ("status_from_the_future", &["status Unknown phone"]),
    ("errors_only", &["change Errors nobody"]),
    ("message_with_errors", &["message interactive unsupported opens phone", "change Errors nobody"]),
    ("template_status", &["change TemplateStatus nobody"]),
    ("template_quality", &["change TemplateQuality nobody"]),
    ("template_quality_wrong_field", &["change TemplateQuality nobody"]),
    ("template_category", &["change TemplateCategory nobody"]),
    ("template_category_announced", &["change TemplateCategory nobody"]),
    ("template_components", &["change TemplateComponents nobody"]),
    ("phone_quality", &["change PhoneQuality nobody"]),
    ("phone_name", &["change PhoneName nobody"]),
    ("account_update", &["change AccountUpdate nobody"]),
    ("account_alert", &["change AccountAlert nobody"]),
    ("user_preferences", &["change UserPreferences phone"]),
    ("user_preferences_two", &["change UserPreferences nobody"]),
    ("call_connect", &["change Call phone"]),
    ("call_connect_bsuid", &["change Call bsuid"]),
    ("call_terminate", &["change Call phone"]),
    ("call_missed", &["change Call phone", "change Other nobody"]),
    ("call_by_business", &["change Other nobody"]),
    ("call_status", &["change Other nobody"]),
    ("calls_of_two", &["change Call phone", "change Call phone", "change Other phone"]),
    ("echoes", &["change Echoes nobody"]),
    ("history", &["change History nobody"]),
    ("security", &["change Other nobody"]),
    ("messages_not_an_array", &["change Other nobody"]),
    (
        "mixed_batch",
        &[
            "message text carried opens phone",
            "message text carried opens phone",
            "message text carried opens phone",
            "status Sent phone",
            "status Delivered phone",
            "change AccountUpdate nobody",
            "change TemplateStatus nobody",
        ],
    ),
];

#[test]
fn every_documented_shape_is_split_and_understood() {
    for (name, expected) in TABLE {
        let found: Vec<_> = items(&fixture(name)).iter().map(summary).collect();
        assert_eq!(found, *expected, "{name}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), TABLE.len(), "a fixture is not in the table");
}

/// Samples that do not belong to this repository: checked where they lie, when they are there.
fn samples() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/payloads");
    let folder = std::env::var_os("WHATSAPP_PAYLOADS").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn collected_samples_are_understood_where_they_are_at_hand() {
    let Some(folder) = samples() else { return };
    let mut seen = 0;
    for (part, kind) in [
        ("inbound", Some(WebhookKind::Message)),
        ("status", Some(WebhookKind::Status)),
        ("account", Some(WebhookKind::Change)),
        ("template", Some(WebhookKind::Change)),
        ("errors", None),
    ] {
        for file in std::fs::read_dir(folder.join(part)).unwrap() {
            let path = file.unwrap().path();
            let body = std::fs::read(&path).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            if !json["entry"].is_array() {
                continue;
            }
            seen += 1;
            let found = items(&body);
            assert!(!found.is_empty(), "{}", path.display());
            for split in &found {
                let line = summary(split);
                assert!(kind.is_none_or(|kind| kind == split.item.kind), "{}: {line}", path.display());
                let understood = match split.item.kind {
                    WebhookKind::Message => parse_message(&split.item).is_ok(),
                    WebhookKind::Status => {
                        parse_status(&split.item).is_ok_and(|status| status.status != DeliveryStatus::Unknown)
                    }
                    _ => !matches!(parse_change(&split.item), Err(_) | Ok(Change::Other { .. })),
                };
                assert!(understood, "{}: {line}", path.display());
            }
        }
    }
    assert!(seen > 60, "only {seen} samples were webhooks");
}

#[test]
fn an_item_keeps_its_json_byte_for_byte() {
    let raw = r#"{ "id" : "wamid.\u0041", "from":"15550100042",  "timestamp":"1790000000","type":"text",
        "text":{"body":"\ud83d\ude00 1\/2 \u003c"},"x":1.50, "x2":1e3 }"#;
    let contact = r#"{"wa_id":"15550100042" , "profile":{"name":"M\u00e9"}}"#;
    let body = format!(
        r#"{{"entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"2"}},"contacts":[ {contact} ],"messages":[ {raw} ]}}}}]}}]}}"#
    );
    let found = items(body.as_bytes());
    assert_eq!(found[0].item.raw.expose(), raw);
    assert_eq!(found[0].item.contact.as_ref().unwrap().expose(), contact);
    let message = parse_message(&found[0].item).unwrap();
    assert_eq!(message.wamid.as_str(), "wamid.A");
    assert_eq!(message.text.unwrap().expose(), "😀 1/2 <");
    assert_eq!(message.profile_name.unwrap().expose(), "Mé");
}

#[test]
fn the_facts_of_the_delivery_stand_around_every_item() {
    let found = items(&fixture("mixed_batch"));
    let places: Vec<_> = found
        .iter()
        .map(|split| {
            let item = &split.item;
            assert_eq!((item.received_at, item.delivery_id.as_str()), (ARRIVED, "delivery-1"));
            (item.waba_id.as_str(), item.field.as_str(), item.phone_number_id.as_ref().map(|number| number.as_str()))
        })
        .collect();
    let messages = ("100000000000001", "messages", Some("200000000000001"));
    assert_eq!(places[..5], [messages; 5]);
    assert_eq!(places[5], ("100000000000002", "account_update", None));
    assert_eq!(places[6], ("100000000000002", "message_template_status_update", None));
}

#[test]
fn each_message_gets_the_contact_that_sent_it() {
    let names: Vec<_> = items(&fixture("mixed_batch"))[..3]
        .iter()
        .map(|split| parse_message(&split.item).unwrap().profile_name.unwrap().expose().to_owned())
        .collect();
    assert_eq!(names, ["Maja Lund", "Ove", "Maja Lund"]);
}

#[test]
fn a_contact_of_somebody_else_is_never_taken() {
    let body = br#"{"entry":[{"id":"1","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"2"},
        "contacts":[{"wa_id":"15550100077","user_id":"US.77"}],
        "messages":[{"from":"15550100042","id":"w","timestamp":"1790000000","type":"text","text":{"body":"x"}}]}}]}]}"#;
    let found = items(body);
    assert_eq!(found[0].item.contact, None);
    assert_eq!(known_by(&found[0].address), "phone");
}

#[test]
fn what_is_long_is_not_repeated_for_every_item() {
    const MANY: usize = 1000;
    let long = "7".repeat(20_000);
    let message = r#"{"from":"15550100042","id":"w","timestamp":"1790000000"}"#;
    let of_one = format!(
        r#"{{"entry":[{{"id":"{long}","changes":[{{"field":"{long}","value":{{}}}},{{"field":"messages","value":{{
        "metadata":{{"phone_number_id":"{long}"}},"contacts":[{{"wa_id":"15550100042","user_id":"{long}"}}],
        "messages":[{}]}}}}]}}]}}"#,
        vec![message; MANY].join(",")
    );
    let of_many = format!(
        r#"{{"entry":[{{"id":"{long}","changes":[{}]}}]}}"#,
        vec![r#"{"field":"x","value":{}}"#; MANY].join(",")
    );
    for body in [of_one, of_many] {
        let found = items(body.as_bytes());
        let kept: usize = found
            .iter()
            .map(|Split { item, address }| {
                let number = item.phone_number_id.as_ref().map_or(0, |number| number.as_str().len());
                let contact = item.contact.as_ref().map_or(0, |contact| contact.expose().len());
                let person = address.bsuid.as_ref().map_or(0, |bsuid| bsuid.expose().len());
                item.raw.expose().len() + item.field.len() + item.waba_id.as_str().len() + number + contact + person
            })
            .sum();
        assert!(
            found.len() >= MANY && kept <= 2 * body.len(),
            "{} items keep {kept} of {} bytes",
            found.len(),
            body.len()
        );
    }
}

#[test]
fn items_of_one_person_share_a_key_and_other_items_have_the_key_of_their_number_or_account() {
    let keys = StreamKeys::new("k1", b"secret");
    let key = |name: &str| only(name).key(&keys);
    assert_eq!(key("text"), key("status_sent"));
    assert_eq!(key("text"), key("user_preferences"));
    assert_eq!(key("text_bsuid_only"), key("status_delivered_bsuid"));
    assert_eq!(key("text_in_group"), key("status_group"));
    assert_ne!(key("text"), key("text_in_group"));
    assert_eq!(key("errors_only"), keys.number(&"200000000000001".into()).0);
    assert_eq!(key("account_update"), "waba/100000000000001");
    assert!(!key("text").contains("15550100042"));
}

#[test]
fn what_a_person_says_or_taps_is_read() {
    let said = |name: &str| {
        let message = message(name);
        (message.text.map(|text| text.expose().to_owned()).unwrap_or_default(), message.payload.unwrap_or_default())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(said("text"), pair("Grüße 👋, is 3 < 4?", ""));
    assert_eq!(said("button"), pair("Yes, please", "opt-in-yes"));
    assert_eq!(said("interactive_button_reply"), pair("Tomorrow", "b1"));
    assert_eq!(said("interactive_list_reply"), pair("Noon", "r1"));
    assert_eq!(said("edit"), pair("corrected", ""));
    assert_eq!(said("image"), pair("", ""));
    assert_eq!(message("button").reply_to.unwrap().as_str(), "wamid.OUT0009");
    assert_eq!(message("button_without_context").reply_to, None);
    assert_eq!(message("text").sent_at, Timestamp::from_secs(1_790_000_000));
    assert_eq!(message("text_numeric_timestamp_no_contact").sent_at, Timestamp::from_secs(1_790_000_000));
    assert_eq!(message("unsupported").error_code, Some(131_051));
    assert_eq!(message("revoke").about.unwrap().as_str(), "wamid.IN0000");
    let referral = message("text_reply_with_referral").referral.unwrap();
    assert_eq!((referral.source_type.as_deref(), referral.ctwa_clid.as_deref()), (Some("ad"), Some("c1")));
}

#[test]
fn a_group_message_belongs_to_the_group_and_names_its_sender() {
    let message = message("text_in_group");
    assert_eq!(known_by(&message.address), "group");
    assert_eq!(message.sender.phone.unwrap().expose(), "15550100042");
}

#[test]
fn a_changed_number_or_user_id_is_reported_under_the_old_address() {
    let number = message("system_new_number");
    assert_eq!(number.address.phone.unwrap().expose(), "15550100042");
    assert_eq!(number.system.unwrap().new_address.phone.unwrap().expose(), "15550100043");
    let user_id = message("system_new_user_id").system.unwrap();
    assert_eq!((user_id.kind.as_str(), user_id.new_address.bsuid.unwrap().expose()), ("user_changed_user_id", "US.72"));
    assert!(message("system_identity").system.unwrap().new_address.is_empty());
}

#[test]
fn a_new_user_id_is_reported_under_the_former_one_whoever_stands_as_the_sender() {
    for name in ["system_user_id_rotated", "system_user_id_rotated_new_sender"] {
        let message = message(name);
        assert_eq!(message.address.bsuid.unwrap().expose(), "US.111", "{name}");
        assert_eq!(message.system.unwrap().new_address.bsuid.unwrap().expose(), "US.222", "{name}");
    }
    let both = message("system_number_and_user_id");
    let of =
        |address: Address| (address.phone.unwrap().expose().to_owned(), address.bsuid.unwrap().expose().to_owned());
    assert_eq!(of(both.address), ("15550100042".to_owned(), "US.111".to_owned()));
    assert_eq!(of(both.system.unwrap().new_address), ("15550100043".to_owned(), "US.222".to_owned()));
}

#[test]
fn what_is_written_while_another_one_answers_is_the_persons_and_opens_nothing() {
    let split = only("standby_text");
    assert_eq!(split.item.field, "standby");
    assert_eq!(split.key(&StreamKeys::new("k1", b"secret")), only("text").key(&StreamKeys::new("k1", b"secret")));
    let message = message("standby_text");
    assert!(message.standby && !message.opens_window());
    assert_eq!(message.profile_name.unwrap().expose(), "Maja Lund");
    assert!(status("standby_status").standby);
    assert_eq!(only("handover").item.phone_number_id.unwrap().as_str(), "200000000000001");
    assert_eq!(
        items(&fixture("text_with_conversation_context"))[1].item.raw.expose().replace([' ', '\n'], ""),
        r#"{"conversation_context":{"type":"summary","summary":{"text":"s"}}}"#
    );
}

/// A delivery of one message of these fields, with these contacts.
fn one(fields: &str, contacts: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{
        "messaging_product":"whatsapp","metadata":{{"phone_number_id":"2"}},"contacts":[{contacts}],
        "messages":[{{{fields}}}]}}}}]}}]}}"#
    )
}

const STOP: &str = r#""id":"w","timestamp":"1790000000","type":"text""#;

/// The only message of a delivery, with what stands in the receiver's and in the processor's address.
fn heard(body: &[u8]) -> (InboundMessage, Split) {
    let mut found = items(body);
    assert_eq!(found.len(), 1, "{}", String::from_utf8_lossy(body));
    let split = found.remove(0);
    let message = parse_message(&split.item).unwrap_or_else(|error| panic!("{error}: {}", split.item.raw.expose()));
    assert_eq!(message.address, split.address);
    assert_eq!(split.item.phone_number_id.as_ref().unwrap().as_str(), "2");
    (message, split)
}

#[test]
fn json_that_a_strict_reader_refuses_is_read_as_far_as_it_can_be_and_kept_as_it_is() {
    let person = r#""from":"15550100042""#;
    let deep = format!("{}{}", r#"{"x":["#.repeat(5_000), "]}".repeat(5_000));
    for (fields, said) in [
        (r#""text":{"body":"STOP \ud83d"}"#.to_owned(), "STOP \u{fffd}"),
        (r#""text":{"body":"STOP \ude00\ud83d"}"#.to_owned(), "STOP \u{fffd}\u{fffd}"),
        (r#""text":{"body":"\ud83d\ude00 STOP \\ud83d"}"#.to_owned(), "😀 STOP \\ud83d"),
        (r#""text":{"body":"\ud83dSTOP\\\\"},"y":"\udfff""#.to_owned(), "\u{fffd}STOP\\\\"),
        (r#""text":{"body":"STOP"},"\ud83d":{"\ude00":1}"#.to_owned(), "STOP"),
        (r#""text":{"body":"STOP\u0000"}"#.to_owned(), "STOP\0"),
        (r#""text":{"body":"hello"},"text":{"body":"STOP"}"#.to_owned(), "STOP"),
        (r#""text":{"body":"STOP"},"huge":1e999,"other":-99999999999999999999999"#.to_owned(), "STOP"),
        (format!(r#""text":{{"body":"STOP"}},"deep":{deep}"#), "STOP"),
    ] {
        let body = one(
            &format!("{person},{STOP},{fields}"),
            r#"{"profile":{"name":"M\ud83d"},"wa_id":"15550100042","user_id":"US.7"}"#,
        );
        let (message, split) = heard(body.as_bytes());
        assert_eq!(message.text.unwrap().expose(), said, "{}", &fields[..fields.len().min(80)]);
        assert_eq!(message.profile_name.unwrap().expose(), "M\u{fffd}");
        assert_eq!(message.address.bsuid.unwrap().expose(), "US.7");
        assert!(split.item.raw.expose().contains(&fields), "the item is kept as Meta sent it");
    }
}

#[test]
fn a_body_is_read_behind_a_byte_order_mark_and_around_bytes_that_are_no_text() {
    let clean = one(&format!(r#""from":"15550100042",{STOP},"text":{{"body":"STOP #"}}"#), "");
    let with = |bytes: &[u8]| {
        let at = clean.find('#').unwrap();
        [&clean.as_bytes()[..at], bytes, &clean.as_bytes()[at + 1..]].concat()
    };
    for (body, said) in [
        ([b"\xef\xbb\xbf", clean.as_bytes()].concat(), "STOP #"),
        (with(b"\xff\xfe"), "STOP \u{fffd}\u{fffd}"),
        (with(b"\xf0\x9f\x98"), "STOP \u{fffd}"),
        (with(b"\0\x07"), "STOP \0\u{7}"),
        (with(b"\n\t"), "STOP \n\t"),
        (with(b"\xff\\\"\x01"), "STOP \u{fffd}\"\u{1}"),
    ] {
        assert_eq!(heard(&body).0.text.unwrap().expose(), said);
    }
}

#[test]
fn a_field_that_stands_there_twice_counts_as_it_stands_there_last_at_every_level() {
    for (once, twice) in [
        (r#""entry":["#, r#""entry":[],"entry":["#),
        (r#""id":"1","#, r#""id":"0","id":"1","#),
        (r#""changes":["#, r#""changes":7,"changes":["#),
        (r#""field":"messages","#, r#""field":"account_update","field":"messages","#),
        (r#""value":{"#, r#""value":null,"value":{"#),
        (r#""metadata":{"#, r#""metadata":{},"metadata":{"phone_number_id":"9","#),
        (r#""messages":[{"#, r#""messages":[],"messages":[{"#),
        (r#""from":"#, r#""from":"15550100099","from":"#),
        (r#""contacts":["#, r#""contacts":3,"contacts":["#),
    ] {
        let body = one(&format!(r#""from":"15550100042",{STOP},"text":{{"body":"STOP"}}"#), "");
        assert!(body.contains(once), "{once}");
        let (message, split) = heard(body.replacen(once, twice, 1).as_bytes());
        assert_eq!(
            (message.address.phone.unwrap().expose(), split.item.waba_id.as_str()),
            ("15550100042", "1"),
            "{twice}"
        );
    }
}

#[test]
fn numbers_and_strings_stand_for_each_other_and_keep_their_digits() {
    let body = |id: &str, at: &str| {
        one(&format!(r#""from":15550100042,"id":{id},"timestamp":{at},"type":"text","text":{{"body":"STOP"}}"#), "")
    };
    let ids: Vec<_> = ["123456789012345678901234567890", "123456789012345678901234567891"]
        .map(|id| heard(body(id, "1790000000").as_bytes()).0.wamid.0)
        .into();
    assert_eq!(ids, ["123456789012345678901234567890", "123456789012345678901234567891"]);
    for (at, secs) in [
        ("1790000000.0", 1_790_000_000),
        (r#""1790000000.7""#, 1_790_000_000),
        (r#"" 1790000000 ""#, 1_790_000_000),
        ("1e999", i64::MAX),
    ] {
        let message = heard(body(r#""w""#, at).as_bytes()).0;
        assert_eq!(message.sent_at, Timestamp::from_secs(secs), "{at}");
        assert_eq!(message.address.phone.unwrap().expose(), "15550100042");
    }
    let long = format!(r#""{}""#, "w".repeat(1_000_000));
    assert_eq!(parse_message(&items(body(&long, "1").as_bytes())[0].item).unwrap_err().reason, "no_id");
}

#[test]
fn a_status_names_its_attempt_and_its_error() {
    let attempt: AttemptId = "0198f3a0-0000-7000-8000-000000000001".parse().unwrap();
    assert_eq!(status("status_sent").attempt_id, Some(attempt));
    assert_eq!(status("status_failed").error_code, Some(131_049));
    let old = status("status_failed_old");
    assert_eq!((old.error_code, old.attempt_id), (Some(131_026), None));
    assert_eq!(status("status_read_numeric").at, Timestamp::from_secs(1_790_000_062));
}

#[test]
fn changes_say_what_the_connector_acts_on() {
    let Change::TemplateStatus { template, status, reason, .. } = change("template_status") else { panic!() };
    // The catalogue spells languages with an underscore; this webhook does not.
    assert_eq!((template.name.as_str(), template.language.as_str()), ("appointment_reminder", "en_US"));
    assert_eq!((status.as_str(), reason.as_deref()), ("REJECTED", Some("INVALID_FORMAT")));
    let Change::TemplateCategory { announced, .. } = change("template_category_announced") else { panic!() };
    assert!(announced);
    let Change::AccountUpdate { restrictions, .. } = change("account_update") else { panic!() };
    assert_eq!(restrictions, ["RESTRICTED_BIZ_INITIATED_MESSAGING"]);
    let Change::UserPreferences(preferences) = change("user_preferences_two") else { panic!() };
    assert_eq!(preferences.iter().map(|p| p.stopped).collect::<Vec<_>>(), [true, false]);
    assert_eq!(preferences[1].at, Timestamp::from_secs(1_790_000_001));
    assert_eq!(change("errors_only"), Change::Errors(vec![130_429]));
}

#[test]
fn what_is_not_a_delivery_is_refused_and_what_is_a_strange_one_is_kept_whole() {
    let refused = |body: &[u8]| split(body, ARRIVED, "d").unwrap_err();
    assert_eq!(refused(b""), SplitError::NotJson);
    assert_eq!(refused(b"{"), SplitError::NotJson);
    assert_eq!(refused(b"\xff{}"), SplitError::NotJson);
    assert_eq!(refused(b"[1]"), SplitError::NotAnObject);
    assert_eq!(refused(b"null"), SplitError::NotAnObject);
    for strange in [r#"{"hello":1}"#, r#"{"entry":{"id":1}}"#, r#"{"entry":"x"}"#] {
        let found = items(strange.as_bytes());
        assert_eq!((found.len(), found[0].item.raw.expose()), (1, strange));
        assert_eq!(found[0].item.kind, WebhookKind::Change);
    }
    let found = items(br#"{"entry":[7,{"id":3,"changes":[{"field":"messages"},null]}]}"#);
    let raws: Vec<_> = found.iter().map(|split| split.item.raw.expose()).collect();
    assert_eq!(raws, ["7", r#"{"field":"messages"}"#, "null"]);
    assert_eq!(found[1].item.waba_id.as_str(), "3");
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let body =
        format!(r#"{{"entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"messages":[{deep}]}}}}]}}]}}"#);
    if let Ok(found) = split(body.as_bytes(), ARRIVED, "d") {
        for split in found {
            assert!(parse_message(&split.item).is_err());
        }
    }
}

#[test]
fn an_item_that_cannot_be_understood_names_the_reason_and_nothing_of_its_content() {
    let item = |kind, raw: &str| WebhookItem { kind, raw: raw.into(), contact: None, ..only("text").item };
    let message = |raw: &str| parse_message(&item(WebhookKind::Message, raw)).unwrap_err();
    let status = |raw: &str| parse_status(&item(WebhookKind::Status, raw)).unwrap_err();
    assert_eq!(message("{").reason, "not_json");
    assert_eq!(message("3").reason, "not_an_object");
    assert_eq!(message(r#"{"from":"15550100042","timestamp":"1"}"#).reason, "no_id");
    assert_eq!(message(r#"{"id":"w","from":"15550100042","timestamp":"soon"}"#).reason, "no_timestamp");
    assert_eq!(message(r#"{"id":"w","timestamp":"1"}"#).reason, "no_address");
    assert_eq!(status(r#"{"id":"w","timestamp":"1"}"#).reason, "no_status");
    assert_eq!(status(r#"{"id":"w","status":"sent"}"#).reason, "no_timestamp");
    let mut nobody = only("user_preferences").item;
    nobody.raw = r#"{"user_preferences":[{"value":"stop"}]}"#.into();
    let error = parse_change(&nobody).unwrap_err();
    assert_eq!(error.to_string(), "the webhook item cannot be understood: no_preferences");
}

#[test]
fn a_call_began_when_the_first_word_of_it_says() {
    let at = |name| match change(name) {
        Change::Call(call) => (call.call_id.0, call.at),
        other => panic!("{other:?}"),
    };
    let answered = "wacid.ABGGFjFVU2AfAgo6V".to_owned();
    assert_eq!(at("call_connect"), (answered.clone(), Timestamp::from_secs(1_790_000_000)));
    assert_eq!(at("call_terminate"), (answered, Timestamp::from_secs(1_790_000_008)), "not when it ended");
}

#[test]
fn a_call_of_a_person_that_cannot_be_understood_is_an_error_and_one_of_the_business_is_none() {
    let read = |raw: &str| parse_change(&WebhookItem { raw: raw.into(), contact: None, ..only("call_connect").item });
    let call = r#""direction":"USER_INITIATED","event":"connect""#;
    for (raw, reason) in [
        (format!(r#"{{{call},"from":"15550100042","timestamp":"1790000000"}}"#), "no_id"),
        (format!(r#"{{{call},"from":"15550100042","id":"wacid.A"}}"#), "no_timestamp"),
        (format!(r#"{{{call},"id":"wacid.A","timestamp":"1790000000"}}"#), "no_address"),
    ] {
        assert_eq!(read(&raw).unwrap_err().reason, reason, "{raw}");
    }
    for raw in
        [r#"{"direction":"BUSINESS_INITIATED","event":"connect"}"#, r#"{"event":"connect","from":"15550100042"}"#]
    {
        assert_eq!(read(raw), Ok(Change::Other { field: "calls".to_owned() }), "{raw}");
    }
}
