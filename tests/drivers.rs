//! What a driver sees of PostgreSQL - results, SQLSTATEs, transaction states, parameters -
//! is the same directly and through execpool, over its socket and over TCP. What is asked of each is
//! `support::driver::MATRIX`; psql has a file of its own.

#[path = "drivers/tokio_postgres/mod.rs"]
mod in_rust;
mod support;

use support::driver::{Places, assert_complete, assert_same, program_sees_the_same};

#[tokio::test]
async fn psycopg_sees_the_same_through_execpool() {
    program_sees_the_same("psycopg_sync").await;
}

#[tokio::test]
async fn psycopg_on_asyncio_sees_the_same_through_execpool() {
    program_sees_the_same("psycopg_async").await;
}

#[tokio::test]
async fn asyncpg_sees_the_same_through_execpool() {
    program_sees_the_same("asyncpg_driver").await;
}

#[tokio::test]
async fn sqlalchemy_sees_the_same_through_execpool() {
    program_sees_the_same("sqlalchemy_sync").await;
}

#[tokio::test]
async fn sqlalchemy_on_asyncio_sees_the_same_through_execpool() {
    program_sees_the_same("sqlalchemy_async").await;
}

#[tokio::test]
async fn tokio_postgres_sees_the_same_through_execpool() {
    let places = Places::fresh("tokio_postgres").await;
    let direct = in_rust::observe(&places.direct_url()).await;
    let proxied = in_rust::observe(&places.proxied_url()).await;
    let tcp = in_rust::observe(&places.tcp_url()).await;
    assert_complete(&direct, &[]);
    assert_same(&direct, &proxied);
    assert_same(&direct, &tcp);
}
