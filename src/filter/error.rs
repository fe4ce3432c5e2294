//! Why the firewall could not be read or written, in words that say what to do next.

/// Why the firewall could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// A program is not on the `PATH`.
    #[error(
        "`{program}` is not installed: install the package `{package}` (Debian: apt install {package}), or choose the other engine with --firewall"
    )]
    Missing {
        /// What was to be run.
        program: String,
        /// The package that has it.
        package: &'static str,
    },
    /// The `nft` program is older than what the rules need.
    #[error(
        "nft {found} is too old: 1.0.1 or later is needed; upgrade the package `nftables`, or run twill with --firewall iptables"
    )]
    TooOld {
        /// The version it reports.
        found: String,
    },
    /// The kernel refused for lack of privilege.
    #[error("`{command}` was refused ({detail}): run as root, or with CAP_NET_ADMIN in the ambient set")]
    Denied {
        /// The command line.
        command: String,
        /// What it said.
        detail: String,
    },
    /// A program could not be started or fed.
    #[error("running `{command}`")]
    Run {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another program holds the xtables lock.
    #[error("`{command}` waited in vain for the xtables lock: see who holds it (`fuser /run/xtables.lock`)")]
    Locked {
        /// The command line.
        command: String,
    },
    /// A program did not end in time.
    #[error("`{command}` did not end within {seconds} s: run it by hand and see what it waits for")]
    Timeout {
        /// The command line.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// A program ended with an error.
    #[error("`{command}` failed: {detail}")]
    Failed {
        /// The command line.
        command: String,
        /// What it said.
        detail: String,
    },
    /// The output of `nft` is not what any known version prints.
    #[error("cannot read the output of `nft -j {command}`: {detail}; run it by hand and see")]
    Unreadable {
        /// The arguments.
        command: String,
        /// What is wrong with it.
        detail: String,
    },
    /// What was loaded without an error is not there afterwards.
    #[error(
        "`{what}` was loaded but does not stay ({why}): another program may be removing it; `nft monitor` shows who"
    )]
    NotAsWritten {
        /// The transaction.
        what: String,
        /// What differs.
        why: String,
    },
}

impl FilterError {
    /// Whether what is run after this would wait for the same, as long.
    pub(super) const fn is_wait(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Timeout { .. })
    }
}
