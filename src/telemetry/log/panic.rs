//! A panic as an event.

use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing::Level;

/// Logs each panic of the process as one error event, with its message, its place and the
/// thread's name. Where errors are not logged, it is printed as ever.
pub fn install_panic_hook() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if tracing::enabled!(Level::ERROR) {
            log(info);
        } else {
            print(info);
        }
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let location = info.location().map(ToString::to_string);
    tracing::error!(
        event = "panic",
        panic = message(info),
        location = location.unwrap_or_default(),
        thread = thread.name().unwrap_or("unnamed"),
        "a panic: this is a bug in execpool, please report it with this line"
    );
}

/// What the panic said; `panic!` leaves one of these two kinds.
fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    literal
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
