use super::*;
use proptest::prelude::*;

fn names(sql: &str) -> bool {
    names_execpool_setting(sql.as_bytes())
}

#[test]
fn setting_one_of_ours_is_recognised_in_every_spelling() {
    for sql in [
        "SET execpool.execution_id = 'a'",
        "set local ExecPool.label to x",
        "SET SESSION execpool.foo=1",
        "/* c */ SET -- c\n execpool /* c */ . execution_id TO DEFAULT",
        "SET \"execpool\".\"x\" = 1",
        "SET \"execpool.x\" = 1",
        "SET U&\"execpool.x\" = 1",
        "BEGIN; SET execpool.x = 1; COMMIT",
        "SELECT 'a\\b'; SET execpool.x = 1",
        "SELECT set_config('execpool.x', '1', false)",
        "SELECT pg_catalog.SET_CONFIG ( E'EXECPOOL.x', $1, true)",
        "SELECT \"set_config\"($$execpool.x$$, 'a', false)",
        "SELECT set_config(('execpool.x')::text, 'a', false)",
        "SELECT set_config(CAST('execpool.x' AS text), 'a', false)",
        "SELECT set_config('exec'\n'pool.x', '', false), set_config('execpool.x', '', false)",
        "WITH a AS (SELECT set_config('execpool.x', f(1, 2), false)) SELECT * FROM a",
    ] {
        assert!(names(sql), "{sql}");
    }
}

#[test]
fn what_only_mentions_our_settings_is_not_taken_for_setting_them() {
    for sql in [
        "SELECT 'SET execpool.x = 1'",
        "SELECT $$SET execpool.x = 1$$",
        "-- SET execpool.x = 1\nSELECT 1",
        "/* SET execpool.x = 1 */ SELECT 1",
        "SELECT 1 /* ; SET execpool.x = 1 */",
        "SELECT set_config('a.b', 'execpool.x', false)",
        "SELECT set_config(f('a', 2), 'execpool.x', false)",
        "SELECT set_config($1, 'execpool.x', false)",
        "SELECT \"SET_CONFIG\"('execpool.x')",
        "SELECT other('execpool.x')",
        "SHOW execpool.x",
        "RESET execpool.x",
        "SELECT current_setting('execpool.x')",
        "UPDATE t SET execpool = 1",
        "ALTER ROLE r SET execpool.x = 1",
        "SET search_path = execpool",
        "SET execpool = 1",
        "SET myexecpool.x = 1",
        "SELECT 1",
        "",
        "x",
        "execpoo",
    ] {
        assert!(!names(sql), "{sql}");
    }
}

#[test]
fn what_discard_all_cannot_undo_carries_over() {
    for sql in [
        "SET my.setting = 1",
        "set local \"my\".\"setting\" to 'x'",
        "SET \"my.setting\" = 1",
        "SELECT 1; SET SESSION app.user_id = '7'",
        "SELECT set_config('app.user_id', '7', true)",
        "SELECT pg_catalog.set_config($1, $2, false)",
        "SELECT set_config('app' || '.x', '7', true)",
        "SELECT set_config(lower('ROLE'), '7', true)",
        "SELECT set_config(E'app\\056x', '7', true)",
        "SELECT set_config(",
        "SET seed TO 0.5",
        "SELECT setseed(0.5)",
        "LOAD 'auto_explain'",
        "DO $$ BEGIN END $$",
        "do 'x'",
        "CALL p()",
        "CREATE EXTENSION dict_int",
        "ALTER EXTENSION dict_int UPDATE",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE plx",
        "ALTER PROCEDURE p() SET x = 1",
        "SELECT dblink_connect('host=x')",
        "SELECT * FROM public.\"DBLINK\"('x')",
        "SELECT pg_replication_origin_session_setup('x')",
        "SELECT U&\"s\\0065t_config\"('a.b', 'c', false)",
    ] {
        assert!(carries_over(sql.as_bytes()), "{sql}");
    }
}

#[test]
fn what_is_cut_off_or_unclear_carries_over() {
    for sql in [
        "SELECT 'a",
        "SELECT \"a",
        "SELECT $$a",
        "SELECT /* a",
        "SELECT 'a\\b', 'set x.y = 1'",
        "SELECT 'a\\'; SET a.b = 1; --'",
        "SELECT 1 ||-- set\n 2",
    ] {
        assert!(carries_over(sql.as_bytes()), "{sql}");
    }
    let long = format!("SELECT '{}' AS set", "x".repeat(MAX_READ));
    assert!(carries_over(long.as_bytes()));
    assert!(!carries_over(long.replace("set", "y").as_bytes()));
}

#[test]
fn what_discard_all_undoes_does_not_carry_over() {
    for sql in [
        "",
        ";",
        "SELECT 1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        "SELECT 'it''s', \"a\"\"b\", $$x$$, $t$y$t$",
        "SELECT 'x\\d+' ~ $1",
        "SET search_path = a, b",
        "SET LOCAL statement_timeout TO '5s'",
        "SET ROLE x",
        "SET SESSION AUTHORIZATION x",
        "SET TIME ZONE 'UTC'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SELECT pg_catalog.set_config('jit', 'off', false)",
        "SELECT set_config('search_path'::text, 'a.b', false)",
        "RESET a.b",
        "LISTEN x",
        "CREATE TEMP TABLE load (set_config int)",
        "CREATE TABLE t (a int)",
        "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()",
        "ALTER TABLE t SET (fillfactor = 70)",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_advisory_lock(1)",
        "UPDATE t SET a.b = 1",
        "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1",
        "SELECT 'DO it', 'set a.b = 1', 'dblink'",
        "SELECT 1 /* load */ -- call\n",
        "UPDATE pg_settings SET setting = 1 WHERE name = 'jit'",
        "BEGIN",
        "ROLLBACK",
        "DISCARD ALL",
    ] {
        assert!(!carries_over(sql.as_bytes()), "{sql}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(sql: Vec<u8>) {
        names_execpool_setting(&sql);
        carries_over(&sql);
    }

    #[test]
    fn any_words_and_symbols_are_judged_without_a_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "SET", "set_config", "(", ")", "[", "]", ",", ".", "=", "TO", "=>", ";", "'a.b'", "LOCAL",
                "execpool", "\"execpool.x\"", "U", "&", "::", "text", "CREATE", "/*", "--", "'", " ",
            ]),
            0..20,
        ),
        glue in prop::sample::select(vec!["", " "]),
    ) {
        let sql = parts.join(glue);
        names_execpool_setting(sql.as_bytes());
        carries_over(sql.as_bytes());
    }

    #[test]
    fn a_setting_with_a_dot_is_seen_behind_any_harmless_statement(
        before in prop::collection::vec(
            prop::sample::select(vec!["SELECT ';'", "BEGIN", "/* ; */ SELECT $1", "-- ;\nSELECT $$;$$", "SELECT \";\""]),
            0..4,
        ),
        set in prop::sample::select(vec![
            "SET a.b = 1", "set session a.b to 1", "SELECT set_config('a.b', '', true)",
        ]),
    ) {
        let sql = [before.join(";\n"), set.replace("a.b", "execpool.b")].join(";");
        prop_assert!(names_execpool_setting(sql.as_bytes()));
        prop_assert!(carries_over(sql.as_bytes()));
        prop_assert!(!names_execpool_setting(before.join(";").as_bytes()));
        prop_assert!(!carries_over(before.join(";").as_bytes()));
    }
}
