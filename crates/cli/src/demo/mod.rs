//! `demo`: the main job from beginning to end, on this machine, with nothing faked.
//!
//! ```text
//! git log ──▶ node A (store on disk) ══ QUIC, 127.0.0.1 ══▶ node B (store on disk)
//!                    └──────── export ── equal bytes? ── export ────────┘
//! ```

mod input;
mod live;

use std::time::Instant;

use headwater::{EventDraft, Headwater, SpaceId};
use iroh::EndpointAddr;
use n0_future::StreamExt;
use serde_json::json;

use self::input::DemoInput;
use crate::{
    args::{DEFAULT_AUTHOR, DemoArgs},
    commands::{
        Context,
        append::{Drafts, import},
        export,
        sync::{sentence, truncation},
    },
    error::CliError,
    folder::DataFolder,
    host::{Host, NetOptions, Role, Served},
    output::{Output, bytes, count},
    progress::Bar,
};

/// Runs the demo in a temporary folder.
pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let teller = Teller(context.output);
    let folder = tempfile::Builder::new().prefix("headwater-demo-").tempdir();
    let folder = folder.map_err(|source| CliError::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let place = folder.path().to_owned();
    context.output.line(&format!(
        "Two nodes, A and B, each with a store of its own in {}, \
         connected by QUIC on 127.0.0.1.\n",
        place.display()
    ))?;
    let input =
        tokio::task::spawn_blocking(move || input::gather(&args).map(|input| (input, args)));
    let (input, args) = input
        .await
        .map_err(|error| CliError::Network(error.to_string()))??;
    teller.say(
        "input",
        &json!({ "source": input.told }),
        &input.told.join("\n"),
    )?;

    let net = NetOptions {
        no_relay: true,
        bind: Some(([127, 0, 0, 1], 0).into()),
        dial_timeout: None,
    };
    let served = Served::all();
    let role = Role::Serve {
        net,
        served,
        gossip: false,
    };
    let (folder_a, _) = DataFolder::init(place.join("a"))?;
    let (folder_b, _) = DataFolder::init(place.join("b"))?;
    let a = Host::open(&folder_a, &role).await?;
    let b = Host::open(&folder_b, &role).await?;

    let shown = show(&teller, &folder_a, &a, &b, input).await;
    a.stop().await;
    b.stop().await;
    shown?;
    if args.keep {
        let kept = folder.keep();
        teller.say(
            "kept",
            &json!({ "folder": kept }),
            &kept.display().to_string(),
        )?;
    }
    let seconds = started.elapsed().as_secs_f64();
    teller.say(
        "done",
        &json!({ "seconds": seconds }),
        &format!("in {seconds:.1} s"),
    )
}

async fn show(
    teller: &Teller,
    folder_a: &DataFolder,
    a: &Host,
    b: &Host,
    input: DemoInput,
) -> Result<(), CliError> {
    let space = store_at_a(teller, folder_a, a.node(), input.drafts).await?;
    let peer = a.addr().await.ok_or(CliError::NoPeer(space))?;
    pull(teller, b.node(), space, &peer).await?;
    pull_again(teller, b.node(), space, &peer).await?;
    live::show(teller, folder_a, a.node(), b.node(), space, &peer).await?;
    prove(teller, a.node(), b.node(), space).await
}

async fn store_at_a(
    teller: &Teller,
    folder: &DataFolder,
    node: &Headwater,
    drafts: Drafts,
) -> Result<SpaceId, CliError> {
    let owner = folder.author_key(DEFAULT_AUTHOR)?;
    let space = node.create_space(&owner).await?;
    let anyone = crate::commands::open_to_all();
    space.grant(&owner, anyone.subject, anyone.roles).await?;
    let space = space.id();
    let started = Instant::now();
    let stored = import(folder, node, space, drafts).await?;
    let seconds = started.elapsed().as_secs_f64();
    let text = format!(
        "A signed and stored {} by {} in {seconds:.2} s, one signature a run, one transaction",
        count(stored.events, "event"),
        count(stored.authors, "author"),
    );
    let fact = json!({
        "space": space, "events": stored.events, "authors": stored.authors, "seconds": seconds,
    });
    teller.say("import", &fact, &text)?;
    Ok(space)
}

async fn pull(
    teller: &Teller,
    node: &Headwater,
    space: SpaceId,
    peer: &EndpointAddr,
) -> Result<(), CliError> {
    let mut handle = node.space(space).sync_with(peer.clone());
    let bar = Bar::new(teller.0, "pull");
    let mut planned = false;
    let mut quarters = 0;
    while let Some(progress) = handle.next().await {
        if !planned && progress.planned.events > 0 {
            planned = true;
            let events = progress.planned.events.saturating_add(progress.rest.events);
            let size = progress
                .planned
                .payload_bytes
                .saturating_add(progress.rest.payload_bytes);
            let text = format!(
                "A announces {} with {} of payload, at most, before it sends them",
                count(events, "event"),
                bytes(size)
            );
            let fact = json!({ "events_at_most": events, "payload_bytes_at_most": size });
            bar.aside(|| teller.say("plan", &fact, &text))?;
        }
        bar.set_sync(&progress);
        let stored = progress.applied.events;
        let all = progress.planned.events.saturating_add(progress.rest.events);
        let reached = stored.saturating_mul(4).checked_div(all);
        let news = |reached: &u64| bar.is_hidden() && (quarters + 1..4).contains(reached);
        if let Some(reached) = reached.filter(news) {
            quarters = reached;
            let text = format!("{} on B's disk", count(stored, "event"));
            teller.say("progress", &json!({ "applied_events": stored }), &text)?;
        }
    }
    bar.finish();
    let report = handle
        .await
        .map_err(|source| CliError::sync(peer, source))?;
    teller.say("pull", &report, &sentence("B", &report))?;
    truncation(&report).map_or(Ok(()), |reason| Err(CliError::Truncated(reason)))
}

async fn pull_again(
    teller: &Teller,
    node: &Headwater,
    space: SpaceId,
    peer: &EndpointAddr,
) -> Result<(), CliError> {
    let again = node.space(space).sync_with(peer.clone()).await;
    let report = again.map_err(|source| CliError::sync(peer, source))?;
    teller.say("again", &report, &sentence("B", &report))
}

async fn prove(
    teller: &Teller,
    a: &Headwater,
    b: &Headwater,
    space: SpaceId,
) -> Result<(), CliError> {
    let mut hashes = Vec::new();
    for (name, node) in [("A", a), ("B", b)] {
        let (mut hasher, mut events, mut size) = (blake3::Hasher::new(), 0, 0);
        let mut chunks = std::pin::pin!(export::chunks(node, space).await?);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            hasher.update(&chunk.bytes);
            events += chunk.lines;
            size += chunk.bytes.len() as u64;
        }
        let hash = hasher.finalize();
        let verified = node.space(space).verify(|_| ()).await?;
        if !verified.is_sound() {
            return Err(CliError::VerifyFailed(1));
        }
        let text = format!(
            "{name} exports {} in {}, BLAKE3 {}…; verify: {} sound",
            count(events, "line"),
            bytes(size),
            &hash.to_hex()[..16],
            count(verified.runs, "run"),
        );
        let fact = json!({
            "node": name, "lines": events, "bytes": size,
            "blake3": hash.to_hex().as_str(), "sound": true,
        });
        teller.say("proof", &fact, &text)?;
        hashes.push(hash);
    }
    if hashes.windows(2).all(|pair| pair[0] == pair[1]) {
        let text = "both exports are the same, byte for byte";
        teller.say("equal", &json!({ "exports_equal": true }), text)
    } else {
        Err(CliError::ExportsDiffer)
    }
}

/// Tells one step: a line under a short word, or a JSON object.
struct Teller(Output);

impl Teller {
    fn say(&self, step: &str, fact: &impl serde::Serialize, text: &str) -> Result<(), CliError> {
        if self.0.is_json() {
            return self.0.json_line(&json!({ "step": step, "fact": fact }));
        }
        let mut heading = step;
        for line in text.lines() {
            self.0.line(&format!("{heading:<8} {line}"))?;
            heading = "";
        }
        Ok(())
    }
}

/// A draft of the demo's own.
fn note(text: String, timestamp_ms: u64) -> Result<EventDraft, CliError> {
    Ok(crate::input::draft(
        text.into_bytes(),
        None::<&[u8]>,
        None,
        timestamp_ms,
    )?)
}
