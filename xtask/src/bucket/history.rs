//! Which crashes there are: of what, when, in which release, and in which pod.
//!
//! The history contains three stories, which `cdh groups` must show:
//!
//! 1. `checkout` began to crash in `discount_of` today, in release 1.4.2 only.
//! 2. `checkout` has crashed in `total_of` for three weeks, in 1.4.0, 1.4.1 and 1.4.2.
//! 3. `gateway` crashed in `route_request` until nine days ago, in 1.4.0 and never since.
//!
//! Pods are named as Kubernetes names them: the hash of a ReplicaSet is `SafeEncodeString` of a 32-bit
//! number (`k8s.io/apimachinery/pkg/util/rand`), all pods of a revision share it, and each ends in five
//! characters of the same alphabet.

use std::time::{SystemTime, UNIX_EPOCH};

/// Letters of generated names (`alphanums` in `k8s.io/apimachinery/pkg/util/rand/rand.go`).
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const HOUR: u64 = 3600;
const DAY: u64 = 86400;
/// Seconds of the time that the crashes are spread over.
const SPAN: u64 = 21 * DAY;
/// One core in so many is cut.
const CUT: u64 = 17;
/// One crash in so many is a jump to nowhere whose stack is cut off: nothing makes a fingerprint.
const NAMELESS: u64 = 30;
/// Crashes of the bug that is new, the youngest of them some minutes old.
const NEW_BUG: u64 = 14;

/// What makes a service's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

/// One program of the team.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
    pub(super) controller: Controller,
    /// How often it crashes, relative to the others.
    weight: u64,
    /// Releases and the days since each was rolled out, the newest last.
    releases: &'static [(&'static str, f64)],
}

const fn service(
    name: &'static str,
    namespace: &'static str,
    controller: Controller,
    weight: u64,
    releases: &'static [(&'static str, f64)],
) -> Service {
    Service {
        name,
        namespace,
        controller,
        weight,
        releases,
    }
}

const SHOP: &[(&str, f64)] = &[("1.4.0", 30.0), ("1.4.1", 8.5), ("1.4.2", 0.8)];
const MONEY: &[(&str, f64)] = &[("3.11.2", 40.0), ("3.12.0", 12.0)];
const SEARCH: &[(&str, f64)] = &[("2026.10", 33.0), ("2026.11", 6.0)];
const TOOLS: &[(&str, f64)] = &[("0.9.4", 60.0)];

/// The first two have the planted history.
pub(super) const SERVICES: [Service; 12] = [
    service("checkout", "shop", Controller::Deployment, 9, SHOP),
    service("gateway", "shop", Controller::Deployment, 6, SHOP),
    service("ledger", "payments", Controller::StatefulSet, 7, MONEY),
    service("worker", "payments", Controller::Deployment, 12, MONEY),
    service("indexer", "search", Controller::Job, 5, SEARCH),
    service("cache", "search", Controller::StatefulSet, 4, SEARCH),
    service("cron", "platform", Controller::CronJob, 3, TOOLS),
    service("mailer", "platform", Controller::Deployment, 2, TOOLS),
    service("router", "platform", Controller::DaemonSet, 3, TOOLS),
    service("thumbnails", "media", Controller::Deployment, 4, MONEY),
    service("session", "shop", Controller::Deployment, 2, SHOP),
    service("panicking", "media", Controller::Deployment, 3, TOOLS),
];
const CHECKOUT: usize = 0;
const GATEWAY: usize = 1;
/// It jumps to nowhere.
const ROUTER: usize = 8;

/// How much of a core is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Nowhere,
    /// It ends after so much of the file. The stack is near the end.
    Memory {
        percent: u64,
    },
}

/// One crash.
#[derive(Clone, Debug)]
pub(super) struct PlannedCrash {
    /// Number of the service.
    pub(super) service: usize,
    /// Whether it is the bug of 1.4.2.
    pub(super) is_new_bug: bool,
    /// Seconds ago.
    pub(super) age: u64,
    pub(super) cut: Cut,
    /// Which of the pods of the release.
    replica: u64,
    node: u64,
}

impl PlannedCrash {
    fn service(&self) -> &'static Service {
        &SERVICES[self.service]
    }

    /// The release that was running then.
    pub(super) fn release(&self) -> &'static str {
        let days = self.age as f64 / DAY as f64;
        let releases = self.service().releases;
        let mut running = releases.iter().rev().filter(|(_, since)| *since >= days);
        running
            .next()
            .or(releases.first())
            .map_or("", |(tag, _)| tag)
    }

    /// Which build crashes: each release of `checkout` is one of its own.
    pub(super) fn program(&self) -> String {
        let service = self.service();
        match (self.service, self.is_new_bug) {
            (CHECKOUT, true) => format!("{}-{}-coupon", service.name, self.release()),
            (CHECKOUT, false) => format!("{}-{}", service.name, self.release()),
            _ => service.name.to_owned(),
        }
    }

    /// Numbers that are the same for all crashes of this release.
    fn of_release(&self, what: u64) -> Numbers {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for byte in [self.service().name, self.release()].concat().bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        let mut numbers = Numbers(seed ^ what.wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1);
        // Seeds that are alike begin alike.
        for _ in 0..16 {
            numbers.next();
        }
        numbers
    }

    /// The hash that Kubernetes gives the pod template of this release.
    fn template_hash(&self) -> String {
        let number = self.of_release(1).next() as u32;
        safe_encoded(number | 1 << 31)
    }

    /// The pod, and the labels that its controller gives it.
    pub(super) fn pod(&self) -> (String, Vec<(&'static str, String)>) {
        let name = self.service().name;
        let hash = self.template_hash();
        let random = self.of_release(2 + self.replica).letters();
        match self.service().controller {
            Controller::Deployment => {
                let pod = format!("{name}-{hash}-{random}");
                (pod, vec![("pod-template-hash", hash)])
            }
            Controller::StatefulSet => {
                let pod = format!("{name}-{}", self.replica);
                let labels = vec![
                    ("apps.kubernetes.io/pod-index", self.replica.to_string()),
                    ("controller-revision-hash", format!("{name}-{hash}")),
                    ("statefulset.kubernetes.io/pod-name", pod.clone()),
                ];
                (pod, labels)
            }
            Controller::DaemonSet => {
                let labels = vec![
                    ("controller-revision-hash", hash),
                    ("pod-template-generation", "1".to_owned()),
                ];
                (format!("{name}-{random}"), labels)
            }
            Controller::Job => self.of_job(&format!("{name}-rebuild")),
            Controller::CronJob => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let then = now.unwrap_or_default().as_secs().saturating_sub(self.age);
                // It runs every ten minutes.
                self.of_job(&format!("{name}-{}", then / 600 * 10))
            }
        }
    }

    fn of_job(&self, job: &str) -> (String, Vec<(&'static str, String)>) {
        let random = Numbers(self.age.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).letters();
        let labels = vec![
            ("batch.kubernetes.io/job-name", job.to_owned()),
            ("job-name", job.to_owned()),
        ];
        (format!("{job}-{random}"), labels)
    }

    /// The arguments of `cdh import`.
    pub(super) fn import_options(&self) -> Vec<String> {
        let Service {
            name, namespace, ..
        } = self.service();
        let release = self.release();
        let (pod, labels) = self.pod();
        let hex = |what: u64, digits: usize| {
            let mut numbers = self.of_release(what);
            let text: String = (0..4).map(|_| format!("{:016x}", numbers.next())).collect();
            text[..digits].to_owned()
        };
        let image = format!("registry.example/{namespace}/{name}");
        let image = format!("{image}:{release}@sha256:{}", hex(100, 64));
        let node = format!("node-{}", 1 + self.node);
        let mut words = Vec::new();
        let named = [
            ("--namespace", *namespace),
            ("--pod", &pod),
            ("--container", name),
            ("--image", &image),
            ("--node", &node),
        ];
        for (option, value) in named {
            words.extend([option.to_owned(), value.to_owned()]);
        }
        let more = [
            ("app.kubernetes.io/name", (*name).to_owned()),
            ("app.kubernetes.io/version", release.to_owned()),
        ];
        for (label, value) in labels.into_iter().chain(more) {
            words.extend(["--label".to_owned(), format!("{label}={value}")]);
        }
        let of_image = [("version", release.to_owned()), ("revision", hex(101, 40))];
        for (label, value) in of_image {
            let label = format!("org.opencontainers.image.{label}={value}");
            words.extend(["--image-label".to_owned(), label]);
        }
        words
    }
}

/// So many crashes with the planted history, the oldest first.
pub(super) fn planted(count: usize) -> Vec<PlannedCrash> {
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let mut crashes = Vec::new();
    for number in 0..NEW_BUG.min(count as u64 / 4) {
        let age = 6 * HOUR * (number + 1) / NEW_BUG - numbers.below(600);
        crashes.push(numbers.crash(CHECKOUT, age.max(200)));
        if let Some(crash) = crashes.last_mut() {
            (crash.is_new_bug, crash.cut) = (true, Cut::Nowhere);
        }
    }
    // Every other bug was there before this week.
    for service in 0..SERVICES.len() {
        let age = SPAN - DAY - numbers.below(4 * DAY);
        crashes.push(numbers.crash(service, age));
        if let Some(crash) = crashes.last_mut() {
            crash.cut = Cut::Nowhere;
        }
    }
    while crashes.len() < count {
        let is_nameless = numbers.below(NAMELESS) == 0;
        let service = match is_nameless {
            true => ROUTER,
            false => numbers.weighted(),
        };
        let age = match service {
            GATEWAY => 9 * DAY + numbers.below(SPAN - 9 * DAY),
            _ => numbers.age(),
        };
        let mut crash = numbers.crash(service, age);
        // A partial stack would look like a separate bug.
        if crash.age < 3 * DAY && matches!(crash.cut, Cut::Memory { .. }) {
            crash.cut = Cut::Nowhere;
        }
        if is_nameless {
            crash.cut = Cut::Memory { percent: 25 };
        }
        crashes.push(crash);
    }
    crashes.truncate(count);
    crashes.sort_by_key(|crash| std::cmp::Reverse(crash.age));
    crashes
}

/// So many crashes without a story.
pub(super) fn flat(count: usize) -> Vec<PlannedCrash> {
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let mut crashes: Vec<PlannedCrash> = (0..count)
        .map(|_| {
            let (service, age) = (numbers.weighted(), numbers.age());
            numbers.crash(service, age)
        })
        .collect();
    crashes.sort_by_key(|crash| std::cmp::Reverse(crash.age));
    crashes
}

/// `SafeEncodeString(fmt.Sprint(number))`.
fn safe_encoded(number: u32) -> String {
    let digits = number.to_string().into_bytes();
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    digits.into_iter().map(letter).collect()
}

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn crash(&mut self, service: usize, age: u64) -> PlannedCrash {
        let cut = match self.below(CUT) {
            0 => Cut::Memory {
                percent: 40 + self.below(50),
            },
            _ => Cut::Nowhere,
        };
        PlannedCrash {
            service,
            is_new_bug: false,
            age,
            cut,
            replica: self.below(3),
            node: self.below(6),
        }
    }

    fn weighted(&mut self) -> usize {
        let all: u64 = SERVICES.iter().map(|service| service.weight).sum();
        let mut rest = self.below(all);
        for (number, service) in SERVICES.iter().enumerate() {
            match rest.checked_sub(service.weight) {
                Some(less) => rest = less,
                None => return number,
            }
        }
        0
    }

    /// More of the last days, and outbreaks.
    fn age(&mut self) -> u64 {
        let place = self.below(1000) as f64 / 1000.0;
        let age = (place * place * SPAN as f64) as u64;
        match self.below(3) {
            0 => age / DAY * DAY + self.below(5400) + 120,
            _ => age + self.below(HOUR) + 60,
        }
    }

    /// As Kubernetes ends the names of pods.
    fn letters(&mut self) -> String {
        (0..5)
            .map(|_| char::from(LETTERS[self.below(LETTERS.len() as u64) as usize]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cdh_bundle::{PodDescription, WorkloadOwner};

    use super::*;

    #[test]
    fn pods_are_named_as_kubernetes_does_and_lead_to_their_owner() {
        let mut pods = BTreeMap::<(usize, &str), BTreeSet<String>>::new();
        for crash in planted(330) {
            let (pod, labels) = crash.pod();
            let labels = labels
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let owner = WorkloadOwner::of_pod(&PodDescription {
                name: &pod,
                labels: &labels,
                annotations: &BTreeMap::new(),
            });
            let owner = owner.unwrap_or_else(|| panic!("{pod} has no owner"));
            let Service {
                name, controller, ..
            } = crash.service();
            assert_eq!(owner.kind, format!("{controller:?}"), "{pod}");
            let expected = match controller {
                Controller::Job => format!("{name}-rebuild"),
                _ => (*name).to_owned(),
            };
            assert_eq!(owner.name, expected, "{pod}");
            if let Some(hash) = labels.get("pod-template-hash") {
                assert!((8..=10).contains(&hash.len()), "{hash}");
                pods.entry((crash.service, crash.release()))
                    .or_default()
                    .insert(pod);
            }
        }
        for (key, pods) in pods {
            assert!(pods.len() <= 3, "{key:?}: {pods:?}");
        }
        assert_eq!(safe_encoded(1_234_567_890), "56789bcdf4");
    }

    #[test]
    fn planted_history_tells_its_three_stories() {
        let crashes = planted(330);
        assert_eq!(crashes.len(), 330);
        let new: Vec<_> = crashes.iter().filter(|crash| crash.is_new_bug).collect();
        assert_eq!(new.len() as u64, NEW_BUG);
        assert!(
            new.iter()
                .all(|crash| crash.age < DAY && crash.release() == "1.4.2")
        );
        let releases = |service: usize| -> BTreeSet<&str> {
            let own = crashes
                .iter()
                .filter(|crash| crash.service == service && !crash.is_new_bug);
            own.map(PlannedCrash::release).collect()
        };
        assert_eq!(releases(CHECKOUT), ["1.4.0", "1.4.1", "1.4.2"].into());
        assert_eq!(releases(GATEWAY), ["1.4.0"].into());
        for (service, found) in SERVICES.iter().enumerate() {
            let own = crashes
                .iter()
                .filter(|crash| crash.service == service && !crash.is_new_bug);
            let oldest = own.map(|crash| crash.age).max().unwrap();
            assert!(oldest > 7 * DAY, "{}", found.name);
        }
        let is_cut = |crash: &&PlannedCrash| matches!(crash.cut, Cut::Memory { .. });
        let (nameless, cut): (Vec<_>, Vec<_>) = crashes
            .iter()
            .filter(is_cut)
            .partition(|crash| crash.service == ROUTER);
        assert!(cut.len() > 5 && nameless.len() > 3);
        assert_eq!(SERVICES[ROUTER].name, "router");
        assert!(crashes.is_sorted_by_key(|crash| std::cmp::Reverse(crash.age)));
    }
}
