use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    AuthorHead, AuthorId, AuthorProof, AuthorSecret, ChannelId, ClockEntry, EventDraft, EventId,
    EventRef, FrameDecoder, HeadsDigest, Invitation, MemberKey, Revocation, RevokedDigest, Roles,
    Signature, SpaceId, Subject, sign_runs,
};

fn frame_bytes(message: &Message) -> Bytes {
    let mut bytes = BytesMut::new();
    for chunk in message.encode_frame().unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes.freeze()
}

fn read_back(bytes: &[u8]) -> Result<Option<Message>, DecodeError> {
    let mut decoder = FrameDecoder::new();
    let mut bytes = bytes;
    let frame = decoder.read(&mut bytes)?.unwrap();
    assert!(decoder.is_at_boundary());
    Message::decode_body(frame)
}

fn author() -> impl Strategy<Value = AuthorId> {
    any::<[u8; 32]>().prop_map(AuthorId::from_bytes)
}

fn authors() -> impl Strategy<Value = Vec<AuthorId>> {
    prop::collection::btree_set(author(), 0..5).prop_map(|set| set.into_iter().collect())
}

fn digest() -> impl Strategy<Value = HeadsDigest> {
    any::<[u8; 32]>().prop_map(HeadsDigest::from_bytes)
}

fn head() -> impl Strategy<Value = AuthorHead> {
    (1..=crate::limits::MAX_SEQ, any::<[u8; 32]>()).prop_map(|(seq, id)| AuthorHead {
        seq,
        id: EventId::from_bytes(id),
    })
}

fn entry() -> impl Strategy<Value = ClockEntry> {
    let revoked = prop::option::of(any::<[u8; 32]>());
    let parts = (author(), head(), any::<bool>(), revoked);
    parts.prop_map(|(author, head, forked, revoked)| ClockEntry {
        author,
        head,
        forked,
        revoked: revoked
            .filter(|_| forked)
            .map_or(RevokedDigest::NONE, RevokedDigest::from_bytes),
    })
}

fn revocations() -> impl Strategy<Value = Vec<Revocation>> {
    let one = (
        prop::option::of(any::<[u8; 32]>()),
        1u8..8,
        prop::option::of(head()),
    );
    let one = one.prop_map(|(key, bits, last)| {
        let roles = Roles::from_bits(bits).unwrap();
        let may_end = key.is_some() && roles.contains(Roles::WRITE);
        Revocation {
            subject: key.map_or(Subject::Anyone, |key| MemberKey::from_bytes(key).into()),
            roles,
            last: last.filter(|_| may_end),
        }
    });
    prop::collection::vec(one, 0..5).prop_map(|mut held| {
        held.sort_by_key(|entry| entry.subject);
        held.dedup_by_key(|entry| entry.subject);
        held
    })
}

fn entries() -> impl Strategy<Value = Vec<ClockEntry>> {
    prop::collection::vec(entry(), 0..5).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.author);
        entries.dedup_by_key(|entry| entry.author);
        entries
    })
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (any::<[u8; 16]>(), any::<u64>(), digest()).prop_map(|(store, generation, digest)| Cursor {
        store,
        generation,
        digest,
    })
}

fn author_filter() -> impl Strategy<Value = AuthorFilter> {
    prop_oneof![
        Just(AuthorFilter::All),
        authors().prop_map(AuthorFilter::Only),
        authors().prop_map(AuthorFilter::Except),
    ]
}

fn filter() -> impl Strategy<Value = SyncFilter> {
    let channel =
        prop::collection::vec(any::<u8>(), 1..=64).prop_map(|name| ChannelId::new(name).unwrap());
    let channels = prop::collection::btree_set(channel, 0..4);
    let kinds = prop::collection::btree_set(any::<u16>(), 0..4);
    (
        author_filter(),
        prop::option::of(channels),
        prop::option::of(kinds),
        any::<Option<u64>>(),
    )
        .prop_map(|(authors, channels, kinds, since_ms)| SyncFilter {
            authors,
            channels: channels.map(|set| set.into_iter().collect()),
            kinds: kinds.map(|set| set.into_iter().collect()),
            since_ms,
        })
}

fn totals() -> impl Strategy<Value = PlanTotals> {
    any::<[u64; 3]>().prop_map(|[authors, events, payload_bytes]| PlanTotals {
        authors,
        events,
        payload_bytes,
    })
}

/// Byte strings where runs stand: some shared, some copied into the frame.
fn runs() -> impl Strategy<Value = Vec<Bytes>> {
    let run = prop_oneof![
        prop::collection::vec(any::<u8>(), 65..100),
        Just(vec![7; SHARE_FROM_BYTES]),
    ];
    prop::collection::vec(run.prop_map(Bytes::from), 0..5)
}

fn request() -> impl Strategy<Value = Message> {
    let clock = prop_oneof![
        Just(Clock::Heads),
        digest().prop_map(Clock::Digest),
        (cursor(), entries()).prop_map(|(cursor, changed)| Clock::Cursor { cursor, changed }),
    ];
    (
        any::<u64>(),
        any::<[u8; 32]>(),
        clock,
        filter(),
        any::<[Option<u64>; 2]>(),
        any::<bool>(),
    )
        .prop_map(|(request_id, space, clock, filter, budget, live)| {
            SyncRequestV2 {
                request_id,
                space: SpaceId::from_bytes(space),
                clock,
                filter,
                budget: Budget {
                    events: budget[0],
                    payload_bytes: budget[1],
                },
                live,
            }
            .into()
        })
}

fn answer() -> impl Strategy<Value = Message> {
    let id = any::<u64>();
    let segment = prop_oneof![
        Just(Segment::Owner),
        author().prop_map(Segment::Through),
        Just(Segment::Last),
    ];
    let outcome = prop_oneof![
        Just(SyncOutcome::Complete),
        Just(SyncOutcome::Truncated(Truncation::Budget)),
        Just(SyncOutcome::Truncated(Truncation::Stubbed)),
        id.prop_map(|authors| SyncOutcome::Truncated(Truncation::Forked { authors })),
        id.prop_map(|authors| SyncOutcome::Truncated(Truncation::NotAccepted { authors })),
        id.prop_map(|authors| SyncOutcome::Truncated(Truncation::OverQuota { authors })),
    ];
    let last_event = (author(), head()).prop_map(|(author, head)| EventRef {
        author,
        seq: head.seq,
        id: head.id,
    });
    let receipt = prop::collection::vec(any::<u8>(), 64)
        .prop_map(|bytes| Signature::from_bytes(bytes.try_into().unwrap()));
    prop_oneof![
        (id, entries(), any::<bool>()).prop_map(|(request_id, heads, last)| HeadsChunk {
            request_id,
            heads,
            last
        }
        .into()),
        id.prop_map(|request_id| HeadsWanted { request_id }.into()),
        (id, segment, totals(), totals()).prop_map(|(request_id, segment, totals, rest)| {
            SyncPlan {
                request_id,
                segment,
                totals,
                rest,
            }
            .into()
        }),
        (id, any::<bool>(), runs()).prop_map(|(request_id, more, runs)| SyncBatchV2 {
            request_id,
            more,
            runs
        }
        .into()),
        (
            id,
            outcome,
            prop::option::of(last_event),
            any::<[u64; 3]>(),
            digest(),
            prop::option::of(cursor()),
            prop::option::of(receipt)
        )
            .prop_map(
                |(request_id, outcome, last_event, numbers, joined_digest, cursor, receipt)| {
                    HistorySyncComplete {
                        request_id,
                        outcome,
                        last_event,
                        events: numbers[0],
                        stubs: numbers[1],
                        joined_digest,
                        stream_generation: numbers[2],
                        cursor,
                        receipt,
                    }
                    .into()
                }
            ),
        (id, runs()).prop_map(|(request_id, runs)| LiveBatch { request_id, runs }.into()),
        (id, id).prop_map(|(request_id, missed)| LiveLagged { request_id, missed }.into()),
        (id, id).prop_map(|(request_id, retry_after_ms)| Busy {
            request_id,
            retry_after_ms
        }
        .into()),
        (id, entry(), prop::option::of(entry())).prop_map(|(request_id, held, stated)| {
            let author = held.author;
            ForkNotice {
                request_id,
                author,
                stated: stated.map(|stated| ClockEntry { author, ..stated }),
                held,
            }
            .into()
        }),
    ]
}

fn prefixes() -> impl Strategy<Value = BTreeSet<TreePrefix>> {
    let prefix =
        (author(), 0..=64usize).prop_map(|(author, depth)| TreePrefix::of(&author, depth).unwrap());
    prop::collection::btree_set(prefix, 0..5)
}

fn deferred() -> impl Strategy<Value = Message> {
    let id = any::<u64>();
    let child = prop_oneof![
        digest().prop_map(TreeChild::Inner),
        entry().prop_map(TreeChild::Leaf),
    ];
    let children = prop::collection::btree_map(0u8..16, child, 0..16);
    let want = (author(), 1u64..1000, 0u64..1000).prop_map(|(author, first, more)| PayloadWant {
        author,
        first,
        last: first + more,
    });
    let payload = prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
    let payload =
        (author(), 1u64..1000, payload).prop_map(|(author, seq, payload)| PayloadAnswer {
            author,
            seq,
            payload,
        });
    let rungs = prop::collection::btree_map(1..1u64 << 53, any::<[u8; 32]>(), 0..64);
    prop_oneof![
        (id, prefixes()).prop_map(|(request_id, prefixes)| TreeRequest {
            request_id,
            prefixes: prefixes.into_iter().collect()
        }
        .into()),
        (id, prefixes(), children).prop_map(|(request_id, prefixes, children)| TreeNodes {
            request_id,
            nodes: prefixes
                .into_iter()
                .map(|prefix| TreeNode {
                    prefix,
                    children: children.clone().into_iter().collect()
                })
                .collect()
        }
        .into()),
        (
            id,
            any::<[u8; 32]>(),
            prop::collection::vec(want, 0..4),
            filter()
        )
            .prop_map(|(request_id, space, wants, filter)| PayloadRequest {
                request_id,
                space: SpaceId::from_bytes(space),
                wants,
                filter
            }
            .into()),
        (id, any::<bool>(), prop::collection::vec(payload, 0..4)).prop_map(
            |(request_id, more, payloads)| PayloadBatch {
                request_id,
                more,
                payloads
            }
            .into()
        ),
        (id, any::<[u8; 32]>(), author(), any::<bool>(), rungs).prop_map(
            |(request_id, space, author, forked, rungs)| ForkLocator {
                request_id,
                space: SpaceId::from_bytes(space),
                author,
                forked,
                entries: rungs
                    .into_iter()
                    .map(|(seq, id)| AuthorHead {
                        seq,
                        id: EventId::from_bytes(id)
                    })
                    .collect()
            }
            .into()
        ),
        (
            id,
            any::<bool>(),
            0..1u64 << 40,
            prop::option::of(1..1u64 << 40)
        )
            .prop_map(|(request_id, forked, same, above)| ForkAnswer {
                request_id,
                forked,
                same,
                differs: above.map(|above| same + above)
            }
            .into()),
        (id, runs()).prop_map(|(request_id, runs)| ForkBranch {
            request_id,
            run: runs.first().cloned()
        }
        .into()),
        (id, revocations()).prop_map(|(request_id, held)| ForkRevoked { request_id, held }.into()),
        (id, 0..1u64 << 40, 1..1u64 << 40).prop_map(|(request_id, above, more)| ForkWant {
            request_id,
            above,
            through: above + more
        }
        .into()),
    ]
}

fn redemption() -> impl Strategy<Value = Message> {
    let invite =
        (any::<[u8; 32]>(), 1u8..8, any::<u64>()).prop_map(|(bytes, roles, expires_ms)| {
            let owner = AuthorSecret::from_bytes(bytes);
            let roles = Roles::from_bits(roles).unwrap();
            let space = SpaceId::from_bytes(bytes);
            *Invitation::sign(&owner, space, roles, expires_ms, owner.clone()).invite()
        });
    let redeem = (any::<u64>(), invite, prop::option::of(author()));
    prop_oneof![
        redeem.prop_map(|(request_id, invite, author)| {
            Redeem {
                request_id,
                invite,
                author: author.map(|author| AuthorProof {
                    author,
                    signature: invite.signature,
                }),
                proof: invite.signature,
            }
            .into()
        }),
        any::<u64>().prop_map(|request_id| Redeemed { request_id }.into()),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![request(), answer(), deferred(), redemption()]
}

proptest! {
    #[test]
    fn every_message_round_trips(message in any_message()) {
        prop_assert_eq!(read_back(&frame_bytes(&message)), Ok(Some(message)));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        message in any_message(),
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut bytes = frame_bytes(&message).to_vec();
        let at = 4 + at.index(bytes.len() - 4);
        bytes[at] = value;
        if let Ok(Some(read)) = read_back(&bytes) {
            prop_assert_eq!(&frame_bytes(&read)[..], &bytes[..]);
        }
    }

    #[test]
    fn a_message_cut_short_or_with_a_byte_more_is_refused(
        message in any_message(),
        cut: prop::sample::Index,
    ) {
        let body = frame_bytes(&message).slice(4..);
        let cut = cut.index(body.len());
        prop_assert!(Message::decode_body(body.slice(..cut)).is_err());
        let longer = Bytes::from([&body[..], &[0]].concat());
        prop_assert!(Message::decode_body(longer).is_err());
    }

    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode_body(bytes.into());
    }
}

#[test]
fn an_unknown_tag_is_skipped_if_additive_and_refused_otherwise() {
    let additive = Bytes::from_static(&[FIRST_ADDITIVE_TAG, 1, 2, 3]);
    assert_eq!(Message::decode_body(additive), Ok(None));
    for tag in (0..FIRST_ADDITIVE_TAG).filter(|tag| !Message::TAGS.iter().any(|(t, _)| t == tag)) {
        assert_eq!(
            Message::decode_body(vec![tag, 1].into()),
            Err(DecodeError::UnknownTag { tag })
        );
    }
    assert_eq!(
        Message::decode_body(Bytes::new()),
        Err(DecodeError::EmptyFrame)
    );
}

#[test]
fn a_claimed_count_reserves_nothing_the_bytes_do_not_hold() {
    // 1,024 heads claimed in 3 bytes, and 4,096 runs claimed in 3.
    for body in [&[2, 1, 0x80, 8, 0][..], &[5, 1, 1, 0x80, 0x20, 0]] {
        assert!(matches!(
            Message::decode_body(Bytes::copy_from_slice(body)),
            Err(DecodeError::Truncated { .. })
        ));
    }
}

#[test]
fn a_batch_shares_its_large_runs_with_the_store_and_the_frame() {
    let drafts = (0..100).map(|n| EventDraft::new(16, n, vec![1; 100]));
    let secret = AuthorSecret::from_bytes([1; 32]);
    let space = SpaceId::from_bytes([2; 32]);
    let run = sign_runs(&space, &secret, None, drafts).unwrap().remove(0);
    let bytes = run.run().as_bytes().clone();
    let message = Message::from(SyncBatchV2 {
        request_id: 1,
        more: true,
        runs: vec![bytes.clone()],
    });
    let frame = message.encode_frame().unwrap();
    assert!(frame.iter().any(|chunk| chunk.as_ptr() == bytes.as_ptr()));

    let body = frame_bytes(&message).slice(4..);
    let within = body.as_ptr_range();
    let Ok(Some(Message::SyncBatchV2(read))) = Message::decode_body(body) else {
        panic!("not a batch");
    };
    assert!(within.contains(&read.runs[0].as_ptr()));
}

#[test]
fn a_message_longer_than_a_frame_is_not_encoded() {
    let message = Message::from(LiveBatch {
        request_id: 1,
        runs: vec![Bytes::from(vec![0; MAX_RUN_BYTES]); 2],
    });
    assert_eq!(message.encode_frame().unwrap_err().max, MAX_FRAME_BYTES);
}
