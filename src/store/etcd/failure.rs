//! What a failed call means: ask another member, or give up.

use etcd_client::Error;
use tonic::{Code, Status};

/// What etcd says to a call without a token.
const NO_USER: &str = "user name is empty";

/// Why a member did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection, or the member behind it, is out of order. A fresh connection may work, or another member.
    Broken(String),
    /// It took too long. Another member may work.
    Silent(String),
    /// It understood and refuses; every other member would, too.
    Refused(String),
}

impl Failure {
    /// Why, in words.
    pub(super) fn into_cause(self) -> String {
        match self {
            Self::Broken(cause) | Self::Silent(cause) | Self::Refused(cause) => cause,
        }
    }
}

/// Sorts an error of the client library.
pub(super) fn classify(error: &Error) -> Failure {
    match error {
        Error::GRpcStatus(status) => of_status(status),
        Error::TransportError(error) => Failure::Broken(chain(error)),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            Failure::Refused(error.to_string())
        }
        Error::IoError(_)
        | Error::WatchError(_)
        | Error::Utf8Error(_)
        | Error::LeaseKeepAliveError(_)
        | Error::ElectError(_)
        | Error::EndpointError(_)
        | Error::EndpointsNotManaged
        | Error::Internal(_) => Failure::Broken(error.to_string()),
    }
}

/// Whether the cluster has authentication switched off, so that signing in is refused but not needed.
pub(super) fn auth_is_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Whether the cluster has authentication switched on, and the call came without a token. With a user at hand, a fresh
/// connection has one.
pub(super) fn wants_user(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains(NO_USER))
}

/// Whether a renewal found nothing to renew.
pub(super) fn has_ended(error: &Error) -> bool {
    matches!(error, Error::LeaseKeepAliveError(text) if text == "lease not found")
        || matches!(error, Error::GRpcStatus(status) if status.code() == Code::NotFound)
}

fn of_status(status: &Status) -> Failure {
    let cause = status_words(status);
    match (status.code(), remedy(status)) {
        // The token was issued by an earlier life of the cluster, or before its users changed: sign in again.
        (Code::Unauthenticated, _) => Failure::Broken(cause),
        (Code::InvalidArgument, None) if stale_sign_in(status) => Failure::Broken(cause),
        (_, Some(remedy)) => Failure::Refused(format!("{cause}; next: {remedy}")),
        (
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Unimplemented,
            None,
        ) => Failure::Refused(cause),
        (
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            // What etcd from 3.6 on says for a learner, which serves nobody yet.
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss,
            None,
        ) => Failure::Broken(cause),
    }
}

/// etcd counts changes of its users, and refuses tokens of an older count.
fn stale_sign_in(status: &Status) -> bool {
    status.message().contains("revision of auth store is old")
        || status.message().contains("user name is empty")
}

fn remedy(status: &Status) -> Option<&'static str> {
    let message = status.message();
    let rows = [
        ("authentication failed", "check --etcd-username and --etcd-password"),
        (
            "permission denied",
            "grant the role of the agents' user readwrite on PREFIX/subnets and read on PREFIX/config, each with \
             --prefix; who writes PREFIX/config needs another user, or certificate, with readwrite on it",
        ),
        ("database space exceeded", "compact and defragment etcd, then: etcdctl alarm disarm"),
    ];
    rows.into_iter().find(|(text, _)| message.contains(text)).map(|(_, remedy)| remedy)
}

fn status_words(status: &Status) -> String {
    let mut words = status.message().to_owned();
    if let Some(source) = std::error::Error::source(status) {
        let chain = chain(source);
        if !words.contains(&chain) {
            words =
                if words.is_empty() || chain.contains(&words) { chain } else { format!("{words}: {chain}") };
        }
    }
    if words.is_empty() { status.code().to_string() } else { words }
}

/// An error and what caused it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_by_what_helps() {
        let of = |code, text: &str| classify(&Error::GRpcStatus(Status::new(code, text)));
        for (code, text) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            (Code::InvalidArgument, "etcdserver: user name is empty"),
            (Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
            (Code::Unknown, "h2 protocol error"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
        ] {
            assert_eq!(of(code, text), Failure::Broken(text.to_owned()));
        }
        for (code, text, next) in [
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                "--etcd-username",
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", "readwrite"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "alarm disarm"),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", ""),
        ] {
            let Failure::Refused(cause) = of(code, text) else { panic!("{text}") };
            assert!(cause.contains(text) && cause.contains(next), "{cause}");
        }
    }

    #[test]
    fn an_ended_lease_is_told_from_a_broken_stream() {
        assert!(has_ended(&Error::LeaseKeepAliveError("lease not found".to_owned())));
        assert!(has_ended(&Error::GRpcStatus(Status::new(
            Code::NotFound,
            "etcdserver: requested lease not found"
        ))));
        assert!(!has_ended(&Error::LeaseKeepAliveError("channel closed".to_owned())));
        assert!(!has_ended(&Error::GRpcStatus(Status::new(Code::Unavailable, ""))));
    }
}
