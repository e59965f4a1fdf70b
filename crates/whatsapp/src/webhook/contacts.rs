//! Which element of `contacts[]` speaks of the person of a message, status or call.

use std::cell::OnceCell;
use std::collections::HashMap;

use connector_domain::identity::Address;
use connector_domain::ids::{Bsuid, PhoneNumber};
use serde_json::value::RawValue;

use super::json::Who;
use super::split::who;

/// What is longer than this speaks of no one person: every item of that person has a copy.
const LONGEST_CONTACT: usize = 4096;

/// An element of `contacts[]`.
pub(super) struct Contact<'a> {
    pub(super) raw: &'a RawValue,
    pub(super) who: Who<'a>,
    address: Address,
}

impl Contact<'_> {
    /// Whether it speaks of this person; `None` when the two have no kind of id in common.
    fn is_of(&self, person: &Address) -> Option<bool> {
        #[cfg(test)]
        tests::COMPARED.with(|compared| compared.set(compared.get() + 1));
        let phone = person.phone.as_ref().zip(self.address.phone.as_ref()).map(|(a, b)| a == b);
        let bsuid = person.bsuid.as_ref().zip(self.address.bsuid.as_ref()).map(|(a, b)| a == b);
        phone.or(bsuid)
    }
}

/// The elements of `contacts[]`. A delivery may have a thousand of them for a thousand items.
pub(super) struct Contacts<'a> {
    all: Vec<Contact<'a>>,
    /// Made when the lists do not run side by side.
    known: OnceCell<Known>,
}

/// The first element for each id.
#[derive(Default)]
struct Known {
    phone: HashMap<PhoneNumber, usize>,
    bsuid: HashMap<Bsuid, usize>,
    /// Of those that name no phone.
    bsuid_alone: HashMap<Bsuid, usize>,
}

impl<'a> Contacts<'a> {
    pub(super) fn read(raw: &[&'a RawValue]) -> Self {
        let contact = |raw: &&'a RawValue| {
            let who = who(raw);
            Contact { raw, address: who.contact(), who }
        };
        let all = raw.iter().filter(|raw| raw.get().len() <= LONGEST_CONTACT).map(contact).collect();
        Self { all, known: OnceCell::new() }
    }

    /// The element that speaks of this person: the one at the same place, for the lists usually run side by side, else the first. One
    /// that shares no kind of id with the item is taken only when both are `alone` in their delivery; one that contradicts it never is.
    pub(super) fn belonging(&self, at: usize, person: &Address, alone: bool) -> Option<&Contact<'a>> {
        let speaks_of = |contact: &&Contact<'_>| contact.is_of(person) == Some(true);
        if let Some(beside) = self.all.get(at).filter(speaks_of) {
            return Some(beside);
        }
        match self.all.as_slice() {
            [] => None,
            [only] => Some(only).filter(|only| only.is_of(person).unwrap_or(alone)),
            all => self.first(person).map(|first| &all[first]),
        }
    }

    fn first(&self, person: &Address) -> Option<usize> {
        let known = self.known.get_or_init(|| Known::of(&self.all));
        let Address { phone, bsuid } = person;
        let by_bsuid = if phone.is_some() { &known.bsuid_alone } else { &known.bsuid };
        let both = [
            phone.as_ref().and_then(|phone| known.phone.get(phone)),
            bsuid.as_ref().and_then(|bsuid| by_bsuid.get(bsuid)),
        ];
        both.into_iter().flatten().min().copied()
    }
}

impl Known {
    fn of(all: &[Contact<'_>]) -> Self {
        let mut known = Self::default();
        for (at, Contact { address, .. }) in all.iter().enumerate() {
            if let Some(phone) = &address.phone {
                known.phone.entry(phone.clone()).or_insert(at);
            }
            if let Some(bsuid) = &address.bsuid {
                known.bsuid.entry(bsuid.clone()).or_insert(at);
                if address.phone.is_none() {
                    known.bsuid_alone.entry(bsuid.clone()).or_insert(at);
                }
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::value::to_raw_value;

    use super::*;

    thread_local! {
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    fn address(phone: Option<usize>, bsuid: Option<usize>) -> Address {
        let phone = phone.map(|phone| PhoneNumber::from_whatsapp(&phone.to_string()).unwrap());
        Address { phone, bsuid: bsuid.map(|bsuid| Bsuid(format!("US.{bsuid}"))) }
    }

    fn raw(address: &Address) -> Box<RawValue> {
        let (phone, bsuid) = (&address.phone, &address.bsuid);
        to_raw_value(&serde_json::json!({ "wa_id": phone, "user_id": bsuid })).unwrap()
    }

    #[test]
    fn a_thousand_items_and_a_thousand_contacts_in_any_order_are_compared_a_thousand_times() {
        const MANY: usize = 1000;
        let person = |n: usize| match n % 3 {
            0 => address(Some(4_917_010_000_000 + n), None),
            1 => address(None, Some(n)),
            _ => address(Some(4_917_010_000_000 + n), Some(n)),
        };
        let raw: Vec<_> = (0..MANY).rev().map(|n| raw(&person(n))).collect();
        let contacts = Contacts::read(&raw.iter().map(|raw| &**raw).collect::<Vec<_>>());
        COMPARED.set(0);
        for n in 0..2 * MANY {
            let found = contacts.belonging(n, &person(n), false).map(|contact| contact.address.clone());
            assert_eq!(found, (n < MANY).then(|| person(n)), "{n}");
        }
        assert!(COMPARED.get() <= 2 * MANY, "compared {} times", COMPARED.get());
    }

    #[test]
    fn the_first_that_shares_an_id_and_contradicts_none_is_taken() {
        let all = [address(Some(15_550_100_001), Some(1)), address(None, Some(1)), address(Some(15_550_100_002), None)];
        let raw: Vec<_> = all.iter().map(raw).collect();
        let contacts = Contacts::read(&raw.iter().map(|raw| &**raw).collect::<Vec<_>>());
        let at = |person: Address| {
            let found = contacts.belonging(9, &person, false)?;
            all.iter().position(|address| *address == found.address)
        };
        assert_eq!(at(address(None, Some(1))), Some(0));
        assert_eq!(at(address(Some(15_550_100_001), None)), Some(0));
        assert_eq!(
            at(address(Some(15_550_100_009), Some(1))),
            Some(1),
            "a contact with another phone is somebody else"
        );
        assert_eq!(at(address(Some(15_550_100_002), Some(2))), Some(2));
        assert_eq!(at(address(None, Some(2))), None);
    }
}
