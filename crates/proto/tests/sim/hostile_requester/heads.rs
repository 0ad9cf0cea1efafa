//! Chunks of heads.

use headwater_proto::{HEADS_WINDOW_CHUNKS, Responder, SessionError, SessionLimits};
use headwater_wire::{AuthorId, Clock, CloseCode, Message, limits::MAX_SEQ};

use super::{NOW, Puppet, chunk, entry, named, request, space};

#[test]
fn refuses_unsorted_and_duplicate_heads_wherever_the_chunks_divide() {
    let owner = space().owner;
    let cases: [&[&[AuthorId]]; 7] = [
        &[&[named(2), named(1)]],
        &[&[named(2), named(2)]],
        &[&[named(2)], &[named(1)]],
        &[&[named(2)], &[named(2)]],
        &[&[owner, owner]],
        // The owner may stand first in the first chunk, and nowhere else.
        &[&[owner], &[owner]],
        &[&[named(0), owner]],
    ];
    for chunks in cases {
        let mut puppet = Puppet::asking();
        let mut result = Ok(());
        for heads in chunks {
            assert_eq!(result, Ok(()));
            let heads = heads.iter().map(|author| entry(*author, 1)).collect();
            result = puppet.hear(chunk(heads, false));
        }
        let error = result.expect_err("out of order");
        assert!(
            matches!(error, SessionError::UnsortedHeads { .. }),
            "{error}"
        );
        assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
    }
}

#[test]
fn refuses_a_head_at_seq_0_and_above_the_highest_seq() {
    for seq in [0, MAX_SEQ + 1, u64::MAX] {
        let author = named(3);
        let result = Puppet::asking().hear(chunk(vec![entry(author, seq)], false));
        assert_eq!(result, Err(SessionError::HeadSeqOutOfRange { author, seq }));
    }
    let highest = chunk(vec![entry(named(3), MAX_SEQ)], true);
    assert_eq!(Puppet::asking().hear(highest), Ok(()));
}

#[test]
fn refuses_chunks_that_are_empty_too_long_or_too_many() {
    let empty = Puppet::asking().hear(chunk(Vec::new(), false));
    let size = |found| SessionError::HeadsChunkSize { found, max: 1_024 };
    assert_eq!(empty, Err(size(0)));

    let mut heads = Vec::new();
    for n in 0..1_025u32 {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        heads.push(entry(AuthorId::from_bytes(key), 1));
    }
    let long = Puppet::asking().hear(chunk(heads.clone(), false));
    assert_eq!(long, Err(size(1_025)));

    let limits = SessionLimits {
        max_authors: 10,
        ..SessionLimits::default()
    };
    let mut puppet = Puppet::new(limits);
    puppet.hear(request(Clock::Heads)).expect("a request");
    puppet
        .hear(chunk(heads[..10].to_vec(), false))
        .expect("ten");
    let error = puppet.hear(chunk(heads[10..11].to_vec(), false));
    let error = error.expect_err("an eleventh");
    assert_eq!(error, SessionError::TooManyAuthors { limit: 10 });
    assert!(!error.close_code().is_connection_wide());

    // A requester that runs ahead of the plans: this responder's store does not answer.
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let mut hear = |message: Message| responder.handle_message(message, NOW);
    hear(request(Clock::Heads).into()).expect("a request");
    responder
        .handle_opened(space().summary(), NOW)
        .expect("held");
    let mut heads = heads.into_iter();
    let mut next = || chunk(heads.by_ref().take(1).collect(), false).into();
    for _ in 0..HEADS_WINDOW_CHUNKS {
        let taken = responder.handle_message(next(), NOW);
        taken.expect("within the window");
    }
    assert!(!responder.wants_message());
    assert_eq!(
        responder.handle_message(next(), NOW),
        Err(SessionError::HeadsWindowExceeded {
            window: HEADS_WINDOW_CHUNKS
        })
    );
}
