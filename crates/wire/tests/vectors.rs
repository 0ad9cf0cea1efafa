//! The vectors in `tests/vectors/` at the top of the repository: one file a message, with its
//! fields by name and its bytes in hexadecimal, for whoever writes a second implementation.
//!
//! They are the format: bytes that change here break every peer. Files are written anew with
//! `HEADWATER_WRITE_VECTORS=1 cargo test -p headwater-wire --test vectors`, for new ones only.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use headwater_wire::{
    AuthorFilter, AuthorHead, AuthorId, AuthorSecret, Budget, Busy, ChannelId, Clock, ClockEntry,
    Cursor, DecodeError, EventDraft, EventId, EventRef, ForkAnswer, ForkBranch, ForkLocator,
    ForkNotice, ForkRevoked, ForkWant, FrameDecoder, Grant, HeadsChunk, HeadsDigest, HeadsSummary,
    HeadsWanted, HistorySyncComplete, Invitation, Invite, LiveBatch, LiveLagged, MemberKey,
    Message, PayloadAnswer, PayloadBatch, PayloadRequest, PayloadWant, PlanTotals, Receipt,
    ReceiptFacts, Redeem, Redeemed, RequestHash, Revocation, Revoked, RevokedDigest, Roles, Run,
    Segment, Signature, SpaceId, Subject, SyncBatchV2, SyncFilter, SyncOutcome, SyncPlan,
    SyncRequestV2, TreeChild, TreeNode, TreeNodes, TreePrefix, TreeRequest, Truncation,
    VerifiedRun, legacy::LegacyMessage, sign_genesis, sign_runs,
};
use serde_json::{Value, json};

fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

fn owner() -> AuthorSecret {
    AuthorSecret::from_bytes([1; 32])
}

fn writer() -> AuthorSecret {
    AuthorSecret::from_bytes([2; 32])
}

fn genesis() -> VerifiedRun {
    sign_genesis(&owner(), [7; 16], 1_700_000_000_000)
}

/// Two events: one structural, one in a channel with a reference to the genesis.
fn run() -> VerifiedRun {
    let genesis = genesis();
    let dep = EventRef {
        author: owner().id(),
        seq: 1,
        id: genesis.head().id,
    };
    let drafts = [
        EventDraft::new(16, 1_700_000_000_500, "hello"),
        EventDraft::new(300, 1_700_000_000_400, "world")
            .in_channel(ChannelId::new("general").unwrap())
            .after([dep]),
    ];
    sign_runs(&genesis.space(), &writer(), None, drafts)
        .unwrap()
        .remove(0)
}

/// What goes on from [`run`], so that a `prev` shows in the bytes.
fn later_run() -> VerifiedRun {
    let drafts = [EventDraft::new(16, 1_700_000_001_000, "again")];
    sign_runs(&genesis().space(), &writer(), Some(run().head()), drafts)
        .unwrap()
        .remove(0)
}

fn entry(run: &VerifiedRun, forked: bool) -> ClockEntry {
    ClockEntry {
        author: run.author(),
        head: run.head(),
        forked,
        revoked: RevokedDigest::NONE,
    }
}

fn entry_fields(entry: &ClockEntry) -> Value {
    let mut fields = json!({
        "author": entry.author,
        "seq": entry.head.seq,
        "id": entry.head.id,
        "forked": entry.forked,
    });
    if entry.revoked != RevokedDigest::NONE {
        fields["revoked"] = json!(entry.revoked);
    }
    fields
}

/// What an owner who forks took of anyone and of a writer.
fn revoked() -> Revoked {
    let last = run().head();
    let of_writer = Revocation {
        subject: writer().id().into(),
        roles: Roles::READ | Roles::WRITE,
        last: Some(last),
    };
    let of_anyone = Revocation {
        subject: Subject::Anyone,
        roles: Roles::READ,
        last: None,
    };
    [of_writer, of_anyone].into_iter().collect()
}

fn revocation_fields(revocation: &Revocation) -> Value {
    let key = match revocation.subject {
        Subject::Anyone => None,
        Subject::Key(key) => Some(key),
    };
    json!({ "subject": key, "roles": revocation.roles.bits(), "last": revocation.last })
}

fn totals_fields(totals: &PlanTotals) -> Value {
    json!({
        "authors": totals.authors,
        "events": totals.events,
        "payload_bytes": totals.payload_bytes,
    })
}

fn frame(message: &Message) -> Vec<u8> {
    message.encode_frame().unwrap().concat()
}

/// Compares a file with what it has to say; writes it if it was asked for.
fn check(name: &str, fields: &Value, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(format!("{name}.json"));
    let expected = json!({ "name": name, "fields": fields, "hex": hex(bytes) });
    let expected = serde_json::to_string_pretty(&expected).unwrap() + "\n";
    if std::env::var_os("HEADWATER_WRITE_VECTORS").is_some() && !path.exists() {
        fs::write(&path, &expected).unwrap();
    }
    let found =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(found, expected, "vector {name} changed");
}

fn check_message(name: &str, fields: &Value, message: impl Into<Message>) {
    let message = message.into();
    let bytes = frame(&message);
    check(name, fields, &bytes);
    let mut decoder = FrameDecoder::new();
    let body = decoder.read(&mut &bytes[..]).unwrap().unwrap();
    assert_eq!(Message::decode_body(body), Ok(Some(message)), "{name}");
}

fn run_fields(run: &VerifiedRun) -> Value {
    let events: Vec<_> = run
        .events()
        .map(|event| {
            json!({
                "seq": event.header.seq,
                "id": event.id,
                "prev": event.header.prev,
                "deps": event.header.deps,
                "timestamp_ms": event.header.timestamp_ms,
                "kind": event.header.kind,
                "channel": event.header.channel.as_ref().and_then(|channel| channel.as_str()),
                "payload_len": event.header.payload_len,
                "payload_hash": event.header.payload_hash,
                "payload": event.payload.map(hex),
            })
        })
        .collect();
    json!({
        "space": run.space(),
        "author": run.author(),
        "first_seq": run.first_seq(),
        "first_prev": run.base().map(|base| base.id),
        "events": events,
        "signature": run.run().signature(),
    })
}

#[test]
fn runs_have_the_bytes_of_their_vectors() {
    for (name, run) in [
        ("run_genesis", genesis()),
        ("run", run()),
        ("run_later", later_run()),
    ] {
        check(name, &run_fields(&run), run.run().as_bytes());
        let read = Run::decode(run.run().as_bytes().clone()).unwrap();
        assert_eq!(read.verify(&run.space()), Ok(run));
    }
    let stub = run().run().with_stubs(|index| index == 0);
    let verified = stub.clone().verify(&genesis().space()).unwrap();
    check("run_stub", &run_fields(&verified), stub.as_bytes());
}

#[test]
fn the_heads_tree_has_the_root_of_its_vector() {
    let mut entries = vec![entry(&genesis(), false), entry(&run(), true)];
    entries.sort_by_key(|entry| entry.author);
    let fields: Vec<_> = entries.iter().map(entry_fields).collect();
    let root = HeadsSummary::from_entries(entries).unwrap().digest();
    check("heads_tree", &json!({ "heads": fields }), root.as_bytes());
}

#[test]
fn what_is_revoked_above_a_cut_has_the_digest_of_its_vector_and_enters_the_tree() {
    let revoked = revoked();
    let fields: Vec<_> = revoked.entries().map(|it| revocation_fields(&it)).collect();
    let digest = revoked.digest();
    check("revoked", &json!({ "revoked": fields }), digest.as_bytes());
    let forked = ClockEntry {
        revoked: digest,
        ..entry(&genesis(), true)
    };
    let fields = [entry_fields(&forked)];
    let root = HeadsSummary::from_entries(vec![forked]).unwrap().digest();
    check(
        "heads_tree_revoked",
        &json!({ "heads": fields }),
        root.as_bytes(),
    );
    check_message(
        "heads_chunk_revoked",
        &json!({ "request_id": 7, "heads": fields, "last": true }),
        HeadsChunk {
            request_id: 7,
            heads: vec![forked],
            last: true,
        },
    );
    let held: Vec<_> = revoked.entries().collect();
    let fields: Vec<_> = held.iter().map(revocation_fields).collect();
    check_message(
        "fork_revoked",
        &json!({ "request_id": 7, "held": fields }),
        ForkRevoked {
            request_id: 7,
            held,
        },
    );
}

#[test]
fn an_entry_spells_what_is_revoked_in_one_way() {
    let forked = ClockEntry {
        revoked: revoked().digest(),
        ..entry(&genesis(), true)
    };
    let chunk = |entry: ClockEntry| {
        let heads = vec![entry];
        let message = HeadsChunk {
            request_id: 7,
            heads,
            last: true,
        };
        frame(&message.into())[4..].to_vec()
    };
    let (with, without) = (chunk(forked), chunk(entry(&genesis(), true)));
    let flag = with.iter().zip(&without).rposition(|(a, b)| a != b);
    let read = |bytes: &[u8]| Message::decode_body(Bytes::copy_from_slice(bytes));
    // Tag, request, count, author, seq, id.
    let at = 1 + 1 + 1 + 32 + 1 + 32;
    assert!(flag.is_some_and(|flag| flag >= at));
    assert_eq!((with[at], without[at]), (2, 1));
    assert!(read(&with).is_ok());
    let mut zero = with.clone();
    zero[at + 1..at + 33].fill(0);
    assert_eq!(
        read(&zero),
        Err(DecodeError::NotCanonical { field: "revoked" })
    );
    let mut other = with;
    other[at] = 3;
    assert!(matches!(
        read(&other),
        Err(DecodeError::OutOfRange { found: 3, .. })
    ));
}

#[test]
fn requests_have_the_bytes_of_their_vectors() {
    let space = genesis().space();
    let digest = HeadsDigest::from_bytes([3; 32]);
    let plain = SyncRequestV2 {
        request_id: 7,
        space,
        clock: Clock::Digest(digest),
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: true,
    };
    check_message(
        "sync_request_v2",
        &json!({
            "request_id": 7, "space": space, "clock": { "digest": digest },
            "filter": null, "budget": null, "live": true,
        }),
        plain.clone(),
    );
    check_message(
        "sync_request_v2_first",
        &json!({
            "request_id": 7, "space": space, "clock": "heads",
            "filter": null, "budget": null, "live": false,
        }),
        SyncRequestV2 {
            clock: Clock::Heads,
            live: false,
            ..plain.clone()
        },
    );
    check_message(
        "sync_request_v2_except",
        &json!({
            "request_id": 7, "space": space, "clock": { "digest": digest },
            "filter": { "except": [writer().id()] }, "budget": null, "live": true,
        }),
        SyncRequestV2 {
            filter: SyncFilter::except(vec![writer().id()]),
            ..plain
        },
    );
    let cursor = Cursor {
        store: [9; 16],
        generation: 300,
        digest,
    };
    let changed = entry(&run(), false);
    check_message(
        "sync_request_v2_cursor",
        &json!({
            "request_id": 7, "space": space,
            "clock": {
                "cursor": { "store": hex([9; 16]), "generation": 300, "digest": digest },
                "changed": [entry_fields(&changed)],
            },
            "filter": {
                "authors": [writer().id()], "channels": ["general"], "kinds": [16, 300],
                "since_ms": 1_700_000_000_000u64,
            },
            "budget": { "events": 1000, "payload_bytes": 65536 },
            "live": false,
        }),
        SyncRequestV2 {
            request_id: 7,
            space,
            clock: Clock::Cursor {
                cursor,
                changed: vec![changed],
            },
            filter: SyncFilter {
                authors: AuthorFilter::Only(vec![writer().id()]),
                channels: Some(vec![ChannelId::new("general").unwrap()]),
                kinds: Some(vec![16, 300]),
                since_ms: Some(1_700_000_000_000),
            },
            budget: Budget {
                events: Some(1000),
                payload_bytes: Some(65536),
            },
            live: false,
        },
    );
    let heads = vec![entry(&genesis(), false), entry(&run(), true)];
    check_message(
        "heads_chunk",
        &json!({
            "request_id": 7,
            "heads": heads.iter().map(entry_fields).collect::<Vec<_>>(),
            "last": true,
        }),
        HeadsChunk {
            request_id: 7,
            heads,
            last: true,
        },
    );
}

#[test]
fn answers_have_the_bytes_of_their_vectors() {
    let digest = HeadsDigest::from_bytes([3; 32]);
    check_message(
        "heads_wanted",
        &json!({ "request_id": 7 }),
        HeadsWanted { request_id: 7 },
    );
    let totals = PlanTotals {
        authors: 1,
        events: 3,
        payload_bytes: 15,
    };
    let rest = PlanTotals {
        authors: 100,
        events: 100_000,
        payload_bytes: 20_000_000,
    };
    for (name, segment, shown) in [
        ("sync_plan_owner", Segment::Owner, json!("owner")),
        (
            "sync_plan_through",
            Segment::Through(writer().id()),
            json!({ "through": writer().id() }),
        ),
        ("sync_plan_last", Segment::Last, json!("last")),
    ] {
        check_message(
            name,
            &json!({
                "request_id": 7, "segment": shown,
                "totals": totals_fields(&totals), "rest": totals_fields(&rest),
            }),
            SyncPlan {
                request_id: 7,
                segment,
                totals,
                rest,
            },
        );
    }
    let bytes = run().run().as_bytes().clone();
    check_message(
        "sync_batch_v2",
        &json!({ "request_id": 7, "more": true, "runs": [hex(&bytes)] }),
        SyncBatchV2 {
            request_id: 7,
            more: true,
            runs: vec![bytes.clone()],
        },
    );
    check_message(
        "sync_batch_v2_last",
        &json!({ "request_id": 7, "more": false, "runs": [] }),
        SyncBatchV2 {
            request_id: 7,
            more: false,
            runs: vec![],
        },
    );
    let last = EventRef {
        author: writer().id(),
        seq: 2,
        id: run().head().id,
    };
    check_message(
        "history_sync_complete",
        &json!({
            "request_id": 7, "outcome": "complete", "last_event": last, "events": 3, "stubs": 0,
            "joined_digest": digest, "stream_generation": 12,
            "cursor": { "store": hex([9; 16]), "generation": 12, "digest": digest },
            "receipt": null,
        }),
        HistorySyncComplete {
            request_id: 7,
            outcome: SyncOutcome::Complete,
            last_event: Some(last),
            events: 3,
            stubs: 0,
            joined_digest: digest,
            stream_generation: 12,
            cursor: Some(Cursor {
                store: [9; 16],
                generation: 12,
                digest,
            }),
            receipt: None,
        },
    );
    for (name, truncation, shown) in [
        ("budget", Truncation::Budget, json!("budget")),
        (
            "forked",
            Truncation::Forked { authors: 2 },
            json!({ "forked": { "authors": 2 } }),
        ),
        ("stubbed", Truncation::Stubbed, json!("stubbed")),
        (
            "not_accepted",
            Truncation::NotAccepted { authors: 3 },
            json!({ "not_accepted": { "authors": 3 } }),
        ),
        (
            "over_quota",
            Truncation::OverQuota { authors: 4 },
            json!({ "over_quota": { "authors": 4 } }),
        ),
    ] {
        let receipt = Signature::from_bytes([8; 64]);
        check_message(
            &format!("history_sync_complete_{name}"),
            &json!({
                "request_id": 7, "outcome": { "truncated": shown }, "last_event": null,
                "events": 0, "stubs": 0, "joined_digest": digest, "stream_generation": 12,
                "cursor": null, "receipt": receipt,
            }),
            HistorySyncComplete {
                request_id: 7,
                outcome: SyncOutcome::Truncated(truncation),
                last_event: None,
                events: 0,
                stubs: 0,
                joined_digest: digest,
                stream_generation: 12,
                cursor: None,
                receipt: Some(receipt),
            },
        );
    }
    let stated = AuthorHead {
        seq: 5,
        id: EventId::from_bytes([4; 32]),
    };
    let held = AuthorHead {
        seq: 3,
        id: EventId::from_bytes([5; 32]),
    };
    let author = writer().id();
    let entry = |head, forked| ClockEntry {
        author,
        head,
        forked,
        revoked: RevokedDigest::NONE,
    };
    check_message(
        "fork_notice",
        &json!({
            "request_id": 7,
            "author": author,
            "stated": { "head": stated, "forked": false },
            "held": { "head": held, "forked": true },
        }),
        ForkNotice {
            request_id: 7,
            author,
            stated: Some(entry(stated, false)),
            held: entry(held, true),
        },
    );
    check_message(
        "live_batch",
        &json!({ "request_id": 7, "runs": [hex(&bytes)] }),
        LiveBatch {
            request_id: 7,
            runs: vec![bytes],
        },
    );
    check_message(
        "live_lagged",
        &json!({ "request_id": 7, "missed": 5000 }),
        LiveLagged {
            request_id: 7,
            missed: 5000,
        },
    );
    check_message(
        "busy",
        &json!({ "request_id": 7, "retry_after_ms": 2000 }),
        Busy {
            request_id: 7,
            retry_after_ms: 2000,
        },
    );
}

#[test]
fn deferred_messages_have_the_bytes_of_their_vectors() {
    let author = AuthorId::from_bytes([0xab; 32]);
    let prefix = TreePrefix::of(&author, 3).unwrap();
    check_message(
        "tree_request",
        &json!({ "request_id": 7, "prefixes": ["", "aba"] }),
        TreeRequest {
            request_id: 7,
            prefixes: vec![TreePrefix::ROOT, prefix],
        },
    );
    let digest = HeadsDigest::from_bytes([3; 32]);
    let leaf = entry(&run(), false);
    check_message(
        "tree_nodes",
        &json!({
            "request_id": 7,
            "nodes": [{
                "prefix": "aba",
                "children": { "1": { "inner": digest }, "f": { "leaf": entry_fields(&leaf) } },
            }],
        }),
        TreeNodes {
            request_id: 7,
            nodes: vec![TreeNode {
                prefix,
                children: vec![(1, TreeChild::Inner(digest)), (15, TreeChild::Leaf(leaf))],
            }],
        },
    );
    let space = genesis().space();
    check_message(
        "payload_request",
        &json!({
            "request_id": 7, "space": space,
            "wants": [{ "author": author, "first": 2, "last": 9 }], "filter": null,
        }),
        PayloadRequest {
            request_id: 7,
            space,
            wants: vec![PayloadWant {
                author,
                first: 2,
                last: 9,
            }],
            filter: SyncFilter::default(),
        },
    );
    check_message(
        "payload_batch",
        &json!({
            "request_id": 7, "more": false,
            "payloads": [
                { "author": author, "seq": 2, "payload": hex("hello") },
                { "author": author, "seq": 3, "payload": null },
            ],
        }),
        PayloadBatch {
            request_id: 7,
            more: false,
            payloads: vec![
                PayloadAnswer {
                    author,
                    seq: 2,
                    payload: Some(Bytes::from_static(b"hello")),
                },
                PayloadAnswer {
                    author,
                    seq: 3,
                    payload: None,
                },
            ],
        },
    );
    let rung = AuthorHead {
        seq: 4,
        id: EventId::from_bytes([6; 32]),
    };
    check_message(
        "fork_locator",
        &json!({
            "request_id": 7,
            "space": hex([3; 32]),
            "author": author,
            "forked": true,
            "entries": [rung],
        }),
        ForkLocator {
            request_id: 7,
            space: SpaceId::from_bytes([3; 32]),
            author,
            forked: true,
            entries: vec![rung],
        },
    );
    check_message(
        "fork_answer",
        &json!({ "request_id": 7, "forked": false, "same": 3, "differs": 4 }),
        ForkAnswer {
            request_id: 7,
            forked: false,
            same: 3,
            differs: Some(4),
        },
    );
    let bytes = run().as_stubs().into_run().as_bytes().clone();
    check_message(
        "fork_branch",
        &json!({ "request_id": 7, "run": hex(&bytes) }),
        ForkBranch {
            request_id: 7,
            run: Some(bytes),
        },
    );
    check_message(
        "fork_want",
        &json!({ "request_id": 7, "above": 2, "through": 3 }),
        ForkWant {
            request_id: 7,
            above: 2,
            through: 3,
        },
    );
}

/// An invite of the owner's for a node and an author.
fn invitation() -> Invitation {
    let one_use = AuthorSecret::from_bytes([5; 32]);
    let roles = Roles::READ | Roles::WRITE;
    Invitation::sign(
        &owner(),
        genesis().space(),
        roles,
        1_700_000_000_000,
        one_use,
    )
}

fn invite_fields(invite: &Invite) -> Value {
    json!({
        "space": invite.space,
        "roles": invite.roles.bits(),
        "expires_ms": invite.expires_ms,
        "key": invite.key,
        "signature": invite.signature,
    })
}

#[test]
fn control_events_and_invitations_have_the_bytes_of_their_vectors() {
    let (reader, author) = (MemberKey::from_bytes([0xab; 32]), writer().id());
    let anyone = Grant::new(Subject::Anyone, Roles::READ);
    let asked = Grant {
        invite: Some(invitation().invite().key),
        ..Grant::new(reader, Roles::READ | Roles::PROVIDE)
    };
    for (name, grant) in [("grant_anyone", anyone), ("grant", asked)] {
        let payload = EventDraft::grant(grant, 0).payload;
        let subject = match grant.subject {
            Subject::Anyone => json!("anyone"),
            Subject::Key(key) => json!(key),
        };
        let fields = json!({
            "subject": subject, "roles": grant.roles.bits(), "invite": grant.invite,
        });
        check(name, &fields, &payload);
        assert_eq!(Grant::decode(payload), Ok(grant));
    }
    let revocation = Revocation {
        subject: author.into(),
        roles: Roles::WRITE,
        last: Some(run().head()),
    };
    let payload = EventDraft::revoke(revocation, 0).payload;
    let last = json!({ "seq": run().head().seq, "id": run().head().id });
    let fields = json!({ "subject": author, "roles": Roles::WRITE.bits(), "last": last });
    check("revocation", &fields, &payload);
    assert_eq!(Revocation::decode(payload), Ok(revocation));

    let invitation = invitation();
    let fields = json!({ "invite": invite_fields(invitation.invite()), "seed": hex([5; 32]) });
    check("invitation", &fields, &invitation.to_bytes());
    let proof = invitation.prove(&reader, Some(&author));
    let by_author = invitation.invite().prove_author(&writer(), &reader);
    let fields = json!({
        "request_id": 7, "invite": invite_fields(invitation.invite()),
        "author": author, "author_proof": by_author.signature, "proof": proof,
        "asked_by": reader,
    });
    let redeem = Redeem {
        request_id: 7,
        invite: *invitation.invite(),
        author: Some(by_author),
        proof,
    };
    check_message("redeem", &fields, redeem);
    let proof = invitation.prove(&reader, None);
    let fields = json!({
        "request_id": 7, "invite": invite_fields(invitation.invite()),
        "author": null, "proof": proof, "asked_by": reader,
    });
    let redeem = Redeem {
        request_id: 7,
        invite: *invitation.invite(),
        author: None,
        proof,
    };
    check_message("redeem_reading", &fields, redeem);
    let redeemed = Redeemed { request_id: 7 };
    check_message("redeemed", &json!({ "request_id": 7 }), redeemed);
}

#[test]
fn receipts_have_the_bytes_of_their_vectors() {
    let node = AuthorSecret::from_bytes([6; 32]);
    let stated = HeadsDigest::from_bytes([3; 32]);
    let request = SyncRequestV2 {
        request_id: 7,
        space: genesis().space(),
        clock: Clock::Digest(stated),
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: true,
    };
    let request_hash = RequestHash::of(&request);
    let body = &frame(&request.clone().into())[4..];
    let key = b"headwater sync request hash v1\0\0";
    assert_eq!(
        *request_hash.as_bytes(),
        *blake3::keyed_hash(key, body).as_bytes()
    );
    for (name, outcome, shown, stubs) in [
        ("receipt", SyncOutcome::Complete, json!("complete"), 0),
        (
            "receipt_stubbed",
            SyncOutcome::Truncated(Truncation::Stubbed),
            json!({ "truncated": "stubbed" }),
            2,
        ),
    ] {
        let facts = ReceiptFacts {
            request: request_hash,
            stated,
            outcome,
            events: 300,
            stubs,
            joined_digest: HeadsDigest::from_bytes([4; 32]),
            generation: 12,
        };
        let receipt = Receipt::sign(&node, facts);
        let fields = json!({
            "of_request": hex(body),
            "request": request_hash, "stated": stated, "outcome": shown, "events": 300,
            "stubs": stubs, "joined_digest": facts.joined_digest, "generation": 12,
            "provider": receipt.provider, "signature": receipt.signature,
        });
        check(name, &fields, &facts.signed_bytes());
        assert_eq!(receipt.verify(), Ok(true));
    }
}

#[test]
fn legacy_messages_have_the_bytes_of_their_vectors() {
    let request = LegacyMessage::SyncRequest {
        state_hash: [1; 32],
        topic: [2; 32],
    };
    let event = later_run().run().as_bytes().clone();
    let batch = LegacyMessage::SyncBatch {
        events: vec![event.clone()],
    };
    for (name, fields, message) in [
        (
            "legacy_sync_request",
            json!({ "state_hash": hex([1; 32]), "topic": hex([2; 32]) }),
            request,
        ),
        (
            "legacy_sync_batch",
            json!({ "events": [hex(event)] }),
            batch,
        ),
    ] {
        let bytes = message.encode();
        check(name, &fields, &bytes);
        assert_eq!(LegacyMessage::decode(bytes.into()), Ok(Some(message)));
    }
}

#[test]
fn every_message_has_a_vector() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    for (_, name) in Message::TAGS {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(letter.to_lowercase());
        }
        assert!(
            files.iter().any(|file| file.starts_with(&snake)),
            "{name} has no vector"
        );
    }
}
