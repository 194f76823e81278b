//! The account that a crash is charged to.
//!
//! ```text
//! process of a pod        owner pod:<uid>          group <namespace>/<kind>/<controller>, or `pods`
//! process of a container  owner container:<id>     group `containers`
//! any other process       owner user:<uid>         group user:<uid>
//! ```
//!
//! The owner has a budget of its own. The group limits what all its owners use together, so a
//! controller that keeps creating pods does not get a fresh budget for each one. Until the
//! container runtime has named a pod's controller, the pod belongs to the group `pods`. A user is
//! the outermost one, that is, the creator of the user namespace and not an id inside it. The 65536
//! subordinate ids of a user are therefore one owner.

use crate::owner::Owner;

/// Group of pods whose controller is not known yet.
const PODS: &str = "pods";
/// Group of containers outside Kubernetes.
const CONTAINERS: &str = "containers";
/// Maximum length of an account's name in characters. Names of Kubernetes objects have up to 253.
/// The namespace comes first, so a truncated name never collides with one of another namespace.
const LONGEST: usize = 160;

/// Owner and group of a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    owner: String,
    group: String,
    is_setuid: bool,
}

impl Account {
    /// The account of a process. `controller` is `<namespace>/<kind>/<name>` as the runtime reported
    /// it, `user` the outermost user id, `dumpable` the kernel's `%d`.
    #[must_use]
    pub(crate) fn new(
        owner: Option<&Owner>,
        controller: Option<&str>,
        user: Option<u32>,
        dumpable: Option<u32>,
    ) -> Self {
        let pod = owner.and_then(Owner::pod_uid);
        let container = owner
            .and_then(Owner::container)
            .filter(|container| container.is_of_root());
        let (owner, group) = match (pod, container) {
            (Some(uid), _) => {
                let group =
                    controller.map_or_else(|| PODS.to_owned(), |name| format!("pod/{name}"));
                (format!("pod:{uid}"), group)
            }
            (None, Some(container)) => {
                (format!("container:{}", container.id), CONTAINERS.to_owned())
            }
            (None, None) => {
                let name = user.map_or_else(|| "user:-".to_owned(), |user| format!("user:{user}"));
                (name.clone(), name)
            }
        };
        Self {
            owner: plain(&owner),
            group: plain(&group),
            is_setuid: dumpable == Some(2),
        }
    }

    /// The pod, container or user.
    #[must_use]
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// The group that limits all owners of one controller.
    #[must_use]
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// The name under which room in the spool is shared: the controller if known, otherwise the
    /// owner. Usable in a file name.
    #[must_use]
    pub(crate) fn share(&self) -> String {
        let name = match self.group.as_str() {
            PODS | CONTAINERS => &self.owner,
            group => group,
        };
        name.replace('/', "+")
    }

    /// Whether a user is charged, not a pod or container.
    #[must_use]
    pub(crate) fn is_user(&self) -> bool {
        self.owner == self.group
    }

    /// Whether the program gained privileges: its dumps have their own quota.
    #[must_use]
    pub(crate) fn is_setuid(&self) -> bool {
        self.is_setuid
    }
}

/// Removes characters that need escaping in JSON or in a file name.
fn plain(name: &str) -> String {
    let harmless = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | ':' | '/' | '.' | '-' | '_' => c,
        _ => '_',
    };
    name.chars().map(harmless).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::ContainerIdentity;

    const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";

    #[test]
    fn account_prefers_pod_then_container_then_user() {
        let pod = Owner::Pod {
            uid: UID.to_owned(),
        };
        let of = |owner: Option<&Owner>, controller| {
            let account = Account::new(owner, controller, Some(1000), Some(1));
            (
                account.owner().to_owned(),
                account.group().to_owned(),
                account.share(),
            )
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let key = format!("pod:{UID}");
        assert_eq!(of(Some(&pod), None), owned(&key, "pods", &key));
        assert_eq!(
            of(Some(&pod), Some("shop/Deployment/api")),
            owned(&key, "pod/shop/Deployment/api", "pod+shop+Deployment+api")
        );
        let id = "0f1e2d3c".repeat(8);
        let mut container = ContainerIdentity::of_id(id.clone());
        let key = format!("container:{id}");
        assert_eq!(
            of(Some(&Owner::Container(container.clone())), None),
            owned(&key, "containers", &key)
        );
        // A user can create any number of directories in its own cgroup.
        container.cgroup_owner = Some(1000);
        let user = owned("user:1000", "user:1000", "user:1000");
        assert_eq!(of(Some(&Owner::Container(container)), None), user);
        assert_eq!(of(None, None), user);
    }

    #[test]
    fn account_names_are_short_and_plain() {
        let pod = Owner::Pod {
            uid: UID.to_owned(),
        };
        let name = format!("ns/Deployment/../\"\n{}", "x".repeat(1000));
        let account = Account::new(Some(&pod), Some(&name), None, Some(2));
        assert!(account.share().len() <= LONGEST && !account.share().contains(['/', '"', '\n']));
        assert!(account.is_setuid());
    }
}
