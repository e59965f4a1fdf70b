//! One suite per port, run on every adapter. Each promise of a port is one function here and one named test in the adapter:
//!
//! ```text
//! connector_testkit::log_contract! { #[tokio::test] MyWorld::start().await }
//! connector_testkit::gate_contract! { #[tokio::test] MyWorld::start().await }
//! ```

pub mod gate;
pub mod log;

/// One test of a suite. Used by [`crate::log_contract`] and [`crate::gate_contract`].
#[doc(hidden)]
#[macro_export]
macro_rules! contract_test {
    ([$(#[$attribute:meta])+] $suite:ident $name:ident $world:expr) => {
        $(#[$attribute])+
        async fn $name() {
            let world = $world;
            $crate::contract::$suite::$name(&world).await;
        }
    };
}

/// Many tests of a suite. Used by [`crate::log_contract`] and [`crate::gate_contract`].
#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($attributes:tt $suite:ident $world:expr, $($name:ident)+) => {
        $($crate::contract_test! { $attributes $suite $name $world })+
    };
}
