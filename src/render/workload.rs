//! Decides which pods belong together, from their names alone.

/// Characters of `rand.SafeEncodeString` for the ten digits (`k8s.io/apimachinery/pkg/util/rand`): a
/// `pod-template-hash` is a 32-bit number in decimal, each digit replaced.
const HASH: &[u8] = b"456789bcdf";
/// Characters of `rand.String` in the same file: vowels and digits that look like letters are left out.
const RANDOM: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Number of digits of nearly all 32-bit numbers. Shorter hashes are rare, and short words look
/// like them.
const HASH_LENGTH: std::ops::RangeInclusive<usize> = 8..=10;
/// Random characters that `generateName` adds.
const RANDOM_LENGTH: usize = 5;

/// The Deployment's name in a pod's name: `api` of `api-7d4b9c6f5d-x2x9k`. Only names that Kubernetes
/// generates for a ReplicaSet's pods are reduced. `db-0` or `agent-x2x9k` may be complete names, so
/// the owners of such pods must come from manifests.
#[must_use]
pub fn pod_owner(pod: &str) -> Option<&str> {
    let is_of = |part: &str, letters: &[u8]| part.bytes().all(|byte| letters.contains(&byte));
    let (rest, random) = pod.rsplit_once('-')?;
    let (owner, hash) = rest.rsplit_once('-')?;
    let is_generated = random.len() == RANDOM_LENGTH
        && is_of(random, RANDOM)
        && HASH_LENGTH.contains(&hash.len())
        && is_of(hash, HASH);
    (is_generated && !owner.is_empty()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_replica_set_are_one_workload_and_others_keep_their_names() {
        let table = [
            ("api-7d4b9c6f5d-x2x9k", Some("api")),
            ("big-api-7d4b9c6f5d-x2x9k", Some("big-api")),
            ("api-4b9c6f5d-x2x9k", Some("api")),
            // A hash contains only the first set of characters, a random part only the second.
            ("api-7d4b9c6g5d-x2x9k", None),
            ("api-7d4b9c6f5d-x2a9k", None),
            ("api-7d4b9c6f5d4-x2x9k", None),
            ("api-7d4b-x2x9k", None),
            ("data-cdf-fcbdd", None),
            ("db-0", None),
            ("db-7d4b9c6f5d-0", None),
            ("agent-x2x9k", None),
            ("-7d4b9c6f5d-x2x9k", None),
            ("plain", None),
            ("web-server", None),
        ];
        for (pod, expected) in table {
            assert_eq!(pod_owner(pod), expected, "{pod}");
        }
    }
}
