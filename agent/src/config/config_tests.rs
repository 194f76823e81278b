use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::outcome::Action;
use crate::policy::{Seconds, Size};

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn layers(file: &str, pairs: &[(&str, &str)]) -> Layers {
    let mut layers = Layers::default();
    layers.file(Path::new("agent.toml"), file);
    layers.environment(&variables(pairs));
    layers
}

fn good(file: &str, pairs: &[(&str, &str)]) -> Effective {
    layers(file, pairs)
        .effective()
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn wrong(file: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = layers(file, pairs).effective().unwrap_err();
    let problems = problems.into_iter();
    problems
        .map(|problem| format!("{problem}; {}", problem.hint.clone().unwrap_or_default()))
        .collect()
}

#[test]
fn every_key_is_one_and_has_a_variable() {
    for key in check::keys() {
        let error = check::value(&key, &json!({"no": {"such": "value"}}));
        let (text, _) = error.unwrap_err();
        assert!(!text.contains("there is no"), "{key}: {text}");
    }
    assert!(check::keys().len() > 40);
}

#[test]
fn config_later_layer_takes_precedence_and_each_value_has_its_origin() {
    let file = "[shipping]\nparallel = 3\nbandwidth = \"1M\"\n\n[workloads]\nlog_lines = 1\n[node]\nsuid_dumpable = 0\n";
    let mut layers = layers(
        file,
        &[
            ("LOG_LENGTH", "20"),
            ("SUID_DUMPABLE", "1"),
            ("CDH_LOG_LINES", "30"),
            ("CDH_SHIPPING_BANDWIDTH", "2M"),
        ],
    );
    layers.flag("workloads.log_lines", Value::from(40), "--log-lines");
    let effective = layers.effective().unwrap();
    let config = &effective.config;
    assert_eq!(config.workloads.log_lines, 40);
    assert_eq!(config.node.suid_dumpable, 1);
    assert_eq!(
        (config.shipping.parallel, config.shipping.bandwidth),
        (3, Size(2 << 20))
    );
    let origin = |key: &str| effective.origin(key).to_string();
    assert_eq!(origin("workloads.log_lines"), "--log-lines");
    assert_eq!(origin("shipping.parallel"), "agent.toml:2");
    assert_eq!(origin("shipping.bandwidth"), "CDH_SHIPPING_BANDWIDTH");
    assert_eq!(
        origin("node.suid_dumpable"),
        "SUID_DUMPABLE (of IBM's core-dump-handler)"
    );
    assert_eq!(origin("node.mode"), "default");
}

#[test]
fn config_errors_name_line_and_nearest_key() {
    let file = "[shiping]\nmode = \"off\"\n[shipping]\nintervall = \"5m\"\nmode = \"event\"\nparallel = \"two\"\n\
                [[policy.rules]]\nnamespce = \"x\"\n[metrics]\nlisten = \"9464\"\n";
    let errors = wrong(file, &[]);
    let all = errors.join("\n");
    for expected in [
        "agent.toml:2: there is no table `[shiping]`; did you mean `shipping`?",
        "agent.toml:4: there is no key `shipping.intervall`; did you mean `interval`?",
        "agent.toml:5: `shipping.mode` cannot be `event`; did you mean `events`?",
        "agent.toml:6: `shipping.parallel`: invalid type",
        "agent.toml:8: there is no key `namespce` in `policy.rules`; did you mean `namespace`?",
        "agent.toml:10: `metrics.listen` is `9464`",
    ] {
        assert!(all.contains(expected), "{expected} in:\n{all}");
    }
    assert_eq!(errors.len(), 6, "{all}");
    assert!(wrong("[log]\nformat = \n", &[])[0].starts_with("agent.toml:2: "));
}

#[test]
fn interval_and_schedule_at_once_are_refused_wherever_they_stand() {
    let file = "[shipping]\nschedule = \"0 * * * *\"\n";
    let errors = wrong(file, &[("INTERVAL", "60000")]);
    assert!(errors[0].starts_with("INTERVAL (of IBM's core-dump-handler) and agent.toml:2: `shipping.interval` and `shipping.schedule` are both set"), "{errors:?}");
    assert!(errors[0].contains("keep one of them"), "{errors:?}");
    let errors = wrong("", &[("INTERVAL", "60000"), ("SCHEDULE", "0 * * * *")]);
    assert!(errors[0].contains("both set"), "{errors:?}");
    let errors = wrong("", &[("SCHEDULE", "61 * * * *")]);
    assert!(errors[0].contains("invalid minute `61`"), "{errors:?}");
    assert!(wrong("shipping.mode = \"interval\"", &[])[0].contains("is not set"));
}

#[test]
fn policies_and_lists_come_from_file_and_variables() {
    let file = "[policy]\ndefault = \"minicore\"\n[[policy.rules]]\nlabels = { tier = \"cache\" }\naction = \"full\"\n[limits]\ndisk_floor = \"2G\"\n[limits.rate]\nwindow = \"1h\"\n";
    let effective = good(
        file,
        &[
            ("CDH_WORKLOADS_SOCKETS", "/run/a.sock, /run/b.sock"),
            (
                "CDH_NOTIFY_WEBHOOKS",
                "[{url = \"https://hooks.example/T0/secret\", format = \"slack\"}]",
            ),
            ("CDH_KEEP_MODULES", "1"),
            ("CDH_LIMITS_RATE_FINGERPRINT_FULL", "4"),
        ],
    );
    let config = &effective.config;
    assert_eq!(
        (config.policy.default, config.policy.rules.len()),
        (Action::Minicore, 1)
    );
    assert_eq!(config.limits.disk_floor, Some(Size(2 << 30)));
    assert_eq!(
        (
            config.limits.rate.window,
            config.limits.rate.fingerprint_full
        ),
        (Seconds(3600), 4)
    );
    assert_eq!(config.workloads.sockets.len(), 2);
    assert!(config.shipping.keep_modules);
    assert_eq!(config.notify.webhooks[0].format, WebhookFormat::Slack);
    let listing = effective.listing(Secrets::Hidden);
    let text: String = listing
        .iter()
        .filter_map(|(_, value, _)| toml_text(value))
        .collect();
    assert!(
        text.contains("(hidden)") && !text.contains("secret\""),
        "{text}"
    );
    assert!(!format!("{config:?}").contains("T0/secret"));
    // The listing is a valid configuration.
    let again = listing.iter().filter(|(key, ..)| key != "notify.webhooks");
    let again =
        again.filter_map(|(key, value, _)| Some(format!("{key} = {}\n", toml_text(value)?)));
    let again = good(&again.collect::<String>(), &[]).config;
    assert_eq!(
        (again.policy, again.limits, again.shipping),
        (
            config.policy.clone(),
            config.limits.clone(),
            config.shipping.clone()
        )
    );
}

#[test]
fn variables_of_ibms_handler_mean_what_they_say_or_say_that_they_do_not() {
    let effective = good(
        "",
        &[
            ("S3_BUCKET_NAME", "dumps"),
            ("INTERVAL", "60000"),
            ("SCHEDULE", ""),
            ("USE_INOTIFY", "false"),
            ("COMP_LOG_LENGTH", "77"),
            ("COMP_POD_SELECTOR_LABEL", "my.org/batch"),
            ("COMP_TIMEOUT", "600"),
            ("COMP_COMPRESSION", "true"),
            ("COMP_FILENAME_TEMPLATE", "{uuid}"),
            ("SUID_DUMPABLE", "0"),
            ("CORE_DIR", "/var/mnt/core-dump-handler/cores"),
            ("HOST_DIR", "/var/mnt/core-dump-handler"),
            ("CRIO_ENDPOINT", "unix:///run/crio/crio.sock"),
            ("MOUNT_POINT", "/x"),
        ],
    );
    let config = &effective.config;
    assert_eq!(
        config.shipping.plan(),
        Ok(ShippingPlan::Interval(std::time::Duration::from_secs(60)))
    );
    assert_eq!(
        (config.workloads.log_lines, config.workloads.pods),
        (77, Pods::OptIn)
    );
    assert_eq!(
        config.workloads.opt_in_label.as_deref(),
        Some("my.org/batch")
    );
    assert_eq!(
        (config.limits.copy_time, config.node.suid_dumpable),
        (Seconds(600), 0)
    );
    assert_eq!(
        config.node.state,
        Path::new("/var/mnt/core-dump-handler/cores")
    );
    assert_eq!(config.node.libexec, Path::new("/var/mnt/core-dump-handler"));
    assert_eq!(config.workloads.sockets, [Path::new("/run/crio/crio.sock")]);
    let notes = effective.notes.join("\n");
    for name in [
        "INTERVAL",
        "COMP_TIMEOUT",
        "COMP_COMPRESSION",
        "COMP_FILENAME_TEMPLATE",
        "CORE_DIR",
        "MOUNT_POINT",
    ] {
        assert!(notes.contains(&format!("`{name}`")), "{name} in {notes}");
    }
    let plan = |pairs: &[(&str, &str)]| good("", pairs).config.shipping.plan().unwrap();
    assert_eq!(plan(&[("USE_INOTIFY", "true")]), ShippingPlan::Events);
    assert_eq!(
        plan(&[("USE_INOTIFY", "false"), ("INTERVAL", "")]),
        ShippingPlan::Off
    );
    assert!(matches!(
        plan(&[("SCHEDULE", "0 0 0 * * *"), ("USE_INOTIFY", "true")]),
        ShippingPlan::Schedule(_)
    ));
    // Other programs may use these names alone.
    assert_eq!(
        good("", &[("TIMEOUT", "5"), ("HOST_DIR", "/x")]).config,
        AgentConfig::default()
    );
}

#[test]
fn config_ibm_variables_name_a_store() {
    let store = |pairs: &[(&str, &str)]| ibm_store(&variables(pairs));
    assert_eq!(store(&[("S3_REGION", "eu-de")]), None);
    let found = store(&[
        ("S3_BUCKET_NAME", "b"),
        ("S3_REGION", "eu-de"),
        ("S3_ACCESS_KEY", "A"),
        ("S3_SECRET", "hush"),
    ]);
    let found = found.unwrap();
    assert_eq!(found.url, "s3://b?region=eu-de&path-style=true");
    assert!(found.keys.is_some() && !format!("{found:?}").contains("hush"));
    let host = store(&[
        ("S3_BUCKET_NAME", "b"),
        ("S3_REGION", "s3.eu-de.example.com"),
    ])
    .unwrap();
    assert_eq!(
        host.url,
        "s3://b?endpoint=https://s3.eu-de.example.com&path-style=true"
    );
    let endpoint = [
        ("S3_BUCKET_NAME", "b"),
        ("S3_REGION", "eu"),
        ("S3_ENDPOINT", "http://minio:9000"),
    ];
    assert_eq!(
        store(&endpoint).unwrap().url,
        "s3://b?region=eu&endpoint=http://minio:9000&path-style=true"
    );
}

#[test]
fn unknown_variables_name_the_near_match() {
    let unknown = |pairs: &[(&str, &str)]| -> Vec<String> {
        let pairs = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let unknown = unknown_variables(&pairs.collect());
        unknown.iter().map(ToString::to_string).collect()
    };
    let found = unknown(&[
        ("CDH_SHIPING_MODE", "off"),
        ("CDH_STROE", "/x"),
        ("CDH_ZZZ", "1"),
        ("CDH_EMPTY", ""),
        ("CDH_STORE", "/x"),
        ("CDH_STATE", "/x"),
        ("CDH_LIMITS_DISK_FLOOR", "1G"),
        ("CDH_TEST_HANDLER", "/x"),
        ("HOME", "/root"),
    ]);
    assert_eq!(
        found,
        [
            "unknown variable `CDH_SHIPING_MODE` (did you mean `CDH_SHIPPING_MODE`?)",
            "unknown variable `CDH_STROE` (did you mean `CDH_STORE`?)",
            "unknown variable `CDH_ZZZ`",
        ]
    );
    // Kubernetes sets these for a Service `cdh-s3`.
    let links = [
        ("CDH_S3_SERVICE_HOST", "10.96.0.2"),
        ("CDH_S3_SERVICE_PORT", "8333"),
        ("CDH_S3_PORT", "tcp://10.96.0.2:8333"),
        ("CDH_S3_PORT_8333_TCP_ADDR", "10.96.0.2"),
    ];
    assert_eq!(unknown(&links).len(), 4);
    let in_cluster: Vec<_> = links
        .into_iter()
        .chain([("KUBERNETES_SERVICE_HOST", "10.96.0.1")])
        .collect();
    assert_eq!(unknown(&in_cluster), [""; 0]);
}

#[test]
fn misspelt_keys_at_the_top_name_the_store_too() {
    let errors = wrong("stroe = \"s3://b\"\n", &[]);
    assert!(errors[0].contains("did you mean `store`?"), "{errors:?}");
}

#[test]
fn invalid_variable_is_named() {
    let errors = wrong("", &[("CDH_SHIPPING_PARALLEL", "many")]);
    assert!(
        errors[0].starts_with("CDH_SHIPPING_PARALLEL: "),
        "{errors:?}"
    );
}

#[test]
fn variable_of_ibms_handler_without_a_counterpart_gives_a_note_when_set_alone() {
    let names = [
        "COMPRESSION",
        "MOUNT_POINT",
        "EVENT_DIR",
        "CORE_EVENTS",
        "CORE_EVENT_DIR",
        "VENDOR",
        "CRIO_IMAGE_CMD",
        "USE_CRIO_CONF",
        "INCLUDE_PROC_INFO",
        "LOG_LEVEL",
        "COMP_LOG_LEVEL",
    ];
    for name in names {
        let notes = good("", &[(name, "x")]).notes;
        let expected = format!("`{name}` changes nothing: ");
        assert!(
            matches!(notes.as_slice(), [note] if note.starts_with(&expected)),
            "{notes:?}"
        );
    }
}

#[test]
fn tables_of_the_workstation_are_accepted_in_a_shared_file() {
    let file = "store = \"/x\"\ndebugger = \"lldb\"\n[stores.x]\nurl = \"/x\"\n[images]\nca = \"/x\"\n\
                [cache]\ncase_days = 3\n[tui]\nrefresh_seconds = 1\n";
    assert!(good(file, &[]).given().next().is_none());
}

#[test]
fn values_in_toml_are_read_as_they_are() {
    for value in [
        json!("a\"b\\c\u{7f}\u{1}\n日本"),
        json!([1, true, ["x", {}], {"a b": 1, "": "y", "c": [{"d": "e"}]}]),
        json!({"x": {"y": "z"}, "n": -3}),
    ] {
        let text = format!("value = {}", toml_text(&value).unwrap());
        let read: BTreeMap<String, Value> = toml::from_str(&text).unwrap();
        assert_eq!(read["value"], value, "{text}");
    }
    assert_eq!(toml_text(&Value::Null), None);
}
