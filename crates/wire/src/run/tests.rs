use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    codec::DecodeError,
    event::EventDraft,
    ids::Signature,
    key::{AuthorKeyError, AuthorSecret},
    limits::{MAX_DEPS, MAX_PAYLOAD_BYTES, MAX_SEQ, TARGET_RUN_BYTES},
};

fn secret(seed: u8) -> AuthorSecret {
    AuthorSecret::from_bytes([seed; 32])
}

fn space() -> SpaceId {
    sign_genesis(&secret(1), [5; 16], 1_700_000_000_000).space()
}

fn draft_strategy() -> impl Strategy<Value = EventDraft> {
    let channel = prop::option::of(prop::sample::select(vec!["a", "general", "é"]));
    let dep = (any::<[u8; 32]>(), 1..=MAX_SEQ, any::<[u8; 32]>()).prop_map(|(author, seq, id)| {
        EventRef {
            author: AuthorId::from_bytes(author),
            seq,
            id: EventId::from_bytes(id),
        }
    });
    (
        16..=u16::MAX,
        channel,
        prop::collection::vec(dep, 0..3),
        any::<u64>(),
        prop::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(kind, channel, deps, timestamp_ms, payload)| EventDraft {
            kind,
            channel: channel.map(|name| ChannelId::new(name).unwrap()),
            deps,
            timestamp_ms,
            payload: payload.into(),
        })
}

fn drafts_strategy() -> impl Strategy<Value = Vec<EventDraft>> {
    prop::collection::vec(draft_strategy(), 1..20)
}

fn base_strategy() -> impl Strategy<Value = Option<AuthorHead>> {
    prop::option::of(
        (1u64..1 << 40, any::<[u8; 32]>()).prop_map(|(seq, id)| AuthorHead {
            seq,
            id: EventId::from_bytes(id),
        }),
    )
}

fn signed(drafts: Vec<EventDraft>, base: Option<AuthorHead>) -> VerifiedRun {
    let mut runs = sign_runs(&space(), &secret(2), base, drafts).unwrap();
    assert_eq!(runs.len(), 1);
    runs.remove(0)
}

fn texts(count: usize) -> Vec<EventDraft> {
    (0..count)
        .map(|n| EventDraft::new(16, 1_000 + n as u64, format!("event {n}")))
        .collect()
}

proptest! {
    #[test]
    fn a_run_reads_back_and_verifies_as_it_was_signed(
        drafts in drafts_strategy(),
        base in base_strategy(),
    ) {
        let signed = signed(drafts.clone(), base);
        let run = Run::decode(signed.run().as_bytes().clone()).unwrap();
        prop_assert_eq!(&run, signed.run());
        let verified = run.verify(&space()).unwrap();
        prop_assert_eq!(&verified, &signed);
        let first_seq = base.map_or(1, |base| base.seq + 1);
        let mut prev = base.map(|base| base.id);
        for (at, (event, draft)) in verified.events().zip(&drafts).enumerate() {
            prop_assert_eq!(event.header.seq, first_seq + at as u64);
            prop_assert_eq!(event.header.prev, prev);
            prop_assert_eq!(event.header.id(), event.id);
            prop_assert_eq!(event.header.kind, draft.kind);
            prop_assert_eq!(&event.header.channel, &draft.channel);
            prop_assert_eq!(&event.header.deps, &draft.deps);
            prop_assert_eq!(event.header.timestamp_ms, draft.timestamp_ms);
            prop_assert_eq!(event.payload.as_ref(), Some(&draft.payload));
            prev = Some(event.id);
        }
        prop_assert_eq!(verified.events().count(), drafts.len());
        prop_assert_eq!(Some(verified.head().id), prev);
    }

    #[test]
    fn what_decodes_is_the_only_encoding_of_it(
        drafts in drafts_strategy(),
        base in base_strategy(),
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut bytes = signed(drafts, base).run().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(run) = Run::decode(bytes.clone().into()) {
            let again = run.recut(0, run.first_prev, |_| true);
            prop_assert_eq!(&again.as_bytes()[..], &bytes[..]);
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(run) = Run::decode(bytes.into()) {
            let _ = run.verify(&space());
        }
    }

    #[test]
    fn stubs_keep_ids_and_signature(drafts in drafts_strategy(), kept: u32) {
        let whole = signed(drafts, None);
        let keep = |index: usize| kept >> (index % 32) & 1 == 1;
        let thin = whole.run().with_stubs(keep);
        let thin = Run::decode(thin.as_bytes().clone()).unwrap();
        let verified = thin.verify(&space()).unwrap();
        prop_assert_eq!(verified.ids(), whole.ids());
        for (index, (thin, whole)) in verified.events().zip(whole.events()).enumerate() {
            prop_assert_eq!(&thin.header, &whole.header);
            let stub = !keep(index) && whole.header.payload_len > 0;
            prop_assert_eq!(thin.payload.is_none(), stub);
        }
    }

    #[test]
    fn a_tail_is_the_run_that_would_have_been_signed(drafts in drafts_strategy(), cut: prop::sample::Index) {
        let whole = signed(drafts.clone(), None);
        let at = cut.index(drafts.len()) as u64;
        let tail = whole.above(at).unwrap();
        prop_assert_eq!(tail.first_seq(), at + 1);
        prop_assert_eq!(&whole.run().above(&space(), at).unwrap(), tail.run());
        prop_assert_eq!(tail.base().map(|base| base.id), whole.id_at(at));
        let read = Run::decode(tail.run().as_bytes().clone()).unwrap().verify(&space()).unwrap();
        prop_assert_eq!(read.head(), whole.head());
        prop_assert_eq!(whole.above(whole.last_seq()), None);
    }

    #[test]
    fn runs_merge_into_the_run_of_all_their_events(sizes in prop::collection::vec(1usize..6, 1..6)) {
        let (mut runs, mut head) = (Vec::new(), None);
        for size in &sizes {
            let run = signed(texts(*size), head);
            head = Some(run.head());
            runs.push(run.into_run());
        }
        let merged = merge_runs(&runs).unwrap();
        let read = Run::decode(merged.as_bytes().clone()).unwrap().verify(&space()).unwrap();
        prop_assert_eq!(Some(read.head()), head);
        prop_assert_eq!(read.run().event_count(), sizes.iter().sum::<usize>());
        if runs.len() > 2 {
            runs.remove(1);
            prop_assert_eq!(merge_runs(&runs), None);
        }
    }
}

proptest! {
    // Every bit of every case is a signature check.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn one_flipped_bit_anywhere_is_refused(
        drafts in prop::collection::vec(draft_strategy(), 1..5),
        base in base_strategy(),
        stub: bool,
    ) {
        let mut run = signed(drafts, base).into_run();
        if stub {
            run = run.with_stubs(|index| index % 2 == 1);
        }
        let good = run.as_bytes().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let refused = match Run::decode(bad.into()) {
                Err(_) => true,
                Ok(run) => run.verify(&space()).is_err(),
            };
            prop_assert!(refused, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn an_event_of_200_bytes_costs_at_most_eight_more_in_a_run() {
    let drafts = (0..200u64).map(|n| EventDraft::new(16, 1_000_000 + 60 * n, vec![n as u8; 200]));
    let run = signed(drafts.collect(), None);
    let overhead = run.run().as_bytes().len() - 200 * 200;
    assert!(overhead <= 200 * 8, "{overhead}");
}

#[test]
fn a_batch_is_cut_at_1024_events_and_below_the_target_size_with_one_signature_each() {
    let runs = sign_runs(&space(), &secret(2), None, texts(3_000)).unwrap();
    let counts: Vec<_> = runs.iter().map(|run| run.run().event_count()).collect();
    assert_eq!(counts, [1024, 1024, 952]);
    for two in runs.windows(2) {
        assert_eq!(two[1].base(), Some(two[0].head()));
    }
    let big = (0..32).map(|_| EventDraft::new(16, 0, vec![0; 4_000]));
    for run in sign_runs(&space(), &secret(2), None, big).unwrap() {
        assert!(run.run().as_bytes().len() <= TARGET_RUN_BYTES);
        assert!(run.run().event_count() >= 10);
    }
}

#[test]
fn the_largest_event_fits_a_run_and_a_larger_payload_is_refused_by_its_draft() {
    let dep = EventRef {
        author: secret(3).id(),
        seq: MAX_SEQ,
        id: EventId::from_bytes([0; 32]),
    };
    let mut largest = EventDraft::new(u16::MAX, u64::MAX, vec![0; MAX_PAYLOAD_BYTES])
        .in_channel(ChannelId::new([b'c'; 64]).unwrap())
        .after([dep; MAX_DEPS]);
    let base = AuthorHead {
        seq: MAX_SEQ - 1,
        id: EventId::from_bytes([0; 32]),
    };
    let run = signed(vec![largest.clone()], Some(base));
    let run = Run::decode(run.run().as_bytes().clone()).unwrap();
    assert!(run.verify(&space()).is_ok());

    largest.payload = vec![0; MAX_PAYLOAD_BYTES + 1].into();
    assert_eq!(
        sign_runs(&space(), &secret(2), None, [largest]),
        Err(DraftError::PayloadTooLarge {
            index: 0,
            found: MAX_PAYLOAD_BYTES + 1
        })
    );
}

#[test]
fn a_topic_secret_is_drafted_in_its_one_form() {
    let run = sign_runs(
        &space(),
        &secret(2),
        None,
        [EventDraft::topic_secret([7; 32], 1)],
    )
    .unwrap()
    .remove(0);
    let event = run.events().next().unwrap();
    assert_eq!(event.topic_secret(), Some([7; 32]));
    let mut short = EventDraft::topic_secret([7; 32], 1);
    short.payload = short.payload.slice(1..);
    let in_channel =
        EventDraft::topic_secret([7; 32], 1).in_channel(ChannelId::new("open").unwrap());
    for other in [short, in_channel] {
        let refused = sign_runs(&space(), &secret(2), None, [other]).unwrap_err();
        assert_eq!(refused, DraftError::ReservedKind { index: 0, found: 1 });
    }
}

#[test]
fn a_detached_run_is_equal_and_shares_nothing_with_its_frame() {
    let draft = EventDraft::new(16, 0, "small").in_channel(ChannelId::new("open").unwrap());
    let run = sign_runs(&space(), &secret(2), None, [draft])
        .unwrap()
        .remove(0);
    let mut frame = vec![0; 1 << 20];
    let at = frame.len();
    frame.extend_from_slice(run.run().as_bytes());
    let frame = Bytes::from(frame);
    let read = Run::decode(frame.slice(at..)).unwrap();
    let detached = read.verify(&space()).unwrap().detached();
    assert_eq!(detached, run);
    assert!(frame.is_unique(), "nothing keeps the frame");
}

#[test]
fn drafts_with_reserved_kinds_bad_references_or_past_the_last_seq_are_refused() {
    let refused = |base, draft| sign_runs(&space(), &secret(2), base, [draft]).unwrap_err();
    let draft = EventDraft::new(16, 0, "x");
    let mut reserved = draft.clone();
    reserved.kind = 15;
    assert_eq!(
        refused(None, reserved),
        DraftError::ReservedKind {
            index: 0,
            found: 15
        }
    );
    let own = EventRef {
        author: secret(2).id(),
        seq: 1,
        id: EventId::from_bytes([0; 32]),
    };
    assert!(matches!(
        refused(None, draft.clone().after([own])),
        DraftError::BadDep { index: 0, .. }
    ));
    let other = EventRef {
        author: secret(3).id(),
        ..own
    };
    assert_eq!(
        refused(None, draft.clone().after([other; MAX_DEPS + 1])),
        DraftError::TooManyDeps {
            index: 0,
            found: MAX_DEPS + 1
        }
    );
    let full = AuthorHead {
        seq: MAX_SEQ,
        id: EventId::from_bytes([0; 32]),
    };
    assert_eq!(refused(Some(full), draft), DraftError::LogFull { index: 0 });
}

#[test]
fn a_run_of_another_space_or_author_or_under_another_signature_is_refused() {
    let run = signed(texts(3), None).into_run();
    let other = SpaceId::from_bytes([9; 32]);
    let wrong = Err(RunError::WrongSignature {
        author: secret(2).id(),
        last_seq: 3,
    });
    assert_eq!(run.clone().verify(&other), wrong);

    let mut bytes = run.as_bytes().to_vec();
    let author = secret(3).id();
    bytes[..32].copy_from_slice(author.as_bytes());
    let stolen = Run::decode(bytes.into()).unwrap();
    assert_eq!(
        stolen.verify(&space()),
        Err(RunError::WrongSignature {
            author,
            last_seq: 3
        })
    );

    let mut bytes = run.as_bytes().to_vec();
    let weak = "0100000000000000000000000000000000000000000000000000000000000000";
    let author: AuthorId = weak.parse().unwrap();
    bytes[..32].copy_from_slice(author.as_bytes());
    assert_eq!(
        Run::decode(bytes.into()).unwrap().verify(&space()),
        Err(AuthorKeyError::Weak { author }.into())
    );
}

#[test]
fn a_genesis_is_its_own_space_and_stands_nowhere_else() {
    let genesis = sign_genesis(&secret(1), [5; 16], 1_700_000_000_000);
    let space = genesis.space();
    assert!(genesis.is_genesis());
    assert_eq!(genesis.head().id.as_bytes(), space.as_bytes());
    let read = Run::decode(genesis.run().as_bytes().clone()).unwrap();
    assert_eq!(read.clone().verify(&space), Ok(genesis.clone()));
    let header = genesis.events().next().unwrap().header;
    assert_eq!(header.id().as_bytes(), space.as_bytes());

    // In another space, it is foreign.
    let other = SpaceId::from_bytes([9; 32]);
    assert_eq!(
        read.verify(&other),
        Err(RunError::ForeignGenesis {
            expected: other,
            found: space
        })
    );

    // The owner's log goes on from it.
    let next = sign_runs(&space, &secret(1), Some(genesis.head()), texts(2)).unwrap();
    assert!(!next[0].is_genesis());
    let merged = merge_runs(&[genesis.into_run(), next[0].clone().into_run()]).unwrap();
    assert!(merged.verify(&space).unwrap().is_genesis());
}

#[test]
fn kind_zero_with_a_channel_or_another_payload_or_later_in_a_log_is_a_stray_genesis() {
    let (space, secret) = (space(), secret(1));
    let sealed = |base: Option<AuthorHead>, channel: Option<&ChannelId>, payload: &[u8]| {
        let mut encoder = Encoder::new(secret.id()).based_on(base);
        encoder.push(&Row {
            deps: &[],
            timestamp_ms: 0,
            kind: kind::GENESIS,
            channel,
            body: Body::Held(payload),
        });
        let unsigned = encoder.finish(Signature::from_bytes([0; 64]));
        Run::decode(unsigned.as_bytes().clone())
            .unwrap()
            .verify(&space)
    };
    let stray = |seq| {
        Err(RunError::StrayGenesis {
            author: secret.id(),
            seq,
        })
    };
    let base = AuthorHead {
        seq: 1,
        id: EventId::from_bytes([0; 32]),
    };
    assert_eq!(sealed(Some(base), None, &[5; 16]), stray(2));
    assert_eq!(
        sealed(None, Some(&ChannelId::new("c").unwrap()), &[5; 16]),
        stray(1)
    );
    assert_eq!(sealed(None, None, &[5; 15]), stray(1));
}

#[test]
fn other_encodings_of_the_same_events_are_refused() {
    let channel = ChannelId::new("c").unwrap();
    let drafts = [EventDraft::new(16, 7, "payload").in_channel(channel)];
    let good = signed(drafts.to_vec(), None).run().as_bytes().to_vec();
    // author 32, first seq 1, count 1, channel count 1, length 1, name 1, then the row.
    let (seq, channels) = (32, 34);
    assert_eq!(&good[seq..channels + 3], &[1, 1, 1, 1, b'c']);
    let not_canonical = |bytes: Vec<u8>, field| {
        assert_eq!(
            Run::decode(bytes.into()),
            Err(DecodeError::NotCanonical { field })
        );
    };

    let mut unused = good.clone();
    unused.splice(channels..channels + 3, [1, 1, b'c']);
    unused[channels + 5] = 0; // the event's channel: none
    not_canonical(unused, "channel table");

    let mut overlong = good.clone();
    overlong.splice(seq..=seq, [0x81, 0]);
    assert!(matches!(
        Run::decode(overlong.into()),
        Err(DecodeError::Varint {
            field: "first seq",
            ..
        })
    ));

    let mut trailing = good.clone();
    trailing.push(0);
    assert!(matches!(
        Run::decode(trailing.into()),
        Err(DecodeError::TrailingBytes { left: 1, .. })
    ));

    let mut empty = good;
    empty[seq + 1] = 0;
    assert!(matches!(
        Run::decode(empty.into()),
        Err(DecodeError::OutOfRange { found: 0, .. })
    ));
}

#[test]
fn a_channel_table_out_of_order_of_first_use_or_with_a_name_twice_is_refused() {
    let drafts: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| EventDraft::new(16, 7, "").in_channel(ChannelId::new(name).unwrap()))
        .collect();
    let good = signed(drafts, None).run().as_bytes().to_vec();
    let table = 34;
    assert_eq!(&good[table..table + 5], &[2, 1, b'a', 1, b'b']);
    let first_channel = table + 5 + 2;
    assert_eq!(good[first_channel], 1);
    assert_eq!(good[first_channel + 5], 2);

    let mut swapped = good.clone();
    (swapped[first_channel], swapped[first_channel + 5]) = (2, 1);
    let mut twice = good.clone();
    twice[table + 4] = b'a';
    for bad in [swapped, twice] {
        assert!(matches!(
            Run::decode(Bytes::from(bad)),
            Err(DecodeError::NotCanonical { .. })
        ));
    }
}

/// One signed run of any drafts, past what [`sign_runs`] would put into one.
fn sealed(base: Option<AuthorHead>, payloads: &[Vec<u8>]) -> Run {
    let mut encoder = Encoder::new(secret(2).id()).based_on(base);
    for payload in payloads {
        encoder.push(&Row {
            deps: &[],
            timestamp_ms: u64::MAX / 2,
            kind: 16,
            channel: None,
            body: Body::Held(payload),
        });
    }
    encoder.finish(Signature::from_bytes([0; 64]))
}

#[test]
fn whatever_is_cut_off_the_largest_runs_or_turned_to_stubs_decodes_again() {
    let decodes = |run: &Run| Run::decode(run.as_bytes().clone()).is_ok();
    // The largest last event with which a run still decodes, by halves.
    let large = |len| sealed(None, &[vec![1; 10_000], vec![2; 60_000], vec![3; len]]);
    let (mut fits, mut too_large) = (900_000, MAX_PAYLOAD_BYTES);
    while too_large - fits > 1 {
        let middle = usize::midpoint(fits, too_large);
        if decodes(&large(middle)) {
            fits = middle;
        } else {
            too_large = middle;
        }
    }
    let run = Run::decode(large(fits).as_bytes().clone()).unwrap();
    for seq in 1..3 {
        assert!(decodes(&run.above(&space(), seq).unwrap()), "above {seq}");
    }
    let tiny = sealed(None, &vec![vec![1]; 1024]);
    assert!(decodes(&tiny));
    assert!(decodes(&tiny.with_stubs(|_| false)));
    assert_eq!(tiny.full_len, tiny.with_stubs(|_| false).full_len);
}

#[test]
fn the_full_length_of_a_run_is_the_same_written_and_read() {
    let run = signed(texts(20), None).into_run();
    let read = Run::decode(run.as_bytes().clone()).unwrap();
    assert_eq!(read.full_len, run.full_len);
    assert!(run.full_len >= run.as_bytes().len());
}
