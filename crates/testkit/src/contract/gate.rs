//! The contract of [`connector_ports::Gate`].
