//! What a driver sees at PostgreSQL - results, SQLSTATEs, transaction states, parameters -
//! is the same at every run, so that any difference behind a proxy is the proxy's. What is
//! asked of each is `support::driver::MATRIX`; psql has a file of its own.

#[path = "drivers/tokio_postgres/mod.rs"]
mod in_rust;
mod support;

use support::driver::{Places, assert_complete, assert_same, program_sees_the_same};

#[tokio::test]
async fn psycopg_sees_the_same_at_every_run() {
    program_sees_the_same("psycopg_sync").await;
}

#[tokio::test]
async fn psycopg_on_asyncio_sees_the_same_at_every_run() {
    program_sees_the_same("psycopg_async").await;
}

#[tokio::test]
async fn asyncpg_sees_the_same_at_every_run() {
    program_sees_the_same("asyncpg_driver").await;
}

#[tokio::test]
async fn sqlalchemy_sees_the_same_at_every_run() {
    program_sees_the_same("sqlalchemy_sync").await;
}

#[tokio::test]
async fn sqlalchemy_on_asyncio_sees_the_same_at_every_run() {
    program_sees_the_same("sqlalchemy_async").await;
}

#[tokio::test]
async fn tokio_postgres_sees_the_same_at_every_run() {
    let places = Places::fresh("tokio_postgres").await;
    let first = in_rust::observe(&places.first_url()).await;
    let second = in_rust::observe(&places.second_url()).await;
    assert_complete(&first, &[]);
    assert_same(&first, &second);
}
