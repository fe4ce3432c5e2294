//! Why the agent's HTTP endpoints do not answer as asked.

use std::fmt::Display;

use twill_backends::codes;

codes! {
    /// Why a question is refused.
    pub enum Unserved {
        Elsewhere: Warning "page-elsewhere",
            "The page was asked for from another host than its own.",
            "Nothing: it shows to its own host only, unless --ui-listen opens it.",
            "open it there at 127.0.0.1, or through ssh -L, or start the agent with --ui-listen ADDR:PORT";
        AnotherName: Warning "page-name",
            "The page was asked for by a name that is not this host's own.",
            "Nothing: a name of somebody else's may lead a browser here, so the page does not show by it.",
            "open it at 127.0.0.1 or localhost";
        Full: Warning "page-full",
            "As many look at the page as may at once.",
            "It is not live for one more; those who look already see everything.",
            "close a page, or ask /v1/status";
        Ending: Warning "agent-ending",
            "The agent is ending before it has anything to tell.",
            "Packets flow as the kernel was left.",
            "ask again once it has started again: systemctl status twill";
        Stuck: Broken "agent-stuck",
            "The agent's loop does not come back from what it does.",
            "Packets flow as the kernel was left; nothing follows hosts that come, move or go, and nothing is repaired.",
            "look at its log (journalctl -u twill), then: systemctl restart twill; packets keep flowing";
    }
}

impl Unserved {
    /// A line that says why, and has the code at its end, as commands say it.
    pub fn line(self, why: impl Display) -> String {
        format!("{why} [{self}]\n")
    }
}
