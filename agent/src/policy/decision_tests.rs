use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn policy(value: serde_json::Value) -> PolicyConfig {
    let policy: PolicyConfig = serde_json::from_value(value).unwrap();
    policy.validate().unwrap();
    policy
}

fn pod(namespace: &str, labels: &[(&str, &str)]) -> PodSettings {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    PodSettings {
        namespace: Some(namespace.to_owned()),
        labels: labels.iter().map(owned).collect::<BTreeMap<_, _>>(),
        ..PodSettings::default()
    }
}

const CRASH: Crash<'_> = Crash {
    exe: Some(b"/usr/bin/api"),
    uid: Some(33),
    signal: Some(11),
    dumpable: Some(1),
};

#[test]
fn decide_uses_the_first_matching_rule() {
    let policy = policy(json!({
        "default": "minicore",
        "rules": [
            {"namespace": "kube-*", "action": "ignore"},
            {"labels": {"tier": "cache"}, "signal": "SIGABRT", "action": "metadata"},
            {"labels": {"tier": "*"}, "action": "full", "core_limit": "2G"},
            {"exe": "/usr/bin/*", "uid": [0], "action": "ignore"},
        ],
    }));
    let action = |crash: &Crash<'_>, pod| policy.decide(crash, pod).unwrap().action;
    let system = pod("kube-system", &[("tier", "cache")]);
    assert_eq!(action(&CRASH, Pod::Known(&system)), Action::Ignore);
    let cache = pod("shop", &[("tier", "cache")]);
    let decision = policy.decide(&CRASH, Pod::Known(&cache)).unwrap();
    assert_eq!(
        (decision.action, decision.core_limit),
        (Action::Full, Some(2 << 30))
    );
    let aborted = Crash {
        signal: Some(6),
        ..CRASH
    };
    assert_eq!(action(&aborted, Pod::Known(&cache)), Action::Metadata);
    assert_eq!(action(&CRASH, Pod::None), Action::Minicore);
    assert_eq!(
        action(
            &Crash {
                uid: Some(0),
                ..CRASH
            },
            Pod::None
        ),
        Action::Ignore
    );
    let why = policy.decide(&CRASH, Pod::None).unwrap().reason.unwrap();
    assert_eq!(
        why,
        (
            DropReason::Policy,
            "the policy's default is `minicore`".to_owned()
        )
    );
}

#[test]
fn decide_waits_for_the_signal_only_if_it_matters() {
    let policy = policy(json!({"rules": [
        {"uid": [0], "action": "ignore"},
        {"signal": ["SIGABRT"], "action": "metadata"},
    ]}));
    let unknown = Crash {
        signal: None,
        ..CRASH
    };
    assert_eq!(policy.decide(&unknown, Pod::None), None);
    let root = Crash {
        uid: Some(0),
        ..unknown
    };
    assert_eq!(
        policy.decide(&root, Pod::None).unwrap().action,
        Action::Ignore
    );
    assert_eq!(
        policy.decide(&CRASH, Pod::None).unwrap().action,
        Action::Full
    );
}

#[test]
fn pod_annotations_can_only_reduce() {
    let policy = policy(json!({"rules": [{"namespace": "a", "action": "minicore"}]}));
    let with = |namespace, profile, dump| PodSettings {
        profile,
        dump,
        ..pod(namespace, &[])
    };
    let action = |pod: &PodSettings| policy.decide(&CRASH, Pod::Known(pod)).unwrap().action;
    assert_eq!(
        action(&with("a", Some(Profile::Full), Some(true))),
        Action::Minicore
    );
    assert_eq!(
        action(&with("a", Some(Profile::Metadata), None)),
        Action::Metadata
    );
    assert_eq!(
        action(&with("b", Some(Profile::Minicore), None)),
        Action::Minicore
    );
    assert_eq!(action(&with("b", None, Some(false))), Action::Ignore);
}

#[test]
fn unknown_pod_gets_the_configured_action() {
    let policy = policy(json!({
        "unknown_pod": "metadata",
        "rules": [{"namespace": "open", "action": "full"}, {"namespace": "*", "action": "ignore"}],
    }));
    let decision = policy.decide(&CRASH, Pod::Unknown).unwrap();
    assert_eq!(decision.action, Action::Metadata);
    assert_eq!(decision.reason.unwrap().0, DropReason::UnknownPod);
    let nameless = PodSettings::default();
    assert_eq!(
        policy.decide(&CRASH, Pod::Known(&nameless)).unwrap().action,
        Action::Metadata
    );
    assert_eq!(
        policy
            .decide(&CRASH, Pod::Known(&pod("open", &[])))
            .unwrap()
            .action,
        Action::Full
    );
    assert_eq!(
        policy.decide(&CRASH, Pod::None).unwrap().action,
        Action::Full
    );
}

#[test]
fn setuid_programs_can_be_ignored() {
    let policy = policy(json!({"setuid": "ignore"}));
    let privileged = Crash {
        dumpable: Some(2),
        ..CRASH
    };
    assert_eq!(
        policy.decide(&privileged, Pod::None).unwrap().action,
        Action::Ignore
    );
    assert_eq!(
        policy.decide(&CRASH, Pod::None).unwrap().action,
        Action::Full
    );
}

#[test]
fn variable_values_are_stored_by_name_except_secrets() {
    let policy = policy(json!({"environment": ["APP_*", "lang"]}));
    assert!(policy.keeps_value("APP_MODE") && policy.keeps_value("LANG"));
    assert!(!policy.keeps_value("APP_TOKEN") && !policy.keeps_value("HOME"));
    assert!(policy.is_secret("db_password") && !policy.is_secret("HOME"));
}
