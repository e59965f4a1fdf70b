//! Fresh identifiers, for what has no cause to derive them from.

use uuid::Uuid;

/// A source of unique ids. The simulated one is seeded.
pub trait Ids: Send + Sync {
    /// A new id, unlike any other; roughly ordered by time.
    fn fresh(&self) -> Uuid;
}

/// Random UUIDv7.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn fresh(&self) -> Uuid {
        Uuid::now_v7()
    }
}
