use std::fs;

use cdh_bundle::WorkloadKind;
use serde_json::{Value, json};

use super::facts::LARGEST;
use super::*;

const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const IMAGE: &str = "aa1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1aa";

fn identity(id: &str) -> ContainerIdentity {
    ContainerIdentity::of_id(id.to_owned())
}

fn digest() -> String {
    format!("sha256:{}", "c".repeat(64))
}

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// In the format of podman 4.3.1; `list` is the file of the containers.
fn podman_storage(storage: &Path, driver: &str, list: &str, name: &str) {
    let metadata = json!({"image-name": name, "image-id": IMAGE, "name": "web", "created-at": 1});
    let containers = json!([
        {"id": "other", "names": null, "image": "", "metadata": ""},
        {"id": ID, "names": ["web"], "image": IMAGE, "layer": "l", "metadata": metadata.to_string()},
    ]);
    write(
        &storage.join(format!("{driver}-containers/{list}.json")),
        &containers,
    );
    let images = json!([{
        "id": IMAGE, "digest": digest(), "names": ["localhost:5000/shop/web:1.4.2"],
        "big-data-names": ["manifest", format!("sha256:{IMAGE}")],
    }]);
    write(
        &storage.join(format!("{driver}-images/images.json")),
        &images,
    );
    let key = podman::base64(format!("sha256:{IMAGE}").as_bytes());
    let configuration = json!({"architecture": "amd64", "config": {"Labels": {
        "org.opencontainers.image.version": "1.4.2", "org.opencontainers.image.revision": "5f3c",
    }}});
    write(
        &storage.join(format!("{driver}-images/{IMAGE}/={key}")),
        &configuration,
    );
}

#[test]
fn podman_container_is_found_with_name_image_and_labels() {
    for (driver, list) in [
        ("overlay", "containers"),
        ("overlay", "volatile-containers"),
        ("vfs", "containers"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let storage = data.path().join("containers/storage");
        podman_storage(&storage, driver, list, "localhost:5000/shop/web:1.4.2");
        let found = find(data.path(), &[], &identity(ID)).unwrap();
        assert_eq!(found.workload.container.as_deref(), Some("web"));
        assert_eq!(found.workload.runtime.as_deref(), Some("podman"));
        assert_eq!(found.workload.kind, Some(WorkloadKind::Container));
        let image = found.image.unwrap();
        assert_eq!(
            image.reference,
            format!("localhost:5000/shop/web@{}", digest())
        );
        assert_eq!(image.name.as_deref(), Some("localhost:5000/shop/web:1.4.2"));
        assert_eq!(image.version.as_deref(), Some("1.4.2"));
        assert_eq!(image.revision.as_deref(), Some("5f3c"));
        assert_eq!(find(data.path(), &[], &identity(&"b".repeat(64))), None);
    }
}

#[test]
fn podman_container_started_by_image_id_gets_the_name_from_the_image() {
    let data = tempfile::tempdir().unwrap();
    let storage = data.path().join("containers/storage");
    podman_storage(&storage, "overlay", "containers", IMAGE);
    let image = find(data.path(), &[], &identity(ID))
        .unwrap()
        .image
        .unwrap();
    assert_eq!(
        image.reference,
        format!("localhost:5000/shop/web@{}", digest())
    );
    assert_eq!(image.release(), Some("1.4.2"));
}

fn docker_container(root: &Path, image: &str, more: &Value) {
    let mut config = json!({
        "ID": ID, "Name": "/web", "Driver": "overlay2", "Image": format!("sha256:{IMAGE}"),
        "Config": {"Image": image, "Labels": {
            "org.opencontainers.image.version": "1.4.2", "org.opencontainers.image.revision": "5f3c",
        }},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    write(
        &root.join(format!("containers/{ID}/config.v2.json")),
        &config,
    );
}

#[test]
fn docker_container_is_found_with_name_digest_and_labels() {
    let data = tempfile::tempdir().unwrap();
    let root = data.path().join("docker");
    docker_container(&root, "shop/web:1.4.2", &json!({}));
    let digest = digest();
    let id = format!("sha256:{IMAGE}");
    let repositories = json!({"Repositories": {
        "mirror/web": {format!("mirror/web@{digest}"): id},
        "shop/web": {"shop/web:1.4.2": id, format!("shop/web@{digest}"): id, "shop/web:1": "sha256:other"},
    }});
    write(
        &root.join("image/overlay2/repositories.json"),
        &repositories,
    );
    let found = find(data.path(), &[], &identity(ID)).unwrap();
    assert_eq!(found.workload.container.as_deref(), Some("web"));
    assert_eq!(found.workload.runtime.as_deref(), Some("docker"));
    let image = found.image.unwrap();
    assert_eq!(image.reference, format!("shop/web@{digest}"));
    assert_eq!(image.name.as_deref(), Some("shop/web:1.4.2"));
    assert_eq!(
        (image.version.as_deref(), image.revision.as_deref()),
        (Some("1.4.2"), Some("5f3c"))
    );
}

#[test]
fn docker_container_of_the_containerd_image_store_has_its_digest_in_its_own_file() {
    let data = tempfile::tempdir().unwrap();
    let root = data.path().join("docker");
    let manifest = json!({"ImageManifest": {"mediaType": "m", "digest": digest(), "size": 7}});
    docker_container(&root, "quay.io/shop/web:1.4.2", &manifest);
    let image = find(data.path(), &[], &identity(ID))
        .unwrap()
        .image
        .unwrap();
    assert_eq!(image.reference, format!("quay.io/shop/web@{}", digest()));
}

#[test]
fn docker_image_that_was_built_here_has_a_name_and_a_gap() {
    let data = tempfile::tempdir().unwrap();
    docker_container(
        &data.path().join("docker"),
        "web:dev",
        &json!({"Driver": "../../etc"}),
    );
    let found = find(data.path(), &[], &identity(ID)).unwrap();
    assert_eq!(found.image, None);
    assert_eq!(found.workload.extra["image_name"], "web:dev");
    assert_eq!(found.gaps[0].what, "image");
}

#[test]
fn docker_container_of_a_pod_names_the_pod() {
    let data = tempfile::tempdir().unwrap();
    let labels = json!({"Config": {"Image": format!("shop/api@{}", digest()), "Labels": {
        "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": "api",
        "io.kubernetes.container.name": "main", "io.kubernetes.pod.uid": "u",
    }}});
    docker_container(&data.path().join("docker"), "", &labels);
    let found = find(data.path(), &[], &identity(ID)).unwrap();
    assert!(found.is_of_pod());
    assert_eq!(found.workload.container.as_deref(), Some("main"));
    assert_eq!(
        found.image.unwrap().reference,
        format!("shop/api@{}", digest())
    );
}

#[test]
fn engines_that_keep_their_data_elsewhere_are_found_by_their_configuration() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = data.path().join("srv");
    let etc = data.path().join("etc");
    fs::create_dir_all(etc.join("containers")).unwrap();
    fs::create_dir_all(etc.join("docker")).unwrap();
    let storage = elsewhere.join("podman");
    let conf = format!(
        "[storage]\n# graphroot = \"/no\"\ngraphroot = \"{}\"\n",
        storage.display()
    );
    fs::write(etc.join("containers/storage.conf"), conf).unwrap();
    podman_storage(
        &storage,
        "overlay",
        "containers",
        "localhost:5000/shop/web:1.4.2",
    );
    assert!(find(data.path(), &[], &identity(ID)).is_some());
    fs::remove_file(etc.join("containers/storage.conf")).unwrap();
    assert_eq!(find(data.path(), &[], &identity(ID)), None);
    let root = elsewhere.join("docker");
    write(&etc.join("docker/daemon.json"), &json!({"data-root": root}));
    docker_container(&root, "web:dev", &json!({}));
    assert!(find(data.path(), &[], &identity(ID)).is_some());
}

#[test]
fn rootless_container_is_found_in_the_home_of_its_user_only() {
    if !rustix::process::geteuid().is_root() {
        cdh_testkit::skip("only root can give files to another user");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let home = data.path().join("home/joe");
    let storage = home.join(".local/share/containers/storage");
    podman_storage(
        &storage,
        "overlay",
        "containers",
        "localhost:5000/shop/web:1.4.2",
    );
    fs::create_dir_all(data.path().join("etc")).unwrap();
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\nbad\njoe:x:1000:1000:Joe:{}:/bin/sh\n",
        home.display()
    );
    fs::write(data.path().join("etc/passwd"), passwd).unwrap();
    let file = storage.join("overlay-containers/containers.json");
    let found = |users: &[u32]| find(data.path(), users, &identity(ID));
    // The file is root's.
    assert_eq!(found(&[1000]), None);
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
    assert_eq!(
        found(&[1000]).unwrap().workload.container.as_deref(),
        Some("web")
    );
    assert_eq!(found(&[]), None);
    assert_eq!(found(&[1001]), None);
    // A link to a file of the user's own is not followed either.
    let other = home.join("containers.json");
    fs::rename(&file, &other).unwrap();
    std::os::unix::fs::symlink(&other, &file).unwrap();
    assert_eq!(found(&[1000]), None);
}

#[test]
fn files_that_are_not_the_engines_own_are_not_read() {
    let data = tempfile::tempdir().unwrap();
    let storage = data.path().join("containers/storage");
    podman_storage(
        &storage,
        "overlay",
        "containers",
        "localhost:5000/shop/web:1.4.2",
    );
    let file = storage.join("overlay-containers/containers.json");
    let good = fs::read(&file).unwrap();
    let is_found = || find(data.path(), &[], &identity(ID)).is_some();
    assert!(is_found());
    // The file grows beyond the limit, becomes another kind of file, or is a FIFO without a writer.
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(LARGEST + 1)
        .unwrap();
    assert!(!is_found());
    fs::write(&file, "{\"id\": 7}").unwrap();
    assert!(!is_found());
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(!is_found());
    fs::remove_file(&file).unwrap();
    fs::write(&file, good).unwrap();
    assert!(is_found());
    assert_eq!(find(data.path(), &[], &identity("../../etc/passwd")), None);
}

#[test]
fn users_are_those_of_the_session_and_of_the_process() {
    let session = b"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope\n";
    assert_eq!(users_of(session, Some(101_000)), [1000, 101_000]);
    assert_eq!(users_of(session, Some(1000)), [1000]);
    assert_eq!(users_of(b"0::/user@1001.service/x\n", Some(0)), [1001]);
    assert_eq!(
        users_of(b"0::/machine.slice/libpod-x.scope\n", Some(0)),
        [0_u32; 0]
    );
}

#[test]
fn base64_is_that_of_the_rfc() {
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(podman::base64(plain.as_bytes()), encoded);
    }
}

#[test]
fn user_made_cgroup_names_only_containers_of_that_user() {
    let data = tempfile::tempdir().unwrap();
    let record = json!([{"id": ID, "names": ["victim"], "image": IMAGE, "metadata": "{}"}]);
    let storage = data
        .path()
        .join("containers/storage/overlay-containers/containers.json");
    write(&storage, &record);
    let mut container = identity(ID);
    assert!(find(data.path(), &[], &container).is_some());
    container.cgroup_owner = Some(65534);
    assert_eq!(find(data.path(), &[], &container), None);
}
