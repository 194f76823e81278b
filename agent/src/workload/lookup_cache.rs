//! Caches the containers that a runtime listed, to identify containers that the runtime no longer
//! knows.
//!
//! Limited in size; the oldest containers that are no longer listed are removed first. A process may be
//! killed before the handler can read its cgroup. It is then identified by its pid, if it was the first
//! process of a recently listed container.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Answer;

/// Maximum number of cached containers. A node runs a few hundred.
const MOST: usize = 4096;

/// How long after its last listing a container can be identified by its pid.
const PID_HOLDS: Duration = Duration::from_secs(30);

/// Containers that were seen.
#[derive(Debug, Default)]
pub(crate) struct LookupCache {
    containers: HashMap<String, Seen>,
    round: u64,
}

#[derive(Debug)]
struct Seen {
    answer: Answer,
    round: u64,
    at: Instant,
}

impl LookupCache {
    /// Adds a list of all containers of one runtime.
    pub(crate) fn listed(&mut self, containers: Vec<(String, Answer)>) {
        self.round += 1;
        for (id, answer) in containers {
            self.seen(id, answer);
        }
        if self.containers.len() > MOST {
            let mut rounds: Vec<u64> = self.containers.values().map(|seen| seen.round).collect();
            rounds.sort_unstable();
            let limit = rounds.get(rounds.len() - MOST).copied().unwrap_or(0);
            self.containers.retain(|_, seen| seen.round >= limit);
            // All have the same age, so any can be removed.
            let surplus = self.containers.len().saturating_sub(MOST);
            let gone: Vec<String> = self.containers.keys().take(surplus).cloned().collect();
            gone.iter().for_each(|id| {
                self.containers.remove(id);
            });
        }
    }

    /// Takes in one container.
    pub(crate) fn seen(&mut self, id: String, mut answer: Answer) {
        let round = self.round;
        let before = self.containers.get(&id);
        // The new list does not contain it.
        answer.init_pid = answer
            .init_pid
            .or(before.and_then(|seen| seen.answer.init_pid));
        // The list does not contain tag, version and revision of its image either.
        if let (Some(image), Some(known)) = (
            &mut answer.image,
            before.and_then(|seen| seen.answer.image.as_ref()),
        ) && image.reference == known.reference
        {
            image.clone_from(known);
        } else if answer.image.is_none() {
            answer.image = before.and_then(|seen| seen.answer.image.clone());
        }
        let at = Instant::now();
        self.containers.insert(id, Seen { answer, round, at });
    }

    /// Containers whose first process is known.
    pub(crate) fn with_pid(&self) -> HashSet<String> {
        let known = self.containers.iter();
        known
            .filter(|(_, seen)| seen.answer.init_pid.is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The container whose first process has this pid, or recently had it.
    pub(crate) fn by_pid(&self, pid: u64) -> Option<String> {
        let mut found = self
            .containers
            .iter()
            .filter(|(_, seen)| seen.answer.init_pid == Some(pid) && seen.at.elapsed() < PID_HOLDS);
        match (found.next(), found.next()) {
            (Some((id, _)), None) => Some(id.clone()),
            _ => None,
        }
    }

    /// The cached facts about the container.
    pub(crate) fn get(&self, id: &str) -> Option<Answer> {
        self.containers.get(id).map(|seen| seen.answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_cache_identifies_a_first_process_by_pid_for_a_limited_time() {
        let mut known = LookupCache::default();
        let with = |pid| Answer {
            init_pid: pid,
            ..Answer::default()
        };
        known.listed(vec![("a".to_owned(), with(Some(7)))]);
        known.listed(vec![("a".to_owned(), with(None))]);
        assert_eq!(known.by_pid(7).as_deref(), Some("a"));
        assert_eq!(known.by_pid(8), None);
        known.listed(vec![("b".to_owned(), with(Some(7)))]);
        assert_eq!(known.by_pid(7), None, "the pid was used again");
    }

    #[test]
    fn known_container_keeps_the_release_that_a_list_does_not_tell() {
        let mut known = LookupCache::default();
        let with = |version: Option<&str>| Answer {
            image: Some(cdh_bundle::ImageRef {
                version: version.map(str::to_owned),
                ..cdh_bundle::ImageRef::by_digest("api@sha256:a")
            }),
            ..Answer::default()
        };
        known.listed(vec![("a".to_owned(), with(Some("1.4.2")))]);
        known.listed(vec![("a".to_owned(), with(None))]);
        known.listed(vec![("a".to_owned(), Answer::default())]);
        let image = known.get("a").unwrap().image.unwrap();
        assert_eq!(image.release(), Some("1.4.2"));
    }

    #[test]
    fn lookup_cache_evicts_unlisted_containers_first() {
        let mut known = LookupCache::default();
        let list = |name: &str, count: usize| {
            let one = |n| (format!("{name}{n}"), Answer::default());
            (0..count).map(one).collect::<Vec<_>>()
        };
        known.listed(list("old", 10));
        known.listed(list("new", MOST - 10));
        assert!(known.get("old3").is_some());
        known.listed(list("more", 10));
        assert!(known.get("old3").is_none());
        assert!(known.get("new3").is_some() && known.get("more3").is_some());
        known.listed(list("flood", 3 * MOST));
        assert_eq!(known.containers.len(), MOST);
    }
}
