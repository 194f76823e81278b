//! How much of one crash is kept: the node's policy, the pod's wishes, and how many there were of it.
//!
//! Nothing is asked over a socket: the cgroup names the pod, and the node's table of pods ([`PodTable`]) has
//! what the daemon knows of it. Invariant: whatever is not kept has a reason, which ends in the ledger.

use std::borrow::Cow;

use cdh_bundle::{Cause, Manifest, Verdict};

use crate::handler::os::pidfd::outermost_user;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::startup::arguments::HandlerArguments;
use crate::handler::startup::settings::HandlerSettings;
use crate::outcome::Action;
use crate::outcome::DropReason;
use crate::owner::Owner;
use crate::policy::PodSettings;
use crate::policy::{Account, Crash, Decision, Pod, Rates, Subject};
use crate::workload::PodTable;

/// The outermost user of a process: who made its user namespace, else its own id. `uid` is the kernel's.
pub(crate) fn user_of(process: Option<&ProcessHandles>, uid: Option<u32>) -> Option<u32> {
    let namespace = process.and_then(|process| process.open_file("ns/user").ok());
    match namespace.and_then(|namespace| outermost_user(namespace.into())) {
        None => uid,
        // Root made it for a range of ids, which begins with this one.
        Some(0) => {
            let map = process.and_then(|process| process.read("uid_map").ok());
            lowest_outside(&map.unwrap_or_default()).or(uid)
        }
        found => found,
    }
}

/// The lowest id of this side in a `uid_map`.
fn lowest_outside(map: &[u8]) -> Option<u32> {
    let map = String::from_utf8_lossy(map);
    let outside = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.nth(1)?.parse().ok()
    });
    outside.min()
}

/// How much is kept, and why not more.
#[derive(Debug)]
pub(crate) struct Plan {
    decision: Decision,
    /// It hangs on the signal, which is in the core's head.
    open: bool,
    in_pod: bool,
    pod: Option<PodSettings>,
    dumpable: Option<u32>,
    /// Who is charged for it.
    account: Account,
    /// The program, for processes of the host.
    workload: String,
    rates: Rates,
    now: i64,
    /// A core was admitted.
    counted: bool,
}

impl Plan {
    /// What can be said before anything is read of the core.
    pub(crate) fn make(
        settings: &HandlerSettings,
        arguments: &HandlerArguments,
        manifest: &Manifest,
        owner: Option<&Owner>,
        user: Option<u32>,
    ) -> Self {
        let uid = owner.and_then(Owner::pod_uid);
        let mut pod = uid.and_then(|uid| PodTable::of(&settings.spool).get(uid));
        if let Some(pod) = &mut pod
            && pod.dump == Some(false)
        {
            // Whether the dump is kept at all decides the shipper, who knows the pod better.
            pod.dump = None;
            pod.profile = Some(crate::policy::Profile::Metadata);
        }
        let exe = manifest
            .process
            .exe
            .as_ref()
            .unwrap_or(&manifest.process.name);
        let controller = pod.as_ref().and_then(|pod| pod.controller.as_deref());
        let account = Account::new(owner, controller, user, arguments.dumpable);
        let workload = match account.is_user() {
            // Sessions and units run many programs; each is a workload.
            true => exe.to_string(),
            false => String::new(),
        };
        let mut plan = Self {
            decision: Decision::default(),
            open: true,
            in_pod: uid.is_some(),
            pod,
            dumpable: arguments.dumpable,
            account,
            workload,
            rates: Rates::of(&settings.state, &settings.limits.rate),
            now: manifest.captured_at.as_second(),
            counted: false,
        };
        plan.decide(settings, manifest, arguments.signal);
        if plan.action() != Action::Ignore
            && let Some((reason, why)) =
                plan.rates.is_spent(&plan.account, &plan.workload, plan.now)
        {
            plan.decision.restrict(Action::Ignore, reason, why);
        }
        plan
    }

    /// Decides what had to wait for the signal.
    pub(crate) fn decide(
        &mut self,
        settings: &HandlerSettings,
        manifest: &Manifest,
        signal: Option<i32>,
    ) {
        if !self.open {
            return;
        }
        let crash = Crash {
            exe: manifest.process.exe_path(),
            uid: manifest.process.uid,
            signal,
            dumpable: self.dumpable,
        };
        let pod = match &self.pod {
            Some(pod) => Pod::Known(pod),
            None if self.in_pod => Pod::Unknown,
            None => Pod::None,
        };
        if let Some(decision) = settings.policy.decide(&crash, pod) {
            self.decision = decision;
            self.open = false;
        }
    }

    /// Decides again, now that it is known which program the dynamic loader was started with. What was decided
    /// for the loader remains the upper limit: of what it left out, nothing was begun.
    pub(crate) fn decide_for_program(
        &mut self,
        settings: &HandlerSettings,
        manifest: &Manifest,
        signal: Option<i32>,
    ) {
        let decided = self.decision.clone();
        self.open = true;
        self.decide(settings, manifest, signal);
        if let Some((reason, why)) = decided.reason {
            self.decision.restrict(decided.action, reason, why);
        }
    }

    /// Counts the crash, once its fingerprint is known, and keeps no more of it than there may be.
    pub(crate) fn admit(&mut self, fingerprint: Option<&str>) {
        let subject = self.subject(fingerprint);
        let (action, why) = self.rates.admit(subject, self.decision.action, self.now);
        self.counted = action == Action::Full;
        if let Some((reason, why)) = why {
            self.decision.restrict(action, reason, why);
        }
    }

    /// The core did not become whole: the next crash of the kind gets the chance.
    pub(crate) fn give_back(&self, fingerprint: Option<&str>) {
        if self.counted {
            self.rates.give_back(self.subject(fingerprint), self.now);
        }
    }

    fn subject<'s>(&'s self, fingerprint: Option<&'s str>) -> Subject<'s> {
        Subject {
            account: &self.account,
            workload: &self.workload,
            // Stacks that say nothing are alike where the program is the same.
            fingerprint: fingerprint.unwrap_or(&self.workload),
        }
    }

    /// Who is charged for the crash.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Keeps no more than this.
    pub(crate) fn restrict(&mut self, action: Action, reason: DropReason, why: String) {
        self.decision.restrict(action, reason, why);
    }

    pub(crate) fn action(&self) -> Action {
        self.decision.action
    }

    /// Why it is not everything.
    pub(crate) fn reason(&self) -> (DropReason, String) {
        let reason = self.decision.reason.clone();
        reason.unwrap_or((DropReason::Unknown, "no reason was recorded".to_owned()))
    }

    /// What the manifest says of a core that is not wanted.
    pub(crate) fn verdict(&self) -> Verdict {
        let (reason, why) = self.reason();
        let cause = match reason {
            DropReason::RateFingerprint | DropReason::RateWorkload => Cause::RateLimit,
            DropReason::Quota => Cause::Quota,
            DropReason::NoSpace => Cause::NoSpace,
            _ => Cause::Policy,
        };
        Verdict::Empty {
            cause,
            evidence: Some(why),
        }
    }

    /// The settings with the limit that holds for this core.
    pub(crate) fn settings<'s>(&self, settings: &'s HandlerSettings) -> Cow<'s, HandlerSettings> {
        let Some(limit) = self.decision.core_limit else {
            return Cow::Borrowed(settings);
        };
        let mut settings = settings.clone();
        settings.core_limit = match settings.core_limit {
            0 => limit,
            node => node.min(limit),
        };
        Cow::Owned(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::first_manifest;
    use super::*;
    use crate::policy::Profile;
    use crate::policy::RateConfig;
    use cdh_bundle::{DumpId, RawText};

    const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";

    fn node() -> (tempfile::TempDir, HandlerSettings) {
        let root = tempfile::tempdir().unwrap();
        let settings = HandlerSettings {
            spool: root.path().join("spool"),
            state: root.path().to_owned(),
            ..HandlerSettings::default()
        };
        (root, settings)
    }

    fn plan(settings: &HandlerSettings, cgroup: Option<&RawText>, signal: Option<i32>) -> Plan {
        let arguments = HandlerArguments {
            signal,
            name: RawText::from("api"),
            ..HandlerArguments::default()
        };
        let manifest = first_manifest(DumpId::random(), &arguments, None);
        let owner = cgroup.and_then(|cgroup| Owner::from_cgroup(cgroup.as_bytes()));
        Plan::make(settings, &arguments, &manifest, owner.as_ref(), Some(0))
    }

    #[test]
    fn a_pods_own_wishes_hold_where_they_keep_less() {
        let (_root, mut settings) = node();
        let cgroup = RawText::from(format!("0::/kubepods/pod{UID}\n").as_bytes());
        let of_pod = |settings: &HandlerSettings| {
            let plan = plan(settings, Some(&cgroup), Some(11));
            (plan.action(), plan.settings(settings).core_limit)
        };
        assert_eq!(of_pod(&settings), (Action::Full, 0));
        let set = |pod: PodSettings| PodTable::of(&settings.spool).set(UID, &pod).unwrap();
        set(PodSettings {
            core_limit: Some(5000),
            ..PodSettings::default()
        });
        assert_eq!(of_pod(&settings), (Action::Full, 5000));
        set(PodSettings {
            profile: Some(Profile::Minicore),
            ..PodSettings::default()
        });
        settings.core_limit = 4000;
        assert_eq!(of_pod(&settings), (Action::Minicore, 4000));
        let set = |pod: PodSettings| PodTable::of(&settings.spool).set(UID, &pod).unwrap();
        set(PodSettings {
            dump: Some(false),
            ..PodSettings::default()
        });
        // The shipper removes it.
        assert_eq!(of_pod(&settings).0, Action::Metadata);
        assert_eq!(plan(&settings, None, Some(11)).action(), Action::Full);
    }

    #[test]
    fn a_rule_about_signals_waits_for_the_signal() {
        let (_root, mut settings) = node();
        let policy = serde_json::json!({"rules": [{"signal": "SIGABRT", "action": "metadata"}]});
        settings.policy = serde_json::from_value(policy).unwrap();
        let mut early = plan(&settings, None, None);
        assert_eq!(early.action(), Action::Full);
        let manifest = first_manifest(DumpId::random(), &HandlerArguments::default(), None);
        early.decide(&settings, &manifest, Some(6));
        assert_eq!(early.action(), Action::Metadata);
        assert!(matches!(
            early.verdict(),
            Verdict::Empty {
                cause: Cause::Policy,
                ..
            }
        ));
    }

    #[test]
    fn a_workload_that_has_enough_dumps_is_only_counted() {
        let (_root, mut settings) = node();
        settings.limits.rate = RateConfig {
            fingerprint_full: 1,
            workload_dumps: 2,
            ..RateConfig::unlimited()
        };
        let crash = || {
            let mut plan = plan(&settings, None, Some(11));
            plan.admit(Some("f"));
            plan.action()
        };
        let found: Vec<_> = (0..3).map(|_| crash()).collect();
        assert_eq!(found, [Action::Full, Action::Minicore, Action::Ignore]);
        let spent = plan(&settings, None, Some(11));
        assert_eq!(spent.reason().0, DropReason::RateWorkload);
    }
}
