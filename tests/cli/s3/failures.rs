//! What a user reads when a bucket refuses or is not there.

use super::*;

#[test]
fn failures_of_a_bucket_say_what_to_do() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let endpoint = server.endpoint();
    server.make_bucket("shelf");
    let admin = url("shelf", &endpoint);
    let core = crash().core().display().to_string();
    assert_eq!(desk.s3(&admin, &["import", &core]).code, 0);
    let wrong = S3Keys {
        secret: "wrong",
        ..ADMIN
    };
    let nobody = S3Keys {
        access: "AKIANOBODY",
        ..ADMIN
    };
    let none = S3Keys {
        access: "",
        secret: "",
    };
    let gone = "s3://shelf?endpoint=http://127.0.0.1:1&timeout=1".to_owned();
    let error = |code: &str, message: &str| {
        let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        text.into_bytes()
    };
    let moved = error(
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    );
    let redirect = HttpProxy::start(None, move |_| {
        let region = vec![("x-amz-bucket-region", "eu-west-1".to_owned())];
        Deed::Answer(301, region, moved.clone())
    });
    let skewed = error(
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    );
    let late = HttpProxy::start(None, move |_| Deed::Answer(403, vec![], skewed.clone()));
    let slow = error("SlowDown", "Please reduce your request rate.");
    let busy = HttpProxy::start(None, move |_| Deed::Answer(503, vec![], slow.clone()));
    let nonsense = HttpProxy::start(None, |_| Deed::Answer(200, vec![], b"<html>hello".to_vec()));
    let cases: [(&str, S3Keys, String, &[&str]); 12] = [
        ("wrong secret", wrong, admin.clone(), &["ls"]),
        ("unknown key", nobody, admin.clone(), &["ls"]),
        ("no credentials", none, admin.clone(), &["ls"]),
        (
            "no permission to list",
            READER,
            url("closed", &endpoint),
            &["ls"],
        ),
        (
            "no permission to write",
            READER,
            admin.clone(),
            &["import", &core],
        ),
        (
            "no permission to delete",
            READER,
            admin.clone(),
            &["rm", "latest", "--yes"],
        ),
        (
            "no such bucket",
            ADMIN,
            url("nothing-here", &endpoint),
            &["ls"],
        ),
        ("no server", ADMIN, gone, &["ls"]),
        (
            "wrong region",
            ADMIN,
            url("shelf", &redirect.endpoint()),
            &["ls"],
        ),
        (
            "wrong clock",
            ADMIN,
            url("shelf", &late.endpoint()),
            &["ls"],
        ),
        ("busy", ADMIN, url("shelf", &busy.endpoint()), &["ls"]),
        (
            "no S3 server",
            ADMIN,
            url("shelf", &nonsense.endpoint()),
            &["ls"],
        ),
    ];
    let mut page = String::new();
    for (name, keys, store, words) in cases {
        let mut command = desk.s3_command(&store, keys, words);
        if keys.access.is_empty() {
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY");
        }
        let answer = desk.answer(command.output().unwrap());
        assert_eq!(answer.out, "", "{name}");
        page.push_str(&format!("# {name}\n{}[{}]\n\n", answer.err, answer.code));
    }
    insta::with_settings!({filters => vec![
        (r"127\.0\.0\.1:\d\d+", "[SERVER]"),
        (r"dumps/\S+", "[KEY]"),
    ]}, {
        insta::assert_snapshot!("s3_failures", page);
    });
}
