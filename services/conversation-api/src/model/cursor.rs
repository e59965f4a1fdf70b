//! A place in the history that holds on every replica and after every rebuild: a position in each partition of the log.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use connector_ports::log::Offset;
use thiserror::Error;

/// Everything below these positions has been seen. As text: `partition:next` pairs, `0:17,3:204`. Opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub BTreeMap<u32, Offset>);

impl Cursor {
    /// The next position of a partition; 0 when it says nothing about it.
    #[must_use]
    pub fn next(&self, partition: u32) -> Offset {
        self.0.get(&partition).copied().unwrap_or_default()
    }

    /// Moves to these positions where they are further.
    pub fn pass_all(&mut self, other: &Self) {
        for (partition, next) in &other.0 {
            let own = self.0.entry(*partition).or_default();
            *own = (*own).max(*next);
        }
    }

    /// Moves to behind a record.
    pub fn pass(&mut self, partition: u32, offset: Offset) {
        self.0.insert(partition, offset.next());
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, offset)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{}", offset.0)?;
        }
        Ok(())
    }
}

/// A text that is no cursor.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a cursor of this API")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut positions = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (partition, offset) = pair.split_once(':').ok_or(NotACursor)?;
            let offset: i64 = offset.parse().map_err(|_| NotACursor)?;
            positions.insert(partition.parse().map_err(|_| NotACursor)?, Offset(offset.max(0)));
        }
        Ok(Self(positions))
    }
}

/// The place of a message in the history of its conversation. In one stream it is the order of the log, whatever WhatsApp's times say;
/// streams that are linked are merged by `ordered_at`. It depends on nothing but the log. As text: `ordered_at:partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The latest `recorded_at` of the messages of the stream up to this one, milliseconds since 1970.
    pub ordered_at: i64,
    /// Partition of the log.
    pub partition: u32,
    /// Position in it.
    pub offset: Offset,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.ordered_at, self.partition, self.offset.0)
    }
}

impl FromStr for Place {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.split(':');
        let (Some(ordered_at), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotACursor);
        };
        Ok(Self {
            ordered_at: ordered_at.parse().map_err(|_| NotACursor)?,
            partition: partition.parse().map_err(|_| NotACursor)?,
            offset: Offset(offset.parse().map_err(|_| NotACursor)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        cursor.pass(3, Offset(203));
        cursor.pass(0, Offset(16));
        assert_eq!(cursor.to_string(), "0:17,3:204");
        assert_eq!("0:17,3:204".parse(), Ok(cursor));
        for wrong in ["x", "1", "1:", "1:x", "-1:2"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(NotACursor), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_read_back_from_its_text() {
        let place = Place { ordered_at: 1_700_000_000_000, partition: 3, offset: Offset(204) };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "1", "1:2", "1:2:x", "1:-2:3", "1:2:3:4", "1000:wamid.1"] {
            assert_eq!(wrong.parse::<Place>(), Err(NotACursor), "{wrong}");
        }
    }
}
