use super::*;

fn parsed(words: &[&str]) -> Flags {
    parse_env(words, &[]).unwrap()
}

fn parse_env(words: &[&str], environment: &[(&str, &str)]) -> Result<Flags, Done> {
    parse_with(
        words.iter().map(|w| (*w).to_owned()),
        environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    )
}

#[test]
fn dashes_equals_signs_and_positional_words() {
    let flags = parsed(&[
        "stray",
        "-app-id",
        "x",
        "--app-port=6000",
        "--mode",
        "standalone",
        "another",
    ]);
    assert_eq!(
        (flags.app_id.as_str(), flags.app.port.as_str()),
        ("x", "6000")
    );
}

#[test]
fn a_switch_does_not_eat_the_next_word() {
    let flags = parsed(&["--enable-mtls", "--log-as-json=false", "--app-id", "x"]);
    assert!(flags.control_plane.mtls);
    assert!(!flags.log.json);
    assert_eq!(flags.app_id, "x");
    assert_eq!(parsed(&[]).api.logging, None);
    assert_eq!(
        parsed(&["--enable-api-logging=false"]).api.logging,
        Some(false)
    );
}

#[test]
fn lists_repeat_and_split() {
    let flags = parsed(&["--resources-path", "a,b", "--resources-path=c"]);
    assert_eq!(
        flags.resources,
        [PathBuf::from("a"), "b".into(), "c".into()]
    );
    assert_eq!(
        parsed(&["--components-path", "old"]).resources,
        [PathBuf::from("old")]
    );
}

#[test]
fn sizes() {
    assert_eq!(parsed(&[]).api.max_body, Some(4 << 20));
    assert_eq!(parsed(&["--max-body-size=1k"]).api.max_body, Some(1000));
    assert_eq!(parsed(&["--max-body-size=0"]).api.max_body, None);
    assert_eq!(parsed(&["--max-body-size=-1"]).api.max_body, Some(4 << 20));
    assert_eq!(
        parsed(&["--dapr-http-max-request-size=8"]).api.max_body,
        Some(8 << 20)
    );
    assert!(
        matches!(parse_env(&["--max-body-size=lots"], &[]), Err(Done::Value(text)) if text.contains("'max-body-size'"))
    );
}

#[test]
fn zero_and_negative_numbers_mean_defaults() {
    let flags = parsed(&[
        "--app-health-probe-interval=0",
        "--app-health-threshold=0",
        "--dapr-graceful-shutdown-seconds=-10",
    ]);
    let probes = &flags.app.probes;
    assert_eq!(probes.interval, Duration::from_secs(5));
    assert_eq!(probes.threshold, 3);
    assert_eq!(flags.shutdown.grace, Some(Duration::from_secs(5)));
    assert_eq!(
        parsed(&["--dapr-graceful-shutdown-seconds=0"])
            .shutdown
            .grace,
        None
    );
}

#[test]
fn addresses_of_blanks_and_quotes_are_none() {
    for word in ["", " ", "''", "\"\"", "'\"\"'"] {
        let flags = parsed(&[
            &format!("--placement-host-address={word}"),
            &format!("--scheduler-host-address={word}"),
        ]);
        assert!(flags.control_plane.placement.is_empty(), "{word:?}");
        assert!(flags.control_plane.scheduler.is_empty(), "{word:?}");
    }
}

#[test]
fn a_wrong_flag_is_one_line() {
    for (argument, wanted) in [
        ("--x", "unknown flag: --x; see daprd --help"),
        (
            "-app-prot=80",
            "unknown flag: --app-prot; did you mean --app-port? See daprd --help",
        ),
        ("-a", "unknown shorthand flag: 'a' in -a; see daprd --help"),
        (
            "--app-id",
            "flag needs an argument: --app-id; see daprd --help",
        ),
        (
            "--enable-mtls=maybe",
            "invalid argument \"maybe\" for \"--enable-mtls\" flag: value was not a boolean; see daprd --help",
        ),
    ] {
        match parse_env(&[argument], &[]) {
            Err(Done::Usage(line)) => assert_eq!(line, wanted),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_environment() {
    let flags = parse_env(
        &[],
        &[
            ("NAMESPACE", "shop"),
            ("DAPR_API_TOKEN", "t"),
            ("DAPR_CONTROLPLANE_NAMESPACE", "dapr-system"),
        ],
    )
    .unwrap();
    assert_eq!(flags.namespace.as_deref(), Some("shop"));
    assert_eq!(flags.api.token.as_deref(), Some("t"));
    assert_eq!(flags.control_plane.namespace, "dapr-system");
}

#[test]
fn the_number_of_workers_and_the_folder_of_sockets() {
    let plain = parsed(&[]);
    assert_eq!(plain.workers, None);
    assert_eq!(plain.sockets, PathBuf::from("/tmp/dapr-components-sockets"));
    let given = |count| {
        let environment = [
            ("GOMAXPROCS", count),
            ("DAPR_COMPONENTS_SOCKETS_FOLDER", "/run/c"),
        ];
        parse_env(&[], &environment).unwrap()
    };
    assert_eq!(given("3").workers, Some(3));
    assert_eq!(given("3").sockets, PathBuf::from("/run/c"));
    let injected = [("DAPR_COMPONENT_SOCKETS_FOLDER", "/run/i")];
    let injected = parse_env(&[], &injected).unwrap();
    assert_eq!(injected.sockets, PathBuf::from("/run/i"));
    for nonsense in ["0", "-1", "many"] {
        assert_eq!(given(nonsense).workers, None);
    }
}
