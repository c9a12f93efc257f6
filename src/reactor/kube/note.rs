//! What an event says: the notice's words, and where to look.

use crate::reactor::{Notice, Reason};

use super::place::Place;

/// The words, and what to type next where that says more.
pub(super) fn note(notice: &Notice, place: &Place) -> String {
    let asks = match notice.reason {
        Reason::PoolWarning | Reason::PoolExhausted => "sessions",
        Reason::PoolRestartRefused => "status",
        Reason::PoolRecovered | Reason::PoolCleanup | Reason::PoolRestart => {
            return notice.words.clone();
        }
    };
    let Place { namespace, pod, .. } = place;
    let container = place.container.as_deref().unwrap_or("execpool");
    format!(
        "{} Look with: kubectl exec -n {namespace} {pod} -c {container} -- /execpool {asks}",
        notice.words
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pod: &str) -> Place {
        Place {
            pod: pod.to_owned(),
            namespace: "n".repeat(63),
            uid: "u".to_owned(),
            container: None,
            server: "https://a".parse().unwrap(),
            credentials: "/".into(),
        }
    }

    #[test]
    fn what_asks_for_a_look_ends_with_where_and_all_else_with_its_own_words() {
        for reason in Reason::ALL {
            let notice = Notice {
                reason,
                about: "sustained",
                words: "It is so.".to_owned(),
            };
            let said = note(&notice, &place("agent"));
            let looks = match reason {
                Reason::PoolWarning | Reason::PoolExhausted => "/execpool sessions",
                Reason::PoolRestartRefused => "/execpool status",
                _ => "It is so.",
            };
            assert!(
                said.starts_with("It is so.") && said.ends_with(looks),
                "{said}"
            );
        }
    }
}
