//! When an application may say that it has the history.

use std::collections::BTreeSet;

use iroh::EndpointId;

/// Which peers' word completes the history of a space.
///
/// A peer vouches for the history by a pull from it that ended complete, or by a signed digest
/// equal to ours while it is a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryPolicy {
    /// The first of these peers; `None`: the first that the node's policy
    /// [trusts](headwater::AccessPolicy::trusts) as a provider of the space.
    FirstTrusted(Option<Vec<EndpointId>>),
    /// The first of all, trusted or not.
    First,
    /// More than half of the peers that are neighbours at that moment.
    Majority,
}

impl Default for HistoryPolicy {
    fn default() -> Self {
        Self::FirstTrusted(None)
    }
}

/// Who has vouched so far.
#[derive(Debug)]
pub(crate) struct History {
    policy: HistoryPolicy,
    vouched: BTreeSet<EndpointId>,
    complete: bool,
}

impl History {
    pub(crate) fn new(policy: HistoryPolicy) -> Self {
        Self {
            policy,
            vouched: BTreeSet::new(),
            complete: false,
        }
    }

    /// Notes that `peer` holds nothing this node lacks. True once: when that completes the history.
    /// `trusted`: whether the node's policy takes it for a provider.
    pub(crate) fn vouched(
        &mut self,
        peer: EndpointId,
        trusted: bool,
        neighbors: &BTreeSet<EndpointId>,
    ) -> bool {
        if self.complete {
            return false;
        }
        self.complete = match &self.policy {
            HistoryPolicy::First => true,
            HistoryPolicy::FirstTrusted(None) => trusted,
            HistoryPolicy::FirstTrusted(Some(named)) => named.contains(&peer),
            HistoryPolicy::Majority => {
                self.vouched.insert(peer);
                self.vouched.retain(|peer| neighbors.contains(peer));
                2 * self.vouched.len() > neighbors.len()
            }
        };
        if self.complete {
            self.vouched.clear();
        }
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn peer(number: u8) -> EndpointId {
        SecretKey::from_bytes(&[number; 32]).public()
    }

    fn peers(numbers: &[u8]) -> BTreeSet<EndpointId> {
        numbers.iter().map(|number| peer(*number)).collect()
    }

    #[test]
    fn the_first_peer_of_all_completes_and_only_once() {
        let mut history = History::new(HistoryPolicy::First);
        assert!(history.vouched(peer(1), false, &peers(&[1, 2])));
        assert!(!history.vouched(peer(2), true, &peers(&[1, 2])));
    }

    #[test]
    fn by_default_the_first_that_the_policy_trusts_completes() {
        let mut history = History::new(HistoryPolicy::default());
        assert!(!history.vouched(peer(1), false, &peers(&[1, 2])));
        assert!(history.vouched(peer(2), true, &peers(&[1, 2])));
    }

    #[test]
    fn only_a_named_peer_completes_where_some_are_named() {
        let named = HistoryPolicy::FirstTrusted(Some(vec![peer(3)]));
        let mut history = History::new(named);
        assert!(!history.vouched(peer(1), true, &peers(&[1, 2, 3])));
        assert!(history.vouched(peer(3), false, &peers(&[1, 2])));
    }

    #[test]
    fn more_than_half_of_those_that_are_neighbors_now_complete() {
        let mut history = History::new(HistoryPolicy::Majority);
        assert!(!history.vouched(peer(1), false, &peers(&[1, 2, 3, 4])));
        assert!(!history.vouched(peer(1), false, &peers(&[1, 2, 3, 4])));
        assert!(!history.vouched(peer(2), false, &peers(&[2, 3, 4])));
        assert!(history.vouched(peer(3), false, &peers(&[2, 3, 4])));
    }
}
