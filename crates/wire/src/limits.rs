//! Every bound of the format, with its reason.
//!
//! These are properties of the protocol: changing one changes what a peer may send. What a
//! node is willing to spend (rates, waits, buffers) is configuration and lives with the node.

/// Largest payload of one event, in bytes. A larger body is an iroh-blobs blob whose hash
/// stands in the payload.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Largest frame body (tag and message), in bytes: one largest event and its header, so that
/// buffering stays bounded.
pub const MAX_FRAME_BYTES: usize = MAX_PAYLOAD_BYTES + 64 * 1024;

/// Largest run, in bytes at its full length: a frame less the fields of the batch around it. A
/// run counts with what it could grow to when it is cut or turned to stubs, so that no part of a
/// legal run is illegal.
pub const MAX_RUN_BYTES: usize = MAX_FRAME_BYTES - 64;

/// Size a signer cuts runs at, in bytes: large enough that the signature and the run's fixed
/// part vanish beside the events, small enough to hash again when a part of it is asked for, and
/// just under 128 KiB, because a B-tree rounds large values up to a power of two of pages: 64 bytes
/// leave room for a store's key and page header.
pub const TARGET_RUN_BYTES: usize = 128 * 1024 - 64;

/// Most events in one run: bounds what one signature check may cost in hashes.
pub const MAX_RUN_EVENTS: usize = 1024;

/// Size a responder fills batches to, in bytes: the grain of progress, and enough runs to spread
/// the hand-overs of a batch between threads over.
pub const TARGET_BATCH_BYTES: usize = 512 * 1024;

/// Most runs in one batch. Every author of a segment may be a run of its own.
pub const MAX_BATCH_RUNS: usize = 4096;

/// Most causal references of one event.
pub const MAX_DEPS: usize = 64;

/// Longest channel name, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 64;

/// Highest sequence number: 2^53, exact in every language with 64-bit floats, and far enough
/// from `u64::MAX` that `seq + 1` never overflows.
pub const MAX_SEQ: u64 = 1 << 53;

/// Most heads in one chunk: about 70 KB.
pub const MAX_CHUNK_HEADS: usize = 1024;

/// Most authors in one segment of an answer; bounds what both sides hold at a time.
pub const MAX_SEGMENT_AUTHORS: usize = 1024;

/// Length of the random payload of a genesis event, in bytes.
pub const GENESIS_NONCE_BYTES: usize = 16;

/// Length of a gossip topic's secret, in bytes: as many as its key derivation takes in.
pub const TOPIC_SECRET_BYTES: usize = 32;

/// Most values on one axis of a filter (authors, channels, kinds): a filter names a view, it
/// does not enumerate a database.
pub const MAX_FILTER_VALUES: usize = 1024;

/// Most heads that changed on the requester's side beside a cursor; above that a full clock
/// is as cheap.
pub const MAX_CURSOR_HEADS: usize = 1024;

/// Most prefixes of the heads tree asked for in one message.
pub const MAX_TREE_PREFIXES: usize = 256;

/// Most ranges in one payload request.
pub const MAX_PAYLOAD_WANTS: usize = 1024;

/// Most ids in a fork locator: head − 2^k for every k that [`MAX_SEQ`] allows.
pub const MAX_LOCATOR_IDS: usize = 64;

/// Most subjects whose revocations above a fork of the owner's log are told apart: what is kept and
/// exchanged of them stays small. An owner who forks and revoked more than so many takes
/// everything from everybody: nobody can be let in wrongly.
pub const MAX_REVOKED_SUBJECTS: usize = 1024;

/// Most runs that show such revocations in one exchange. What is left over comes with the next.
pub const MAX_EVIDENCE_RUNS: usize = 1024;

/// Most events in a legacy dump (the old protocol's own bound).
pub const MAX_LEGACY_EVENTS: usize = 500;
