//! Every bound of a bridge, with its default and its reason.

use std::time::Duration;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often a second in the long run. 0 is taken for 1.
    pub per_second: u32,
    /// How often at once after a quiet time. 0 is taken for 1.
    pub burst: u32,
}

/// What a bridge allows its peers, for each space it has joined.
///
/// Start from [`BridgeLimits::default`] and change fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BridgeLimits {
    /// Announcements taken from one sender. Default 100 a second and 400 at once: an honest
    /// sender coalesces what changes within 50 ms into at most four announcements. Only
    /// announcements the sender did sign count against it, so nobody can use up another's share.
    pub sender: Rate,
    /// Messages with runs of one author that were news. Default 100 a second and 400 at once, for the
    /// same reason. What is held already does not count, so whoever sends an author's runs again uses up
    /// a share of its own.
    pub author: Rate,
    /// Messages taken from one neighbour that turn out to be nobody's. It has four such shares:
    /// for what it forges in its own name, for what is forged in the name of known senders and authors, or
    /// is an author's and no news, for senders and authors not heard of before, and for the rest (not
    /// decodable, replayed, of the older exchange). Default 100 a second and 500 at once: a signature check costs some 50 µs, so each
    /// of the first three is some 5 ms of a core a second. The last is not checked but decoded, a
    /// few µs; what is in it beyond the share is decoded all the same, as that is how it is known.
    /// What known senders and authors signed is not counted, whoever passes it on: a neighbour relays what
    /// others say.
    pub neighbor: Rate,
    /// Messages one neighbour may relay that are forged in the name of one known sender or author.
    /// Default 5 a second and 20 at once, a twentieth of the neighbour's share for all known
    /// names: forging one name by way of a neighbour silences that name by way of that neighbour,
    /// and forging twenty of them all the names it relays. Both are still heard by way of others.
    pub forged: Rate,
    /// Messages of all known senders and authors together that one neighbour may relay. Default 2,000 a
    /// second and 4,000 at once, some tenth of a core: 25 senders as busy as one can be, or
    /// thousands that chat. This bounds what any number of keys behind one neighbour can cost;
    /// above it what is dropped is found again by digest, and pulled.
    pub relayed: Rate,
    /// Senders whose last counter is remembered, and authors who sent something new. Default 4,096 of
    /// each, some 600 KiB. Of senders the one not heard for the longest time goes first; its old
    /// announcements could then be replayed, which costs at most one pull that finds nothing. Of authors
    /// those go that have not used up anything of their share.
    pub senders: usize,
    /// Neighbours whose share is remembered. Default 256, far above the handful iroh-gossip keeps.
    pub neighbors: usize,
    /// Checked announcements that may wait for the store. Default 256, 1 MiB at the default size
    /// of a message. While so many wait nothing is read from the topic, and what iroh-gossip then
    /// drops is counted as a lag and healed.
    pub waiting: usize,
    /// How long the node's policy may take to say whether a peer may read. Default 5 s. Who was not
    /// answered for by then is not believed and not pulled from; the loop goes on meanwhile.
    pub policy_timeout: Duration,
    /// Peers the policy may be asked about at a time, neighbours not counted. Default 256, with at
    /// most four messages of each, 4 MiB at the default size of a message. What comes on top is
    /// dropped and healed like a loss. A policy that answers at once is never behind.
    pub policy_asks: usize,
    /// When a neighbour is asked about again that the policy refused, or did not answer for.
    /// Default 1 min: who is granted access is heard before, by what it announces.
    pub policy_again: Duration,
    /// Events iroh-gossip holds for this node before it drops some. Default 2,048.
    pub topic_queue: usize,
    /// How long handing one message to iroh-gossip may take. Default 5 s; its queue is only ever
    /// full for that long when it has stopped working, and the topic is then joined anew.
    pub broadcast_timeout: Duration,
    /// First and longest pause before the topic is joined anew, or bootstrap peers are asked
    /// again while there is no neighbour. Doubles each time. Default 1 s and 1 min.
    pub rejoin: (Duration, Duration),
    /// How long the topic of the secret before is still listened to after the owner set another.
    /// Default 5 min: whoever missed the change announces a digest there within
    /// [Imax](headwater_proto::announcer::TrickleConfig::i_max_doublings), two minutes by default,
    /// is then pulled from, and asks back. Nothing is said there meanwhile. Who is away for longer
    /// learns of the new topic by a sync.
    pub topic_grace: Duration,
    /// Peers remembered to ask again when every neighbour is gone. Default 32.
    pub remembered_peers: usize,
    /// Least time between two answers to requests of the older exchange. Default 5 s: everybody
    /// on the topic hears the request, and the answer.
    pub legacy_answer_every: Duration,
    /// Least time between two requests in the words of the older exchange, made when an old peer
    /// was heard to ask. Default 2 min: its answer is a dump to everybody.
    pub legacy_ask_every: Duration,
}

impl Default for BridgeLimits {
    fn default() -> Self {
        Self {
            sender: Rate {
                per_second: 100,
                burst: 400,
            },
            author: Rate {
                per_second: 100,
                burst: 400,
            },
            neighbor: Rate {
                per_second: 100,
                burst: 500,
            },
            forged: Rate {
                per_second: 5,
                burst: 20,
            },
            relayed: Rate {
                per_second: 2000,
                burst: 4000,
            },
            senders: 4096,
            neighbors: 256,
            waiting: 256,
            policy_timeout: Duration::from_secs(5),
            policy_asks: 256,
            policy_again: Duration::from_mins(1),
            topic_queue: 2048,
            broadcast_timeout: Duration::from_secs(5),
            topic_grace: Duration::from_mins(5),
            rejoin: (Duration::from_secs(1), Duration::from_mins(1)),
            remembered_peers: 32,
            legacy_answer_every: Duration::from_secs(5),
            legacy_ask_every: Duration::from_mins(2),
        }
    }
}
