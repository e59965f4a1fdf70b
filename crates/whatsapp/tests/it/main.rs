//! The Cloud API on the wire: deliveries as Meta sends them, and the client against servers that misbehave.

// `cfg(test)` tells clippy that the helpers of these modules are test code too.
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod management;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod server;
#[cfg(test)]
mod webhook;
