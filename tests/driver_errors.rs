//! What drivers print of a full pool and of an ended execution is what `docs/errors.md` shows, word
//! for word, with `…` for what varies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

#[path = "errors/page.rs"]
#[allow(dead_code, reason = "tests/errors.rs uses the rest")]
mod page;
mod support;

use std::path::Path;
use std::process::Stdio;

use page::{is_like, page, printed};
use support::{Database, Postgres, SOON, Sidecar, eventually, tools};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// `tests/drivers/errors.py` with one driver.
struct Program {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(driver: &str, url: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/errors.py");
        let mut child = Command::new(tools::python())
            .arg(program)
            .args([driver, url])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 can be run");
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// Has it query.
    async fn query(&mut self, sql: &str) {
        let line = format!("{sql}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    /// Its next line.
    async fn hear(&mut self) -> String {
        let line = tokio::time::timeout(SOON, self.output.next_line()).await;
        let line = line.expect("it goes on").unwrap();
        line.expect("it says something")
    }

    /// Has it query, which is to succeed.
    async fn succeed(&mut self) {
        self.query("SELECT 1").await;
        assert_eq!(self.hear().await, "ok");
    }

    /// The text of an exception.
    async fn fails(&mut self) -> String {
        let line = self.hear().await;
        let text = serde_json::from_str::<String>(&line);
        let text = text.unwrap_or_else(|_| panic!("it did not fail: {line}"));
        text.trim_end().to_owned()
    }
}

/// A driver in front of a sidecar with pools of one connection.
struct Place {
    driver: &'static str,
    database: Database,
    sidecar: Sidecar,
}

impl Place {
    async fn of(driver: &'static str) -> Self {
        let database = Postgres::shared()
            .database(&format!("errors_{driver}"))
            .await;
        let name = &database.name;
        let yaml = format!(
            "upstreams: [{{name: {name}, url: '{}'}}]\n\
             pool: {{size: 1, overflow: 0, timeout: 8s}}\n",
            database.url()
        );
        let sidecar = Sidecar::start(yaml).await;
        let place = Self {
            driver,
            database,
            sidecar,
        };
        // The first connection with a driver's parameters is made before it is let in.
        place.connect("warm").succeed().await;
        place.end("warm").await;
        place
    }

    fn connect(&self, execution: &str) -> Program {
        let url = self.sidecar.url_in(&self.database.name, execution);
        Program::start(self.driver, &url)
    }

    async fn end(&self, execution: &str) {
        let path = format!("/v1/executions/{execution}");
        let (status, answer) = self.sidecar.control("DELETE", &path, None).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The pool is in use.
    async fn full(&self) -> String {
        let mut holder = self.sidecar.session(&self.database.name, "full").await;
        holder.ask("SELECT 1").await;
        let mut program = self.connect("full");
        program.query("SELECT 1").await;
        program.fails().await
    }

    /// The execution ends amid a query.
    async fn ended_amid_a_query(&self) -> String {
        let mut program = self.connect("amid");
        program.succeed().await;
        program.query("SELECT pg_sleep(60)").await;
        let name = &self.database.name;
        let sleeping = format!("datname = '{name}' AND wait_event = 'PgSleep'");
        eventually(SOON, "it sleeps", async || {
            let found = Postgres::shared().activity(&sleeping).await;
            if found.len() == 1 { Ok(()) } else { Err(found) }
        })
        .await;
        self.end("amid").await;
        program.fails().await
    }

    /// The execution ends between two queries.
    async fn ended_between(&self) -> String {
        let mut program = self.connect("between");
        program.succeed().await;
        self.end("between").await;
        program.query("SELECT 1").await;
        program.fails().await
    }

    /// The execution has ended before the connect.
    async fn ended_before(&self) -> String {
        self.connect("between").fails().await
    }
}

/// Has a driver print all four, and looks whether they stand below the page's heading.
async fn prints_what_the_page_shows(driver: &'static str, heading: &str) {
    let place = Place::of(driver).await;
    let seen = [
        place.full().await,
        place.ended_amid_a_query().await,
        place.ended_between().await,
        place.ended_before().await,
    ];
    let all = printed(&page());
    let shown = all.iter().find(|printed| printed.heading == heading);
    let shown = &shown.expect("the page has the driver").blocks;
    assert_eq!(shown.len(), seen.len(), "{shown:#?}");
    for (seen, shown) in seen.iter().zip(shown) {
        assert!(
            is_like(seen, shown),
            "{driver} prints\n{seen}\nand not\n{shown}"
        );
    }
}

#[tokio::test]
async fn psycopg_prints_what_the_page_shows() {
    prints_what_the_page_shows("psycopg", "psycopg 3").await;
}

#[tokio::test]
async fn psycopg_on_asyncio_prints_what_the_page_shows() {
    prints_what_the_page_shows("psycopg_on_asyncio", "psycopg 3").await;
}

#[tokio::test]
async fn asyncpg_prints_what_the_page_shows() {
    prints_what_the_page_shows("asyncpg", "asyncpg").await;
}

#[tokio::test]
async fn sqlalchemy_with_psycopg_prints_what_the_page_shows() {
    prints_what_the_page_shows("sqlalchemy_on_psycopg", "SQLAlchemy with psycopg").await;
}

#[tokio::test]
async fn sqlalchemy_with_asyncpg_prints_what_the_page_shows() {
    prints_what_the_page_shows("sqlalchemy_on_asyncpg", "SQLAlchemy with asyncpg").await;
}
