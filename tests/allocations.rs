//! A bound session allocates nothing: between its message 1,000 and its message 100,000 the data
//! plane's thread asks the allocator for nothing at all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]
#![allow(unsafe_code, reason = "an allocator can't be written without")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use execpool::budget::Budget;
use execpool::client::{Served, Service, Serving, Settings, Standing};
use execpool::config::{self, Holders, Sources};
use execpool::execution::{Executions, Rules, Untagged, Upstream};
use execpool::metrics::{Histograms, Measured, Timings};
use execpool::pool::{Lender, PoolLimits, UpstreamNumber};
use execpool::server::{Address, Password};
use execpool::session::Table;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
use postgres_protocol::message::frontend;
use support::Postgres;

/// The system's allocator, with a count of what one thread asks of it.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ASKED.fetch_add(1, SeqCst);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn upstream(url: &str) -> config::Upstream {
    let loaded = config::load(&Sources {
        file: None,
        env: vec![("DATABASE_URL".to_owned(), url.to_owned())],
        flags: Vec::new(),
    });
    loaded.expect("the URL is good").config.upstreams.remove(0)
}

/// How long things take, told to a reader as a scraper has it.
fn timings(upstream: &config::Upstream) -> Arc<Timings> {
    let provider = SdkMeterProvider::builder()
        .with_reader(ManualReader::default())
        .build();
    let histograms = Histograms::on(&provider.meter("execpool"));
    // It lives as long as the thread, which is as long as the process.
    std::mem::forget(provider);
    let hosts = upstream.target.hosts.iter().map(Address::from);
    histograms.of(Measured {
        name: &upstream.name,
        namespace: &upstream.target.database,
        servers: &hosts.map(|host| host.place()).collect::<Vec<_>>(),
    })
}

/// The data plane, as the process has it, on a thread of its own that is counted.
fn data_plane(socket: &Path, url: &str, is_measured: bool) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let upstream = upstream(url);
    std::thread::spawn(move || {
        IS_COUNTED.set(true);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let lender = Lender::new(Budget::new(20, 10), handle.clone(), Arc::default());
        if is_measured {
            lender.time(vec![timings(&upstream)]);
        }
        let rules = Rules {
            max_duration: Some(Duration::from_secs(1800)),
            idle_timeout: Duration::from_secs(60),
            tombstone: Duration::from_secs(600),
            hold_grace: Duration::from_secs(2),
            untagged: Untagged::Shared,
        };
        let name: Arc<str> = upstream.name.as_str().into();
        let limits = PoolLimits {
            size: 2,
            overflow: 3,
        };
        let upstreams = vec![Upstream {
            name: Arc::clone(&name),
            limits,
        }];
        let executions = Executions::new(
            rules,
            Duration::ZERO,
            upstreams,
            lender,
            Arc::new(Table::default()),
            Box::new(|_, _, _| tokio::sync::oneshot::channel().1),
            handle,
        );
        let served = Served {
            number: UpstreamNumber(0),
            name,
            password: Password::new(upstream.target.password.clone()),
            config: upstream,
            standing: Standing::Open,
        };
        let settings = Settings {
            allow_uids: None,
            max_sessions: 100,
            has_reserve: false,
            holders: Holders::Full,
            tcp_password_file: None,
        };
        let serving = Serving {
            upstreams: vec![served],
            settings,
        };
        let service = Service::new(executions, serving);
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            service
                .serve(listener, Vec::new(), std::future::pending())
                .await;
        });
    });
}

/// For how long a session must ask nothing for that to be told.
const LEAST_GAP: Duration = Duration::from_secs(1);

/// Reads up to ReadyForQuery; every answer here is short and comes whole.
fn answered(stream: &mut UnixStream) {
    let mut buffer = [0; 4096];
    let mut end = 0;
    while !buffer[..end].ends_with(b"Z\0\0\0\x05I") {
        let read = stream.read(&mut buffer[end..]).unwrap();
        assert!(
            read > 0,
            "the session ended: {:?}",
            buffer[..end].escape_ascii().to_string()
        );
        end += read;
    }
    assert!(
        !buffer[..end].starts_with(b"E"),
        "{:?}",
        buffer[..end].escape_ascii().to_string()
    );
}

fn ask(stream: &mut UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    answered(stream);
}

fn bytes(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    bytes
}

/// Bind, Describe, Execute and Sync of a statement that was prepared by this name.
fn execute(statement: &str) -> BytesMut {
    bytes(|out| {
        let write = |value: &str, out: &mut BytesMut| {
            out.extend_from_slice(value.as_bytes());
            Ok::<_, Box<dyn std::error::Error + Sync + Send>>(postgres_protocol::IsNull::No)
        };
        assert!(frontend::bind("", statement, [0], ["7"], write, [0], out).is_ok());
        frontend::describe(b'P', "", out).unwrap();
        frontend::execute("", 0, out).unwrap();
        frontend::sync(out);
    })
}

#[tokio::test]
async fn a_bound_session_allocates_nothing_whether_it_is_measured_or_not() {
    // One after the other, as the count is one.
    for (name, is_measured) in [("allocations", false), ("allocations_measured", true)] {
        nothing_is_allocated(name, is_measured).await;
    }
}

async fn nothing_is_allocated(name: &str, is_measured: bool) {
    let database = Postgres::shared().database(name).await;
    let place = support::guard::short_directory();
    let socket = place.path().join("s");
    data_plane(&socket, &database.url(), is_measured);
    let mut stream = UnixStream::connect(&socket).unwrap();
    ask(
        &mut stream,
        &bytes(|out| {
            let named = [
                ("user", "app"),
                ("database", name),
                ("execpool.execution_id", "a"),
            ];
            frontend::startup_message(named, out).unwrap();
        }),
    );
    ask(
        &mut stream,
        &bytes(|out| {
            frontend::parse("named", "SELECT $1::int * 2", [], out).unwrap();
            frontend::sync(out);
        }),
    );
    // Ten messages a turn: a simple query, one prepared by name, one anew each time.
    let simple = bytes(|out| frontend::query("SELECT 'some text', 42", out).unwrap());
    let named = execute("named");
    let unnamed = bytes(|out| {
        frontend::parse("", "SELECT $1::int + 1", [], out).unwrap();
        out.extend_from_slice(&execute(""));
    });
    let turn = |stream: &mut UnixStream| -> u32 {
        ask(stream, &simple);
        ask(stream, &named);
        ask(stream, &unnamed);
        10
    };
    let mut messages = 0;
    while messages < 1_000 {
        messages += turn(&mut stream);
    }
    let before = ASKED.load(SeqCst);
    assert!(
        before > 100,
        "the counter counts: the session itself was {before} requests"
    );
    let (mut seen, mut asked, mut last) = (before, 0, Instant::now());
    while messages < 100_000 {
        let more = turn(&mut stream);
        let (now, took) = (ASKED.load(SeqCst), last.elapsed());
        last = Instant::now();
        // That a session asks nothing for a second is told, which may take memory: of a machine that stands still, too.
        if took < LEAST_GAP / 2 {
            messages += more;
            asked += now - seen;
        }
        seen = now;
    }
    assert_eq!(asked, 0, "requests to the allocator in {messages} messages");

    // What allocates is seen: another session comes in, on the same thread.
    let _other = UnixStream::connect(&socket).unwrap();
    ask(&mut stream, &simple);
    support::eventually(support::SOON, "a newcomer is counted", async || {
        let asked = ASKED.load(SeqCst) - seen;
        if asked > 0 { Ok(()) } else { Err(asked) }
    })
    .await;
}
