//! Given what happened, when something is tried, then it is accepted, refused or shown.

use std::collections::HashMap;
use std::time::Duration;

use connector_domain::command::{
    ConsentAction, ConsentCommand, Content, ContentKind, Dispatch, Recipient, SendMessage, SendPolicy, SendPurpose,
    TemplateCall, TemplateParameter,
};
use connector_domain::composer::{Composer, Situation, compose};
use connector_domain::consent::{ConsentWords, Intent, Tap, classify, tapped as tap};
use connector_domain::conversation::Conversation;
use connector_domain::decide::{
    Novelty, Reason, Rejection, check_repeat, decide_consent, decide_dispatch, decide_send,
};
use connector_domain::directory::Contacts;
use connector_domain::event::{
    ActivationNoticeRaised, CallReceived, ConsentImported, ConsentRevoked, ContactAdded, ContactRemoved, Event,
    MarketingPreferenceChanged, MessageAccepted, MessageFailed, MessageReceived, MessageSent, MessageStatusChanged,
    OptInExpired, OptInFailed, OptInRequested, WhatsAppDisabled, WhatsAppEnabled, WindowExpired,
};
use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, CommandId, EventId, PhoneNumber, StreamId};
use connector_domain::settings::Rules;
use connector_domain::status::DeliveryStatus;
use connector_domain::template::{Template, TemplateButton};
use connector_domain::time::Timestamp;
use connector_domain::window;

/// A moment of the story: hours and minutes since it began.
pub(crate) const fn t(hours: i64, minutes: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + hours * 3600 + minutes * 60)
}

/// What a screen shows before anybody was asked.
pub(crate) const ASK_FIRST: Composer = Composer::OptInRequired { again_at: None };

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
}

fn fact(at: Timestamp, event: impl Into<Event>) -> Fact {
    Fact { at, event: event.into() }
}

pub(crate) fn address() -> Address {
    Address { phone: PhoneNumber::parse("+49 170 1234567").ok(), bsuid: None }
}

pub(crate) fn conversation() -> StreamId {
    "k1-conversation".into()
}

pub(crate) fn enabled() -> Fact {
    fact(t(0, 0), WhatsAppEnabled { user_id: "ada".into(), phone_number_id: "number".into() })
}

pub(crate) fn disabled(at: Timestamp) -> Fact {
    fact(at, WhatsAppDisabled { user_id: "ada".into() })
}

pub(crate) fn told() -> Fact {
    fact(t(0, 0), ActivationNoticeRaised { user_id: "ada".into() })
}

pub(crate) fn in_contacts() -> Fact {
    let added = ContactAdded {
        user_id: "ada".into(),
        contact_id: "bob".into(),
        conversation_id: conversation(),
        address: address(),
        name: None,
    };
    fact(t(0, 0), added)
}

pub(crate) fn out_of_contacts(at: Timestamp) -> Fact {
    let removed = ContactRemoved { user_id: "ada".into(), contact_id: "bob".into(), conversation_id: conversation() };
    fact(at, removed)
}

pub(crate) fn asked(at: Timestamp) -> Fact {
    let expires_at = at + Rules::default().opt_in_answer;
    let message_id = Some(CommandId::derived("the opt-in message"));
    fact(at, OptInRequested { user_id: "ada".into(), phone_number_id: "number".into(), expires_at, message_id })
}

pub(crate) fn request_ended(at: Timestamp, asked_at: Timestamp) -> Fact {
    fact(at, OptInExpired { expires_at: asked_at + Rules::default().opt_in_answer })
}

/// The opt-in message did not arrive; `code`: WhatsApp refused it, else it never left.
pub(crate) fn request_failed(at: Timestamp, asked_at: Timestamp, code: Option<i64>) -> Fact {
    let failed = OptInFailed {
        expires_at: asked_at + Rules::default().opt_in_answer,
        source: EventId::derived("the failure"),
        reason: "permanent".to_owned(),
        error_code: code,
    };
    fact(at, failed)
}

fn inbound(at: Timestamp, message_type: &str, payload: Option<&str>, text: Option<&str>) -> Fact {
    let opens = window::opens_window(message_type);
    let words = ConsentWords::default();
    let Tap { intent, answer } = if message_type == "button" {
        tap(&words, payload, text)
    } else {
        Tap { intent: text.map_or(Intent::Other, |text| classify(&words, text)), answer: Intent::Other }
    };
    let received = MessageReceived {
        phone_number_id: "number".into(),
        wamid: "wamid.in".into(),
        address: address(),
        profile_name: None,
        message_type: message_type.to_owned(),
        text: text.map(Into::into),
        unsupported: text.is_none(),
        reply_to: None,
        intent,
        answer,
        window_deadline: opens.then(|| window::deadline(at, at, &Rules::default())),
        raw: "{}".into(),
    };
    fact(at, received)
}

/// The contact wrote a text.
pub(crate) fn wrote(at: Timestamp, text: &str) -> Fact {
    inbound(at, "text", None, Some(text))
}

/// The contact tapped a quick reply.
pub(crate) fn tapped(at: Timestamp, payload: &str, title: &str) -> Fact {
    inbound(at, "button", Some(payload), Some(title))
}

/// The contact's message is a reply to this one.
pub(crate) fn on(message: &str, mut fact: Fact) -> Fact {
    if let Event::MessageReceived(received) = &mut fact.event {
        received.reply_to = Some(message.into());
    }
    fact
}

/// WhatsApp took a message.
pub(crate) fn sent_as(at: Timestamp, wamid: &str, purpose: SendPurpose) -> Fact {
    let attempt_id = AttemptId::derived(wamid);
    fact(at, MessageSent { phone_number_id: "number".into(), wamid: wamid.into(), attempt_id, purpose })
}

/// WhatsApp refused a message with this code, in its answer.
pub(crate) fn refused(at: Timestamp, code: i64) -> Fact {
    fact(at, MessageFailed { reason: "permanent".to_owned(), error_code: Some(code), attempt_id: None })
}

/// WhatsApp refused a message with this code, in a status.
pub(crate) fn refused_later(at: Timestamp, code: i64) -> Fact {
    let status = MessageStatusChanged {
        phone_number_id: "number".into(),
        wamid: "wamid.out".into(),
        status: DeliveryStatus::Failed,
        attempt_id: None,
        address: address(),
        error_code: Some(code),
        raw: "{}".into(),
    };
    fact(at, status)
}

/// The contact sent something that is not text.
pub(crate) fn sent(at: Timestamp, message_type: &str) -> Fact {
    inbound(at, message_type, None, None)
}

/// The contact called.
pub(crate) fn called(at: Timestamp) -> Fact {
    let call = CallReceived {
        phone_number_id: "number".into(),
        call_id: "wacid.in".into(),
        address: address(),
        window_deadline: window::deadline(at, at, &Rules::default()),
    };
    fact(at, call)
}

pub(crate) fn imported(at: Timestamp) -> Fact {
    fact(at, ConsentImported { proof: "form 7".into(), by: "ada".into() })
}

pub(crate) fn revoked(at: Timestamp) -> Fact {
    fact(at, ConsentRevoked { by: "ada".into() })
}

pub(crate) fn window_expired(deadline: Timestamp) -> Fact {
    fact(deadline, WindowExpired { deadline })
}

pub(crate) fn template_accepted(at: Timestamp) -> Fact {
    let accepted = MessageAccepted {
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        content: Content::template(greeting_call("Bob")),
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::Conversation,
        not_after: at + 24 * HOUR,
    };
    fact(at, accepted)
}

pub(crate) fn marketing(at: Timestamp, stopped: bool) -> Fact {
    fact(at, MarketingPreferenceChanged { phone_number_id: "number".into(), stopped, raw: "{}".into() })
}

/// A button of a template.
pub(crate) fn button(kind: &str, text: &str) -> TemplateButton {
    TemplateButton { kind: kind.to_owned(), text: text.to_owned(), url: None }
}

/// A quick-reply button.
pub(crate) fn quick_reply(text: &str) -> TemplateButton {
    button("QUICK_REPLY", text)
}

/// The template of the scenarios: one positional placeholder in its body.
pub(crate) fn greeting() -> Template {
    Template {
        waba_id: "waba".into(),
        organization_id: "acme".into(),
        name: "greeting".to_owned(),
        language: "en".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        header_format: None,
        header: None,
        body: "Hello {{1}}".to_owned(),
        footer: None,
        buttons: vec![quick_reply("Yes"), quick_reply("No")],
        other_components: vec![],
    }
}

pub(crate) fn greeting_call(name: &str) -> TemplateCall {
    TemplateCall {
        name: "greeting".to_owned(),
        language: "en".to_owned(),
        header: vec![],
        body: vec![TemplateParameter { name: None, text: name.into() }],
        buttons: vec![],
    }
}

/// Something that is tried.
#[derive(Clone, Debug)]
pub(crate) enum Try {
    Send(SendMessage),
    Consent(ConsentCommand),
}

/// A send command, issued when it is tried.
pub(crate) fn send(content: Content) -> Try {
    Try::Send(SendMessage {
        command_id: CommandId::derived("unset"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient { conversation_id: Some(conversation()), address: Address::default() },
        content,
        policy: SendPolicy::AtMostOnce,
        purpose: SendPurpose::Conversation,
        issued_at: t(0, 0),
        not_after: None,
    })
}

pub(crate) fn text(text: &str) -> Try {
    send(Content::text(text))
}

pub(crate) fn template() -> Try {
    send(Content::template(greeting_call("Bob")))
}

pub(crate) fn of_kind(kind: ContentKind) -> Try {
    send(Content { kind, text: None, preview_url: false, template: None, reply_to: Some("wamid.in".into()) })
}

pub(crate) fn consent(action: ConsentAction) -> Try {
    Try::Consent(ConsentCommand {
        command_id: CommandId::derived("unset"),
        organization_id: "acme".into(),
        user_id: "ada".into(),
        phone_number_id: "number".into(),
        recipient: Recipient { conversation_id: Some(conversation()), address: Address::default() },
        action,
        template: None,
        proof: None,
        issued_at: t(0, 0),
    })
}

pub(crate) fn ask() -> Try {
    consent(ConsentAction::RequestOptIn)
}

pub(crate) fn import(proof: &str) -> Try {
    consent(ConsentAction::Import).with_consent(|command| command.proof = Some(proof.into()))
}

impl Try {
    pub(crate) fn with_send(mut self, change: impl FnOnce(&mut SendMessage)) -> Self {
        if let Self::Send(command) = &mut self {
            change(command);
        }
        self
    }

    pub(crate) fn with_consent(mut self, change: impl FnOnce(&mut ConsentCommand)) -> Self {
        if let Self::Consent(command) = &mut self {
            change(command);
        }
        self
    }

    /// Under a command id of its own; without it, every try gets a new one.
    pub(crate) fn under(self, id: &str) -> Self {
        let id = CommandId::derived(id);
        self.with_send(|command| command.command_id = id)
    }
}

/// The state of the story.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) situation: Situation,
    pub(crate) rules: Rules,
    contacts: Contacts,
    template: Option<Template>,
    now: Timestamp,
    count: u32,
    seen: HashMap<CommandId, u64>,
    queue: Vec<Dispatch>,
}

impl Scenario {
    pub(crate) fn given<const N: usize>(facts: [Fact; N]) -> Self {
        let scenario = Self {
            situation: Situation::default(),
            rules: Rules::default(),
            contacts: Contacts::default(),
            template: Some(greeting()),
            now: t(0, 0),
            count: 0,
            seen: HashMap::new(),
            queue: Vec::new(),
        };
        facts.into_iter().fold(scenario, Self::and)
    }

    /// An enabled user with a contact who has consented long ago and not written since.
    pub(crate) fn consented() -> Self {
        Self::given([enabled(), in_contacts(), imported(t(0, 0))])
    }

    /// Something happened; the clock moves to it.
    pub(crate) fn and(mut self, fact: Fact) -> Self {
        self.count += 1;
        let id = EventId::derived(&format!("fact/{}", self.count));
        self.situation.enablement.evolve(&fact.event);
        self.contacts.evolve(&fact.event);
        self.situation.is_contact = self.contacts.contains(&conversation());
        self.situation.conversation.evolve(&fact.event, id, fact.at);
        self.now = self.now.max(fact.at);
        self
    }

    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn with_template(mut self, template: Option<Template>) -> Self {
        self.template = template;
        self
    }

    pub(crate) fn conversation(&self) -> &Conversation {
        &self.situation.conversation
    }

    pub(crate) fn composer(&self) -> Composer {
        compose(&self.situation, &self.rules, self.now)
    }

    pub(crate) fn shows(self, expected: &Composer) -> Self {
        assert_eq!(&self.composer(), expected);
        self
    }

    pub(crate) fn when(mut self, attempt: Try) -> Tried {
        self.count += 1;
        let unset = CommandId::derived("unset");
        let fresh = CommandId::derived(&format!("command/{}", self.count));
        let result = match attempt {
            Try::Send(mut command) => {
                if command.command_id == unset {
                    command.command_id = fresh;
                }
                command.issued_at = self.now;
                self.send(&command)
            }
            Try::Consent(mut command) => {
                command.command_id = fresh;
                command.issued_at = self.now;
                self.consent(&command)
            }
        };
        Tried { scenario: self, result }
    }

    fn send(&mut self, command: &SendMessage) -> Result<Vec<Event>, Rejection> {
        if check_repeat(self.seen.get(&command.command_id).copied(), command.digest())? == Novelty::Repeat {
            return Ok(Vec::new());
        }
        let accepted = decide_send(&self.situation, command, self.template.as_ref(), &self.rules, self.now)?;
        self.seen.insert(command.command_id, command.digest());
        self.queue.push(Dispatch {
            command_id: command.command_id,
            organization_id: command.organization_id.clone(),
            user_id: command.user_id.clone(),
            phone_number_id: command.phone_number_id.clone(),
            conversation_id: conversation(),
            address: address(),
            content: command.content.clone(),
            policy: command.policy,
            purpose: command.purpose,
            accepted_at: self.now,
            not_after: accepted.not_after,
        });
        Ok(vec![accepted.into()])
    }

    fn consent(&mut self, command: &ConsentCommand) -> Result<Vec<Event>, Rejection> {
        let default = greeting_call("Bob");
        let decision = decide_consent(
            &self.situation,
            command,
            Some(&default),
            CommandId::derived("the opt-in message"),
            &self.rules,
            self.now,
        )?;
        let mut events = decision.events;
        // The tracker's command reaches the sender after the event it was written with.
        if let Some(send) = decision.send {
            let mut after = self.clone();
            for event in &events {
                after = after.and(Fact { at: self.now, event: event.clone() });
            }
            events.extend(after.send(&send)?);
            self.queue = after.queue;
        }
        Ok(events)
    }

    /// The queue reaches its turn: every queued message is checked once more.
    pub(crate) fn dispatching(self) -> Vec<Result<(), Reason>> {
        let check = |dispatch: &Dispatch| {
            let template = self.template.as_ref();
            decide_dispatch(&self.situation, dispatch, template, &self.rules, self.now).map_err(|no| no.reason)
        };
        self.queue.iter().map(check).collect()
    }
}

/// What came of a try.
pub(crate) struct Tried {
    pub(crate) scenario: Scenario,
    pub(crate) result: Result<Vec<Event>, Rejection>,
}

impl Tried {
    #[track_caller]
    pub(crate) fn then_rejects(self, reason: Reason) -> Scenario {
        match &self.result {
            Ok(events) => panic!("expected {reason}, but it was accepted: {events:?}"),
            Err(rejection) => assert_eq!(rejection.reason, reason, "{rejection}"),
        }
        self.scenario
    }

    #[track_caller]
    pub(crate) fn then_rejects_field(self, reason: Reason, field: &str) -> Scenario {
        assert_eq!(self.result.as_ref().err().map(|rejection| rejection.field), Some(field));
        self.then_rejects(reason)
    }

    /// Accepted, with these event types; they become part of the story.
    #[track_caller]
    pub(crate) fn then_records(self, types: &[&str]) -> Scenario {
        let events = self.result.unwrap_or_else(|rejection| panic!("expected {types:?}, but got {rejection}"));
        let recorded: Vec<_> = events.iter().map(Event::type_name).collect();
        assert_eq!(recorded, types);
        let now = self.scenario.now;
        events.into_iter().fold(self.scenario, |scenario, event| scenario.and(Fact { at: now, event }))
    }

    #[track_caller]
    pub(crate) fn then_accepts(self) -> Scenario {
        self.then_records(&["MessageAccepted"])
    }
}
