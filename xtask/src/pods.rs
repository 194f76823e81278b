//! Everything about pods at once: the agent's own image in a real containerd, dumps in a real S3
//! server, a hundred crashes among twins, podman.

use anyhow::{Context, Result, ensure};
use cdh_testkit::{ADMIN, DockerRegistry, RegistryAccess, S3Server};

use crate::build::{self, Optimized};
use crate::image::{self, ImageOptions};
use crate::{progress, python, tools};

/// Runs them all, or those whose name holds `filter`.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    ensure!(tools::is_root(), "pods are root's: run it as root");
    tools::offer(&["containerd", "runc", "docker-registry", "buildah", "podman"])?;
    let directory = tempfile::tempdir()?;
    let registry = DockerRegistry::start(directory.path(), RegistryAccess::Open)?;
    let registry = registry.context("docker-registry is missing")?;
    let weed = python::weed().context("there is no S3 server")?;
    let store = S3Server::start_program(weed);
    store.make_bucket("dumps");
    let push = format!("{}/cdh", registry.address);
    println!("building the agent's image …");
    let options = |name: &str| ImageOptions {
        name: format!("localhost/{name}:test"),
        push: Some(format!("{push}:test")),
        optimized: Optimized::Hardly,
        target: None,
    };
    let digest = image::build(&options("cdh"))?;
    ensure!(
        digest == image::build(&options("cdh-again"))?,
        "the same sources make two images"
    );
    println!("image {push}@{digest}, the same when it is built again");
    let mut test = build::cargo();
    test.args(["test", "-p", "cdh-agent", "--features", "daemon"]);
    test.args(["--test", "agent", filter.unwrap_or("pods::")]);
    test.args(["--", "--test-threads", "1", "--nocapture"]);
    test.env("CDH_TEST_HANDLER", build::handler()?)
        .env("CDH_TEST_CDH", build::static_cdh(Optimized::Hardly)?)
        .env("CDH_TEST_IMAGE", format!("{push}@{digest}"))
        .env("CDH_TEST_PODS", "all")
        .env("CDH_TEST_S3", bucket_url(&store))
        .env("AWS_ACCESS_KEY_ID", ADMIN.access)
        .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret);
    progress::succeed(&mut test, "testing pods")
}

fn bucket_url(store: &S3Server) -> String {
    let endpoint = store.endpoint();
    format!("s3://dumps/test?endpoint={endpoint}&region=us-east-1&path-style=true")
}
