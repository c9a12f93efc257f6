//! A client of the PostgreSQL protocol that sends any bytes, right or wrong, and
//! shows each message that comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

use super::wait::SOON;

/// How much of a message that is not kept is read at once, in bytes.
const SKIMMED: usize = 256 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens a socket as whoever runs this, and passes on what comes either way.
const RELAY: &str = "
import os, select, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
while True:
    for ready in select.select([0, line], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else line.recv(65536)
        if not data:
            sys.exit()
        line.sendall(data) if ready == 0 else os.write(1, data)
";

/// A connection on which nothing has been sent but what the test sends.
pub(crate) struct Raw {
    stream: Box<dyn Stream>,
    received: BytesMut,
    /// Whoever has opened the socket in our place; it ends with this.
    relay: Option<Child>,
}

/// A message from the server: its type and what follows the length.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Over a Unix socket.
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        Self::over(stream)
    }

    /// Over TCP.
    pub(crate) async fn connect_tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::over(stream)
    }

    /// Over a Unix socket, as another user of the system. Only root can do that.
    pub(crate) async fn connect_as(uid: u32, socket: &Path) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", RELAY])
            .arg(socket)
            .uid(uid)
            .gid(uid)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 can be run");
        let pipes = (child.stdout.take(), child.stdin.take());
        let (Some(from), Some(to)) = pipes else {
            unreachable!("both are piped")
        };
        let mut raw = Self::over(tokio::io::join(from, to));
        raw.relay = Some(child);
        raw
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            received: BytesMut::new(),
            relay: None,
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .await
            .unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()));
    }

    /// The same where the other side may have closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Sends as many of the bytes as are taken at once; waits until some are. Cancel safe.
    pub(crate) async fn send_some(&mut self, bytes: &[u8]) -> usize {
        let sent = self.stream.write(bytes).await;
        sent.unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()))
    }

    /// Sends what `encode` writes, such as `frontend::sync`.
    pub(crate) async fn send_with(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let mut buffer = BytesMut::new();
        encode(&mut buffer);
        self.send(&buffer).await;
    }

    /// Reads bytes that are not a message, such as the answer to SSLRequest. Fewer at
    /// the end of the stream.
    pub(crate) async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count && self.fill().await {}
        let count = count.min(self.received.len());
        self.received.split_to(count).to_vec()
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The type and length of the next message, whose body is told piece by piece and not kept;
    /// `None` at the end of the stream.
    pub(crate) async fn skim(&mut self, mut on: impl FnMut(&[u8])) -> Option<(u8, usize)> {
        while self.received.len() < 5 {
            if !self.fill().await {
                return None;
            }
        }
        let kind = self.received.get_u8();
        let length = usize::try_from(self.received.get_u32()).expect("it fits") - 4;
        let mut left = length;
        while left > 0 {
            if self.received.is_empty() {
                self.received.reserve(SKIMMED);
                if !self.fill().await {
                    return None;
                }
            }
            let piece = self.received.len().min(left);
            on(&self.received[..piece]);
            self.received.advance(piece);
            left -= piece;
        }
        Some((kind, length))
    }

    /// Messages up to and with the first of a type; fewer at the end of the stream.
    pub(crate) async fn read_until(&mut self, kind: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.read().await {
            let last = message.kind == kind;
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// Sends a startup packet and reads up to ReadyForQuery, or to an error.
    pub(crate) async fn startup(&mut self, parameters: &[(&str, &str)]) -> Vec<Message> {
        self.send_with(|buffer| {
            frontend::startup_message(parameters.iter().copied(), buffer)
                .expect("the parameters have no zero bytes");
        })
        .await;
        let mut messages = Vec::new();
        while let Some(message) = self.read().await {
            let last = matches!(message.kind, b'Z' | b'E');
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// Sends a simple query and reads up to ReadyForQuery.
    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send_with(|buffer| frontend::query(sql, buffer).expect("no zero bytes"))
            .await;
        self.read_until(b'Z').await
    }

    /// The fields of the next ErrorResponse, past whatever comes before it.
    pub(crate) async fn expect_error(&mut self) -> BTreeMap<char, String> {
        let messages = self.read_until(b'E').await;
        match messages.last() {
            Some(message) if message.kind == b'E' => message.fields(),
            _ => panic!("the stream ends without an error, after {messages:?}"),
        }
    }

    /// Asserts that nothing more comes and that the other side has closed.
    pub(crate) async fn expect_closed(&mut self) {
        if let Some(message) = self.read().await {
            panic!("{message:?} instead of the end");
        }
    }

    /// Asserts that no whole message comes for so long.
    pub(crate) async fn expect_silence(&mut self, time: Duration) {
        if let Ok(message) = tokio::time::timeout(time, self.read()).await {
            panic!("{message:?} instead of silence");
        }
    }

    fn take(&mut self) -> Option<Message> {
        let mut header = self.received.get(..5)?;
        let kind = header.get_u8();
        let length = usize::try_from(header.get_u32()).expect("it fits");
        assert!(length >= 4, "a message {kind:?} with length {length}");
        if self.received.len() <= length {
            return None;
        }
        let message = self.received.split_to(length + 1);
        Some(Message {
            kind,
            body: message[5..].to_vec(),
        })
    }

    /// Reads more; false at the end of the stream. Cancel safe.
    async fn fill(&mut self) -> bool {
        match tokio::time::timeout(SOON, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(0) | Err(_)) => false,
            Ok(Ok(_)) => true,
            Err(_) => panic!("nothing comes for {SOON:?}"),
        }
    }
}

impl Message {
    /// The fields of an ErrorResponse or NoticeResponse by their letter: `C` is the
    /// SQLSTATE, `M` the message, `D` the detail, `H` the hint, `S` the severity.
    pub(crate) fn fields(&self) -> BTreeMap<char, String> {
        assert!(matches!(self.kind, b'E' | b'N'), "{self:?} has no fields");
        self.body
            .split(|byte| *byte == 0)
            .filter_map(|field| {
                let (letter, text) = field.split_first()?;
                let text = String::from_utf8_lossy(text).into_owned();
                Some((char::from(*letter), text))
            })
            .collect()
    }

    /// The columns of a DataRow as text; `None` is NULL.
    pub(crate) fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.kind, b'D', "{self:?} is no row");
        let mut body = self.body.as_slice();
        let count = body.get_u16();
        (0..count)
            .map(|_| {
                let length = usize::try_from(body.get_i32()).ok()?;
                let (value, rest) = body.split_at(length);
                body = rest;
                Some(String::from_utf8_lossy(value).into_owned())
            })
            .collect()
    }

    /// The name and value of a ParameterStatus.
    pub(crate) fn parameter(&self) -> Option<(String, String)> {
        if self.kind != b'S' {
            return None;
        }
        let mut parts = self.body.split(|byte| *byte == 0);
        let mut next = || Some(String::from_utf8_lossy(parts.next()?).into_owned());
        Some((next()?, next()?))
    }

    /// The transaction status of a ReadyForQuery: `I`, `T` or `E`.
    pub(crate) fn transaction_status(&self) -> char {
        assert_eq!(self.kind, b'Z', "{self:?} is no ReadyForQuery");
        char::from(self.body[0])
    }

    /// The process and key of a BackendKeyData.
    pub(crate) fn key(&self) -> (i32, i32) {
        assert_eq!(self.kind, b'K', "{self:?} is no BackendKeyData");
        let mut body = self.body.as_slice();
        (body.get_i32(), body.get_i32())
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(f, "{}({})", char::from(self.kind), shown.escape_ascii())
    }
}
