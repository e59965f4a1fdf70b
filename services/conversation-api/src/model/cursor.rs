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
}
