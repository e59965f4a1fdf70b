//! Where settings come from. Production reads the process environment, a test reads a map.

use std::collections::HashMap;

/// A place that holds settings by name.
pub trait Source {
    /// The value of a variable, or `None` when it is not there.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of everything this source holds, in no order: for pass-through families (`KAFKA_PROP_*`) and typo hints.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process. No other code reads it.
///
/// A variable that is not valid UTF-8 counts as absent: no setting of the connector can be written in such bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Env;

impl Source for Env {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Source for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// A list of literals, the shortest way to write the settings of a test: `&[("NAME", "value")]`. The last one wins.
impl<const N: usize> Source for [(&str, &str); N] {
    fn get(&self, name: &str) -> Option<String> {
        self.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}
