use super::*;

fn redactor(environment: &[(&str, &str)]) -> Redactor {
    let mut secrets = Secrets::new(SecretNames::of(&PolicyConfig::default()));
    for (name, value) in environment {
        secrets.note(name.as_bytes(), value.as_bytes());
    }
    secrets.redactor()
}

fn line(environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut arguments: Vec<RawText> = arguments.iter().map(|text| RawText::from(*text)).collect();
    assert_eq!(redactor(environment).arguments(&mut arguments), 0);
    let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    shown.join(" | ").replace(REMOVED, "#")
}

#[test]
fn every_occurrence_of_a_value_is_removed_however_many_secrets_there_are() {
    let mut environment: Vec<(String, String)> = (0..200)
        .map(|number| (format!("A{number}_TOKEN"), format!("value-of-{number:03}")))
        .collect();
    environment.push(("DB_PASSWORD".to_owned(), "hunter22".to_owned()));
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let found = line(
        &environment,
        &["a=hunter22,b=hunter22hunter22", "value-of-199/value-of-000"],
    );
    assert_eq!(found, "a=#,b=## | #/#");
}

#[test]
fn names_of_secrets_are_known_in_their_usual_forms() {
    for name in [
        "DATABASE_URL",
        "COOKIE",
        "SESSION_ID",
        "APP_SALT",
        "SIGN",
        "SIGN_KEY",
        "REQUEST_SIGNATURE",
        "PIN",
        "CARD_PIN",
        "TLS_CERT",
        "SLACK_WEBHOOK",
        "PGPASS",
        "api-key",
        "Authorization",
    ] {
        let names = SecretNames::of(&PolicyConfig::default());
        assert!(names.contain(name.as_bytes()), "{name}");
    }
    for name in [
        "HOME", "LANG", "MAPPING", "SHIPPING", "DESIGN", "PORT", "PWD",
    ] {
        let names = SecretNames::of(&PolicyConfig::default());
        assert!(!names.contain(name.as_bytes()), "{name}");
    }
}

#[test]
fn redaction_removes_short_values_only_if_they_are_the_complete_text() {
    let environment = [("PGPASS", "p&w"), ("CARD_PIN", "4711"), ("USE_AUTH", "1")];
    let found = line(
        &environment,
        &["4711", "-n", "1", "--x=4711", "port=14711", "a=p&w"],
    );
    assert_eq!(found, "# | -n | 1 | --x=# | port=14711 | a=#");
    let found = line(&environment, &["p&w", "/srv/4711/x"]);
    assert_eq!(found, "# | /srv/4711/x");
}

#[test]
fn secrets_are_removed_by_their_shape() {
    let cases = [
        ("--token=tok5x", "--token=#"),
        ("--db.password=a=b", "--db.password=#"),
        ("--password=a,b;c d", "--password=#"),
        ("PASSWORD=a&b", "PASSWORD=#"),
        (
            "https://me@example.com:80/x@y",
            "https://me@example.com:80/x@y",
        ),
        ("postgres://u:UrlSecret99@h/db", "postgres://u:#@h/db"),
        (
            "--url=postgres://u:p@ss@h:5432/db?x=1",
            "--url=postgres://u:#@h:5432/db?x=1",
        ),
        ("root:pw@tcp(db:3306)/x", "root:#@tcp(db:3306)/x"),
        (
            "https://ghp_0123456789abcdefghij@github.com/x",
            "https://#@github.com/x",
        ),
        (
            "host=db password=secret user=x",
            "host=db password=# user=x",
        ),
        (
            "{\"a\":{\"token\":\"x\"},\"b\":\"c\"}",
            "{\"a\":{\"token\":\"#\"},\"b\":\"c\"}",
        ),
        (
            "{\"user\":\"x\",\"password\": \"s3cr et\",\"n\":1}",
            "{\"user\":\"x\",\"password\": \"#\",\"n\":1}",
        ),
        (
            "https://h/x?a=1&access_token=abc&b=2",
            "https://h/x?a=1&access_token=#&b=2",
        ),
        ("Authorization: Bearer abc.def", "Authorization: #"),
        ("curl with Bearer eyJhbGciOi.x-y", "curl with Bearer #"),
        ("X-Api-Key: abc", "X-Api-Key: #"),
        ("Cookie: a=b; c=d", "Cookie: #"),
        ("--port=80", "--port=80"),
        ("me@example.com", "me@example.com"),
        ("https://me@example.com/x", "https://me@example.com/x"),
        ("git@github.com:org/repo.git", "git@github.com:org/repo.git"),
        (
            "127.0.0.1:5000/api@sha256:a678f89adba26d165f6d25f6027635e051334c310beb547751bdd5be8ce220eb",
            "127.0.0.1:5000/api@sha256:a678f89adba26d165f6d25f6027635e051334c310beb547751bdd5be8ce220eb",
        ),
        (
            "app:1.2@sha256:a678f89adba26d165f6d25f6027635e051334c310beb547751bdd5be8ce220eb",
            "app:1.2@sha256:a678f89adba26d165f6d25f6027635e051334c310beb547751bdd5be8ce220eb",
        ),
        (
            "npm.corp:4873/left-pad@1.3.0",
            "npm.corp:4873/left-pad@1.3.0",
        ),
        ("12:30:00 started", "12:30:00 started"),
        ("basic authentication", "basic authentication"),
        (
            "-Dspring.datasource.password=x",
            "-Dspring.datasource.password=#",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(line(&[], &[text]), expected);
    }
}

#[test]
fn redaction_removes_the_argument_after_a_secret_option() {
    assert_eq!(line(&[], &["--password", "x", "y"]), "--password | # | y");
    assert_eq!(
        line(&[], &["-pw", "x", "--token", "--flag", "z"]),
        "-pw | # | --token | --flag | z"
    );
    assert_eq!(
        line(&[], &["curl", "-u", "me:pw", "h"]),
        "curl | -u | me:# | h"
    );
    assert_eq!(line(&[], &["--user", "me", "h"]), "--user | me | h");
}

#[test]
fn values_longer_than_a_needle_are_removed_to_their_end() {
    let value = "k".repeat(5000);
    let text = format!("x{value}y{}", "k".repeat(70));
    assert_eq!(line(&[("A_KEY", &value)], &[&text]), "x#y#");
}

/// The reported attack took a second: 32 values of 4 KiB that almost match a long command line.
#[test]
fn hostile_command_lines_take_linear_time() {
    let values: Vec<String> = (0..4000)
        .map(|n| format!("{}{n:05}", "a".repeat(95)))
        .collect();
    let mut environment: Vec<(&str, &str)> = values
        .iter()
        .map(|value| ("A_TOKEN", value.as_str()))
        .collect();
    let last = format!("{}b", "a".repeat(4095));
    environment.push(("B_TOKEN", &last));
    let lines = [
        "a".repeat(256 << 10),
        "a=".repeat(128 << 10),
        ":@".repeat(128 << 10),
        "= ".repeat(128 << 10),
    ];
    let redactor = redactor(&environment);
    for text in lines {
        let begun = Instant::now();
        let mut arguments = vec![RawText::from(text.as_str()); 2];
        redactor.arguments(&mut arguments);
        assert!(begun.elapsed() < LIMIT * 20, "{:?}", begun.elapsed());
    }
}

#[test]
fn redaction_removes_text_that_it_cannot_examine_within_its_limits() {
    let values: Vec<String> = (0..20_000).map(|n| format!("{n:064}")).collect();
    let environment: Vec<(&str, &str)> = values
        .iter()
        .map(|value| ("A_TOKEN", value.as_str()))
        .collect();
    let redactor = redactor(&environment);
    let mut arguments = vec![RawText::from("harmless")];
    assert_eq!(redactor.arguments(&mut arguments), 1);
    assert_eq!(arguments, [RawText::from(REMOVED)]);
    assert_eq!(redactor.cleaned(b"a log line").unwrap(), REMOVED.as_bytes());
}
