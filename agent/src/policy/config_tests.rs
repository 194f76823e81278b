use serde_json::json;

use super::*;
use crate::handler::startup::settings::HandlerSettings;
use crate::policy::{LimitsConfig, RateConfig};

fn policy(value: serde_json::Value) -> PolicyConfig {
    serde_json::from_value(value).unwrap()
}

#[test]
fn default_configuration_stores_everything_within_limits() {
    let found = policy(json!({}));
    assert_eq!(found, PolicyConfig::default());
    assert_eq!(
        (found.default, found.setuid),
        (Action::Full, SetuidPolicy::Keep)
    );
    let limits: LimitsConfig = serde_json::from_value(json!({})).unwrap();
    assert_eq!(limits, LimitsConfig::default());
    limits.validate().unwrap();
    found.validate().unwrap();
    assert!(limits.rate.limits_anything() && !RateConfig::unlimited().limits_anything());
}

#[test]
fn configuration_round_trips_through_json() {
    let found = policy(json!({
        "default": "minicore",
        "unknown_pod": "metadata",
        "rules": [
            {"namespace": "kube-*", "action": "ignore"},
            {"labels": {"tier": "cache", "flag": ""}, "exe": ["/usr/bin/**", "**/x"], "uid": [0, 33],
             "signal": ["SIGSEGV", "6"], "action": "full", "core_limit": "2G", "name": "caches"},
        ],
    }));
    found.validate().unwrap();
    assert_eq!(policy(serde_json::to_value(&found).unwrap()), found);
    assert_eq!(found.rules[1].core_limit, Some(Size(2 << 30)));
    assert_eq!(
        (found.rules[0].title(0), found.rules[1].title(1)),
        ("rule 0".to_owned(), "rule `caches`".to_owned())
    );
    assert!(found.asks_for_pods());
}

#[test]
fn configuration_rejects_unknown_names() {
    for value in [
        json!({"defualt": "full"}),
        json!({"rules": [{"namespaces": "x"}]}),
        json!({"default": "tiny"}),
    ] {
        assert!(
            serde_json::from_value::<PolicyConfig>(value.clone()).is_err(),
            "{value}"
        );
    }
    for value in [json!({"spool_qouta": 1}), json!({"rate": {"windw": 1}})] {
        assert!(
            serde_json::from_value::<LimitsConfig>(value.clone()).is_err(),
            "{value}"
        );
    }
}

#[test]
fn configuration_errors_name_the_field() {
    let cases = [
        (
            json!({"rules": [{"signal": "SIGFOO"}]}),
            "`policy.rules[0].signal` is `SIGFOO`: a signal is",
        ),
        (json!({"rules": [{"signal": "65"}]}), "from 1 to 64"),
        (
            json!({"rules": [{"exe": "redis"}]}),
            "`policy.rules[0].exe` is `redis`: a path begins with `/`",
        ),
        (
            json!({"rules": [{"uid": [1]}, {"namespace": ""}]}),
            "`policy.rules[1].namespace` is ``: an empty pattern",
        ),
        (
            json!({"rules": [{"labels": {"a*": "x"}}]}),
            "a label's name has no pattern",
        ),
        (
            json!({"rules": [{}, {"uid": [1]}]}),
            "`policy.rules[1]` is never reached",
        ),
        (json!({"scrub": [""]}), "`policy.scrub[0]` is ``"),
    ];
    for (value, expected) in cases {
        let error = policy(value).validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let cases = [
        (
            json!({"disk_floor_percent": 101}),
            "`limits.disk_floor_percent` is `101`",
        ),
        (json!({"disk_floor_percent": 100}), "no core can be stored"),
        (
            json!({"minicore_limit": 1}),
            "a minicore has `64K` to `256M`",
        ),
        (json!({"cgroup": "../x"}), "`limits.cgroup` is `../x`"),
        (
            json!({"rate": {"window": 0}}),
            "`limits.rate.window` is `0s`",
        ),
        (
            json!({"rate": {"fingerprint_full": 5, "fingerprint_dumps": 2}}),
            "`limits.rate.fingerprint_full` is `5`",
        ),
    ];
    for (value, expected) in cases {
        let limits: LimitsConfig = serde_json::from_value(value).unwrap();
        let error = limits.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn signal_number_parses_names_and_numbers() {
    for (text, number) in [
        ("SIGSEGV", Some(11)),
        ("segv", Some(11)),
        ("6", Some(6)),
        ("0", None),
        ("x", None),
    ] {
        assert_eq!(signal_number(text), number, "{text}");
    }
}

#[test]
fn limits_apply_to_the_handlers_settings() {
    let limits: LimitsConfig = serde_json::from_value(json!({
        "core_limit": "1G", "handlers": 3, "copy_time": "5m", "spool_quota": "10G",
    }))
    .unwrap();
    let mut settings = HandlerSettings::default();
    settings.set_limits(&limits);
    assert_eq!(
        (settings.core_limit, settings.slots, settings.copy_seconds),
        (1 << 30, 3, 300)
    );
    assert_eq!(settings.limits.spool_quota, Size(10 << 30));
    let json = serde_json::to_vec(&settings).unwrap();
    assert_eq!(
        serde_json::from_slice::<HandlerSettings>(&json).unwrap(),
        settings
    );
}
