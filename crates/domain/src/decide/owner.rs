//! The one check of ownership (P4, R13): may this organization and this user act on this number and this conversation?

use crate::command::DirectoryRecord;
use crate::composer::Situation;
use crate::decide::{Reason, Rejection};
use crate::identity::{Address, StreamKeys};
use crate::ids::{OrganizationId, PhoneNumberId, StreamId};

/// Who acts on what.
#[derive(Clone, Copy, Debug)]
pub struct Acting<'a> {
    /// The tenant.
    pub organization_id: &'a OrganizationId,
    /// The business number.
    pub phone_number_id: &'a PhoneNumberId,
    /// The conversation; `None`: what is asked for is about none.
    pub conversation: Option<&'a StreamId>,
    /// How the person is addressed, as far as the command or the user's contact list says so.
    pub address: Option<&'a Address>,
    /// Whether the user acts as the one who writes from the number; an operator withdraws consent without that.
    pub as_user: bool,
}

/// A refusal because of whose something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOwned {
    /// As if what belongs to somebody else did not exist.
    pub rejection: Rejection,
    /// Number or conversation are not the tenant's: nothing about the refusal stands there.
    pub foreign: bool,
}

/// Passes when the number is the organization's, the user writes from that number, and the conversation is one of it. `number` is the
/// directory's record of the number, `situation` that of the organization's user and the conversation.
///
/// # Errors
/// The first of the three that does not hold.
pub fn check_owner(
    acting: Acting<'_>,
    number: Option<&DirectoryRecord>,
    situation: &Situation,
    keys: &StreamKeys,
) -> Result<(), NotOwned> {
    if !number.is_some_and(|number| number.is_of(acting.organization_id)) {
        return Err(NotOwned { rejection: Reason::NotEnabled.at("phone_number_id"), foreign: true });
    }
    let foreign = acting.conversation.is_some_and(|id| !is_of_number(acting, id, situation, keys));
    let refused = match &situation.enablement.phone_number_id {
        None if acting.as_user => Some(Reason::NotEnabled.at("user_id")),
        Some(users) if acting.as_user && users != acting.phone_number_id => {
            Some(Reason::NotEnabled.at("phone_number_id"))
        }
        Some(_) | None if foreign => Some(Reason::NotAContact.at("recipient")),
        Some(_) | None => None,
    };
    refused.map_or(Ok(()), |rejection| Err(NotOwned { rejection, foreign }))
}

/// Whether a conversation is one of the number: it says so itself, or it follows from how its person is addressed.
fn is_of_number(acting: Acting<'_>, id: &StreamId, situation: &Situation, keys: &StreamKeys) -> bool {
    let conversation = &situation.conversation;
    if let Some(number) = &conversation.phone_number_id {
        return number == acting.phone_number_id;
    }
    let leads_here = |address: &Address| {
        let by_phone = address.phone.as_ref().map(|phone| keys.by_phone(acting.phone_number_id, phone));
        let by_bsuid = address.bsuid.as_ref().map(|bsuid| keys.by_bsuid(acting.phone_number_id, bsuid));
        [by_phone, by_bsuid].into_iter().flatten().any(|stream| stream == *id || conversation.aliases.contains(&stream))
    };
    acting.address.is_some_and(leads_here) || leads_here(&conversation.address)
}
