//! Messages on their way out: two workers of the outbound sender are killed, frozen and moved, the broker and Redis die, and
//! WhatsApp loses answers, while commands are published all the time. Then log and ledger must agree that each message was sent
//! once, in order, or stands in the log as unconfirmed (R3 to R5).

mod check;

use std::time::Duration;

use connector_contracts::Topic;
use connector_demo::{Environment, Member, settings};
use connector_domain::command::{
    Content, DirectoryKind, DirectoryRecord, Recipient, SendMessage, SendPolicy, SendPurpose,
};
use connector_domain::event::{Event, Recorded};
use connector_domain::identity::Address;
use connector_domain::ids::{CommandId, ContactId, PhoneNumber};
use connector_domain::time::Timestamp;
use connector_ports::Clock;
use connector_ports::clock::SystemClock;
use serde_json::json;

use crate::fleet::{Ground, Harm, plan};
use crate::log::{Log, Publisher};
use crate::random::Random;
use crate::whatsapp::WhatsAppSide;
use crate::{Options, Outcome, Verdict};
use check::{Counts, count};

pub(crate) use check::open;

const SENDS: usize = 10_000;
const QUICK: usize = 300;
/// Messages to each contact.
const PER_CONTACT: usize = 20;
/// Commands that are published in a second.
const RATE: usize = 250;
/// How long contacts may take to get into the projections, and commands to come to their end after the last harm.
const PATIENCE: Duration = Duration::from_secs(120);

const FIRST: &str = "outbound-sender-1";
const SECOND: &str = "outbound-sender-2";
const RESERVE: &str = "outbound-sender-3";

/// Everything that happens, in the order of the seed.
fn harms(options: &Options) -> Vec<Harm> {
    if options.quick {
        return vec![Harm::Kill(FIRST), Harm::Freeze(SECOND)];
    }
    let mut harms = vec![
        Harm::Kill(FIRST),
        Harm::Kill(SECOND),
        Harm::Freeze(FIRST),
        Harm::Freeze(SECOND),
        Harm::Restart(FIRST),
        Harm::Rebalance(RESERVE),
        Harm::Broker,
        Harm::Redis,
    ];
    Random::new(options.seed).shuffle(&mut harms);
    harms
}

/// Plays the scenario: `sends 10000 lost 0 duplicated 0 misordered 0 unconfirmed N`.
///
/// # Errors
/// When it could not be played to its end.
pub async fn play(options: &Options) -> Outcome<Verdict> {
    let sends = options.sends.unwrap_or(if options.quick { QUICK } else { SENDS }).max(1);
    let workers = [FIRST, SECOND, RESERVE].map(|name| Member::instance("outbound-sender", name));
    let others = ["webhook-receiver", "inbound-processor", "opt-in-tracker"].map(Member::only);
    let seed = vec![("SIMULATOR_SEED", options.seed.to_string())];
    let members = others.into_iter().chain(workers).collect();
    let mut ground = Ground::start(options, plan(members, 1, limits(), seed), &[RESERVE]).await?;
    let mut log = ground.log();
    let whatsapp = ground.whatsapp();
    let mut publisher = ground.publisher().await?;

    let contacts = contacts(sends.div_ceil(PER_CONTACT));
    conversations(&contacts, &mut log, &mut publisher, &whatsapp).await?;

    let commands = commands(&contacts, sends)?;
    lose_answers(&whatsapp).await?;
    let harms = harms(options);
    let share = commands.len().div_ceil(harms.len());
    let mut thawed = Vec::new();
    for (harm, share) in harms.into_iter().zip(commands.chunks(share)) {
        println!("  {harm:?}");
        let began = SystemClock.now();
        let (harmed, published) = tokio::join!(ground.harm(harm), publish(&mut publisher, share));
        harmed?;
        published?;
        if matches!(harm, Harm::Freeze(_)) {
            thawed.push(began);
        }
    }
    whatsapp.clear_faults().await?;

    let ids: Vec<_> = commands.iter().map(|(_, command)| command.command_id).collect();
    let waited = log.until("every command's end", PATIENCE, |events| check::open(events, &ids) == 0).await;
    if let Err(error) = waited {
        println!("  {error}");
    }
    let verdict = judged(&commands, &mut log, &whatsapp, &thawed).await?;
    ground.stop();
    Ok(verdict)
}

/// Limits that hold nothing up, and a short patience with WhatsApp.
pub(crate) fn limits() -> Environment {
    vec![
        ("NUMBER_RATE", "1000".to_owned()),
        ("NUMBER_BURST", "1000".to_owned()),
        ("PAIR_INTERVAL", "10ms".to_owned()),
        ("PAIR_BURST", "1000".to_owned()),
        ("GRAPH_TIMEOUT", "2s".to_owned()),
    ]
}

/// Opens a conversation of the user with each of the contacts.
pub(crate) async fn conversations(
    contacts: &[String],
    log: &mut Log,
    publisher: &mut Publisher,
    whatsapp: &WhatsAppSide,
) -> Outcome<()> {
    publisher.register(organization()).await?;
    let enabled = |events: &[Recorded]| count_of(events, |event| matches!(event, Event::WhatsAppEnabled(_))) > 0;
    log.until("the user", PATIENCE, enabled).await?;
    publisher.register(address_book(contacts)?).await?;
    let known = |events: &[Recorded]| count_of(events, |event| matches!(event, Event::ContactAdded(_)));
    log.until("the contacts", PATIENCE, |events| known(events) >= contacts.len()).await?;
    for contact in contacts {
        whatsapp.contact_writes(contact, settings::PHONE_NUMBER_ID, "Hello").await?;
    }
    let wrote = |events: &[Recorded]| count_of(events, |event| matches!(event, Event::MessageReceived(_)));
    log.until("the contacts' messages", PATIENCE, |events| wrote(events) >= contacts.len()).await?;
    Ok(())
}

/// What the log and WhatsApp's ledger say about the commands. Workers that stood still were thawed at these times.
pub(crate) async fn judged(
    commands: &[(String, SendMessage)],
    log: &mut Log,
    whatsapp: &WhatsAppSide,
    thawed: &[Timestamp],
) -> Outcome<Verdict> {
    let posts = whatsapp.posts().await?;
    let journal = log.journal().await?;
    let counts = count(commands, log.events().await?, &posts, &journal, thawed);
    for finding in counts.findings.iter().take(20) {
        println!("  {finding}");
    }
    Ok(verdict(commands.len(), &counts))
}

fn verdict(sends: usize, counts: &Counts) -> Verdict {
    let Counts { lost, duplicated, misordered, unconfirmed, .. } = counts;
    let line =
        format!("sends {sends} lost {lost} duplicated {duplicated} misordered {misordered} unconfirmed {unconfirmed}");
    Verdict { line, holds: (*lost, *duplicated, *misordered) == (0, 0, 0) }
}

fn count_of(events: &[Recorded], wanted: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|recorded| wanted(&recorded.event)).count()
}

/// Phone numbers of as many people.
pub(crate) fn contacts(count: usize) -> Vec<String> {
    (0..count).map(|contact| format!("4917055{contact:06}")).collect()
}

fn record(kind: DirectoryKind) -> DirectoryRecord {
    DirectoryRecord {
        kind,
        organization_id: settings::ORGANIZATION.into(),
        phone_number_id: Some(settings::PHONE_NUMBER_ID.into()),
        waba_id: None,
        user_id: Some("anna".into()),
        enabled: true,
        contact_id: None,
        address: Address::default(),
        name: None,
        settings: None,
        state: None,
    }
}

/// A number, and a user who may use it.
fn organization() -> Vec<DirectoryRecord> {
    let number = DirectoryRecord { waba_id: Some(settings::WABA_ID.into()), ..record(DirectoryKind::Number) };
    vec![number, record(DirectoryKind::User)]
}

/// The user's contacts.
fn address_book(contacts: &[String]) -> Outcome<Vec<DirectoryRecord>> {
    let entry = |contact: &String| {
        let address = Address { phone: Some(PhoneNumber::parse(contact)?), bsuid: None };
        Ok(DirectoryRecord {
            contact_id: Some(ContactId(format!("c{contact}"))),
            address,
            ..record(DirectoryKind::Contact)
        })
    };
    contacts.iter().map(entry).collect()
}

/// The commands in the order in which they are published, with the keys of a publisher who knows nothing of conversations. The
/// text of each names its contact and its place.
pub(crate) fn commands(contacts: &[String], sends: usize) -> Outcome<Vec<(String, SendMessage)>> {
    let now = SystemClock.now();
    let command = |number: usize| {
        let (contact, place) = (&contacts[number % contacts.len()], number / contacts.len());
        let text = format!("{contact} {place}");
        let command = SendMessage {
            command_id: CommandId::derived(&format!("{text} {}", now.as_millis())),
            organization_id: settings::ORGANIZATION.into(),
            user_id: "anna".into(),
            phone_number_id: settings::PHONE_NUMBER_ID.into(),
            recipient: Recipient {
                conversation_id: None,
                address: Address { phone: Some(PhoneNumber::parse(contact)?), bsuid: None },
            },
            content: Content::text(&text),
            policy: SendPolicy::AtMostOnce,
            purpose: SendPurpose::Conversation,
            issued_at: now,
            not_after: None,
        };
        Ok((format!("contact-{}", number % contacts.len()), command))
    };
    (0..sends).map(command).collect()
}

/// Publishes at the rate, a twentieth of a second's worth at a time; of each lot one command twice.
pub(crate) async fn publish(publisher: &mut Publisher, commands: &[(String, SendMessage)]) -> Outcome<()> {
    let lot = RATE / 20;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for lot in commands.chunks(lot) {
        pace.tick().await;
        publisher.publish(Topic::SendCommands, lot).await?;
        publisher.publish(Topic::SendCommands, &lot[..1]).await?;
    }
    Ok(())
}

/// WhatsApp's own mishaps: answers that get lost although the message was taken, connections that break before it was, and others
/// that are slow or say nothing useful.
async fn lose_answers(whatsapp: &WhatsAppSide) -> Outcome<()> {
    let rules = json!([
        { "fault": "accept_then_drop", "probability": 0.005 },
        { "fault": "reset_before", "probability": 0.005 },
        { "fault": "garbage_200", "probability": 0.002 },
        { "fault": "http_500_html", "probability": 0.002 },
        { "fault": "truncated_body", "probability": 0.002 },
        { "fault": "error", "code": 130_429, "status": 429, "probability": 0.001 },
        { "fault": "delay_ms", "ms": 150, "probability": 0.2 },
        { "fault": "delay_ms", "ms": 3_000, "probability": 0.002 },
    ]);
    whatsapp.add_faults(&rules).await
}
