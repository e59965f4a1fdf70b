//! The contract of [`connector_ports::Log`] and what it opens.
