//! What a webhook item means: the event it becomes, under a cause that is the same whenever the item comes again (R3).

use connector_domain::command::{WebhookItem, WebhookKind};
use connector_domain::consent::{ConsentVocabulary, ConsentWords, Intent, Tap, classify, tapped};
use connector_domain::event::{
    AccountNotice, CallReceived, Event, MarketingPreferenceChanged, MessageReceived, MessageStatusChanged, TimeSource,
};
use connector_domain::identity::{Address, StreamKeys};
use connector_domain::ids::{Bsuid, EventId, OrganizationId, PhoneNumberId, StreamId, Text};
use connector_domain::settings::Rules;
use connector_domain::status::DeliveryStatus;
use connector_domain::time::Timestamp;
use connector_domain::window;
use connector_runtime::handler::Reason;
use connector_telemetry::metrics::InboundOutcome;
use connector_whatsapp::webhook::{
    Call, Change, InboundMessage, ParseError, Preference, SystemChange, parse_change, parse_message, parse_status,
};

/// What WhatsApp says in a chat about how its person is addressed from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The business number of the chat.
    pub phone_number_id: PhoneNumberId,
    /// The new address, as far as it is told.
    pub address: Address,
    /// The streams of that address.
    pub streams: Vec<StreamId>,
    /// The one of them that follows from a phone number.
    pub by_phone: Option<StreamId>,
    /// The number of before names somebody else from now on, if it is not the same.
    pub leaves: bool,
}

/// The kind of a `system` message that tells of a new number.
const CHANGED_NUMBER: &str = "user_changed_number";

/// What an item leads to. Streams are the ones of the item's own addresses; whether one of them continues elsewhere is not
/// known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The stream of the item.
    pub home: StreamId,
    /// The person; empty when the item is about a number or an account.
    pub address: Address,
    /// Further streams under which the same person could be found.
    pub identities: Vec<StreamId>,
    /// The person is addressed otherwise from now on.
    pub moved_to: Option<Move>,
    /// The event that stands for the item.
    pub event: Event,
    /// Its cause.
    pub cause_id: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// By whose clock.
    pub time_source: TimeSource,
    /// Further events, each with its stream, cause and time by WhatsApp's clock: an item may speak about several people.
    pub also: Vec<(StreamId, Event, String, Timestamp)>,
    /// How it counts.
    pub outcome: InboundOutcome,
}

impl Meaning {
    /// The user id of the person with its stream, when the item names them by a number, too.
    #[must_use]
    pub fn bsuid(&self) -> Option<(&Bsuid, &StreamId)> {
        self.address.phone.as_ref().and(self.address.bsuid.as_ref()).zip(self.identities.first())
    }

    /// The id of the event that stands for the item: what a repeat is recognised by.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        EventId::derived(&format!("{}:{}", self.event.type_name(), self.cause_id))
    }
}

/// What is needed to understand items.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// Names streams.
    pub keys: StreamKeys,
    /// How long a window lasts.
    pub rules: Rules,
    /// What answers mean.
    pub vocabulary: ConsentVocabulary,
}

impl Interpreter {
    /// Understands an item of an organization.
    ///
    /// # Errors
    /// The reason for the dead letter topic: the same item can never be understood.
    pub fn interpret(&self, item: &WebhookItem, organization: &OrganizationId) -> Result<Meaning, Reason> {
        let unreadable = |error: ParseError| Reason::new(error.reason, error);
        let mut meaning = match (item.kind, &item.phone_number_id) {
            (WebhookKind::Message, Some(number)) => {
                let message = parse_message(item).map_err(unreadable)?;
                self.message(item, number, organization, message)
            }
            (WebhookKind::Status, Some(number)) => self.status(item, number).map_err(unreadable),
            (WebhookKind::Message | WebhookKind::Status, None) => {
                Err(Reason::new("no_number", "the item does not say which number it belongs to"))
            }
            (WebhookKind::Change, _) => self.change(item).map_err(unreadable),
            (WebhookKind::Unknown, _) => Err(Reason::new("unknown_kind", "a kind of item this build does not know")),
        }?;
        // What has arrived has happened: a moment to come can only be a skewed clock, and a no or a yes of that moment would stand against
        // everything that is said until then.
        meaning.occurred_at = meaning.occurred_at.min(item.received_at);
        meaning.also.iter_mut().for_each(|(.., at)| *at = item.received_at.min(*at));
        Ok(meaning)
    }

    fn message(
        &self,
        item: &WebhookItem,
        number: &PhoneNumberId,
        organization: &OrganizationId,
        message: InboundMessage,
    ) -> Result<Meaning, Reason> {
        let nobody = || Reason::new("no_address", "the message has no sender");
        let home = self.keys.conversation(number, &message.address).ok_or_else(nobody)?;
        let renews = message.opens_window() && window::opens_window(&message.message_type);
        let words = self.vocabulary.for_organization(organization);
        let Tap { intent, answer } = match said(words, &message) {
            // A group is not the person; and only a STOP may stand in what is not a message of its own (an edit).
            _ if message.group_id.is_some() => Tap::default(),
            said if renews || matches!(said.intent, Intent::Stop | Intent::StopMarketing) => said,
            _ => Tap::default(),
        };
        let moved_to = message.system.as_ref().and_then(|system| self.moved(number, system));
        Ok(Meaning {
            identities: self.identities(number, &message.address, &home),
            home,
            moved_to,
            cause_id: format!("{number}/{}{}", stood_by(message.standby), message.wamid),
            occurred_at: message.sent_at,
            time_source: TimeSource::Whatsapp,
            also: Vec::new(),
            outcome: InboundOutcome::Recorded,
            address: message.address.clone(),
            event: MessageReceived {
                phone_number_id: number.clone(),
                wamid: message.wamid,
                address: message.address,
                profile_name: message.profile_name,
                unsupported: message.unsupported || message.message_type == "system",
                message_type: message.message_type,
                text: message.text,
                reply_to: message.reply_to,
                intent,
                answer,
                window_deadline: renews.then(|| window::deadline(message.sent_at, item.received_at, &self.rules)),
                raw: item.raw.clone(),
            }
            .into(),
        })
    }

    fn moved(&self, number: &PhoneNumberId, system: &SystemChange) -> Option<Move> {
        let address = system.new_address.clone();
        let leaves = system.kind == CHANGED_NUMBER || address.phone.is_some();
        (leaves || !address.is_empty()).then(|| Move {
            phone_number_id: number.clone(),
            streams: self.streams(number, &address).collect(),
            by_phone: address.phone.as_ref().map(|phone| self.keys.by_phone(number, phone)),
            leaves,
            address,
        })
    }

    fn status(&self, item: &WebhookItem, number: &PhoneNumberId) -> Result<Meaning, ParseError> {
        let status = parse_status(item)?;
        // Meta's own word when it is a new one: two of those are not the same status.
        let word = match status.status {
            DeliveryStatus::Unknown => status.word,
            known => format!("{known:?}").to_lowercase(),
        };
        // Hashed like everybody else: a cause must not carry a phone number.
        let participant = status.participant.map(|id| self.keys.by_bsuid(number, &Bsuid(format!("participant:{id}"))));
        // A failed status need not say whom it is about; the number's stream keeps it then.
        let home = self.keys.conversation(number, &status.address).unwrap_or_else(|| self.keys.number(number));
        let recipient = participant.as_ref().unwrap_or(&home);
        // What we send carries its attempt, and every status but a failed one echoes it.
        let foreign = status.attempt_id.is_none() && status.status != DeliveryStatus::Failed;
        Ok(Meaning {
            identities: self.identities(number, &status.address, &home),
            cause_id: format!("{number}/{}{}/{word}/{recipient}", stood_by(status.standby), status.wamid),
            home,
            moved_to: None,
            occurred_at: status.at,
            time_source: TimeSource::Whatsapp,
            also: Vec::new(),
            outcome: if foreign { InboundOutcome::Foreign } else { InboundOutcome::Recorded },
            address: status.address.clone(),
            event: MessageStatusChanged {
                phone_number_id: number.clone(),
                wamid: status.wamid,
                status: status.status,
                attempt_id: status.attempt_id,
                address: status.address,
                error_code: status.error_code,
                raw: item.raw.clone(),
            }
            .into(),
        })
    }

    fn change(&self, item: &WebhookItem) -> Result<Meaning, ParseError> {
        let change = parse_change(item)?;
        match (&change, &item.phone_number_id) {
            (Change::UserPreferences(preferences), Some(number)) => Ok(self.preferences(item, number, preferences)),
            (Change::Call(call), Some(number)) => Ok(self.call(item, number, call)),
            // Without a number there is no conversation whose window it could open.
            (Change::Call(_) | Change::Other { .. } | Change::History | Change::Echoes(_), _) => {
                Ok(Meaning { outcome: InboundOutcome::Unhandled, ..self.notice(item) })
            }
            _ => Ok(self.notice(item)),
        }
    }

    /// Whatever is told of a call becomes one event, by whichever item is read first.
    fn call(&self, item: &WebhookItem, number: &PhoneNumberId, call: &Call) -> Meaning {
        let notice = self.notice(item);
        let home = self.keys.conversation(number, &call.address).unwrap_or_else(|| notice.home.clone());
        Meaning {
            identities: self.identities(number, &call.address, &home),
            home,
            address: call.address.clone(),
            cause_id: format!("{number}/{}", call.call_id),
            occurred_at: call.at,
            time_source: TimeSource::Whatsapp,
            event: CallReceived {
                phone_number_id: number.clone(),
                call_id: call.call_id.clone(),
                address: call.address.clone(),
                window_deadline: window::deadline(call.at, item.received_at, &self.rules),
            }
            .into(),
            ..notice
        }
    }

    fn preferences(&self, item: &WebhookItem, number: &PhoneNumberId, preferences: &[Preference]) -> Meaning {
        let changed = |preference: &Preference| MarketingPreferenceChanged {
            phone_number_id: number.clone(),
            stopped: preference.stopped,
            // Never the whole item: it names others.
            raw: preference.raw.clone(),
        };
        let cause = format!("{number}/user_preferences/{}", digest(item));
        let found = preferences.iter().filter_map(|p| Some((self.keys.conversation(number, &p.address)?, p)));
        let found: Vec<_> = found.collect();
        let notice = self.notice(item);
        if let [(home, only)] = found.as_slice()
            && only.alone
        {
            return Meaning {
                identities: self.identities(number, &only.address, home),
                home: home.clone(),
                address: only.address.clone(),
                event: changed(only).into(),
                cause_id: cause,
                occurred_at: only.at,
                time_source: TimeSource::Whatsapp,
                ..notice
            };
        }
        // The item stands in the number's partition, and so does the notice that a repeat is recognised by.
        let each = found.into_iter().enumerate();
        let also = each.map(|(n, (stream, p))| (stream, changed(p).into(), format!("{cause}/{n}"), p.at)).collect();
        Meaning { also, ..notice }
    }

    fn notice(&self, item: &WebhookItem) -> Meaning {
        // An account without a number in the item has a stream of its own, named like one of a number.
        let owner = item.phone_number_id.clone().unwrap_or_else(|| PhoneNumberId(item.waba_id.0.clone()));
        Meaning {
            home: self.keys.number(&owner),
            address: Address::default(),
            identities: Vec::new(),
            moved_to: None,
            event: AccountNotice { waba_id: item.waba_id.clone(), field: item.field.clone(), raw: item.raw.clone() }
                .into(),
            cause_id: format!("{}/{owner}/{}/{}", item.waba_id, item.field, digest(item)),
            occurred_at: item.entry_time.unwrap_or(item.received_at),
            time_source: if item.entry_time.is_some() { TimeSource::Whatsapp } else { TimeSource::Connector },
            also: Vec::new(),
            outcome: InboundOutcome::Recorded,
        }
    }

    fn streams(&self, number: &PhoneNumberId, address: &Address) -> impl Iterator<Item = StreamId> {
        let by_phone = address.phone.as_ref().map(|phone| self.keys.by_phone(number, phone));
        let by_bsuid = address.bsuid.as_ref().map(|bsuid| self.keys.by_bsuid(number, bsuid));
        by_phone.into_iter().chain(by_bsuid)
    }

    fn identities(&self, number: &PhoneNumberId, address: &Address, home: &StreamId) -> Vec<StreamId> {
        self.streams(number, address).filter(|stream| stream != home).collect()
    }
}

/// What comes while another one answers for the number may come again as our own: the two are not the same.
const fn stood_by(standby: bool) -> &'static str {
    if standby { "standby:" } else { "" }
}

/// What a message says about consent: a tap, or words, which may stand below a picture.
fn said(words: &ConsentWords, message: &InboundMessage) -> Tap {
    let text = message.text.as_ref().map(Text::expose);
    if matches!(message.message_type.as_str(), "button" | "interactive") {
        return tapped(words, message.payload.as_deref(), text);
    }
    let written = text.or_else(|| message.caption.as_ref().map(|caption| caption.expose()));
    Tap { intent: written.map_or(Intent::Other, |written| classify(words, written)), answer: Intent::Other }
}

/// A short name of an item that has no id of its own: the same whenever the same update is delivered, another one when the same thing
/// happens again at another moment.
fn digest(item: &WebhookItem) -> EventId {
    match item.entry_time {
        Some(time) => EventId::derived(&format!("{}@{}", item.raw.expose(), time.as_millis())),
        None => EventId::derived(item.raw.expose()),
    }
}
