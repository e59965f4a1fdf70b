//! What Redis' errors mean, and what may be said of them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Errors that waiting does not cure: a wrong password, a wrong URL, a broken script.
pub(crate) fn is_misuse(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(
            ServerErrorKind::ResponseError
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::NoPerm
            | ServerErrorKind::ExecAbort,
        ) => true,
        // Moved, loading, read only after a failover, out of memory: somebody is on it.
        _ => false,
    }
}

/// Errors by which Redis refuses us, or we refuse Redis: no password where one is wanted, a certificate that is not believed.
pub(crate) fn is_refusal(error: &RedisError, reason: &str) -> bool {
    const TOLD: [&str; 6] = [
        "NOAUTH",
        "certificate verify failed",
        // With TLS 1.3 the client has finished its handshake before its own certificate is looked at.
        "alert certificate",
        "alert bad certificate",
        "alert unknown ca",
        // A client of a cluster wraps what it met.
        "AuthenticationFailed",
    ];
    error.code() == Some("WRONGPASS") || TOLD.iter().any(|told| reason.contains(told))
}

/// The kind of an error and Redis' own word for it. Never its text, which may repeat an argument; of a connection that failed, the
/// words of the system and of OpenSSL.
pub(crate) fn describe(error: &RedisError) -> String {
    let kind = error.kind();
    // Redis does not even read as many arguments as a script has, from somebody who gave no password.
    if error.detail().is_some_and(|detail| detail.contains("unauthenticated")) {
        return "NOAUTH".to_owned();
    }
    if let Some(code) = error.code() {
        return format!("{kind:?} ({code})");
    }
    let cause = match kind {
        ErrorKind::Io | ErrorKind::Client => std::error::Error::source(error).map(ToString::to_string),
        _ => None,
    };
    let met = if kind == ErrorKind::Io { error.detail().map(str::to_owned) } else { None };
    cause.or(met).map_or_else(|| format!("{kind:?}"), |cause| format!("{kind:?} ({cause})"))
}
