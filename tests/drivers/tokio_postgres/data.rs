//! The part of the matrix about values of all kinds, one by one and in bulk.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use serde_json::{Value, json};

use super::session::{Binary, Session, code, digest};

pub(super) async fn prepared_six_times(session: &Session) -> Value {
    let statement = session
        .client
        .prepare("SELECT $1::int4 * 2, $2::text")
        .await
        .unwrap();
    let mut rows = Vec::new();
    for number in 0..6_i32 {
        let row = session
            .client
            .query_one(&statement, &[&number, &"x"])
            .await
            .unwrap();
        rows.push((row.get::<_, i32>(0), row.get::<_, String>(1)));
    }
    let columns: Vec<&str> = statement
        .columns()
        .iter()
        .map(|c| c.type_().name())
        .collect();
    let prepared: i64 = session
        .one("SELECT count(*) FROM pg_prepared_statements")
        .await;
    json!({"rows": rows, "columns": columns, "prepared": prepared})
}

pub(super) async fn enums(session: &Session) -> Value {
    let sql = "INSERT INTO matrix.item VALUES ($1, $2, $3) RETURNING mood, mood::text";
    let mut moods = Vec::new();
    for (number, mood) in (0_i32..).zip(["sad", "ok", "happy"]) {
        let value = Binary(mood.as_bytes().to_vec());
        let row = session
            .client
            .query_one(sql, &[&number, &mood, &value])
            .await
            .unwrap();
        moods.push((row.get::<_, Binary>(0).0, row.get::<_, String>(1)));
    }
    let wrong = session
        .client
        .query_one("SELECT 'angry'::matrix.mood", &[])
        .await;
    let wrong = code(&wrong.unwrap_err());
    assert_eq!(wrong, "22P02");
    json!({"moods": moods, "wrong": wrong})
}

pub(super) async fn arrays(session: &Session) -> Value {
    let numbers = vec![Some(1_i32), None, Some(3)];
    let texts = vec![Some("a"), None, Some("quo\"te"), Some("comma,"), Some("")];
    let sql = "SELECT $1::int[], $2::text[], '{{1,2},{3,4}}'::int[]";
    let row = session
        .client
        .query_one(sql, &[&numbers, &texts])
        .await
        .unwrap();
    json!({
        "numbers": row.get::<_, Vec<Option<i32>>>(0),
        "texts": row.get::<_, Vec<Option<String>>>(1),
        "nested": row.get::<_, Binary>(2).0,
    })
}

pub(super) async fn jsonb(session: &Session) -> Value {
    // In its binary form jsonb is text after a version, which is 1.
    let document = b"\x01{\"a\": [1, 2, {\"b\": null}], \"text\": \"\xc3\xa5\\u00df\"}".to_vec();
    let sql = "SELECT $1::jsonb, $1::jsonb->'a'->2";
    let row = session
        .client
        .query_one(sql, &[&Binary(document)])
        .await
        .unwrap();
    json!([row.get::<_, Binary>(0).0, row.get::<_, Binary>(1).0])
}

pub(super) async fn copy(session: &Session) -> Value {
    let client = &session.client;
    let sink = client
        .copy_in("COPY matrix.copied FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    for number in 0..2000 {
        let line = format!("{number}\trow\\t{number}\\n\\\\\n");
        sink.send(Bytes::from(line)).await.unwrap();
    }
    let copied = sink.finish().await.unwrap();

    let mut taken = Vec::new();
    for form in ["text", "binary"] {
        let sql = format!("COPY (TABLE matrix.copied ORDER BY id) TO STDOUT (FORMAT {form})");
        let parts: Vec<Bytes> = client
            .copy_out(&sql)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        taken.push(digest(&parts.concat()));
    }

    let sink = client
        .copy_in("COPY matrix.copied FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    sink.send(Bytes::from_static(b"1\tgood\nbad\tbad\n"))
        .await
        .unwrap();
    let wrong = code(&sink.finish().await.unwrap_err());

    {
        let sink = client
            .copy_in("COPY matrix.copied FROM STDIN")
            .await
            .unwrap();
        let mut given_up = pin!(sink);
        given_up
            .send(Bytes::from_static(b"1\tgood\n"))
            .await
            .unwrap();
        // Dropped without finish: the driver sends CopyFail.
    }
    let total: i64 = session.one("SELECT count(*) FROM matrix.copied").await;
    assert_eq!((copied, total, &wrong), (2000, 2000, &json!("22P02")));
    json!({"taken": taken, "wrong": wrong, "total": total})
}

pub(super) async fn one_megabyte(session: &Session) -> Value {
    let text: String = (0..131_072).map(|number| format!("{number:07} ")).collect();
    let sql = "SELECT $1::text, encode(sha256($1::text::bytea), 'hex') FROM generate_series(1, 3)";
    let rows = session.client.query(sql, &[&text]).await.unwrap();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                digest(row.get::<_, &str>(0).as_bytes()),
                row.get::<_, String>(1)
            ])
        })
        .collect();
    assert_eq!(rows[0][0], digest(text.as_bytes()));
    json!(rows)
}
