//! The one question the caller of a port asks an error.

/// What the caller may do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later: wait and repeat it.
    Later,
    /// Nothing is known about the last call: drop the object, make a new one, read the state again, go on from there (R7).
    Reinitialise,
    /// Somebody newer owns this: stop touching it, drop all work in hand for it.
    Fenced,
    /// Repeating cannot help. The process ends with the reason, or the record goes to the dead letter topic.
    Never,
}
