//! TLS with somebody who is not the server: in the middle, or in its place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "tls/certificates.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod certificates;
#[path = "tls/relay.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod relay;
mod support;

use std::sync::{Arc, Mutex};

use certificates::{Authority, Files, params};
use relay::{Behind, Relay, SSL_REQUEST};
use support::session::error;
use support::sidecar::upstream;
use support::tools::postgres_program;
use support::{PostgresOptions, SOON, Sidecar, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PASSWORD: &str = "pa%3As%2Fs%40w%25rd";

/// Whether libpq is let in.
async fn libpq(url: &str) -> bool {
    let mut psql = tokio::process::Command::new(postgres_program("psql"));
    psql.args([url, "-XAtc", "SELECT 1"])
        .env_remove("PGPASSWORD");
    psql.output().await.unwrap().status.success()
}

/// What execpool says of a server; none: a client is let in.
async fn refusal(url: &str, user: &str) -> (Sidecar, Option<String>) {
    let sidecar = Sidecar::start(upstream("app", url)).await;
    let mut raw = sidecar.raw().await;
    let told = raw.startup(&[("user", user), ("database", "app")]).await;
    if told.last().is_some_and(|last| last.kind == b'Z') {
        assert_eq!(raw.ask("SELECT 1").await, "1");
        return (sidecar, None);
    }
    let error = error(&told);
    let hint = error.get(&'H').cloned().unwrap_or_default();
    (sidecar, Some(format!("{} ({hint})", error[&'M'])))
}

#[tokio::test]
async fn a_relay_in_the_middle_is_found_out_where_anything_tells_it_from_the_server() {
    let files = Files::new();
    let (ours, foreign) = (Authority::root("ours"), Authority::root("foreign"));
    let server = ours.signed(&params("server", &["localhost"]));
    let only_tls = PostgresOptions {
        hba: vec!["hostnossl all all 127.0.0.1/32 reject".to_owned()],
        ..PostgresOptions::default()
    };
    let (postgres, database) = files.server("middle", &server, only_tls).await;
    let root = files.write("root.crt", &ours.certificate);
    let own = foreign.signed(&params("relay", &["localhost"]));
    // As if the authority had been talked into it.
    let stolen = ours.signed(&params("relay", &["localhost"]));
    let (whole, unbound) = (
        Behind::Tls(postgres.port()),
        Behind::TlsUnbound(postgres.port()),
    );
    let verified = format!("sslmode=verify-full&sslrootcert={root}&channel_binding=");
    let unverified = "sslmode=require&channel_binding=".to_owned();
    let (mismatch, downgrade) = ("channel binding check failed", "negotiation error");
    let untrusted = "signed by no authority that is trusted";
    for (certificate, behind, parameters, binding, problem) in [
        // Nothing tells it, so that it is the rest that refuses below.
        (&own, &whole, &unverified, "disable", None),
        (&own, &unbound, &unverified, "disable", None),
        (&stolen, &whole, &verified, "disable", None),
        (&own, &whole, &unverified, "require", Some(mismatch)),
        (&own, &whole, &unverified, "prefer", Some(mismatch)),
        (&own, &unbound, &unverified, "require", Some("can't be had")),
        (&own, &unbound, &unverified, "prefer", Some(downgrade)),
        (&own, &whole, &verified, "disable", Some(untrusted)),
        (&own, &whole, &verified, "require", Some(untrusted)),
        (&stolen, &whole, &verified, "require", Some(mismatch)),
        (&stolen, &unbound, &verified, "prefer", Some(downgrade)),
    ] {
        let relay = Relay::start(certificate, &["postgresql"], behind.clone()).await;
        let (port, name) = (relay.port(), &database.name);
        let url = format!(
            "postgresql://scram_user:{PASSWORD}@localhost:{port}/{name}?{parameters}{binding}&connect_timeout=60"
        );
        let case = format!("{behind:?} {url}");
        assert_eq!(libpq(&url).await, problem.is_none(), "libpq: {case}");
        let (_sidecar, refused) = refusal(&url, "scram_user").await;
        match (refused, problem) {
            (None, None) => {}
            (Some(why), Some(problem)) => assert!(why.contains(problem), "{case}: {why}"),
            (refused, _) => panic!("{case}: {refused:?}"),
        }
    }
}

#[tokio::test]
async fn with_prefer_a_required_binding_does_not_end_in_a_login_without_tls() {
    let files = Files::new();
    let server = Authority::root("an authority").signed(&params("server", &["localhost"]));
    let (postgres, database) = files
        .server("preferred", &server, PostgresOptions::default())
        .await;
    let own = Authority::root("foreign").signed(&params("relay", &["localhost"]));
    // With less than a required one it does, as with libpq: prefer is no protection.
    for (binding, is_let_in) in [("prefer", true), ("require", false)] {
        let relay = Relay::start(&own, &[], Behind::Tls(postgres.port())).await;
        let (port, name) = (relay.port(), &database.name);
        let parameters = format!("sslmode=prefer&channel_binding={binding}&connect_timeout=60");
        let url =
            format!("postgresql://scram_user:{PASSWORD}@localhost:{port}/{name}?{parameters}");
        assert_eq!(libpq(&url).await, is_let_in, "libpq: {parameters}");
        let (_sidecar, refused) = refusal(&url, "scram_user").await;
        assert_eq!(refused.is_none(), is_let_in, "{parameters}: {refused:?}");
    }
}

/// What somebody answers who is asked for TLS.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// These bytes at once, and then nothing.
    Bytes(&'static [u8]),
    /// `S`, and these where a handshake should go on.
    Handshake(&'static [u8]),
    /// The end of the connection.
    End,
    /// `S`, and the end of the connection after the first of the handshake.
    EndAmidHandshake,
}

/// How a startup message begins, behind its length.
const STARTUP: [u8; 4] = [0, 3, 0, 0];

/// Answers in the server's place, and keeps what each connection was told.
struct Impostor {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
}

impl Impostor {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let all = Arc::clone(&heard);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                tokio::spawn(async move {
                    let at = {
                        let mut all = all.lock().unwrap();
                        all.push(Vec::new());
                        all.len() - 1
                    };
                    // That the other side goes is what is expected.
                    let _ = serve(client, answer, |bytes| {
                        all.lock().unwrap()[at].extend_from_slice(bytes);
                    })
                    .await;
                });
            }
        });
        Self {
            port,
            heard,
            accepting,
        }
    }

    /// What the connections said that it was told so far.
    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }

    /// Whether somebody has begun a session without TLS.
    fn heard_plain(&self) -> bool {
        self.heard().iter().any(|one| {
            let asked = one.strip_prefix(&SSL_REQUEST[..]).unwrap_or(one);
            asked.get(4..8) == Some(&STARTUP)
        })
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, answer: Answer, hear: impl Fn(&[u8])) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let read = client.read(&mut buffer).await?;
    hear(&buffer[..read]);
    // Nobody waits for the answer to a session that is begun without TLS.
    let is_startup = |read: &[u8]| read.get(4..8) == Some(&STARTUP);
    match answer {
        _ if is_startup(&buffer[..read]) => return Ok(()),
        _ if buffer[..read] != SSL_REQUEST => {}
        Answer::Bytes(bytes) => client.write_all(bytes).await?,
        Answer::End => return Ok(()),
        Answer::Handshake(_) | Answer::EndAmidHandshake => {
            client.write_all(b"S").await?;
            let read = client.read(&mut buffer).await?;
            hear(&buffer[..read]);
            match answer {
                Answer::Handshake(bytes) => client.write_all(bytes).await?,
                _ => return Ok(()),
            }
        }
    }
    loop {
        match client.read(&mut buffer).await? {
            0 => return Ok(()),
            read => {
                hear(&buffer[..read]);
                if is_startup(&buffer[..read]) {
                    return Ok(());
                }
            }
        }
    }
}

/// An ErrorResponse that nobody has signed.
const LIE: &[u8] = b"E\0\0\0\x3aSFATAL\0C28P01\0Mexpired: log in at https://example.test\0\0";
/// The same behind the consent, as if it came in TLS.
const STUFFED: &[u8] = b"SE\0\0\0\x3aSFATAL\0C28P01\0Mexpired: log in at https://example.test\0\0";

#[tokio::test]
async fn an_answer_that_is_none_is_refused_and_never_a_reason_to_go_on_without_tls() {
    let improper = "no proper answer";
    let timeout = "did not answer within 2 s";
    for (answer, problem) in [
        (Answer::Bytes(LIE), improper),
        (Answer::Bytes(STUFFED), improper),
        (Answer::Bytes(b"SX"), improper),
        (Answer::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"), improper),
        (Answer::Bytes(b"\x15\x03\x01\0\x02\x02\x46"), improper),
        (Answer::Bytes(b""), timeout),
        (Answer::Bytes(b"S"), timeout),
        (Answer::End, "broke during start-up"),
    ] {
        for mode in ["prefer", "require"] {
            let impostor = Impostor::start(answer).await;
            let port = impostor.port;
            let url = format!("postgresql://app@127.0.0.1:{port}/app?sslmode={mode}");
            // Who is answered needs no time.
            let seconds = if problem == timeout { 2 } else { 60 };
            let timely = format!("{url}&connect_timeout={seconds}");
            let (sidecar, refused) = refusal(&timely, "app").await;
            let why = refused.expect("nobody is there");
            assert!(why.contains(problem), "{answer:?} {mode}: {why}");
            let said = why + &sidecar.log().join("\n");
            assert!(!said.contains("example.test"), "{answer:?}: {said}");
            let health = sidecar.control("GET", "/v1/database/health", None).await;
            let said = health.1.to_string();
            assert!(health.0 != 200 && !said.contains("example.test"), "{said}");
            drop(sidecar);
            // Behind a consent with more than that, not even a handshake is begun.
            let begun = matches!(answer, Answer::Bytes(b"S"));
            let heard = eventually(SOON, "a handshake is heard, or not", async || {
                let heard = impostor.heard();
                let is_begun = heard.iter().any(|one| one.len() > SSL_REQUEST.len());
                if is_begun == begun {
                    Ok(heard)
                } else {
                    Err(heard)
                }
            })
            .await;
            assert!(!impostor.heard_plain(), "{answer:?} {mode}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_followed_by_plain_only_where_prefer_has_it_as_in_libpq() {
    for (answer, is_followed) in [
        (Answer::Bytes(b"N"), true),
        (Answer::Bytes(STUFFED), false),
        (Answer::Bytes(b"X"), false),
        (Answer::Handshake(b"HTTP/1.1 400 Bad Request\r\n\r\n"), true),
        // An alert: the handshake failed.
        (Answer::Handshake(b"\x15\x03\x03\0\x02\x02\x28"), true),
        (Answer::EndAmidHandshake, true),
        (Answer::End, false),
    ] {
        for mode in ["prefer", "require"] {
            let theirs = Impostor::start(answer).await;
            let url = |port, seconds| {
                let place = format!("postgresql://app@127.0.0.1:{port}/app");
                format!("{place}?sslmode={mode}&connect_timeout={seconds}")
            };
            // Behind a consent with more than that libpq waits for the rest.
            let waits = matches!(answer, Answer::Bytes(STUFFED));
            assert!(!libpq(&url(theirs.port, if waits { 2 } else { 60 })).await);
            let ours = Impostor::start(answer).await;
            let (sidecar, refused) = refusal(&url(ours.port, 60), "app").await;
            let expected = is_followed && mode == "prefer";
            assert_eq!(theirs.heard_plain(), expected, "libpq: {answer:?} {mode}");
            assert_eq!(
                ours.heard_plain(),
                expected,
                "{answer:?} {mode}: {refused:?}"
            );
            drop(sidecar);
        }
    }
}
