//! What becomes of a server connection at the end of its session.

use std::time::{Duration, Instant};

use crate::metrics::{Class, Close, Code, Counters, Origin, Phase};
use crate::pool::Canceller;
use crate::session::{Mail, Session};

use super::relay::{Over, Relay};
use super::words;

/// How long a query may go on after its client has said goodbye, as PostgreSQL would let it.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a query may go on after each time that it was cancelled. A server that has not begun
/// with it yet ignores the first request.
const STOPS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
    Duration::from_secs(3),
];
/// How long a cancel request may take.
const CANCEL: Duration = Duration::from_secs(1);
/// How long a client may take to accept its last message: nobody waits for one that reads nothing,
/// least of all the end of an execution, whose backends are to be gone within 100 ms.
const GOODBYE: Duration = Duration::from_millis(40);

/// Ends a relay in the way that its end demands. Answers whether the server connection can be
/// given back; if not, it is to be closed, and what it did is cancelled. What a client has left
/// behind is given up when its session is ended from outside.
pub(super) async fn part(
    relay: &mut Relay<'_>,
    over: Over,
    mail: &mut Mail,
    canceller: Option<&Canceller>,
    (session, counters): (&Session, &Counters),
) -> bool {
    let upstream = &session.identity().upstream;
    session.closes(why(&over));
    let is_clean = match over {
        // What came before is answered first, as the server would have.
        Over::Terminated => {
            let is_clean = drain(relay, mail).await;
            relay.flush(GOODBYE).await;
            is_clean
        }
        Over::Violated(violation) => {
            let is_clean = drain(relay, mail).await;
            relay
                .say_goodbye(&words::violated(violation), GOODBYE)
                .await;
            is_clean
        }
        Over::Vanished if relay.is_idle() => true,
        Over::Vanished => false,
        Over::ServerGone => {
            let report = words::server_gone(upstream);
            let is_working = !relay.is_idle();
            if !relay.was_told() {
                counters.failed(Phase::Relay, Class::CONNECTION);
            }
            relay.gave_up(Code::LOST);
            let goodbye = relay.say_goodbye(&report, GOODBYE);
            // Where only the connection is gone, its backend notices when it next writes.
            if is_working {
                counters.cancelled(Origin::Other);
                tokio::join!(goodbye, cancel(canceller));
            } else {
                goodbye.await;
            }
            return false;
        }
        Over::Ended(ending) => {
            if !relay.is_idle() && !ending.grace.is_over() {
                relay.finish(&ending.grace).await;
            }
            let is_working = !relay.is_idle();
            relay.gave_up(Code::of(ending.report.sqlstate.as_str()));
            if is_working {
                relay.is_cancelled("ended");
                counters.cancelled(match ending.cause {
                    Close::Execution => Origin::Execution,
                    Close::Cleanup => Origin::Cleanup,
                    _ => Origin::Other,
                });
            }
            let goodbye = relay.say_goodbye(&ending.report, GOODBYE);
            if is_working {
                tokio::join!(goodbye, cancel(canceller));
            } else {
                goodbye.await;
            }
            return false;
        }
    };
    if is_clean {
        return true;
    }
    counters.cancelled(Origin::Disconnect);
    stop(relay, canceller).await
}

/// What the end of a relay is counted as.
fn why(over: &Over) -> Close {
    match over {
        Over::Terminated => Close::Terminated,
        Over::Vanished => Close::Vanished,
        Over::Violated(_) => Close::Protocol,
        Over::ServerGone => Close::Server,
        Over::Ended(ending) => ending.cause,
    }
}

/// Stops what the server does: a backend that is left at work would outlive its permit. Answers
/// whether the connection can be given back.
async fn stop(relay: &mut Relay<'_>, canceller: Option<&Canceller>) -> bool {
    relay.hush();
    relay.is_cancelled("disconnect");
    for patience in STOPS {
        cancel(canceller).await;
        let begun = Instant::now();
        let is_drained = relay.drain(patience).await;
        // What fails before its time fails again.
        if is_drained || begun.elapsed() < patience {
            return is_drained;
        }
    }
    false
}

/// Waits for the answers to what the client has left behind; once the session is ended from
/// outside, for no longer than its grace.
async fn drain(relay: &mut Relay<'_>, mail: &mut Mail) -> bool {
    let mut drained = std::pin::pin!(relay.drain(DRAIN));
    tokio::select! {
        is_clean = &mut drained => is_clean,
        ending = mail.ended() => tokio::select! {
            is_clean = drained => is_clean,
            () = ending.grace.over() => false,
        },
    }
}

/// Asks the server to stop what it does. That it can't be asked is noticed by who waits for its
/// answer.
async fn cancel(canceller: Option<&Canceller>) {
    if let Some(canceller) = canceller {
        let _ = tokio::time::timeout(CANCEL, canceller.cancel()).await;
    }
}
