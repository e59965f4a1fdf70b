//! WhatsApp as seen from its own side: a ledger of what arrived, and a script of what is answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connector_domain::command::{ContentKind, NumberState};
use connector_domain::identity::Address;
use connector_domain::ids::{AttemptId, OrganizationId, PhoneNumber, PhoneNumberId, WabaId, Wamid};
use connector_domain::outcome::{Answer, BytesLeft, Exchange, GraphError, Transport};
use connector_domain::template::Template;
use connector_domain::time::Timestamp;
use connector_ports::whatsapp::{BusinessProfile, Outbound, WhatsAppError};
use connector_ports::{Clock, WhatsApp};

use crate::clock::SimClock;
use crate::random::Random;
use crate::world::Process;

/// The longest way of a POST, or of its answer.
const LONGEST_WAY: Duration = Duration::from_millis(110);

/// What happens to one POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Accepted, and the sender learns of it.
    Accept,
    /// Accepted, and the answer gets lost on the way.
    AcceptThenDrop(Transport),
    /// Accepted, and the answer is HTTP with nothing readable in it.
    AcceptUnreadably(u16),
    /// Refused with a Graph error.
    Refuse(u16, GraphError),
    /// It never arrived, which the sender knows.
    NoConnection,
    /// It never arrived, which the sender cannot know.
    LostOnTheWay(Transport),
}

/// How often reactions other than [`Reaction::Accept`] happen, in times per thousand POSTs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather(pub Vec<(u32, Reaction)>);

/// One POST that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// What was sent.
    pub outbound: Outbound,
    /// When.
    pub at: Timestamp,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The id of the message, if it was accepted and is one.
    pub wamid: Option<Wamid>,
}

/// WhatsApp's own side.
pub struct SimWhatsApp {
    clock: SimClock,
    state: Mutex<State>,
}

struct State {
    random: Random,
    weather: Weather,
    script: BTreeMap<usize, Reaction>,
    of_number: HashMap<PhoneNumberId, Reaction>,
    slow: HashMap<PhoneNumberId, Duration>,
    calls: usize,
    known_as: HashMap<PhoneNumber, PhoneNumber>,
    ledger: Vec<Post>,
    templates: Vec<Template>,
    profiles: HashMap<PhoneNumberId, BusinessProfile>,
    states: HashMap<PhoneNumberId, NumberState>,
}

impl SimWhatsApp {
    pub(crate) fn new(seed: u64, clock: SimClock) -> Self {
        let state = State {
            random: Random::new(seed),
            weather: Weather::default(),
            script: BTreeMap::new(),
            of_number: HashMap::new(),
            slow: HashMap::new(),
            calls: 0,
            known_as: HashMap::new(),
            ledger: Vec::new(),
            templates: Vec::new(),
            profiles: HashMap::new(),
            states: HashMap::new(),
        };
        Self { clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens at random from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// What happens to the POST with this number, counted from 0; goes before the weather.
    pub fn script(&self, number: usize, reaction: Reaction) {
        self.state().script.insert(number, reaction);
    }

    /// What happens to every POST of a business number from now on, unless the script says otherwise; `None`: nothing special any more.
    pub fn set_number(&self, number: &PhoneNumberId, reaction: Option<Reaction>) {
        let of_number = &mut self.state().of_number;
        match reaction {
            Some(reaction) => drop(of_number.insert(number.clone(), reaction)),
            None => drop(of_number.remove(number)),
        }
    }

    /// What is reported about a business number from now on.
    pub fn set_number_state(&self, number: &PhoneNumberId, reported: NumberState) {
        self.state().states.insert(number.clone(), reported);
    }

    /// Every answer to a POST of a business number takes so much longer from now on.
    pub fn set_slow(&self, number: &PhoneNumberId, by: Duration) {
        self.state().slow.insert(number.clone(), by);
    }

    /// A person whom WhatsApp knows under another number than the one that is asked for: accepted messages say so.
    pub fn know_as(&self, asked_for: PhoneNumber, known: PhoneNumber) {
        self.state().known_as.insert(asked_for, known);
    }

    /// The templates that accounts have.
    pub fn set_templates(&self, templates: Vec<Template>) {
        self.state().templates = templates;
    }

    /// Every POST that arrived, in order.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.state().ledger.clone()
    }

    /// How many POSTs arrived for each attempt. More than one is never right (R4).
    #[must_use]
    pub fn posts_per_attempt(&self) -> HashMap<AttemptId, usize> {
        let mut counts = HashMap::new();
        for post in &self.state().ledger {
            *counts.entry(post.outbound.attempt_id).or_default() += 1;
        }
        counts
    }

    /// How many POSTs arrived for each command; `command_of` reads the command from what was sent (a test puts it into the text).
    #[must_use]
    pub fn posts_per_command(&self, command_of: impl Fn(&Outbound) -> String) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for post in &self.state().ledger {
            *counts.entry(command_of(&post.outbound)).or_default() += 1;
        }
        counts
    }

    /// The POST arrives, or does not.
    fn receive(&self, outbound: &Outbound) -> Exchange {
        let at = self.clock.now();
        let state = &mut *self.state();
        let number = state.calls;
        state.calls += 1;
        let of_number = || state.of_number.get(&outbound.phone_number_id);
        let mut reaction = state.script.get(&number).or_else(of_number).cloned();
        for (per_mille, candidate) in &state.weather.0 {
            if state.random.happens(*per_mille) && reaction.is_none() {
                reaction = Some(candidate.clone());
            }
        }
        // Marking as read and typing yield no message.
        let message = matches!(outbound.content.kind, ContentKind::Text | ContentKind::Template);
        let wamid = message.then(|| Wamid(format!("wamid.simulated-{number}")));
        let http = |status, error, readable| {
            let person = Address::default();
            Answer::Http { status, wamid: None, held: false, person, error, readable }
        };
        let (accepted, left, answer) = match reaction.unwrap_or(Reaction::Accept) {
            Reaction::Accept => {
                let mut person = outbound.address.clone();
                if let Some(known) = person.phone.as_ref().and_then(|phone| state.known_as.get(phone)) {
                    person.phone = Some(known.clone());
                }
                let wamid = wamid.clone();
                let answer = Answer::Http { status: 200, wamid, held: false, person, error: None, readable: true };
                (true, BytesLeft::Maybe, answer)
            }
            Reaction::AcceptThenDrop(failure) => (true, BytesLeft::Maybe, Answer::Transport(failure)),
            Reaction::AcceptUnreadably(status) => (true, BytesLeft::Maybe, http(status, None, false)),
            Reaction::Refuse(status, error) => (false, BytesLeft::Maybe, http(status, Some(error), true)),
            Reaction::NoConnection => {
                return Exchange { left: BytesLeft::No, answer: Answer::Transport(Transport::Connect) };
            }
            Reaction::LostOnTheWay(failure) => {
                return Exchange { left: BytesLeft::Maybe, answer: Answer::Transport(failure) };
            }
        };
        state.ledger.push(Post { outbound: outbound.clone(), at, accepted, wamid: wamid.filter(|_| accepted) });
        Exchange { left, answer }
    }

    /// One way of a POST or its answer: 11 to 110 ms.
    fn way(&self) -> Duration {
        LONGEST_WAY - Duration::from_millis(self.state().random.below(100))
    }
}

/// WhatsApp as a process sees it.
pub(crate) struct Client {
    pub(crate) process: Process,
}

impl Client {
    fn side(&self) -> &SimWhatsApp {
        self.process.shared.whatsapp()
    }

    async fn manage<T>(&self, point: &'static str, answer: impl Future<Output = T>) -> Result<T, WhatsAppError> {
        let failing = |point: &'static str, _| WhatsAppError::Unavailable { reason: format!("simulated at {point}") };
        self.process.call(point, failing, async { Ok(answer.await) }).await
    }
}

#[async_trait]
impl WhatsApp for Client {
    fn longest_send(&self) -> Duration {
        LONGEST_WAY * 2
    }

    async fn send(&self, outbound: &Outbound) -> Exchange {
        // A fault without effect is one the sender can be sure of or not; with effect it is a lost answer.
        let failing = |_: &'static str, uncertain| Exchange {
            left: if uncertain { BytesLeft::Maybe } else { BytesLeft::No },
            answer: Answer::Transport(if uncertain { Transport::Timeout } else { Transport::Connect }),
        };
        let post = async {
            tokio::time::sleep(self.side().way()).await;
            let exchange = self.side().receive(outbound);
            let slow = self.side().state().slow.get(&outbound.phone_number_id).copied().unwrap_or_default();
            tokio::time::sleep(self.side().way() + slow).await;
            Ok(exchange)
        };
        self.process.call("whatsapp.send", failing, post).await.unwrap_or_else(|exchange| exchange)
    }

    async fn templates(&self, organization: &OrganizationId, waba: &WabaId) -> Result<Vec<Template>, WhatsAppError> {
        let of_account = |template: &&Template| template.waba_id == *waba && template.organization_id == *organization;
        let found = async { self.side().state().templates.iter().filter(of_account).cloned().collect() };
        self.manage("whatsapp.templates", found).await
    }

    async fn number_state(&self, number: &PhoneNumberId) -> Result<NumberState, WhatsAppError> {
        let found = async { self.side().state().states.get(number).cloned().unwrap_or_default() };
        self.manage("whatsapp.number_state", found).await
    }

    async fn profile(&self, number: &PhoneNumberId) -> Result<BusinessProfile, WhatsAppError> {
        let found = async { self.side().state().profiles.get(number).cloned().unwrap_or_default() };
        self.manage("whatsapp.profile", found).await
    }

    async fn set_profile(&self, number: &PhoneNumberId, profile: &BusinessProfile) -> Result<(), WhatsAppError> {
        let set = async {
            let mut state = self.side().state();
            let stored = state.profiles.entry(number.clone()).or_default();
            let fill = |stored: &mut Option<String>, new: &Option<String>| {
                if new.is_some() {
                    stored.clone_from(new);
                }
            };
            fill(&mut stored.about, &profile.about);
            fill(&mut stored.address, &profile.address);
            fill(&mut stored.description, &profile.description);
            fill(&mut stored.email, &profile.email);
            fill(&mut stored.vertical, &profile.vertical);
            if !profile.websites.is_empty() {
                stored.websites.clone_from(&profile.websites);
            }
        };
        self.manage("whatsapp.set_profile", set).await
    }
}
