use super::*;
use crate::protocol::message::{Severity, SqlState};
use proptest::prelude::*;

/// A startup message as a client sends it.
fn packet(version: u32, parameters: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&version.to_be_bytes());
    for (name, value) in parameters {
        for text in [name.as_bytes(), value] {
            out.extend_from_slice(text);
            out.push(0);
        }
    }
    out.push(0);
    set_length(&mut out, 0);
    out
}

fn read(parameters: &[(&str, &[u8])]) -> Result<Startup, StartupError> {
    let bytes = packet(VERSION_3_0, parameters);
    match parse(&bytes)? {
        Some((Packet::Startup(startup), used)) if used == bytes.len() => Ok(startup),
        other => panic!("{other:?}"),
    }
}

/// Reads a startup message of user `u` with these parameters besides.
fn named(parameters: &[(&str, &str)]) -> Result<Startup, StartupError> {
    let mut all: Vec<(&str, &[u8])> = vec![("user", b"u")];
    all.extend(
        parameters
            .iter()
            .map(|(name, value)| (*name, value.as_bytes())),
    );
    read(&all)
}

fn id(startup: &Startup) -> Option<&str> {
    startup
        .naming
        .execution_id
        .as_ref()
        .map(ExecutionId::as_str)
}

fn forwarded(startup: &Startup) -> Vec<(&str, &str)> {
    let text = |(name, value)| (name, std::str::from_utf8(value).unwrap());
    startup.parameters.iter().map(text).collect()
}

fn words(code: u32, body: &[u8]) -> Vec<u8> {
    [
        &(8 + body.len() as u32).to_be_bytes(),
        &code.to_be_bytes(),
        body,
    ]
    .concat()
}

#[test]
fn encryption_and_cancel_requests_are_told_apart() {
    assert_eq!(parse(&words(80_877_103, b"")), Ok(Some((Packet::Ssl, 8))));
    assert_eq!(
        parse(&words(80_877_104, b"")),
        Ok(Some((Packet::GssEnc, 8)))
    );
    let cancel = Packet::Cancel {
        pid: 77,
        key: [1, 2, 3, 4],
    };
    assert_eq!(
        parse(&cancel_request(77, [1, 2, 3, 4])),
        Ok(Some((cancel, 16)))
    );
    for bad in [
        words(80_877_103, b"x"),
        words(80_877_102, b"1234567"),
        words(80_877_102, b"123456789"),
    ] {
        assert!(
            matches!(parse(&bad), Err(StartupError::Malformed(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn bytes_behind_the_packet_are_left_alone() {
    let bytes = [
        &words(80_877_103, b"")[..],
        &packet(VERSION_3_0, &[("user", b"u")]),
    ]
    .concat();
    assert_eq!(parse(&bytes), Ok(Some((Packet::Ssl, 8))));
}

#[test]
fn a_length_that_cannot_be_is_refused_before_the_rest_arrives() {
    assert_eq!(
        parse(&10_001u32.to_be_bytes()),
        Err(StartupError::TooLong { length: 10_001 })
    );
    assert_eq!(parse(&10_000u32.to_be_bytes()), Ok(None));
    assert_eq!(
        parse(&7u32.to_be_bytes()),
        Err(StartupError::TooShort { length: 7 })
    );
    assert!(matches!(
        parse(b"GET / HTTP/1.1\r\n"),
        Err(StartupError::TooLong { .. })
    ));
    assert!(matches!(
        parse(b"\x16\x03\x01\x02\x00\x01"),
        Err(StartupError::TooLong { .. })
    ));
}

#[test]
fn other_major_versions_are_refused_in_postgresqls_words() {
    for (version, told) in [
        (
            4 << 16,
            "unsupported frontend protocol 4.0: server supports 3.0 to 3.0",
        ),
        (
            2 << 16,
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.0",
        ),
        (
            0,
            "unsupported frontend protocol 0.0: server supports 3.0 to 3.0",
        ),
    ] {
        let error = parse(&packet(version, &[("user", b"u")])).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate()),
            (told, SqlState::FEATURE_NOT_SUPPORTED)
        );
    }
}

#[test]
fn a_layout_that_does_not_end_where_it_should_is_malformed() {
    for body in [
        &b""[..],
        b"user\0u\0",
        b"user\0u",
        b"user\0",
        b"user\0u\0\0x",
        b"user",
        b"user\0u\0\0\0",
    ] {
        let error = parse(&words(VERSION_3_0, body)).unwrap_err();
        assert!(
            matches!(error, StartupError::Malformed(_)),
            "{body:?}: {error}"
        );
        assert_eq!(error.sqlstate(), SqlState::PROTOCOL_VIOLATION);
    }
}

#[test]
fn the_database_is_the_users_name_unless_named() {
    let startup = named(&[]).unwrap();
    assert_eq!(
        (startup.user.as_str(), startup.database.as_str()),
        ("u", "u")
    );
    assert_eq!(named(&[("database", "")]).unwrap().database, "u");
    assert_eq!(named(&[("database", "d")]).unwrap().database, "d");
    for nobody in [&[][..], &[("user", &b""[..])], &[("database", b"d")]] {
        assert_eq!(read(nobody).unwrap_err(), StartupError::NoUser);
    }
}

#[test]
fn parameters_are_sorted_and_each_stands_once_with_its_last_value() {
    let one = named(&[
        ("b", "1"),
        ("DateStyle", "ISO"),
        ("a", "2"),
        ("datestyle", "German"),
    ])
    .unwrap();
    assert_eq!(
        forwarded(&one),
        [("a", "2"), ("b", "1"), ("datestyle", "German")]
    );
    let other = named(&[("datestyle", "German"), ("a", "2"), ("b", "1")]).unwrap();
    assert_eq!(one.parameters, other.parameters);
    assert_eq!(one.parameters.get("DATESTYLE"), Some(&b"German"[..]));
}

#[test]
fn values_that_are_not_utf_8_reach_the_server_as_they_are_but_names_must_be_text() {
    let startup = read(&[("user", b"u"), ("application_name", b"caf\xe9")]).unwrap();
    assert_eq!(
        startup.parameters.get("application_name"),
        Some(&b"caf\xe9"[..])
    );
    for bad in [
        &[("user", &b"\xff"[..])][..],
        &[("user", b"u"), ("database", b"\xff")],
    ] {
        assert!(matches!(read(bad), Err(StartupError::NotText(_))));
    }
    let name = words(VERSION_3_0, b"user\0u\0\xff\0v\0\0");
    assert_eq!(
        parse(&name).unwrap_err().sqlstate(),
        SqlState::CHARACTER_NOT_IN_REPERTOIRE
    );
}

#[test]
fn every_setting_of_ours_is_taken_out_wherever_it_stands() {
    let startup = named(&[
        ("execpool.execution_id", "run-1"),
        ("Execpool.Label", "search tool"),
        (
            "execpool.traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        (
            "options",
            "-c execpool.caller=app.py:3\\ main -c geqo=off -c execpool.label=other",
        ),
        ("application_name", "execpool:run-2:worker"),
        ("TimeZone", "UTC"),
    ])
    .unwrap();
    assert_eq!(id(&startup), Some("run-1"));
    assert_eq!(startup.naming.label.as_deref(), Some("search tool"));
    assert_eq!(startup.naming.caller.as_deref(), Some("app.py:3 main"));
    assert!(startup.naming.traceparent.is_some());
    assert_eq!(
        forwarded(&startup),
        [
            ("application_name", "worker"),
            ("options", "-c geqo=off"),
            ("TimeZone", "UTC")
        ]
    );
}

#[test]
fn the_execution_is_named_by_the_first_place_that_has_an_id() {
    let parameter = ("execpool.execution_id", "p");
    let options = (
        "options",
        "-c execpool.execution_id=o -c application_name=execpool:oa:r",
    );
    let name = ("application_name", "execpool:a:r");
    for (given, expected) in [
        (&[name, options, parameter][..], "p"),
        (&[name, options], "o"),
        (&[name], "a"),
        (&[name, ("options", "--application_name=execpool:oa")], "a"),
        (&[("options", "--application_name=execpool:oa")], "oa"),
        (&[("application_name", "execpool:shared")], "shared"),
    ] {
        assert_eq!(id(&named(given).unwrap()), Some(expected), "{given:?}");
    }
    assert_eq!(id(&named(&[("application_name", "psql")]).unwrap()), None);
}

#[test]
fn an_application_name_without_rest_does_not_reach_the_server() {
    let startup = named(&[
        ("application_name", "execpool:a"),
        ("options", "-c execpool.label=x"),
    ])
    .unwrap();
    assert!(startup.parameters.is_empty(), "{:?}", startup.parameters);
}

#[test]
fn a_bad_execution_id_is_refused_with_what_is_allowed() {
    for given in [
        &[("execpool.execution_id", "a b")][..],
        &[("execpool.execution_id", "")],
        &[("execpool.execution_id", ".hidden")],
        &[("options", "-c execpool.execution_id=session-4")],
        &[("application_name", "execpool:")],
        &[("application_name", "execpool:ä:x")],
    ] {
        let report = named(given).unwrap_err().report();
        assert_eq!(
            (report.severity, report.sqlstate),
            (Severity::Fatal, SqlState::INVALID_PARAMETER_VALUE)
        );
        assert!(
            report
                .message
                .starts_with("execpool: invalid execution id \""),
            "{report:?}"
        );
        assert_eq!(report.hint.as_deref(), Some(InvalidExecutionId::ALLOWED));
    }
}

#[test]
fn what_is_refused_in_our_own_words_comes_with_what_to_do() {
    for error in [
        StartupError::TooLong { length: 20_000 },
        StartupError::TooShort { length: 4 },
        StartupError::Malformed("a parameter has no value"),
        StartupError::NotText("the name of a parameter"),
        StartupError::NoValue(Setting::Label),
    ] {
        let report = error.report();
        assert!(report.hint.is_some(), "{report:?}");
    }
    assert_eq!(StartupError::NoUser.report().hint, None);
}

#[test]
fn an_unknown_setting_of_ours_is_refused_and_the_nearest_one_proposed() {
    let report = named(&[("execpool.lable", "x")]).unwrap_err().report();
    assert_eq!(report.sqlstate, SqlState::INVALID_PARAMETER_VALUE);
    assert_eq!(
        report.message,
        "execpool: unrecognized setting \"execpool.lable\""
    );
    let hint = report.hint.unwrap();
    assert!(
        hint.starts_with("Did you mean execpool.label? The others are execpool."),
        "{hint}"
    );
    assert!(
        Setting::ALL
            .iter()
            .all(|setting| hint.contains(setting.name())),
        "{hint}"
    );
    assert!(named(&[("options", "-c execpool.foo=1")]).is_err());
    assert!(
        named(&[("execpool", "1")]).is_ok(),
        "without the dot it is the server's affair"
    );
}

#[test]
fn a_long_caller_is_cut() {
    let caller = "ä".repeat(3000);
    let startup = named(&[("execpool.caller", &caller)]).unwrap();
    assert_eq!(startup.naming.caller.unwrap(), "ä".repeat(MAX_CALLER / 2));
}

#[test]
fn replication_is_anything_that_is_not_false_and_never_forwarded() {
    for (value, expected) in [
        ("database", true),
        ("true", true),
        ("on", true),
        ("1", true),
        ("nonsense", true),
        ("false", false),
        ("OFF", false),
        ("no", false),
        ("0", false),
        ("f", false),
    ] {
        let startup = named(&[("replication", value)]).unwrap();
        assert_eq!(startup.replication, expected, "{value}");
        assert!(startup.parameters.is_empty());
    }
}

#[test]
fn newer_minor_versions_and_protocol_options_are_negotiated_away() {
    assert_eq!(named(&[]).unwrap().negotiation(), None);
    let bytes = packet(
        VERSION_3_0 + 9999,
        &[("user", b"u"), ("_pq_.a", b"1"), ("_pq_.bc", b"")],
    );
    let Ok(Some((Packet::Startup(startup), _))) = parse(&bytes) else {
        panic!("not a startup message")
    };
    assert_eq!((startup.minor, startup.unknown_options.len()), (9999, 2));
    assert!(startup.parameters.is_empty());
    let expected = b"v\0\0\0\x1b\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.bc\0";
    assert_eq!(startup.negotiation().unwrap(), expected);
    let minor = Startup {
        unknown_options: Vec::new(),
        ..startup
    };
    assert_eq!(
        minor.negotiation().unwrap(),
        b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0"
    );
}

#[test]
fn every_error_has_a_kind_and_a_sentence() {
    for error in [
        StartupError::TooLong { length: 1 },
        StartupError::TooShort { length: 1 },
        StartupError::Malformed("x"),
        StartupError::NotText("x"),
        StartupError::NoUser,
        StartupError::NoValue(Setting::Label),
        StartupError::UnknownSetting {
            name: "execpool.".repeat(100),
        },
    ] {
        let report = error.report();
        assert!(
            !error.kind().is_empty() && report.message.len() < 200,
            "{report:?}"
        );
        let mut out = Vec::new();
        report.encode(&mut out);
        assert_eq!(out[0], b'E');
    }
}

prop_compose! {
    /// Parameters that mean nothing to us, in the order a server's session has them.
    fn plain()(list in prop::collection::btree_map("x[a-z]{0,8}", prop::collection::vec(1u8.., 0..12), 0..8))
        -> Vec<(String, Vec<u8>)> {
        list.into_iter().collect()
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_body_is_read_or_refused_without_a_panic(
        code in prop_oneof![Just(VERSION_3_0), Just(VERSION_3_0 + 2), Just(CANCEL_REQUEST), any::<u32>()],
        body in prop_oneof![any::<Vec<u8>>(), "((user|options|application_name|execpool\\.label|[a-z]{0,3})\\x00[ -~]{0,20}\\x00){0,5}\\x00".prop_map(String::into_bytes)],
    ) {
        if let Err(error) = parse(&words(code, &body)) {
            error.report().encode(&mut Vec::new());
        }
    }

    #[test]
    fn what_is_encoded_for_the_server_is_read_back_equal(list in plain(), user in "[a-zé]{1,9}", database in "[a-z]{1,9}") {
        let parameters = Parameters::new(list);
        let bytes = parameters.encode(&user, &database);
        let Ok(Some((Packet::Startup(startup), used))) = parse(&bytes) else { panic!("unreadable") };
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!((startup.user, startup.database), (user, database));
        prop_assert_eq!(startup.parameters, parameters);
        prop_assert_eq!((startup.minor, startup.replication), (0, false));
    }

    #[test]
    fn a_packet_is_asked_for_until_its_last_byte_is_there(list in plain(), cut in any::<prop::sample::Index>()) {
        let bytes = Parameters::new(list).encode("u", "d");
        prop_assert_eq!(parse(&bytes[..cut.index(bytes.len())]), Ok(None));
    }

    #[test]
    fn nothing_of_ours_ever_reaches_the_server(
        list in plain(),
        id in "[A-Za-z0-9_@-]{1,20}".prop_filter("reserved", |id| !id.starts_with("session-")),
        rest in "[a-z]{0,5}",
    ) {
        let options = format!("-c execpool.execution_id={id} -c work_mem=4MB --execpool.caller=c");
        let name = format!("execpool:{id}:{rest}");
        let mut all: Vec<(&str, &[u8])> = list.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        all.extend([("user", &b"u"[..]), ("options", options.as_bytes()), ("application_name", name.as_bytes())]);
        let startup = read(&all).unwrap();
        prop_assert_eq!(super::tests::id(&startup), Some(id.as_str()));
        prop_assert_eq!(startup.parameters.get("options"), Some(&b"-c work_mem=4MB"[..]));
        prop_assert_eq!(startup.parameters.get("application_name").unwrap_or_default(), rest.as_bytes());
        let own = 1 + usize::from(!rest.is_empty());
        prop_assert_eq!(startup.parameters.iter().count(), list.len() + own);
    }
}
