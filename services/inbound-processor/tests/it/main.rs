//! The inbound processor in the simulated world: every item once, whatever comes twice and whatever crashes.

// `cfg(test)` tells clippy that the helpers of these modules are test code too.
#[cfg(test)]
mod answers;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod passed_on;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod world;
