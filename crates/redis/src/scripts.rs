//! The Lua scripts, by what they do.

use redis::Script;

/// All scripts of the gate; each is one atomic step on one hash slot.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Script,
    pub(crate) apply: Script,
    pub(crate) recall: Script,
    pub(crate) claim: Script,
    pub(crate) take: Script,
    pub(crate) give_back: Script,
    pub(crate) hold: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            acquire: Script::new(include_str!("lua/acquire.lua")),
            apply: Script::new(include_str!("lua/apply.lua")),
            recall: Script::new(include_str!("lua/recall.lua")),
            claim: Script::new(include_str!("lua/claim.lua")),
            take: Script::new(include_str!("lua/take.lua")),
            give_back: Script::new(include_str!("lua/give_back.lua")),
            hold: Script::new(include_str!("lua/hold.lua")),
        }
    }
}
