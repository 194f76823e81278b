//! Kubernetes 1.20.2 built from Debian's source package (bookworm, with vendored modules) by Debian's Go, without
//! anything else from a network. It takes about ten minutes on 2 cores, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::succeed;
use crate::{progress, tools};

/// The programs that are built.
pub(super) const PROGRAMS: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
];
/// The release of Debian whose source package has its vendored modules with it.
const SUITE: &str = "bookworm";
/// What the source package is; the server reports it to its clients.
const VERSION: &str = "v1.20.2";
/// Go code below this is a directory with marks for the generator.
const GENERATOR_MARK: &str = "+k8s:openapi-gen=";

/// Builds what is missing into `directory/bin`, and returns that directory.
pub(super) fn build(directory: &Path) -> Result<PathBuf> {
    let programs = directory.join("bin");
    if PROGRAMS.iter().all(|name| programs.join(name).is_file()) {
        return Ok(programs);
    }
    eprintln!(
        "building Kubernetes {VERSION} from Debian's source package, which takes about 10 minutes"
    );
    tools::offer(&["golang-go", "golang-github-modern-go-reflect2-dev"])?;
    fs::create_dir_all(&programs)?;
    let tree = directory.join("gopath/src/k8s.io/kubernetes");
    if !tree.join("cmd/kubelet").is_dir() {
        unpack(directory, &tree)?;
    }
    generate_openapi(&tree, &programs)?;
    for name in PROGRAMS {
        // The API server reports the one, the programs print the other.
        let version = ["client-go/pkg/version", "component-base/version"]
            .map(|at| format!("-X k8s.io/kubernetes/vendor/k8s.io/{at}.gitVersion={VERSION}"))
            .join(" ");
        let mut go = go(&tree, directory);
        go.args(["build", "-ldflags", &version, "-o"]);
        go.arg(programs.join(name)).arg(format!("./cmd/{name}"));
        progress::succeed(&mut go, &format!("building {name}"))?;
    }
    // 1.5 GB that nothing needs any more.
    fs::remove_dir_all(directory.join("gopath"))?;
    Ok(programs)
}

/// A call of Go as of the time before modules, in the tree of the sources.
fn go(tree: &Path, directory: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(tree);
    go.env("GO111MODULE", "off").env("CGO_ENABLED", "0");
    go.env("GOPATH", directory.join("gopath"));
    go
}

/// Fetches the source package with package lists of our own: those of the system are not touched.
fn unpack(directory: &Path, tree: &Path) -> Result<()> {
    let sources = directory.join("source");
    for name in ["lists/partial", "archives/partial", "source"] {
        fs::create_dir_all(directory.join(name))?;
    }
    let list = directory.join("source.list");
    fs::write(
        &list,
        format!(
            "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {SUITE} main\n",
            mirror()?
        ),
    )?;
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        for (name, value) in [
            ("Dir::Etc::SourceList", list.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &directory.join("lists")),
            ("Dir::Cache::archives", &directory.join("archives")),
        ] {
            apt.arg(format!("-o{name}={}", value.display()));
        }
        apt.arg("-qq").args(words).current_dir(&sources);
        progress::succeed(&mut apt, "fetching the source package")
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "kubernetes"])?;
    let names = fs::read_dir(&sources)?.flatten().map(|entry| entry.path());
    let archive = names
        .into_iter()
        .find(|path| path.to_string_lossy().contains(".orig.tar."));
    fs::create_dir_all(tree)?;
    let mut tar = Command::new("tar");
    tar.arg("xf")
        .arg(archive.context("the source package has no archive")?);
    succeed(tar.arg("-C").arg(tree).arg("--strip-components=1"))?;
    // The vendored one crashes when it is built with Go 1.18 or later.
    let ours = tree.join("vendor/github.com/modern-go/reflect2");
    let newer = Path::new("/usr/share/gocode/src/github.com/modern-go/reflect2");
    let is_code = |path: &Path| {
        let name = path.to_string_lossy();
        (name.ends_with(".go") || name.ends_with(".s")) && !name.ends_with("_test.go")
    };
    for path in files(&ours)?.iter().filter(|path| is_code(path)) {
        fs::remove_file(path)?;
    }
    for path in files(newer)?.iter().filter(|path| is_code(path)) {
        fs::copy(path, ours.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The mirror that the system itself uses.
fn mirror() -> Result<String> {
    let files = [
        "/etc/apt/sources.list.d/debian.sources",
        "/etc/apt/sources.list",
    ];
    let texts = files.map(|path| fs::read_to_string(path).unwrap_or_default());
    let words = texts.iter().flat_map(|text| text.split_ascii_whitespace());
    let found = words.into_iter().find(|word| word.contains("://"));
    Ok(found.context("apt has no mirror of Debian")?.to_owned())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// One generated file is not in the archive: the definitions that the API server publishes.
fn generate_openapi(tree: &Path, programs: &Path) -> Result<()> {
    if tree
        .join("pkg/generated/openapi/zz_generated.openapi.go")
        .is_file()
    {
        return Ok(());
    }
    let directory = programs.parent().unwrap_or(programs);
    let generator = programs.join("openapi-gen");
    let mut build = go(tree, directory);
    build.args(["build", "-o"]).arg(&generator);
    build.arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen");
    progress::succeed(&mut build, "building openapi-gen")?;
    let mut grep = Command::new("grep");
    grep.current_dir(tree);
    grep.args([
        "-rl",
        "--include=*.go",
        GENERATOR_MARK,
        "pkg",
        "staging",
        "vendor/k8s.io",
    ]);
    let found = String::from_utf8(grep.output()?.stdout)?;
    let mut packages: Vec<String> = found.lines().filter_map(package_of).collect();
    packages.sort();
    packages.dedup();
    ensure!(
        !packages.is_empty(),
        "no package has the mark {GENERATOR_MARK}"
    );
    let mut generate = go(tree, directory);
    generate = {
        let mut command = Command::new(&generator);
        command.current_dir(tree);
        command.envs(
            generate
                .get_envs()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
        );
        command
    };
    generate.args([
        "-O",
        "zz_generated.openapi",
        "-p",
        "k8s.io/kubernetes/pkg/generated/openapi",
    ]);
    generate.args(["-i", &packages.join(","), "-r", "/dev/null"]);
    generate.args([
        "--go-header-file",
        "hack/boilerplate/boilerplate.generatego.txt",
    ]);
    progress::succeed(&mut generate, "generating the API's definitions")
}

/// The Go package of a file: `staging/src/k8s.io/api/core/v1/types.go` is vendored as `k8s.io/api/core/v1`.
fn package_of(file: &str) -> Option<String> {
    let (directory, _) = file.rsplit_once('/')?;
    Some(match directory.strip_prefix("staging/src/") {
        Some(vendored) => format!("k8s.io/kubernetes/vendor/{vendored}"),
        None => format!("k8s.io/kubernetes/{directory}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_of_a_staged_file_is_the_vendored_one() {
        for (file, package) in [
            (
                "staging/src/k8s.io/api/core/v1/types.go",
                "k8s.io/kubernetes/vendor/k8s.io/api/core/v1",
            ),
            ("pkg/apis/core/types.go", "k8s.io/kubernetes/pkg/apis/core"),
            (
                "vendor/k8s.io/apimachinery/pkg/version/types.go",
                "k8s.io/kubernetes/vendor/k8s.io/apimachinery/pkg/version",
            ),
        ] {
            assert_eq!(package_of(file).as_deref(), Some(package));
        }
    }
}
