//! The catalogue in the simulated world.

// `cfg(test)` tells clippy that the helpers of these modules are test code too.
#[cfg(test)]
mod syncing;
