//! The Lua scripts, by what they do.

use redis::Script;

/// All scripts of the gate; each is one atomic step on one hash slot (that of several limiters is given one in a cluster).
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Script,
    pub(crate) apply: Script,
    pub(crate) read: Script,
    pub(crate) timers: Script,
    pub(crate) recall: Script,
    pub(crate) claim: Script,
    pub(crate) next_due: Script,
    pub(crate) inspect: Script,
    pub(crate) discard: Script,
    pub(crate) repair: Script,
    pub(crate) take: Script,
    pub(crate) give_back: Script,
    pub(crate) hold: Script,
}

/// A script about a view: its keys are always the same, and what all of them share stands in front.
fn of_view(script: &str) -> Script {
    Script::new(&format!("{}{script}", include_str!("lua/view.lua")))
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            acquire: of_view(include_str!("lua/acquire.lua")),
            apply: of_view(include_str!("lua/apply.lua")),
            read: of_view(include_str!("lua/read.lua")),
            timers: of_view(include_str!("lua/timers.lua")),
            recall: of_view(include_str!("lua/recall.lua")),
            claim: of_view(include_str!("lua/claim.lua")),
            next_due: of_view(include_str!("lua/next_due.lua")),
            inspect: of_view(include_str!("lua/inspect.lua")),
            discard: of_view(include_str!("lua/discard.lua")),
            repair: of_view(include_str!("lua/repair.lua")),
            take: Script::new(include_str!("lua/take.lua")),
            give_back: Script::new(include_str!("lua/give_back.lua")),
            hold: Script::new(include_str!("lua/hold.lua")),
        }
    }
}
