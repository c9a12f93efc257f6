//! The memory of restarts.

use super::*;

/// So many seconds after a moment of some day.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn memory(times: &[u64]) -> Restarts {
    let mut memory = Restarts::default();
    for time in times {
        memory.add(at(*time));
    }
    memory
}

/// So many seconds after the machine has begun, and after that moment.
fn moment(seconds: u64) -> Moment {
    Moment {
        time: at(seconds),
        up: Some(Up {
            boot: "one".to_owned(),
            since: Duration::from_secs(seconds),
        }),
    }
}

#[test]
fn what_is_written_is_read() {
    let all = [
        Restarts::default(),
        memory(&[5, 3, 900]),
        memory(&[5]).of_pod_since(at(1)),
        Restarts::counted(7, Some(at(3))),
        Restarts::counted(0, None),
    ];
    for memory in all {
        let text = memory.written(&moment(1000));
        assert!(text.starts_with("{\"version\":1,"), "{text}");
        assert_eq!(Restarts::read(&text, &moment(7000)).unwrap(), memory);
    }
}

#[test]
fn what_was_never_written_so_is_an_error_and_what_it_leaves_is_safe() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{\"version\":1}",
        "{\"version\":1,\"total\":-1,\"times\":[]}",
        "{\"version\":1,\"total\":1,\"times\":[1]",
        "{\"version\":1,\"total\":1,\"times\":[1.5]}",
        "\u{0}\u{0}",
    ] {
        let error = Restarts::read(text, &moment(0)).unwrap_err();
        assert!(
            error.to_string().contains("no memory of restarts"),
            "{text}"
        );
    }
    let later = "{\"version\":2,\"total\":0,\"times\":[]}";
    let error = Restarts::read(later, &moment(0)).unwrap_err().to_string();
    assert_eq!(error, "it is of version 2, and this one reads version 1");
    // The pod is then as old as the process.
    let nothing = Restarts::default();
    assert_eq!(nothing.pod_age(at(0), SECOND), SECOND);
}

#[test]
fn times_that_no_clock_gives_are_left_out_and_there_are_never_too_many() {
    let text = "{\"version\":1,\"total\":1,\"times\":[18446744073709551615,7],\"pod_since\":9999999999999}";
    let read = Restarts::read(text, &moment(0)).unwrap();
    assert_eq!(read.last(), Some(UNIX_EPOCH + SECOND * 7));
    assert_eq!(read.pod_since(), None);
    let mut many = Restarts::default();
    for second in 0..1000 {
        many.add(at(second));
    }
    assert_eq!((many.total(), many.in_last_hour(at(1000))), (1000, 64));
    assert!(many.written(&moment(0)).len() < 1000);
}

#[test]
fn several_memories_of_the_same_restarts_are_one() {
    let file = memory(&[10, 700]);
    for (other, total, times) in [
        (Restarts::default(), 2, &[10, 700][..]),
        (file.clone(), 2, &[10, 700]),
        (memory(&[700]), 2, &[10, 700]),
        (memory(&[300]), 3, &[10, 300, 700]),
        (Restarts::counted(2, Some(at(700))), 2, &[10, 700]),
        (Restarts::counted(9, Some(at(700))), 9, &[10, 700]),
        (Restarts::counted(3, Some(at(900))), 3, &[10, 700, 900]),
    ] {
        for merged in [file.merge(&other), other.merge(&file)] {
            assert_eq!(merged.total(), total, "{other:?}");
            let last = at(times[times.len() - 1]);
            assert_eq!(merged.last(), Some(last), "{other:?}");
            assert_eq!(merged.merge(&other).merge(&file), merged);
        }
    }
    // Two of one second, as after a clock was set, are two, whichever is merged into which.
    let twice = memory(&[5, 5]);
    for other in [Restarts::default(), memory(&[5]), memory(&[5, 5])] {
        for merged in [twice.merge(&other), other.merge(&twice)] {
            assert_eq!(merged, twice, "{other:?}");
        }
    }
    let since = |seconds| Restarts::default().of_pod_since(at(seconds));
    assert_eq!(since(9).merge(&since(3)).pod_since(), Some(at(3)));
    assert_eq!(since(9).merge(&memory(&[1])).pod_since(), Some(at(9)));
}

#[test]
fn those_whose_times_are_not_known_were_at_the_worst_time() {
    let annotations = Restarts::counted(5, Some(at(0)));
    assert_eq!(annotations.in_last_hour(at(60)), 5);
    assert_eq!(annotations.in_last_hour(at(3600)), 0);
    // No file is no knowledge; one that knows all of them is.
    let none = annotations.merge(&Restarts::default());
    assert_eq!(none.in_last_hour(at(60)), 5);
    let mut file = Restarts::read("{\"version\":1,\"total\":4,\"times\":[7]}", &moment(0)).unwrap();
    file.add(at(0));
    assert_eq!(annotations.merge(&file).in_last_hour(at(60)), 1);
    assert_eq!(file.merge(&annotations).in_last_hour(at(60)), 1);
    // Nor does one that knows of fewer.
    let stale = memory(&[0]);
    assert_eq!(annotations.merge(&stale).in_last_hour(at(60)), 5);
}

#[test]
fn one_that_lies_ahead_was_just_now_and_is_over_some_time() {
    let ahead = memory(&[5000]);
    let known = ahead.not_after(at(100));
    assert_eq!(known.last(), Some(at(100)));
    assert_eq!(known.total(), 1);
    // A stamp that is read again and again forbids for as long as it lies ahead, an hour at most.
    let forbids = |now| {
        ahead
            .forbids(Duration::from_secs(600), 2, at(now))
            .is_some()
    };
    assert!(!forbids(0) && !forbids(4400) && forbids(4401));
    assert!(forbids(5599) && !forbids(5600));
}

#[test]
fn the_pod_is_as_old_as_it_says_and_never_younger_than_the_process() {
    let memory = Restarts::default().of_pod_since(at(100));
    let process = Duration::from_secs(5);
    assert_eq!(memory.pod_age(at(700), process).as_secs(), 600);
    assert_eq!(
        memory.pod_age(at(0), process),
        process,
        "a clock was set back"
    );
}

#[test]
fn the_cool_down_and_the_most_of_an_hour_are_counted_to_the_second() {
    let cooldown = Duration::from_secs(600);
    type Case = (&'static [u64], u64, Option<(&'static str, u64)>);
    let cases: [Case; 9] = [
        (&[], 0, None),
        (&[0], 0, Some(("cooldown", 600))),
        (&[0], 599, Some(("cooldown", 1))),
        (&[0], 600, None),
        (&[0, 600], 600, Some(("too_many", 3000))),
        (&[0, 600], 3599, Some(("too_many", 1))),
        (&[0, 600], 3600, None),
        (&[0, 600, 1200], 3600, Some(("too_many", 600))),
        (&[0, 3500], 3601, Some(("cooldown", 499))),
    ];
    for (times, now, expected) in cases {
        let found = memory(times).forbids(cooldown, 2, at(now));
        let found = found.map(|guard| match guard {
            Guard::Cooldown { left } | Guard::TooMany { left, .. } => {
                (guard.as_str(), left.as_secs())
            }
            guard => (guard.as_str(), 0),
        });
        assert_eq!(found, expected, "{times:?} at {now}");
    }
    // A cool-down of more than the hour that is counted.
    let long = Duration::from_secs(7200);
    assert!(memory(&[0]).forbids(long, 2, at(7199)).is_some());
    assert_eq!(memory(&[0]).forbids(long, 2, at(7200)), None);
}

fn any_memory() -> impl Strategy<Value = Restarts> {
    let times = prop::collection::vec(0..5000_u64, 0..4);
    let whole = times.prop_map(|times| memory(&times));
    let counted = (0..6_u64, prop::option::of(0..5000_u64))
        .prop_map(|(total, last)| Restarts::counted(total, last.map(at)));
    let since = prop::option::of(0..5000_u64);
    (prop_oneof![whole, counted], since).prop_map(|(memory, since)| match since {
        Some(since) => memory.of_pod_since(at(since)),
        None => memory,
    })
}

proptest! {
    #[test]
    fn memories_are_merged_in_any_order_and_as_often_as_one_likes(
        one in any_memory(),
        other in any_memory(),
        now in 0..9000_u64,
    ) {
        let merged = one.merge(&other);
        prop_assert_eq!(&merged, &other.merge(&one));
        prop_assert_eq!(&merged.merge(&one).merge(&other), &merged);
        prop_assert_eq!(&Restarts::read(&merged.written(&moment(now)), &moment(now + 9)).unwrap(), &merged);
        prop_assert!(merged.total() >= one.total().max(other.total()));
        // It never knows of fewer than were written down by their times.
        let known = |memory: &Restarts| memory.in_last_hour(at(now)).min(1);
        prop_assert!(known(&merged) >= known(&one).max(known(&other)));
    }

    #[test]
    fn whatever_stands_in_the_file_is_read_or_refused(text in ".{0,80}", version in 0..3_u32, rest in "[-0-9,.e\\[\\]]{0,30}") {
        let _ = Restarts::read(&text, &moment(0));
        let clock = format!("{{\"time\":{rest},\"boot\":\"one\",\"up\":0}}");
        let shaped = format!("{{\"version\":{version},\"total\":{rest},\"times\":[{rest}],\"pod_since\":{rest},\"clock\":{clock}}}");
        if let Ok(read) = Restarts::read(&shaped, &moment(0)) {
            let _ = (read.last(), read.forbids(DAY, 2, at(0)), read.pod_age(at(0), SECOND));
        }
    }
}
