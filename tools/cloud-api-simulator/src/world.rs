//! What exists: business accounts, their numbers and templates. A world file has the shape of [`World`]:
//!
//! ```json
//! {"accounts": [{"id": "1", "name": "Lucky Shrub", "phone_numbers": [{"id": "2", "display_phone_number": "15550100001"}],
//!                "templates": [{"name": "hello", "language": "en_US", "components": [{"type": "BODY", "text": "Hi"}]}]}]}
//! ```

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    config::{Config, StartError},
    ids::Ids,
    template::Template,
};

/// WABA of the default world.
pub const DEFAULT_WABA_ID: &str = "200000000000001";
/// Numbers of the default world; the first one has the verified mark.
pub const DEFAULT_PHONE_NUMBER_IDS: [&str; 2] = ["100000000000001", "100000000000002"];

/// All accounts. Numbers and templates are looked up through their indexes.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct World {
    pub(crate) accounts: Vec<Account>,
    /// Phone number id to (account, number) places.
    #[serde(skip)]
    phones: HashMap<String, (usize, usize)>,
}

/// A WhatsApp Business Account.
#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    #[serde(default = "business_name")]
    pub(crate) name: String,
    pub(crate) phone_numbers: Vec<Phone>,
    #[serde(default)]
    pub(crate) templates: Vec<Template>,
    /// Where its webhooks go instead of the app's callback URL.
    #[serde(skip)]
    pub(crate) override_callback_uri: Option<String>,
    /// Whether an app is subscribed, as `GET /{waba}/subscribed_apps` shows.
    #[serde(default = "yes")]
    pub(crate) subscribed: bool,
}

/// A business phone number.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Phone {
    pub(crate) id: String,
    /// Digits only, as in the metadata of webhooks.
    pub(crate) display_phone_number: String,
    #[serde(default = "business_name")]
    pub(crate) verified_name: String,
    #[serde(default = "yes")]
    pub(crate) registered: bool,
    #[serde(default = "green")]
    pub(crate) quality_rating: String,
    /// `STANDARD` or `HIGH`; by default what the simulator's own limit comes to.
    #[serde(default)]
    pub(crate) throughput: Option<String>,
    /// `TIER_250` and so on.
    #[serde(default = "unlimited")]
    pub(crate) messaging_limit: String,
    /// `APPROVED` puts the verified mark beside the name.
    #[serde(default = "not_started")]
    pub(crate) oba_status: String,
    #[serde(default)]
    pub(crate) profile: Map<String, Value>,
}

impl Phone {
    /// The level of its throughput, where `limit` messages per second are taken (0: any number).
    pub(crate) fn level(&self, limit: u32) -> &str {
        let by_limit = if (1..=80).contains(&limit) { "STANDARD" } else { "HIGH" };
        self.throughput.as_deref().unwrap_or(by_limit)
    }
}

fn unlimited() -> String {
    "TIER_UNLIMITED".to_owned()
}

fn business_name() -> String {
    "Lucky Shrub".to_owned()
}

fn yes() -> bool {
    true
}

fn green() -> String {
    "GREEN".to_owned()
}

fn not_started() -> String {
    "NOT_STARTED".to_owned()
}

impl Phone {
    pub(crate) fn is_official(&self) -> bool {
        self.oba_status == "APPROVED"
    }
}

impl World {
    /// The world the settings ask for.
    pub(crate) fn from_config(config: &Config, ids: &Ids) -> Result<Self, StartError> {
        let mut world = match &config.world {
            Some(path) => {
                let text = std::fs::read(path).map_err(|source| StartError::Read { path: path.clone(), source })?;
                serde_json::from_slice(&text).map_err(|source| StartError::World { path: path.clone(), source })?
            }
            None => Self::of_numbers(&config.phone_number_id, &config.waba_id),
        };
        world.index(ids);
        Ok(world)
    }

    fn of_numbers(phones: &[String], wabas: &[String]) -> Self {
        let defaults = DEFAULT_PHONE_NUMBER_IDS.map(str::to_owned);
        let phones = if phones.is_empty() { &defaults[..] } else { phones };
        let mut world = Self::default();
        for (index, phone_number_id) in phones.iter().enumerate() {
            let waba = wabas.get(index).or(wabas.last()).map_or(DEFAULT_WABA_ID, String::as_str);
            let official = index == 0;
            let phone = Phone {
                id: phone_number_id.clone(),
                display_phone_number: format!("1555010{:04}", index + 1),
                verified_name: business_name(),
                registered: true,
                quality_rating: green(),
                throughput: None,
                messaging_limit: unlimited(),
                oba_status: if official { "APPROVED".to_owned() } else { not_started() },
                profile: default_profile(),
            };
            match world.accounts.iter_mut().find(|account| account.id == waba) {
                Some(account) => account.phone_numbers.push(phone),
                None => world.accounts.push(Account {
                    id: waba.to_owned(),
                    name: business_name(),
                    phone_numbers: vec![phone],
                    templates: default_templates(),
                    override_callback_uri: None,
                    subscribed: true,
                }),
            }
        }
        world
    }

    fn index(&mut self, ids: &Ids) {
        self.phones.clear();
        for (a, account) in self.accounts.iter_mut().enumerate() {
            for (p, phone) in account.phone_numbers.iter().enumerate() {
                self.phones.insert(phone.id.clone(), (a, p));
            }
            for template in &mut account.templates {
                if template.id == 0 {
                    template.id = ids.node();
                }
            }
        }
    }

    /// A number and its account.
    pub(crate) fn phone(&self, phone_number_id: &str) -> Option<(&Account, &Phone)> {
        let (a, p) = *self.phones.get(phone_number_id)?;
        let account = self.accounts.get(a)?;
        Some((account, account.phone_numbers.get(p)?))
    }

    /// A number, to change it.
    pub(crate) fn phone_mut(&mut self, phone_number_id: &str) -> Option<&mut Phone> {
        let (a, p) = *self.phones.get(phone_number_id)?;
        self.accounts.get_mut(a)?.phone_numbers.get_mut(p)
    }

    /// An account.
    pub(crate) fn account(&self, waba_id: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id == waba_id)
    }

    /// An account, to change it.
    pub(crate) fn account_mut(&mut self, waba_id: &str) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.id == waba_id)
    }

    /// The account named, or the only/first one.
    pub(crate) fn account_or_first(&mut self, waba_id: Option<&str>) -> Option<&mut Account> {
        match waba_id {
            Some(id) => self.account_mut(id),
            None => self.accounts.first_mut(),
        }
    }
}

impl Account {
    /// The template of a name and language.
    pub(crate) fn template(&self, name: &str, language: &str) -> Option<&Template> {
        self.templates.iter().find(|t| t.name == name && t.language == language)
    }

    /// Adds a template, or replaces the one of the same name and language (keeping its id).
    pub(crate) fn upsert(&mut self, mut template: Template, ids: &Ids) -> u64 {
        let place = self.templates.iter().position(|t| t.name == template.name && t.language == template.language);
        match place.and_then(|place| self.templates.get_mut(place)) {
            Some(old) => {
                template.id = old.id;
                *old = template;
                old.id
            }
            None => {
                template.id = if template.id == 0 { ids.node() } else { template.id };
                let id = template.id;
                self.templates.push(template);
                id
            }
        }
    }
}

fn default_profile() -> Map<String, Value> {
    let profile = json!({
        "about": "Plants and seeds, since 1999", "address": "1 Hacker Way, Menlo Park",
        "description": "The luckiest nursery in town", "email": "hello@luckyshrub.example",
        "websites": ["https://www.luckyshrub.example/"], "vertical": "RETAIL",
    });
    profile.as_object().cloned().unwrap_or_default()
}

/// Templates of the default world: sendable ones with each kind of parameter, and one of each refusal.
fn default_templates() -> Vec<Template> {
    let templates = json!([
        {"name": "opt_in_request", "language": "en_US", "category": "UTILITY", "components": [
            {"type": "BODY", "text": "Hello, this is {{1}}. May we send you messages about your orders and appointments \
                on WhatsApp? You can stop them at any time.", "example": {"body_text": [["Lucky Shrub"]]}},
            {"type": "FOOTER", "text": "Tap a button to answer"},
            {"type": "BUTTONS", "buttons": [
                {"type": "QUICK_REPLY", "text": "Yes, I agree"}, {"type": "QUICK_REPLY", "text": "No, thanks"}]}]},
        {"name": "appointment_reminder", "language": "en_US", "category": "UTILITY", "components": [
            {"type": "BODY", "text": "Hello {{1}}, your appointment is on {{2}}.",
                "example": {"body_text": [["Pablo", "Monday at 10:00"]]}}]},
        {"name": "order_update", "language": "en_US", "category": "UTILITY", "parameter_format": "NAMED", "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Order {{order_number}}",
                "example": {"header_text_named_params": [{"param_name": "order_number", "example": "4711"}]}},
            {"type": "BODY", "text": "Hello {{customer_name}}, your order is {{order_state}}.",
                "example": {"body_text_named_params": [{"param_name": "customer_name", "example": "Pablo"},
                    {"param_name": "order_state", "example": "on its way"}]}},
            {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Track it",
                "url": "https://www.luckyshrub.example/orders/{{1}}",
                "example": ["https://www.luckyshrub.example/orders/4711"]}]}]},
        {"name": "hello_world", "language": "en_US", "category": "UTILITY", "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Hello World"},
            {"type": "BODY", "text": "Welcome and congratulations!! This message demonstrates your ability to send a \
                WhatsApp message notification."}]},
        {"name": "spring_sale", "language": "en_US", "category": "MARKETING", "components": [
            {"type": "BODY", "text": "{{1}}, everything green is 20% off this week! 🌱",
                "example": {"body_text": [["Pablo"]]}},
            {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Unsubscribe"}]}]},
        {"name": "paused_promotion", "language": "en_US", "category": "MARKETING", "status": "PAUSED", "components": [
            {"type": "BODY", "text": "Do not miss it!"}]},
        {"name": "rejected_promotion", "language": "en_US", "category": "MARKETING", "status": "REJECTED",
            "rejected_reason": "INVALID_FORMAT", "components": [{"type": "BODY", "text": "{{1}}"}]},
    ]);
    serde_json::from_value(templates).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_world_has_its_templates_with_ids() {
        let world = World::from_config(&Config::default(), &Ids::new(1)).expect("the default world");
        let account = world.account(DEFAULT_WABA_ID).expect("the account");
        assert_eq!(account.templates.len(), 7);
        assert!(account.templates.iter().all(|t| t.id > 0));
        assert!(account.template("opt_in_request", "en_US").is_some());
        assert!(world.phone(DEFAULT_PHONE_NUMBER_IDS[0]).is_some_and(|(_, phone)| phone.is_official()));
        assert!(world.phone(DEFAULT_PHONE_NUMBER_IDS[1]).is_some_and(|(_, phone)| !phone.is_official()));
    }

    #[test]
    fn numbers_are_paired_with_accounts_and_the_last_account_serves_the_rest() {
        let config = Config {
            phone_number_id: ["1", "2", "3"].map(str::to_owned).into(),
            waba_id: ["A", "B"].map(str::to_owned).into(),
            ..Config::default()
        };
        let world = World::from_config(&config, &Ids::new(1)).expect("a world");
        assert_eq!(world.phone("1").map(|(account, _)| account.id.as_str()), Some("A"));
        assert_eq!(world.phone("3").map(|(account, _)| account.id.as_str()), Some("B"));
    }
}
