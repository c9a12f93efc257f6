//! What the server logged about connections: nothing is missed between two samples.

use std::collections::HashSet;

use super::activity::MONITOR;
use super::cluster::ROLE;

/// How PostgreSQL refuses a connection when there are `max_connections`.
pub(super) const TOO_MANY: &str = "too many clients";

/// What happened to the agents' connections in a stretch of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerLog {
    /// The most that were open at once, without execpool's monitor.
    pub(super) peak: usize,
    /// How many were opened.
    pub(super) opened: usize,
    /// How many were refused as there were too many.
    pub(super) refused: usize,
}

impl ServerLog {
    /// Reads a stretch that begins when nothing of [`ROLE`] is connected.
    pub(super) fn read(text: &str) -> Self {
        let mut this = Self::default();
        let mut open = HashSet::new();
        for line in text.lines() {
            let Some((prefix, message)) = line.split_once(" >> ") else {
                continue;
            };
            let pid = prefix.split('|').next().unwrap_or_default();
            if is_agents_login(message) {
                open.insert(pid);
                this.opened += 1;
                this.peak = this.peak.max(open.len());
            } else if message.contains("disconnection: ") {
                open.remove(pid);
            } else if message.contains(TOO_MANY) {
                this.refused += 1;
            }
        }
        this
    }
}

fn is_agents_login(message: &str) -> bool {
    message.contains(&format!("connection authorized: user={ROLE} "))
        && !message.contains(&format!("application_name={MONITOR}"))
}

#[cfg(test)]
mod tests {
    use super::ServerLog;

    #[test]
    fn counts_what_is_open_at_once_without_the_monitor() {
        let log = "\
1|[unknown]|[unknown] >> LOG:  connection authorized: user=app database=app application_name=agent-1
2|[unknown]|[unknown] >> LOG:  connection authorized: user=app database=app application_name=execpool monitor
3|[unknown]|[unknown] >> LOG:  connection authorized: user=postgres database=app application_name=execpool demo
4|[unknown]|[unknown] >> LOG:  connection authorized: user=app database=app application_name=agent-2
1|app|agent-1 >> LOG:  disconnection: session time: 0:00:00.005 user=app database=app host=[local]
5|[unknown]|[unknown] >> LOG:  connection authorized: user=app database=app
6|app|[unknown] >> FATAL:  sorry, too many clients already
";
        let expected = ServerLog {
            peak: 2,
            opened: 3,
            refused: 1,
        };
        assert_eq!(ServerLog::read(log), expected);
    }
}
