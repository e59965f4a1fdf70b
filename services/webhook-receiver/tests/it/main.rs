//! The receiver over real HTTP: what is answered, when, and what is durable by then.

// `cfg(test)` tells clippy that the helpers of these modules are test code too.
#[cfg(test)]
mod answers;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod scene;
