//! Whether the app that is probed has gone and come back: values alone, no clock, no I/O.
//!
//! Sessions tell that an app was restarted where all of them were the app's. Where another container holds some as well,
//! they stay; what tells then is the app's own probe, which nobody takes for a while, and then somebody does again.

use std::io;

use nix::errno::Errno;

use crate::telemetry::app_probe::Sick;

/// How it stands with who answers the app's own probe, since a restart was decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Comeback {
    /// It was not reached yet. Left when it is, or when it takes too long: somebody listens then.
    #[default]
    Unseen,
    /// It was there when it was last heard of. Left when nobody listens any more.
    There,
    /// It was there, and nobody listens any more. Left when somebody does.
    Away,
    /// Somebody does again: it is another one. Never left.
    Back,
}

impl Comeback {
    /// What it is after the app was asked. On the loopback whoever asks where nobody listens is refused at once: so an
    /// app that takes too long, or talks nonsense, was there. Whether it is the same as before nobody knows, as a new
    /// one's backlog may take what it does not answer yet.
    pub(super) fn after<T>(self, told: Result<T, &Sick>) -> Self {
        match (self, told) {
            (Self::Back, _) | (Self::Away, Ok(_) | Err(Sick::Answer(_))) => Self::Back,
            (Self::Unseen | Self::There, Ok(_) | Err(Sick::Answer(_))) => Self::There,
            (Self::There, Err(Sick::Unreached(_, error))) if !is_our_lack(error) => Self::Away,
            (Self::Unseen, Err(Sick::Nonsense(..) | Sick::Late(_))) => Self::There,
            (
                so_far,
                Err(Sick::Unreached(..) | Sick::Nonsense(..) | Sick::Late(_) | Sick::Crowded),
            ) => so_far,
        }
    }
}

/// Whether nobody could be reached for want of descriptors or memory of our own.
fn is_our_lack(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AppProbe;

    fn probe() -> AppProbe {
        let knobs = [
            ("DATABASE_URL", "postgresql://a@h/a"),
            ("EXECPOOL_REACTOR__APP_PROBE", "tcp://127.0.0.1:8080"),
        ];
        let env = knobs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = crate::config::load(&crate::config::Sources {
            file: None,
            env: env.into(),
            flags: Vec::new(),
        });
        loaded.unwrap().config.reactor.app_probe.unwrap()
    }

    #[test]
    fn who_was_there_and_gone_and_is_there_again_has_come_back() {
        use Comeback::{Away, Back, There, Unseen};
        // Well, sick, late, refused, no descriptor.
        for (told, expected) in [
            ("w", There),
            ("s", There),
            ("l", There),
            ("lr", Away),
            ("rl", There),
            ("dl", There),
            ("r", Unseen),
            ("rw", There),
            ("wr", Away),
            ("wl", There),
            ("wlw", There),
            ("wrl", Away),
            ("wrrw", Back),
            ("srs", Back),
            ("wrlw", Back),
            ("wrwr", Back),
            // It hangs all the while, as one that leaks may, until it is restarted.
            ("lrw", Back),
            ("llrrw", Back),
            ("llrrlw", Back),
            ("rrw", There),
            ("wd", There),
            ("wdw", There),
        ] {
            let unreached =
                |code: Errno| Sick::Unreached(probe(), io::Error::from_raw_os_error(code as i32));
            let after = told.chars().fold(Unseen, |so_far, one| match one {
                'w' => so_far.after(Ok(())),
                's' => so_far.after::<()>(Err(&Sick::Answer(http::StatusCode::BAD_GATEWAY))),
                'l' => so_far.after::<()>(Err(&Sick::Late(probe()))),
                'd' => so_far.after::<()>(Err(&unreached(Errno::EMFILE))),
                _ => so_far.after::<()>(Err(&unreached(Errno::ECONNREFUSED))),
            });
            assert_eq!(after, expected, "{told}");
        }
    }
}
