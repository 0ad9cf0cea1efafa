//! Which topic a space speaks on, and how large a message on it may be.

use core::fmt;

use headwater_wire::SpaceId;
use iroh_gossip::TopicId;

/// Separates topic ids from every other use of the secret. Part of the format.
const TOPIC_CONTEXT: &str = "headwater 2026-11 gossip topic of a space";

/// iroh-gossip's own limit for one message, in bytes, where the builder sets no other.
pub const DEFAULT_TOPIC_MESSAGE_BYTES: usize = iroh_gossip::proto::DEFAULT_MAX_MESSAGE_SIZE;

/// What to leave for iroh-gossip's own fields around a message, in bytes.
///
/// 39 were measured at the default limit, one hop from the sender. The length and the hop count
/// among them are varints, so a larger limit and a longer way take a few more.
pub const ENVELOPE_BYTES: usize = 48;

/// Largest announcement, in bytes, on a topic whose messages may have `topic_message_bytes`.
///
/// iroh-gossip reports an oversized broadcast as sent, drops it, and never again sends on that
/// link: the size must be known to fit before.
pub const fn max_announcement_bytes(topic_message_bytes: usize) -> usize {
    topic_message_bytes.saturating_sub(ENVELOPE_BYTES)
}

/// What a node must know besides a space's id to find its topic.
///
/// iroh-gossip asks nobody who joins: whoever can compute the topic can listen, and can speak.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicSecret([u8; 32]);

impl TopicSecret {
    /// Wraps 32 bytes, which should come from a good source of randomness.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be stored or put into a ticket.
    pub const fn to_bytes(&self) -> [u8; 32] {
        self.0
    }
}

/// Never prints the secret.
impl fmt::Debug for TopicSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicSecret(..)")
    }
}

/// The topic of a space: BLAKE3 in key derivation mode over secret and space.
///
/// Another secret gives an unrelated topic, and neither the space nor the secret can be told
/// from the topic.
pub fn topic_id(space: &SpaceId, secret: &TopicSecret) -> TopicId {
    let mut hasher = blake3::Hasher::new_derive_key(TOPIC_CONTEXT);
    hasher.update(&secret.0).update(space.as_bytes());
    TopicId::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_the_one_written_down() {
        let topic = topic_id(
            &SpaceId::from_bytes([1; 32]),
            &TopicSecret::from_bytes([2; 32]),
        );
        assert_eq!(
            data_encoding::HEXLOWER.encode(topic.as_bytes()),
            "9c00a8ab3b0f4f7b476421b1d6337bc707cd7d0e9ec60e462edfcbb465396a14"
        );
    }

    #[test]
    fn another_space_or_another_secret_gives_another_topic() {
        let (one, two) = ([1; 32], [2; 32]);
        let topic = |space, secret| {
            topic_id(
                &SpaceId::from_bytes(space),
                &TopicSecret::from_bytes(secret),
            )
        };
        assert_ne!(topic(one, one), topic(one, two));
        assert_ne!(topic(one, one), topic(two, one));
        assert_ne!(topic(one, two), topic(two, one));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", TopicSecret::from_bytes([0xab; 32]));
        assert!(
            !printed.contains("171") && !printed.contains("ab"),
            "{printed}"
        );
    }

    #[test]
    fn the_largest_announcement_leaves_room_for_the_envelope_and_never_underflows() {
        assert_eq!(max_announcement_bytes(DEFAULT_TOPIC_MESSAGE_BYTES), 4048);
        assert_eq!(max_announcement_bytes(10), 0);
    }
}
