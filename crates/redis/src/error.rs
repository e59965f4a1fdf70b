//! What Redis' errors mean, and what may be said of them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Errors that waiting does not cure: a wrong URL, denied commands, a broken script.
pub(crate) fn is_misuse(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(ServerErrorKind::CrossSlot | ServerErrorKind::NoPerm | ServerErrorKind::ExecAbort) => true,
        // What has no word of its own.
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            // Full, for now; and what a Redis 6 puts around the error of a script.
            const PASSING: [&str; 6] =
                ["max number of clients", "-OOM", "-READONLY", "-MISCONF", "-NOREPLICAS", "-CLUSTERDOWN"];
            !PASSING.iter().any(|told| says(error, told))
        }
        // Moved, loading, read only after a failover, out of memory, busy with a script: somebody is on it.
        _ => false,
    }
}

/// Whether the answer to a password is that it is wrong, or that none was set.
pub(crate) fn is_refused_password(error: &RedisError) -> bool {
    const TOLD: [&str; 2] = ["invalid password", "without any password"];
    matches!(error.code(), Some("WRONGPASS" | "NOPERM")) || TOLD.iter().any(|told| says(error, told))
}

/// Whether the library was not let in, and does not say by what words. See [`crate::probe`].
pub(crate) fn is_unexplained(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        // A client of a cluster wraps what it met.
        || describe(error).contains("AuthenticationFailed")
}

/// Errors by which Redis refuses us, or we refuse Redis: no password where one is wanted, a certificate that is not believed.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    const TOLD: [&str; 5] = [
        "NOAUTH",
        "certificate verify failed",
        // With TLS 1.3 the client has finished its handshake before its own certificate is looked at.
        "alert certificate",
        "alert bad certificate",
        "alert unknown ca",
    ];
    let reason = describe(error);
    error.code() == Some("WRONGPASS") || TOLD.iter().any(|told| reason.contains(told))
}

/// Something of another type stands where a part of ours should be. A pipeline has no error of its own, but those of its calls.
pub(crate) fn is_wrong_type(error: &RedisError) -> bool {
    const WORD: &str = "WRONGTYPE";
    error.code() == Some(WORD)
        || says(error, WORD)
        || error.clone().into_server_errors().is_some_and(|all| all.iter().any(|(_, error)| error.code() == WORD))
}

/// What stands in the place of a number or a set of numbers was not put there by us: of another type, or no number.
pub(crate) fn is_foreign(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) || is_wrong_type(error)
}

fn says(error: &RedisError, what: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(what))
}

/// The kind of an error and Redis' own word for it. Never its text, which may repeat an argument; of a connection that failed, the
/// words of the system and of OpenSSL.
pub(crate) fn describe(error: &RedisError) -> String {
    let kind = error.kind();
    // Redis does not even read as many arguments as a script has, from somebody who gave no password.
    if says(error, "unauthenticated") {
        return "NOAUTH".to_owned();
    }
    if says(error, "max number of clients") {
        return "max number of clients reached".to_owned();
    }
    if let Some(code) = error.code() {
        let refused = is_refused_password(error) && code != "NOPERM";
        return if refused { format!("AuthenticationFailed ({code})") } else { format!("{kind:?} ({code})") };
    }
    let cause = match kind {
        ErrorKind::Io | ErrorKind::Client => std::error::Error::source(error).map(ToString::to_string),
        _ => None,
    };
    let met = if kind == ErrorKind::Io { error.detail().map(str::to_owned) } else { None };
    cause.or(met).map_or_else(|| format!("{kind:?}"), |cause| format!("{kind:?} ({cause})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done about an answer of Redis.
    #[derive(Debug, PartialEq, Eq)]
    enum Means {
        Wait,
        End,
        Repair,
    }

    fn means(answer: &str) -> Means {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).expect("an answer");
        let error = value.extract_error().expect_err("an error");
        match () {
            () if is_wrong_type(&error) => Means::Repair,
            () if is_misuse(&error) || is_refusal(&error) => Means::End,
            () => Means::Wait,
        }
    }

    #[test]
    fn every_class_of_error_has_its_meaning() {
        for (answer, meaning) in [
            ("ERR max number of clients reached", Means::Wait),
            ("ERR max number of clients + cluster connections reached", Means::Wait),
            ("LOADING Redis is loading the dataset in memory", Means::Wait),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", Means::Wait),
            ("READONLY You can't write against a read only replica.", Means::Wait),
            ("CLUSTERDOWN The cluster is down", Means::Wait),
            ("CLUSTERDOWN Hash slot not served", Means::Wait),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", Means::Wait),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Means::Wait),
            ("OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:1.", Means::Wait),
            ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist", Means::Wait),
            ("NOREPLICAS Not enough good replicas to write.", Means::Wait),
            ("UNBLOCKED force unblock from blocking operation", Means::Wait),
            ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", Means::Wait),
            ("NOAUTH Authentication required.", Means::End),
            ("WRONGPASS invalid username-password pair or user is disabled.", Means::End),
            ("NOPERM this user has no permissions to run the 'evalsha' command", Means::End),
            ("ERR unauthenticated multibulk length", Means::End),
            ("ERR unknown command 'EVALSHA'", Means::End),
            ("ERR Error compiling script", Means::End),
            ("CROSSSLOT Keys in request don't hash to the same slot", Means::End),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Means::Repair),
            (
                "ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against a key",
                Means::Repair,
            ),
        ] {
            assert_eq!(means(answer), meaning, "{answer}");
        }
    }

    #[test]
    fn only_a_word_about_the_password_is_a_refusal_of_it() {
        let refused = |answer: &str| {
            let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).expect("an answer");
            is_refused_password(&value.extract_error().expect_err("an error"))
        };
        assert!(refused("WRONGPASS invalid username-password pair or user is disabled."));
        assert!(refused("ERR invalid password"));
        assert!(refused("ERR AUTH <password> called without any password configured for the default user."));
        for passing in [
            "ERR max number of clients reached",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "MASTERDOWN Link with MASTER is down",
        ] {
            assert!(!refused(passing), "{passing}");
        }
    }
}
