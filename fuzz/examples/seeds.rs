//! Writes the committed seeds: `cargo run --example seeds --features gossip`, from the folder `fuzz`.

use std::{fs, path::Path};

use headwater_fuzz::world;
use headwater_wire::{
    Budget, Clock, HeadsChunk, HeadsDigest, HistorySyncComplete, LiveLagged, Message, PlanTotals,
    Segment, SyncBatchV2, SyncFilter, SyncOutcome, SyncPlan, SyncRequestV2, legacy::LegacyMessage,
};

fn main() -> std::io::Result<()> {
    let world = world();
    let mut messages = messages();
    for (name, body) in vectors()? {
        messages.push((name, body));
    }
    for (name, body) in &messages {
        write("message", name, body)?;
        let mut stream = vec![3];
        stream.extend(u32::try_from(body.len()).expect("short").to_be_bytes());
        stream.extend_from_slice(body);
        write("frames", name, &stream)?;
        // One raw message to each session, after its settings.
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        for (target, settings) in [
            ("requester", &[0, 0, 1, 255, 9, 9, 0][..]),
            ("responder", &[9, 255, 9, 9, 0][..]),
        ] {
            let script = [settings, &length, body].concat();
            write(target, name, &script)?;
        }
    }
    for (at, run) in world.runs.iter().enumerate().step_by(4) {
        write("run", &format!("run-{at}"), run.run().as_bytes())?;
        write(
            "run",
            &format!("stubs-{at}"),
            run.as_stubs().run().as_bytes(),
        )?;
    }
    let event = world.runs[0].run().as_bytes().clone();
    let batch = LegacyMessage::SyncBatch {
        events: vec![event],
    };
    write("legacy", "batch", &batch.encode())?;
    let request = LegacyMessage::SyncRequest {
        state_hash: [1; 32],
        topic: [2; 32],
    };
    write("legacy", "request", &request.encode())?;

    for name in ["grant", "grant_anyone", "revocation", "invitation"] {
        write(
            "roster",
            name,
            &vector(Path::new(&format!("../tests/vectors/{name}.json")))?,
        )?;
    }

    #[cfg(feature = "gossip")]
    {
        tickets()?;
        topic(&world)?;
    }

    // A whole pull into nothing: the owner's plan, the genesis and the owner's runs, the rest.
    let cold = [
        0, 0, 0, 255, 9, 9, 2, 0, 1, 10, 200, 4, 1, 4, 0, 0, 1, 0, 2, 0, 3, 0, 2, 2, 3, 27, 200,
        14, 5, 0, 3, 4, 0, 5, 0, 6, 0, 14, 6, 0, 0, 19, 0, 0, 1, 14, 14,
    ];
    write("requester", "cold", &cold)?;
    // One that holds most, is asked for its heads, and stays live.
    let live = [
        90, 0, 1, 255, 9, 9, 1, 14, 14, 2, 0, 0, 0, 0, 2, 2, 1, 3, 9, 4, 0, 1, 12, 0, 14, 6, 0, 0,
        3, 0, 0, 1, 14, 7, 1, 12, 0, 14, 10,
    ];
    write("requester", "live", &live)?;
    // A request with no heads, answered to its end; then the same live, with growth.
    let all = [
        9, 255, 9, 9, 1, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 10, 10, 10, 10, 10, 10, 10, 10, 10,
    ];
    write("responder", "all", &all)?;
    let live = [
        4, 255, 9, 9, 1, 0, 0, 0, 0, 0, 1, 2, 0, 1, 1, 10, 10, 10, 10, 10, 10, 10, 8, 9, 0, 10, 8,
        9, 0, 10, 4,
    ];
    write("responder", "live", &live)?;
    let equal = [9, 255, 9, 9, 1, 1, 0, 0, 0, 0, 0, 0, 10, 10];
    write("responder", "equal", &equal)?;

    write("store", "sound", &[0])?;
    write("store", "short", &[255, 1, 0])?;
    write("store", "one-byte", &[0, 1, 0, 0x20, 9, 1, 7])?;
    write("store", "header", &[0, 0, 0, 0, 9, 4, 1, 2, 3, 4])?;
    // Found by the fuzzer: pages in a circle, and files that make redb panic.
    write(
        "store",
        "circle",
        &[0x62, 0x5b, 0x75, 0xc0, 0x75, 0x32, 0x08, 0x4d],
    )?;
    write(
        "store",
        "freed-pages",
        &[0x0d, 0x00, 0x17, 0x70, 0x7f, 0x17],
    )?;
    write(
        "store",
        "freed-pages-2",
        &[0x6e, 0x6d, 0x66, 0x80, 0x3f, 0x75, 0x62, 0x65],
    )?;
    write(
        "store",
        "opening",
        &[0x00, 0xea, 0xff, 0x80, 0x00, 0x6d, 0x62, 0x65],
    )?;
    Ok(())
}

/// What is said on a gossip topic: heads and forks, a digest alone, and runs.
#[cfg(feature = "gossip")]
fn topic(world: &headwater_fuzz::World) -> std::io::Result<()> {
    use headwater_gossip::{AnnouncementCounter, HeadAnnouncement, RunsMessage, Scope};
    use headwater_wire::{AuthorHead, ClockEntry, EventId, RevokedDigest};

    let key = iroh::SecretKey::from_bytes(&[7; 32]);
    let mut said = HeadAnnouncement {
        space: world.space,
        sender: key.public(),
        counter: AnnouncementCounter { boot: 3, n: 200 },
        scope: Scope::Everything,
        digest: HeadsDigest::EMPTY,
        changed: Vec::new(),
        forked: Vec::new(),
    };
    let write_signed = |name, said: &HeadAnnouncement| {
        write("announcement", name, &said.sign(&key, 4096).expect("fits"))
    };
    write_signed("digest", &said)?;
    said.changed = vec![world.runs[4].signed_head()];
    said.forked = vec![ClockEntry {
        author: world.runs[0].author(),
        head: AuthorHead {
            seq: 6,
            id: EventId::from_bytes([1; 32]),
        },
        forked: true,
        revoked: RevokedDigest::from_bytes([2; 32]),
    }];
    write_signed("heads", &said)?;
    let small = |run: &&headwater_wire::VerifiedRun| run.run().as_bytes().len() < 1024;
    let mut runs: Vec<_> = world
        .runs
        .iter()
        .filter(small)
        .map(|run| run.run().clone())
        .collect();
    runs.sort_by_key(headwater_wire::Run::author);
    runs.dedup_by_key(|run| run.author());
    let salt = [0x5a; 8];
    let space = world.space;
    let one = RunsMessage {
        space,
        salt,
        runs: runs[..1].to_vec(),
    };
    write("announcement", "run", &one.encode())?;
    write(
        "announcement",
        "runs",
        &RunsMessage { space, salt, runs }.encode(),
    )
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let world = world();
    let run = world.runs[4].run().as_bytes().clone();
    let digest = HeadsDigest::EMPTY;
    let totals = PlanTotals {
        authors: 1,
        events: 3,
        payload_bytes: 9,
    };
    let messages: Vec<Message> = vec![
        SyncRequestV2 {
            request_id: 5,
            space: world.space,
            clock: Clock::Digest(digest),
            filter: SyncFilter::default(),
            budget: Budget::default(),
            live: true,
        }
        .into(),
        HeadsChunk {
            request_id: 5,
            heads: Vec::new(),
            last: true,
        }
        .into(),
        SyncPlan {
            request_id: 5,
            segment: Segment::Last,
            totals,
            rest: PlanTotals::default(),
        }
        .into(),
        SyncBatchV2 {
            request_id: 5,
            more: false,
            runs: vec![run],
        }
        .into(),
        HistorySyncComplete {
            request_id: 5,
            outcome: SyncOutcome::Complete,
            last_event: None,
            events: 3,
            stubs: 0,
            joined_digest: digest,
            stream_generation: 1,
            cursor: None,
            receipt: None,
        }
        .into(),
        LiveLagged {
            request_id: 5,
            missed: 300,
        }
        .into(),
    ];
    let body = |message: &Message| message.encode_frame().expect("fits").concat().split_off(4);
    messages
        .iter()
        .map(|message| (message.name().to_lowercase(), body(message)))
        .collect()
}

/// A ticket of each version, as bytes and as text; one with an invitation.
#[cfg(feature = "gossip")]
fn tickets() -> std::io::Result<()> {
    let peer = iroh::SecretKey::from_bytes(&[7; 32]).public();
    let address = [1, 1, 0, 127, 0, 0, 1, 0xd1, 0x22];
    let invitation = vector(Path::new("../tests/vectors/invitation.json"))?;
    let space = &invitation[..32];
    let first = [&[0][..], space, peer.as_bytes(), &address].concat();
    let second = [
        &[1][..],
        space,
        &[1],
        &[5; 32],
        &[2],
        peer.as_bytes(),
        &address,
        peer.as_bytes(),
        &[0],
    ]
    .concat();
    let length = u8::try_from(invitation.len() & 0x7f | 0x80).expect("a byte");
    let high = u8::try_from(invitation.len() >> 7).expect("short");
    let third = [&[2][..], &second[1..], &[length, high], &invitation].concat();
    for (name, bytes) in [("one", first), ("two", second), ("three", third)] {
        let text = headwater_fuzz::decoders::ticket_text(&bytes).expect("a ticket");
        write("ticket", name, &bytes)?;
        write("ticket", &format!("{name}-text"), text.as_bytes())?;
    }
    Ok(())
}

/// The bytes of every message among the protocol's vectors: each kind is a seed.
fn vectors() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for file in fs::read_dir("../tests/vectors")? {
        let path = file?.path();
        let bytes = vector(&path)?;
        if let Some(name) = path.file_stem()
            && (5..2_000).contains(&bytes.len())
            // Runs and the heads tree have vectors too, which are no frames.
            && bytes[..4] == u32::try_from(bytes.len() - 4).expect("short").to_be_bytes()
        {
            found.push((name.to_string_lossy().into_owned(), bytes[4..].to_vec()));
        }
    }
    found.sort();
    Ok(found)
}

/// The bytes of a vector: of its file, the one field that is needed.
fn vector(path: &Path) -> std::io::Result<Vec<u8>> {
    let text = fs::read_to_string(path)?;
    let (_, rest) = text.split_once("\"hex\": \"").unwrap_or_default();
    let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    let bytes =
        (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok());
    Ok(bytes.collect())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
