//! What the cgroup and the node's table of pods say about a crash, without asking anybody.
//!
//! A pod that wants no core, or a short one, gets a low limit here, which spares the node the copy.
//! Whether the dump is kept at all decides the shipper, who knows the pod better.

use std::borrow::Cow;

use cdh_bundle::{RawText, Workload};

use super::settings::HandlerSettings;
use crate::workload::{Owner, PodTable, Profile};

/// What the first manifest says about the process's workload.
pub(super) fn workload(cgroup: Option<&RawText>) -> Option<Workload> {
    Some(Owner::from_cgroup(cgroup?.as_bytes())?.workload())
}

/// The settings as the pod wants them.
pub(super) fn settings_for<'s>(
    settings: &'s HandlerSettings,
    cgroup: Option<&RawText>,
) -> Cow<'s, HandlerSettings> {
    let owner = cgroup.and_then(|cgroup| Owner::from_cgroup(cgroup.as_bytes()));
    let uid = owner.as_ref().and_then(Owner::pod_uid);
    let Some(pod) = uid.and_then(|uid| PodTable::of(&settings.spool).get(uid)) else {
        return Cow::Borrowed(settings);
    };
    let no_core = pod.dump == Some(false) || pod.profile.unwrap_or_default() != Profile::Full;
    let limit = match (no_core, pod.core_limit) {
        // 0 is no limit.
        (true, _) | (false, Some(0)) => 1,
        (false, Some(limit)) => limit,
        (false, None) => return Cow::Borrowed(settings),
    };
    let mut settings = settings.clone();
    settings.core_limit = match settings.core_limit {
        0 => limit,
        node => node.min(limit),
    };
    Cow::Owned(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::PodSettings;

    #[test]
    fn a_pods_own_limit_holds_where_it_is_lower() {
        let uid = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";
        let cgroup = RawText::from(format!("0::/kubepods/pod{uid}\n").as_bytes());
        let spool = tempfile::tempdir().unwrap();
        let mut settings = HandlerSettings {
            spool: spool.path().to_owned(),
            ..HandlerSettings::default()
        };
        let limit = |settings: &_| settings_for(settings, Some(&cgroup)).core_limit;
        assert_eq!(limit(&settings), 0);
        let set = |pod: PodSettings| PodTable::of(spool.path()).set(uid, &pod).unwrap();
        set(PodSettings {
            core_limit: Some(5000),
            ..PodSettings::default()
        });
        assert_eq!(limit(&settings), 5000);
        settings.core_limit = 4000;
        assert_eq!(limit(&settings), 4000);
        set(PodSettings {
            profile: Some(Profile::Minicore),
            ..PodSettings::default()
        });
        assert_eq!(limit(&settings), 1);
        assert_eq!(settings_for(&settings, None).core_limit, 4000);
    }
}
