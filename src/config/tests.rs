//! Precedence, sources and problems of the configuration, on sources made up here.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
}

fn file(text: &str) -> (tempfile::TempDir, Given) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("tidegate.toml");
    std::fs::write(&path, text).expect("a scratch file");
    (folder, Given { file: Some(path), ..Given::default() })
}

fn origin<'a>(loaded: &'a Loaded, key: &str) -> &'a Origin {
    &loaded.settings.iter().find(|setting| setting.key == key).expect("a known key").origin
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let (_folder, mut given) = file("[gateway.merge]\nmin_ms = 1\nmax_ms = 500\nmessages = 7\nbytes = 8\n");
    let env = [("TIDEGATE_GATEWAY__MERGE__MIN_MS", "2"), ("TIDEGATE_GATEWAY__MERGE__MESSAGES", "9")];
    given.sets = vec!["gateway.merge.min_ms=3".into()];
    given.flag("--listen", "gateway.listen", ["127.0.0.1:9".to_owned()]);

    let loaded = load_from(&given, variables(&env)).expect("a good configuration");

    let merge = &loaded.config.gateway.merge;
    assert_eq!((merge.min_ms, merge.max_ms, merge.messages, merge.bytes), (3, 500, 9, 8));
    assert_eq!(loaded.config.gateway.listen.port(), 9);
    assert_eq!(*origin(&loaded, "gateway.merge.min_ms"), Origin::Set);
    assert_eq!(*origin(&loaded, "gateway.listen"), Origin::Flag("--listen"));
    assert!(matches!(origin(&loaded, "gateway.merge.messages"), Origin::Env(_)));
    assert!(matches!(origin(&loaded, "gateway.merge.bytes"), Origin::File { line: 5, .. }));
    assert_eq!(*origin(&loaded, "gateway.merge.max_ms").to_string().rsplit(':').next().expect("a line"), *"3");
    assert_eq!(*origin(&loaded, "gateway.echo"), Origin::Default);
}

#[test]
fn every_unknown_key_and_wrong_type_is_named_with_its_line() {
    let (_folder, given) =
        file("[gateway]\nlisen = \"127.0.0.1:1\"\necho = 3\n[gatway]\nx = 1\n[gateway.merge]\nmn_ms = 2\n");

    let problems = load_from(&given, variables(&[])).expect_err("three unknown keys and a wrong type");

    let has = |part: &str| problems.iter().any(|problem| problem.contains(part));
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(has("tidegate.toml:2: unknown key gateway.lisen; did you mean gateway.listen?"), "{problems:#?}");
    assert!(has("tidegate.toml:3: gateway.echo: expected true or false, got an integer 3"), "{problems:#?}");
    assert!(has("tidegate.toml:4: unknown key gatway; did you mean gateway?"), "{problems:#?}");
    assert!(
        has("tidegate.toml:7: unknown key gateway.merge.mn_ms; did you mean gateway.merge.min_ms?"),
        "{problems:#?}"
    );
}

#[test]
fn a_key_in_the_wrong_section_is_found_where_it_belongs() {
    let (_folder, given) = file("[gateway]\nspread_ms = 5\n");

    let problems = load_from(&given, variables(&[])).expect_err("an unknown key");

    assert!(problems[0].contains("did you mean gateway.drain.spread_ms?"), "{problems:?}");
}

#[test]
fn a_syntax_error_is_named_with_its_line() {
    let (_folder, given) = file("[gateway]\n\nlisten = \n");

    let problems = load_from(&given, variables(&[])).expect_err("no value");

    assert!(problems[0].contains("tidegate.toml:3: "), "{problems:?}");
}

#[test]
fn a_value_that_does_not_parse_is_named_with_key_source_and_default() {
    let (_folder, given) = file("[gateway]\nlisten = \"localhost\"\nid = 70000\n[gateway.auth]\nmode = \"magic\"\n");

    let problems = load_from(&given, variables(&[])).expect_err("three bad values");

    assert_eq!(problems.len(), 3, "{problems:#?}");
    let listen = problems.iter().find(|problem| problem.contains("gateway.listen")).expect("the address");
    assert!(listen.contains("tidegate.toml:2") && listen.contains("\"localhost\""), "{listen}");
    assert!(listen.contains("the default is \"127.0.0.1:8000\""), "{listen}");
}

#[test]
fn an_unknown_variable_is_a_problem_that_names_the_right_one() {
    let env = [("TIDEGATE_GATEWAY__LISTN", "127.0.0.1:1"), ("TIDEGATE_GATEWAY_ECHO", "1"), ("OTHER_THING", "1")];

    let problems = load_from(&Given::default(), variables(&env)).expect_err("two unknown variables");

    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("TIDEGATE_GATEWAY_ECHO"), "{problems:#?}");
    assert!(problems[1].contains("did you mean TIDEGATE_GATEWAY__LISTEN?"), "{problems:#?}");
}

#[test]
fn variables_that_kubernetes_and_tests_set_are_left_alone() {
    let env = [
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_SERVICE_PORT_WS", "8000"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:8000"),
        ("TIDEGATE_GATEWAY_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_TEST_FILES", "1"),
        ("TIDEGATE_CONFIG", "/x"),
        ("TIDEGATE_AGENT_TOKEN", "a token"),
        // Not of ours at all, but of a deployment that is called so.
        ("TIDEGATE_VERSION", "1.2"),
        ("TIDEGATE_API_KEY", "a key"),
    ];

    assert!(load_from(&Given::default(), variables(&env)).is_ok());
}

/// As Kubernetes names them for Services `tidegate-support`, `tidegate-report` and the like, with and without names of ports.
#[test]
fn links_of_services_with_a_port_in_their_names_are_left_alone() {
    for service in ["", "SUPPORT_", "REPORT_", "TRANSPORT_", "PORT_", "GATEWAY_OPS_", "SERVICE_"] {
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8000_TCP",
            "PORT_8000_TCP_PROTO",
            "PORT_8000_TCP_PORT",
            "PORT_8000_TCP_ADDR",
            "PORT_53_UDP_ADDR",
        ] {
            let name = format!("TIDEGATE_{service}{link}");

            let loaded = load_from(&Given::default(), variables(&[(&name, "tcp://10.0.0.1:8000")]));

            assert!(loaded.is_ok(), "{name}: {loaded:?}");
        }
    }
}

/// A key with a single underscore, one without its section, one of a section that is not there.
#[test]
fn a_variable_that_nearly_is_a_key_is_named() {
    for name in ["TIDEGATE_LOG_LEVEL", "TIDEGATE_GATEWAY_NAME", "TIDEGATE_LISTEN", "TIDEGATE_LOGC__API"] {
        let problems = load_from(&Given::default(), variables(&[(name, "x")])).expect_err(name);

        assert!(problems[0].contains(name), "{problems:?}");
    }
}

#[test]
fn a_port_alone_is_answered_with_an_address_whoever_says_it() {
    let (_folder, given) = file("[gateway]\nlisten = \"8000\"\n");
    let env = [("TIDEGATE_LOGIC__API", ":8001")];

    let problems = load_from(&given, variables(&env)).expect_err("two ports");

    assert!(
        problems.iter().any(|p| p.contains("gateway.listen") && p.contains("write 127.0.0.1:8000 ")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|p| p.contains("logic.api") && p.contains("write 127.0.0.1:8001 ")), "{problems:?}");
}

#[test]
fn text_is_parsed_by_the_type_of_the_default() {
    let env = [
        ("TIDEGATE_GATEWAY__ECHO", "true"),
        ("TIDEGATE_GATEWAY__NAME", "1"),
        ("TIDEGATE_GATEWAY__LIMITS__ROOMS_TOTAL", "2_000_000"),
        ("TIDEGATE_GATEWAY__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("TIDEGATE_LOGIC__GATEWAYS", "[\"http://a:1\"]"),
    ];

    let config = load_from(&Given::default(), variables(&env)).expect("good values").config;

    assert!(config.gateway.echo);
    assert_eq!(config.gateway.name, "1");
    assert_eq!(config.gateway.limits.rooms_total, 2_000_000);
    assert_eq!(config.gateway.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.logic.gateways, ["http://a:1"]);
}

#[test]
fn a_wrong_type_in_a_flag_names_key_expected_and_got() {
    let given = Given { sets: vec!["gateway.buckets=many".into(), "gateway.merge=1".into()], ..Given::default() };

    let problems = load_from(&given, variables(&[])).expect_err("two wrong values");

    assert!(problems[0].contains("gateway.buckets: expected an integer, got \"many\""), "{problems:?}");
    assert!(problems[1].contains("gateway.merge is a section"), "{problems:?}");
}

#[test]
fn a_secret_is_read_from_its_file_and_never_shown() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "hush-hush\n").expect("a scratch file");
    let env = [("TIDEGATE_GATEWAY__BACKPLANE_SECRET_FILE", path.to_str().expect("a plain path"))];

    let loaded = load_from(&Given::default(), variables(&env)).expect("a good configuration");
    let (text, json) = (show::text(&loaded), show::json(&loaded).to_string());

    assert_eq!(loaded.config.gateway.backplane_secret, "hush-hush");
    assert!(!text.contains("hush-hush") && !json.contains("hush-hush"));
    assert!(text.contains("# gateway.backplane_secret = ********"));
}

#[test]
fn a_secret_of_the_wrong_type_is_named_and_not_shown() {
    let (_folder, given) = file("[gateway]\nbackplane_secret = 123456\n");

    let problems = load_from(&given, variables(&[])).expect_err("not a string");

    assert!(problems[0].contains("gateway.backplane_secret: expected"), "{problems:?}");
    assert!(!problems[0].contains("123456"), "{problems:?}");
}

#[test]
fn only_secrets_are_read_from_files() {
    let env = [("TIDEGATE_GATEWAY__NAME_FILE", "/etc/hostname")];

    let problems = load_from(&Given::default(), variables(&env)).expect_err("no secret");

    assert!(problems[0].contains("set TIDEGATE_GATEWAY__NAME instead"), "{problems:?}");
}

#[test]
fn a_contradiction_names_the_settings_that_make_it() {
    let given = Given { sets: vec!["gateway.merge.min_ms=5000".into()], ..Given::default() };

    let problems = load_from(&given, variables(&[])).expect_err("min above max");

    assert!(problems[0].contains("gateway.merge.min_ms = 5000 from flag --set"), "{problems:?}");
}

#[test]
fn what_show_prints_reads_back_as_the_same_configuration() {
    let given = Given { sets: vec!["gateway.name=a \"b\"".into()], ..Given::default() };
    let loaded = load_from(&given, variables(&[])).expect("a good configuration");

    let (_folder, again) = file(&show::text(&loaded));
    let again = load_from(&again, variables(&[])).expect("a file that was printed");

    assert_eq!(loaded.config.gateway, again.config.gateway);
    assert_eq!(loaded.config.logic, again.config.logic);
}

#[test]
fn every_key_has_a_default_of_its_type() {
    let schema = Schema::of(&Config::default());

    let untyped: Vec<&str> = schema.keys().filter(|key| schema.kind(key) == Some(schema::Kind::Any)).collect();

    assert_eq!(untyped, Vec::<&str>::new(), "a key whose default is absent cannot be typed or shown");
}

#[test]
fn no_count_is_masked_and_every_secret_is() {
    let schema = Schema::of(&Config::default());
    let is_text = |key: &&str| matches!(schema.kind(key), Some(schema::Kind::Text | schema::Kind::List));

    let (secrets, others): (Vec<&str>, Vec<&str>) = schema.keys().partition(|key| show::is_secret(key));

    assert!(secrets.iter().all(is_text), "{secrets:?}");
    let hints = ["secret", "password"];
    let shown = |key: &&str| is_text(key) && hints.iter().any(|hint| key.contains(hint));
    assert_eq!(others.into_iter().filter(shown).collect::<Vec<_>>(), Vec::<&str>::new());
    for key in ["gateway.auth.keys", "gateway.backplane_secret", "logic.backplane_secret", "logic.upstream.sinks"] {
        assert!(secrets.contains(&key), "{key} in {secrets:?}");
    }
}

#[test]
fn a_table_is_read_by_the_names_in_it_alone() {
    for (text, key) in [
        (
            "[gateway.auth]\nkeys = [[\"2026\", \"HS256\", \"a secret of thirty-two bytes or so\", \"\"]]\n",
            "gateway.auth.keys",
        ),
        ("[logic]\nkeys = [[\"billing\"]]\n", "logic.keys"),
        ("[logic.upstream]\nroutes = [[\"robot/*\", \"robots\"]]\n", "logic.upstream.routes"),
        ("[logic.upstream]\nsinks = [[\"robots\", \"https://robots.example.com/\"]]\n", "logic.upstream.sinks"),
    ] {
        let (_folder, given) = file(text);

        let problems = load_from(&given, variables(&[])).expect_err(text);

        assert!(
            problems.iter().any(|problem| problem.contains(key) && problem.contains("expected an object")),
            "{text}: {problems:#?}"
        );
    }
    let by_position =
        [("TIDEGATE_GATEWAY__AUTH__KEYS", "[[\"2026\", \"HS256\", \"a secret of thirty-two bytes or so\", \"\"]]")];
    let problems = load_from(&Given::default(), variables(&by_position)).expect_err("a list");
    assert!(problems.iter().any(|problem| problem.contains("expected an object")), "{problems:#?}");
}
