//! What is set for a business number or for all numbers of an organization, and what WhatsApp reports about a number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TemplateCall;
use crate::consent::MOST_ASKS;
use crate::settings::Rules;
use crate::template::Part;

/// Most messages per second of one number: what WhatsApp allows after its upgrade.
const FASTEST: i32 = 1000;
/// What WhatsApp allows before it.
const STANDARD: u32 = 80;
/// The longest period for the limit of opt-in requests.
const LONGEST_PERIOD: i64 = 366 * 24 * 3600 * 1000;

/// Settings of a number, or of an organization for all its numbers. What a number does not set, its organization does; what neither sets is
/// the installation's.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NumberSettings {
    /// The template that asks for the opt-in, filled (P6).
    #[serde(default)]
    pub opt_in_template: Option<TemplateCall>,
    /// How often a contact may be asked within the period.
    #[serde(default)]
    pub opt_in_limit: Option<i32>,
    /// The period, in milliseconds.
    #[serde(default)]
    pub opt_in_period: Option<i64>,
    /// Messages per second that may leave from the number.
    #[serde(default)]
    pub number_rate: Option<i32>,
}

impl NumberSettings {
    /// The first field whose value cannot be.
    ///
    /// # Errors
    /// Its name.
    pub fn check(&self) -> Result<(), &'static str> {
        self.opt_in_template.as_ref().map_or(Ok(()), opt_in_template)?;
        if self.opt_in_limit.is_some_and(|limit| !usize::try_from(limit).is_ok_and(|n| (1..=MOST_ASKS).contains(&n))) {
            return Err("opt_in_limit");
        }
        if self.opt_in_period.is_some_and(|period| !(1000..=LONGEST_PERIOD).contains(&period)) {
            return Err("opt_in_period");
        }
        if self.number_rate.is_some_and(|rate| !(1..=FASTEST).contains(&rate)) {
            return Err("number_rate");
        }
        Ok(())
    }

    /// These settings, and where they are silent the `general` ones.
    #[must_use]
    pub fn over(&self, general: &Self) -> Self {
        Self {
            opt_in_template: self.opt_in_template.clone().or_else(|| general.opt_in_template.clone()),
            opt_in_limit: self.opt_in_limit.or(general.opt_in_limit),
            opt_in_period: self.opt_in_period.or(general.opt_in_period),
            number_rate: self.number_rate.or(general.number_rate),
        }
    }

    /// The rules with what is set here.
    #[must_use]
    pub fn rules(&self, general: &Rules) -> Rules {
        let mut rules = general.clone();
        if let Some(limit) = self.opt_in_limit.and_then(|limit| usize::try_from(limit).ok()) {
            rules.opt_in_limit = limit;
        }
        if let Some(period) = self.opt_in_period.and_then(|period| u64::try_from(period).ok()) {
            rules.opt_in_period = Duration::from_millis(period);
        }
        rules
    }
}

/// The form of a template and of its values, whatever template it is.
fn opt_in_template(call: &TemplateCall) -> Result<(), &'static str> {
    let fields = ["opt_in_template.name", "opt_in_template.language", "opt_in_template"];
    call.check(fields).map_err(|refused| refused.field)?;
    match crate::template::misshapen(call) {
        None => Ok(()),
        Some(Part::Header) => Err("opt_in_template.header"),
        Some(Part::Body) => Err("opt_in_template.body"),
        Some(Part::Buttons) => Err("opt_in_template.buttons"),
    }
}

/// What WhatsApp reports about a number. Its own words; `None`: it did not say.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NumberState {
    /// How many people may be written to first within 24 hours: `TIER_250`, `TIER_2K`, `TIER_10K`, `TIER_100K`, `TIER_UNLIMITED`.
    #[serde(default)]
    pub messaging_limit: Option<String>,
    /// `STANDARD`, `HIGH` or `NOT_APPLICABLE`.
    #[serde(default)]
    pub throughput: Option<String>,
    /// `GREEN`, `YELLOW`, `RED` or `UNKNOWN`.
    #[serde(default)]
    pub quality_rating: Option<String>,
    /// `CONNECTED` and what else WhatsApp knows.
    #[serde(default)]
    pub status: Option<String>,
}

impl NumberState {
    /// The rate that WhatsApp's throughput level allows, in messages per second; `None`: it says nothing about a rate.
    #[must_use]
    pub fn fastest(&self) -> Option<u32> {
        let level = self.throughput.as_deref()?;
        if level.eq_ignore_ascii_case("STANDARD") {
            Some(STANDARD)
        } else if level.eq_ignore_ascii_case("HIGH") {
            Some(FASTEST.unsigned_abs())
        } else {
            None
        }
    }

    /// How many people may be written to first within 24 hours; `None`: as many as one likes, or WhatsApp does not say.
    #[must_use]
    pub fn contacts_per_day(&self) -> Option<u32> {
        let tier = self.messaging_limit.as_deref()?.trim().to_ascii_uppercase();
        let number = tier.strip_prefix("TIER_").unwrap_or(&tier);
        let (digits, thousand) = match number.strip_suffix('K') {
            Some(digits) => (digits, 1000),
            None => (number, 1),
        };
        digits.parse::<u32>().ok()?.checked_mul(thousand).filter(|limit| *limit > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ButtonParameter, TemplateParameter};

    #[test]
    fn a_number_goes_before_its_organization_and_both_before_the_installation() {
        let organization = NumberSettings {
            opt_in_limit: Some(2),
            number_rate: Some(20),
            opt_in_period: Some(60_000),
            ..Default::default()
        };
        let number = NumberSettings { opt_in_limit: Some(5), ..Default::default() };
        let both = number.over(&organization);
        assert_eq!((both.opt_in_limit, both.number_rate, both.opt_in_period), (Some(5), Some(20), Some(60_000)));
        let rules = both.rules(&Rules::default());
        assert_eq!((rules.opt_in_limit, rules.opt_in_period), (5, Duration::from_secs(60)));
        assert_eq!(NumberSettings::default().rules(&Rules::default()), Rules::default());
    }

    #[test]
    fn what_cannot_be_set_is_named() {
        let wrong = |change: fn(&mut NumberSettings)| {
            let mut settings = NumberSettings::default();
            change(&mut settings);
            settings.check().expect_err("should be refused")
        };
        assert_eq!(NumberSettings::default().check(), Ok(()));
        let parameter = |text: &str| TemplateParameter { name: None, text: text.into() };
        let button = |index: i32, sub_type: &str, text: &str| ButtonParameter {
            index,
            sub_type: sub_type.to_owned(),
            text: text.into(),
        };
        let call = || TemplateCall {
            name: "opt_in_2".to_owned(),
            language: "pt_BR".to_owned(),
            header: vec![],
            body: vec![parameter("Acme")],
            buttons: vec![button(0, "quick_reply", "OPT_IN_ACCEPT")],
        };
        let check =
            |call: TemplateCall| NumberSettings { opt_in_template: Some(call), ..NumberSettings::default() }.check();
        assert_eq!(check(call()), Ok(()));
        for name in ["", " ", "Opt in", "opt-in", &"a".repeat(513)] {
            assert_eq!(check(TemplateCall { name: name.to_owned(), ..call() }), Err("opt_in_template.name"), "{name}");
        }
        for language in ["", "e", "en US", "en/US", &"e".repeat(17)] {
            let call = TemplateCall { language: language.to_owned(), ..call() };
            assert_eq!(check(call), Err("opt_in_template.language"), "{language}");
        }
        let header = |text: &str| TemplateCall { header: vec![parameter(text)], ..call() };
        assert_eq!(check(header(&"x".repeat(61))), Err("opt_in_template.header"));
        for text in ["", " ", "a\nb", "a\tb", "a     b", &"x".repeat(1025)] {
            let call = TemplateCall { body: vec![parameter(text)], ..call() };
            assert_eq!(check(call), Err("opt_in_template.body"), "{text:?}");
        }
        let unnamed = TemplateParameter { name: Some("First name".to_owned()), text: "x".into() };
        assert_eq!(check(TemplateCall { body: vec![unnamed], ..call() }), Err("opt_in_template.body"));
        for wrong in [
            button(-1, "url", "x"),
            button(10, "url", "x"),
            button(0, "", "x"),
            button(0, "flow", "x"),
            button(0, "url", ""),
            button(0, "quick_reply", &"x".repeat(257)),
        ] {
            assert_eq!(check(TemplateCall { buttons: vec![wrong], ..call() }), Err("opt_in_template.buttons"));
        }
        let twice = vec![button(0, "url", "x"), button(0, "url", "y")];
        assert_eq!(check(TemplateCall { buttons: twice, ..call() }), Err("opt_in_template.buttons"));
        let many = TemplateCall { body: vec![parameter("x"); 257], ..call() };
        assert_eq!(check(many), Err("opt_in_template"));
        assert_eq!(wrong(|s| s.opt_in_limit = Some(0)), "opt_in_limit");
        assert_eq!(wrong(|s| s.opt_in_limit = Some(-1)), "opt_in_limit");
        assert_eq!(wrong(|s| s.opt_in_limit = Some(17)), "opt_in_limit");
        assert_eq!(wrong(|s| s.opt_in_period = Some(0)), "opt_in_period");
        assert_eq!(wrong(|s| s.opt_in_period = Some(i64::MAX)), "opt_in_period");
        assert_eq!(wrong(|s| s.number_rate = Some(0)), "number_rate");
        assert_eq!(wrong(|s| s.number_rate = Some(1001)), "number_rate");
    }

    #[test]
    fn whatsapps_words_are_read() {
        let tier = |tier: &str| {
            NumberState { messaging_limit: Some(tier.to_owned()), ..Default::default() }.contacts_per_day()
        };
        for (word, limit) in [
            ("TIER_50", Some(50)),
            ("TIER_250", Some(250)),
            ("TIER_1K", Some(1_000)),
            ("TIER_2K", Some(2_000)),
            ("TIER_10K", Some(10_000)),
            ("TIER_100K", Some(100_000)),
            ("2000", Some(2_000)),
            ("TIER_UNLIMITED", None),
            ("TIER_NOT_SET", None),
            ("0", None),
            ("-1", None),
        ] {
            assert_eq!(tier(word), limit, "{word}");
        }
        let level = |level: &str| NumberState { throughput: Some(level.to_owned()), ..Default::default() }.fastest();
        assert_eq!((level("STANDARD"), level("HIGH"), level("NOT_APPLICABLE")), (Some(80), Some(1000), None));
    }
}
