//! A client that leaves in a way of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use postgres_protocol::message::frontend;

use super::SOON;

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It closes, all read that it was sent.
    Close,
    /// It closes with a byte unread: the other side then meets ECONNRESET, as after RST in TCP.
    Reset,
    /// It shuts down its sending half and keeps the other one, from which it reads nothing more.
    ShutDown,
}

/// A client that reads nothing once it is in, so that it can leave with something unread.
pub(crate) struct Client {
    stream: UnixStream,
    way: Way,
}

/// What is left of it.
pub(crate) enum Left {
    Nothing,
    Half(UnixStream),
}

impl Client {
    pub(crate) fn connect(socket: &Path, way: Way) -> Self {
        let stream = UnixStream::connect(socket).expect("execpool listens");
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, way }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it is taken");
    }

    /// Begins a session, and reads up to its ReadyForQuery.
    pub(crate) fn enter(&mut self, execution: &str) {
        let mut packet = bytes::BytesMut::new();
        let named = [
            ("user", "app"),
            ("database", "app"),
            ("execpool.execution_id", execution),
        ];
        frontend::startup_message(named, &mut packet).unwrap();
        self.send(&packet);
        loop {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header).expect("an answer");
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            match (header[0], self.way) {
                // Its one byte stays where it is.
                (b'Z', Way::Reset) => return,
                _ => self.stream.read_exact(&mut body).expect("the rest of it"),
            }
            match header[0] {
                b'Z' => return,
                b'E' => panic!("not let in: {}", body.escape_ascii()),
                _ => {}
            }
        }
    }

    pub(crate) fn leave(self) -> Left {
        match self.way {
            Way::Close | Way::Reset => Left::Nothing,
            Way::ShutDown => {
                self.stream.shutdown(Shutdown::Write).expect("it is open");
                Left::Half(self.stream)
            }
        }
    }
}

impl Left {
    /// Nobody keeps the connection of one that sends no more.
    pub(crate) fn expect_closed(self, what: &str) {
        let Self::Half(mut stream) = self else {
            return;
        };
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
}
