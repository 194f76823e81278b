//! What a runtime listed before: it still knows whose container it was when the runtime no longer
//! does.
//!
//! Bounded; what is no longer listed goes first, the oldest of it.

#![cfg_attr(not(feature = "cri"), allow(dead_code))]

use std::collections::HashMap;

use super::Answer;

/// Containers that are remembered at most. A node runs a few hundred.
const MOST: usize = 4096;

/// Containers that were seen.
#[derive(Debug, Default)]
pub(super) struct Known {
    containers: HashMap<String, Seen>,
    round: u64,
}

#[derive(Debug)]
struct Seen {
    answer: Answer,
    round: u64,
}

impl Known {
    /// Takes in a list of all containers of one runtime.
    pub(super) fn listed(&mut self, containers: Vec<(String, Answer)>) {
        self.round += 1;
        for (id, answer) in containers {
            self.seen(id, answer);
        }
        if self.containers.len() > MOST {
            let mut rounds: Vec<u64> = self.containers.values().map(|seen| seen.round).collect();
            rounds.sort_unstable();
            let limit = rounds.get(rounds.len() - MOST).copied().unwrap_or(0);
            self.containers.retain(|_, seen| seen.round >= limit);
            // All of one age: then any of them go.
            let surplus = self.containers.len().saturating_sub(MOST);
            let gone: Vec<String> = self.containers.keys().take(surplus).cloned().collect();
            gone.iter().for_each(|id| {
                self.containers.remove(id);
            });
        }
    }

    /// Takes in one container.
    pub(super) fn seen(&mut self, id: String, answer: Answer) {
        let round = self.round;
        self.containers.insert(id, Seen { answer, round });
    }

    /// What was known of the container.
    pub(super) fn get(&self, id: &str) -> Option<Answer> {
        self.containers.get(id).map(|seen| seen.answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_listed_is_remembered_until_there_is_no_room() {
        let mut known = Known::default();
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
