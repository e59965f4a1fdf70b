//! What keeps a template from being sent by this product at all, whatever a call fills it with (P5, P13).

use super::placeholder::placeholders;
use super::{Template, TemplateButton};
use crate::decide::{Reason, Rejection};

/// Why a template cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// Not approved (any more), or in a state that this version does not know.
    NotApproved,
    /// A one-time code (`AUTHENTICATION`).
    OneTimeCode,
    /// A picture, a video, a document or anything else but text in the header.
    MediaHeader,
    /// A place in the header.
    LocationHeader,
    /// No text in the body.
    NoBody,
    /// A carousel.
    Carousel,
    /// An offer with an end.
    LimitedTimeOffer,
    /// Another component that the connector does not know.
    OtherComponent,
    /// A button that starts a flow.
    FlowButton,
    /// A button that shows products.
    CatalogButton,
    /// Another button that the connector cannot fill.
    OtherButton,
    /// Neither positional nor named placeholders.
    ParameterFormat,
}

impl Obstacle {
    /// Every obstacle.
    pub const ALL: [Self; 12] = [
        Self::NotApproved,
        Self::OneTimeCode,
        Self::MediaHeader,
        Self::LocationHeader,
        Self::NoBody,
        Self::Carousel,
        Self::LimitedTimeOffer,
        Self::OtherComponent,
        Self::FlowButton,
        Self::CatalogButton,
        Self::OtherButton,
        Self::ParameterFormat,
    ];

    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotApproved => "not_approved",
            Self::OneTimeCode => "one_time_code",
            Self::MediaHeader => "media_header",
            Self::LocationHeader => "location_header",
            Self::NoBody => "no_body",
            Self::Carousel => "carousel",
            Self::LimitedTimeOffer => "limited_time_offer",
            Self::OtherComponent => "other_component",
            Self::FlowButton => "flow_button",
            Self::CatalogButton => "catalog_button",
            Self::OtherButton => "other_button",
            Self::ParameterFormat => "parameter_format",
        }
    }

    /// Which part of the call has no place for what the template needs.
    const fn field(self) -> &'static str {
        match self {
            Self::MediaHeader | Self::LocationHeader => "content.template.header",
            Self::NoBody => "content.template.body",
            Self::FlowButton | Self::CatalogButton | Self::OtherButton => "content.template.buttons",
            Self::NotApproved
            | Self::OneTimeCode
            | Self::Carousel
            | Self::LimitedTimeOffer
            | Self::OtherComponent
            | Self::ParameterFormat => "content.template",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::NotApproved => Reason::TemplateNotSendable.remedy(),
            Self::OneTimeCode => "Pick another template: one-time codes are not sent through the connector.",
            Self::MediaHeader => {
                "Pick a template whose header is text: the connector sends no pictures, videos or files."
            }
            Self::LocationHeader => "Pick a template whose header is text: the connector sends no places.",
            Self::NoBody => "Pick a template with a text in its body.",
            Self::Carousel => "Pick a template without a carousel: the connector sends text only.",
            Self::LimitedTimeOffer => "Pick a template without a limited-time offer: the connector cannot fill it.",
            Self::OtherComponent => {
                "Pick a template of header, body, footer and buttons: the connector cannot fill others."
            }
            Self::FlowButton => "Pick a template without a flow: the connector cannot start one.",
            Self::CatalogButton => "Pick a template without products: the connector cannot show a catalogue.",
            Self::OtherButton => {
                "Pick a template with quick replies, links, phone numbers or a code to copy: the connector cannot fill other buttons."
            }
            Self::ParameterFormat => "Pick a template with positional or named placeholders.",
        }
    }

    /// The refusal of a send.
    #[must_use]
    pub fn rejection(self) -> Rejection {
        Rejection { reason: Reason::TemplateNotSendable, field: self.field(), remedy: self.remedy().into() }
    }
}

/// What a call may give a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ButtonValue {
    /// The `sub_type` of the call.
    pub sub_type: &'static str,
    /// Whether WhatsApp refuses a call without it.
    pub required: bool,
}

impl TemplateButton {
    fn is(&self, kind: &str) -> bool {
        self.kind.trim().eq_ignore_ascii_case(kind)
    }

    /// What a call may give this button; `None` when it takes nothing.
    #[must_use]
    pub fn takes(&self) -> Option<ButtonValue> {
        if self.is("QUICK_REPLY") {
            Some(ButtonValue { sub_type: "quick_reply", required: false })
        } else if self.is("URL") {
            self.has_placeholder().then_some(ButtonValue { sub_type: "url", required: true })
        } else if self.is("COPY_CODE") {
            Some(ButtonValue { sub_type: "copy_code", required: true })
        } else {
            None
        }
    }

    fn has_placeholder(&self) -> bool {
        self.url.as_deref().is_some_and(|url| !placeholders(url).is_empty())
    }

    fn obstacle(&self) -> Option<Obstacle> {
        if self.is("QUICK_REPLY") || self.is("PHONE_NUMBER") || self.is("COPY_CODE") {
            return None;
        }
        if self.is("URL") {
            // A call has one value for a link.
            let places = self.url.as_deref().map_or(0, |url| placeholders(url).len());
            return (places > 1).then_some(Obstacle::OtherButton);
        }
        Some(match self.kind.trim().to_ascii_uppercase().as_str() {
            "FLOW" => Obstacle::FlowButton,
            "CATALOG" | "MPM" | "SPM" => Obstacle::CatalogButton,
            "OTP" => Obstacle::OneTimeCode,
            _ => Obstacle::OtherButton,
        })
    }
}

/// What keeps a template from being sent; `None`: a call that fills its placeholders can be made.
///
/// What this version does not know is an obstacle, too: WhatsApp refuses a call that lacks what a part needs, for every recipient.
#[must_use]
pub fn obstacle(template: &Template) -> Option<Obstacle> {
    if !template.status.eq_ignore_ascii_case("APPROVED") {
        return Some(Obstacle::NotApproved);
    }
    if template.category.eq_ignore_ascii_case("AUTHENTICATION") {
        return Some(Obstacle::OneTimeCode);
    }
    let header = template.header_format.as_deref().filter(|format| !format.eq_ignore_ascii_case("TEXT"));
    if let Some(format) = header {
        let place = format.eq_ignore_ascii_case("LOCATION");
        return Some(if place { Obstacle::LocationHeader } else { Obstacle::MediaHeader });
    }
    let other = template.other_components.iter().map(|component| match component.to_ascii_uppercase().as_str() {
        "CAROUSEL" => Obstacle::Carousel,
        "LIMITED_TIME_OFFER" => Obstacle::LimitedTimeOffer,
        _ => Obstacle::OtherComponent,
    });
    if let Some(found) = other.chain(template.buttons.iter().filter_map(TemplateButton::obstacle)).next() {
        return Some(found);
    }
    if template.body.trim().is_empty() {
        return Some(Obstacle::NoBody);
    }
    let known = ["NAMED", "POSITIONAL"].iter().any(|format| template.parameter_format.eq_ignore_ascii_case(format));
    (!known).then_some(Obstacle::ParameterFormat)
}
