use super::*;
use proptest::prelude::*;

fn show(sql: &str) -> String {
    shown(sql.as_bytes(), 1000)
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        assert_eq!(show(sql), *expected, "{sql}");
    }
}

#[test]
fn literals_of_every_form_become_a_question_mark() {
    check(&[
        (
            "SELECT 'a''b', N'x', B'101', b'1', X'ff', x'F'",
            "SELECT ?, ?, ?, ?, ?, ?",
        ),
        (
            "SELECT E'a\\'b', e'\\\\', U&'d\\0061t', u&'x'",
            "SELECT ?, ?, ?, ?",
        ),
        (
            "SELECT $$a$b$$, $t$a$$b$t$, $é$x$é$, $a1_$x$a1_$",
            "SELECT ?, ?, ?, ?",
        ),
        (
            "SELECT 1, 1.5, .5, 5., 1e5, 1.5E-3, 1_000, 0x1F",
            "SELECT ?, ?, ?, ?, ?, ?, ?, ?",
        ),
        (
            "SELECT 0XFF, 0o17, 0b11, 1e10abc, 123abc, 1.2.3",
            "SELECT ?, ?, ?, ?, ?, ?",
        ),
        ("SELECT $$$$, $$(+)$$, $a$%$a$", "SELECT ?, ?, ?"),
        ("SELECT -5 + +7", "SELECT -? + +?"),
        ("SELECT 'a'\n  'b'", "SELECT ? ?"),
        (
            "SELECT date'2020-01-01', interval '1 day'",
            "SELECT date?, interval ?",
        ),
        (
            "DO $$ BEGIN END $$ LANGUAGE plpgsql",
            "DO ? LANGUAGE plpgsql",
        ),
        ("DO 'x'", "DO ?"),
        ("SELECT U&'d!0061' UESCAPE '!'", "SELECT ? UESCAPE ?"),
    ]);
}

#[test]
fn names_and_parameters_stay() {
    check(&[
        (
            "select a.\"B c\"::text, $1 from t1 where x$y = $2",
            "select a.\"B c\"::text, $1 from t1 where x$y = $2",
        ),
        ("SELECT U&\"d\\0061t\", b\"x\"", "SELECT U&\"d\\0061t\", ?"),
        (
            "SELECT a->>'k', a #>> '{x}', a @> $1, a ?| $2, a ~* 'x'",
            "SELECT a->>?, a #>> ?, a @> $1, a ?| $2, a ~* ?",
        ),
        (
            "COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER ',')",
            "COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER ?)",
        ),
        (
            "UPDATE t SET a = b, c = 5 WHERE d",
            "UPDATE t SET a = b, c = ? WHERE d",
        ),
        ("SELECT a <-> b, a[1:2]", "SELECT a <-> b, a[?:?]"),
    ]);
}

#[test]
fn it_is_one_line_without_comments() {
    check(&[
        ("  SELECT\t1\r\n  ,\n2 ;  ", "SELECT ? , ? ;"),
        (
            "-- secret\nSELECT a--secret\r,b /* secret /* secret */ secret */ + c",
            "SELECT a ,b + c",
        ),
        ("/* secret */", ""),
        ("SELECT a/**/b", "SELECT a b"),
        ("SELECT \"a\nb\u{2028}\"", "SELECT \"a b \""),
        ("", ""),
    ]);
}

#[test]
fn what_does_not_end_is_not_shown() {
    check(&[
        ("SELECT 'secret", "SELECT …"),
        ("SELECT 'secret''", "SELECT …"),
        ("SELECT E'secret\\'", "SELECT …"),
        ("SELECT U&'secret", "SELECT …"),
        ("SELECT X'ab", "SELECT …"),
        ("SELECT B'01", "SELECT …"),
        ("SELECT N'secret", "SELECT …"),
        ("SELECT $$secret$", "SELECT …"),
        ("SELECT $a$secret$b$", "SELECT …"),
        ("SELECT $tag", "SELECT …"),
        ("SELECT a /* secret /* */", "SELECT a …"),
        ("SELECT \"secret", "SELECT …"),
        ("SELECT a -- secret", "SELECT a"),
        ("'secret", "…"),
        ("SELECT 1_secret", "SELECT …"),
    ]);
}

#[test]
fn where_sessions_read_differently_the_rest_is_not_shown() {
    check(&[
        ("SELECT 'a\\', ' secret", "SELECT ?…"),
        ("SELECT 'a\\b', c FROM t", "SELECT ?…"),
        ("SELECT E'a'\n'b\\', ' secret '", "SELECT ? ?…"),
        ("SELECT 1 ||-- secret\n, 2", "SELECT ? …"),
        ("SELECT 1 +/* secret */ 2", "SELECT ? + ?"),
        ("SELECT 1 -/* secret */ 2", "SELECT ? …"),
        ("SELECT a ?--secret", "SELECT a …"),
        ("SELECT $1$a$ secret $1$ x $a$", "SELECT …"),
        ("SELECT a &>' secret'", "SELECT a …"),
        ("SELECT X'\\' , 'secret'", "SELECT …"),
        ("SELECT 'it's secret", "SELECT ?…"),
    ]);
    // In SJIS the literal is one character and ends before the comma.
    assert_eq!(shown(b"SELECT E'\x83\x5c', 'secret'", 99), "SELECT ?…");
}

#[test]
fn values_that_are_words_are_hidden() {
    check(&[
        ("SET x = secret", "SET x = ?"),
        (
            "set local a.b to secret, \"secret\", 'secret'; SELECT a",
            "set local a.b to ?, ?, ?; SELECT a",
        ),
        ("SET SESSION x TO DEFAULT", "SET SESSION x TO ?"),
        ("SET TIME ZONE secret", "SET TIME ZONE ?"),
        ("SET ROLE r", "SET ROLE r"),
        ("ALTER ROLE r SET x = secret", "ALTER ROLE r SET x = ?"),
        (
            "ALTER SYSTEM SET x TO secret, secret",
            "ALTER SYSTEM SET x TO ?, ?",
        ),
        (
            "ALTER FUNCTION f() SET a TO secret SET b = 'x' RESET c",
            "ALTER FUNCTION f() SET a TO ? SET b = ? RESET c",
        ),
        (
            "ALTER USER u WITH PASSWORD secret VALID UNTIL 'x'",
            "ALTER USER u WITH PASSWORD ? VALID UNTIL ?",
        ),
        (
            "CREATE ROLE u ENCRYPTED PASSWORD 'secret' LOGIN",
            "CREATE ROLE u ENCRYPTED PASSWORD ? LOGIN",
        ),
        (
            "CREATE TABLE u (id int, password text)",
            "CREATE TABLE u (id int, password text)",
        ),
        ("SELECT password FROM u", "SELECT password FROM u"),
    ]);
}

#[test]
fn a_long_statement_is_cut_at_a_number_of_characters() {
    assert_eq!(shown(b"SELECT abc FROM t", 17), "SELECT abc FROM t");
    assert_eq!(shown(b"SELECT abc FROM t", 16), "SELECT abc FROM…");
    assert_eq!(shown("SELECT ééé".as_bytes(), 9), "SELECT é…");
    assert_eq!(shown(b"SELECT 'x", 7), "SELECT…");
    assert_eq!(shown(b"SELECT 1", 1), "…");
    assert_eq!(shown(b"SELECT 1", 0), "");
    let long = format!("SELECT a{}", " ".repeat(MAX_READ));
    assert_eq!(show(&long), "SELECT a …");
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced() {
    assert_eq!(
        shown(b"SELECT caf\xe9, '\xff\xfe'", 99),
        "SELECT caf\u{fffd}, ?"
    );
}

/// Where a canary may hide: `§` stands for it, `~` for something else.
const HIDEOUTS: [&str; 37] = [
    "'§'",
    "'~§~'",
    "'a''§'",
    "'§'\n'§'",
    "&>' §'",
    "&<|'§'",
    "&>$$ § $$",
    "E'§'",
    "E'~\\'§'",
    "e'\\\\§'",
    "E'a'\n'§\\'§'",
    "U&'§'",
    "U&'\\0061§'",
    "N'§'",
    "B'§'",
    "X'§'",
    "x'~§'",
    "$$§$$",
    "$$~ $a$ §$$",
    "$tag$§$tag$",
    "$t$ $$ § $u$ $t$",
    "$é_1$~§$é_1$",
    "/*§*/",
    "/* ~ /* § */ § */",
    "--§\n",
    "-- ~ §\r",
    "||--§\n",
    "*/*§*/",
    "@>/*§*/",
    "?--§\n",
    "'~\\'§'",
    "'~\\' §'",
    "E'~'\n'~\\' §'",
    "DO '§'",
    "; SET x = §;",
    "; SET a.b TO §, '§';",
    "; ALTER ROLE r PASSWORD §;",
];

/// The same for canaries of digits.
const NUMBERS: [&str; 12] = [
    "§", "-§", "§.§", ".§", "§e10", "1e§", "0x§", "0X§", "0o§", "0b§", "1_§", "§abc",
];

fn canary() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        "[QZWJ][QZWJ0-9]{11}".prop_map(|canary| (canary, false)),
        "[1-9]{12}".prop_map(|canary| (canary, true)),
    ]
}

/// A text full of hideouts between ordinary words, and operators without meaning.
fn text(numbers: bool) -> impl Strategy<Value = String> {
    let hideouts = if numbers { &NUMBERS[..] } else { &HIDEOUTS[..] };
    let filler = "[a-z ,;:=<>+*!#%^&|?(){}\\[\\]é]{0,6}";
    let part = (
        prop_oneof![
            Just("SELECT a, ".to_owned()),
            Just("; UPDATE t SET b = ".to_owned()),
            Just("\n\"c d\" ".to_owned()),
            Just("$1 = ".to_owned()),
            "[a-z_(),.;:=<>+*~!@#%^&|? \\[\\]]{0,8} ",
        ],
        prop::sample::select(hideouts),
        filler,
    );
    let part = part
        .prop_map(|(noise, hideout, filler)| format!("{noise}{} ", hideout.replace('~', &filler)));
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
}

/// Whether a piece of the canary can be read.
fn leaks(canary: &str, shown: &str) -> bool {
    canary.as_bytes().windows(5).any(|piece| {
        let piece = std::str::from_utf8(piece).unwrap();
        shown.to_ascii_uppercase().contains(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_canary_in_a_literal_or_comment_is_never_shown(
        (sql, canary) in canary().prop_flat_map(|(canary, digits)| (text(digits), Just(canary))),
        cut in any::<prop::sample::Index>(),
        max in 1usize..400,
    ) {
        let sql = sql.replace('§', &canary).into_bytes();
        for part in [&sql[..], &sql[..cut.index(sql.len() + 1)]] {
            let shown = shown(part, max);
            prop_assert!(!leaks(&canary, &shown), "{shown}");
            prop_assert!(shown.chars().count() <= max);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }

    #[test]
    fn any_bytes_are_shown_without_a_panic(sql: Vec<u8>, max in 0usize..50) {
        prop_assert!(shown(&sql, max).chars().count() <= max);
    }

    #[test]
    fn any_characters_of_sql_are_shown_without_a_panic(sql in "[-a-c0-2'\"$/*\\\\.,;:=<>|@&UuEexXbn_ \n]{0,40}") {
        shown(sql.as_bytes(), 1000);
    }
}
