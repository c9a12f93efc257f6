//! What PostgreSQL itself logged about connections: no sampling, nothing missed.

use std::collections::HashSet;

/// As `log_line_prefix`: time, PID, database, user, then the application's name,
/// which is last as it may hold anything.
pub(crate) const PREFIX: &str = "%m|%p|%d|%u|%a >> ";

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The client has passed authentication; it counts from here.
    Connected,
    /// The backend has ended.
    Disconnected,
}

/// One line of the log about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The server's clock in UTC, `2026-01-31 12:59:59.123`.
    pub(crate) at: String,
    /// The backend's process.
    pub(crate) pid: i32,
    pub(crate) database: String,
    pub(crate) user: String,
    /// At `Connected` what the client asked for at startup, at `Disconnected` the last one.
    pub(crate) application_name: String,
    pub(crate) change: Change,
}

/// Connections and disconnections in the order in which the server wrote them.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLog {
    pub(crate) events: Vec<Event>,
}

impl ConnectionLog {
    /// Reads the text of a server's log.
    pub(crate) fn parse(text: &str) -> Self {
        Self {
            events: text.lines().filter_map(event).collect(),
        }
    }

    /// Only the events of connections whose `Connected` event is wanted.
    pub(crate) fn only(&self, wanted: impl Fn(&Event) -> bool) -> Self {
        let mut pids = HashSet::new();
        let mut events = Vec::new();
        for event in &self.events {
            let keep = match event.change {
                Change::Connected => wanted(event) && pids.insert(event.pid),
                Change::Disconnected => pids.remove(&event.pid),
            };
            if keep {
                events.push(event.clone());
            }
        }
        Self { events }
    }

    /// Only one database, without the tests' own connections and execpool's monitor.
    pub(crate) fn of_database(&self, name: &str) -> Self {
        self.only(|event| {
            event.database == name
                && event.application_name != super::postgres::OWN_NAME
                && event.application_name != "execpool monitor"
        })
    }

    /// How many connections there have been.
    pub(crate) fn connected(&self) -> usize {
        self.events
            .iter()
            .filter(|event| event.change == Change::Connected)
            .count()
    }

    /// How many are open at the end of the log.
    pub(crate) fn open(&self) -> usize {
        self.levels().last().unwrap_or(0)
    }

    /// The most that were ever open at once.
    pub(crate) fn peak(&self) -> usize {
        self.levels().max().unwrap_or(0)
    }

    fn levels(&self) -> impl Iterator<Item = usize> {
        self.events.iter().scan(0usize, |open, event| {
            match event.change {
                Change::Connected => *open += 1,
                Change::Disconnected => *open = open.saturating_sub(1),
            }
            Some(*open)
        })
    }
}

fn event(line: &str) -> Option<Event> {
    let (prefix, message) = line.split_once(" >> LOG:  ")?;
    let mut fields = prefix.splitn(5, '|');
    let (at, pid) = (fields.next()?, fields.next()?.parse().ok()?);
    let (database, user) = (fields.next()?, fields.next()?);
    let last_name = fields.next()?;

    let (change, application_name) =
        if let Some(rest) = message.strip_prefix("connection authorized: ") {
            let name = rest
                .split_once(" application_name=")
                .map_or("", |(_, name)| name);
            let name = name
                .split_once(" SSL enabled")
                .map_or(name, |(name, _)| name);
            (Change::Connected, name)
        } else if message.starts_with("disconnection: ") {
            (Change::Disconnected, last_name)
        } else {
            return None;
        };
    Some(Event {
        at: at.trim_end_matches(" UTC").to_owned(),
        pid,
        database: database.to_owned(),
        user: user.to_owned(),
        application_name: application_name.to_owned(),
        change,
    })
}
