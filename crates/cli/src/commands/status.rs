//! `status`: what this data folder holds.

use headwater_gossip::LiveStatus;
use iroh::EndpointId;
use serde_json::{Value, json};

use super::Context;
use crate::{
    control::{Request, Teller},
    error::CliError,
    host::{self, Held, Host},
    output::{bytes, count},
};

/// Forked logs that are listed of a space; `verify` lists more.
const FORKS_LISTED: usize = 100;

pub(super) async fn run(context: &Context) -> Result<(), CliError> {
    let folder = context.folder()?;
    context.ask(&folder, Request::Status).await
}

/// Tells what is held.
pub(super) async fn carry_out(host: &Host, teller: &Teller) -> Result<(), CliError> {
    let folder = host.folder();
    let reading = folder.blocking(|folder| Ok((folder.node_key()?, folder.spaces()?)));
    let (key, known) = reading.await?;
    let endpoint_id = key.public().to_string();
    let held = host::held_spaces(host.node()).await?;

    let mut spaces = Vec::new();
    let mut text = String::new();
    for Held { id, summary } in &held {
        let known = known.get(*id);
        let name = known.map_or_else(|| id.fmt_short(), |known| known.name.clone());
        let peers = known.map(peer_ids).unwrap_or_default();
        let summary = match summary {
            Ok(summary) => summary,
            Err(damage) => {
                let damage = damage.to_string();
                text += &format!(
                    "\n\n{name}\n  space   {id}\n  DAMAGED {damage}; see `headwater verify`"
                );
                spaces.push(json!({
                    "space": id, "name": name, "held": true, "damaged": damage, "peers": peers,
                }));
                continue;
            }
        };
        text += &format!(
            "\n\n{name}\n  space   {}\n  owner   {}\n  holds   {} by {}, {} of payload\n  digest  {}\n  peers   {}",
            summary.space,
            summary.owner,
            count(summary.events, "event"),
            count(summary.authors, "author"),
            bytes(summary.payload_bytes),
            summary.digest,
            peers.len(),
        );
        let space = host.node().space(*id);
        let forks = space.forks(None, FORKS_LISTED).await?;
        for fork in &forks {
            text += &format!(
                "\n  FORKED  log of {} at event {}: shown up to {}",
                fork.author,
                fork.seq,
                fork.head.map_or(0, |head| head.seq),
            );
        }
        let forks: Vec<_> = forks
            .iter()
            .map(|fork| json!({ "author": fork.author, "seq": fork.seq }))
            .collect();
        spaces.push(json!({
            "space": summary.space,
            "name": name,
            "held": true,
            "forks": forks,
            "owner": summary.owner,
            "authors": summary.authors,
            "events": summary.events,
            "payload_bytes": summary.payload_bytes,
            "digest": summary.digest,
            "generation": summary.generation,
            "peers": peers,
        }));
        if let Some(live) = host.live(*id) {
            tell_live(&live.status(), &mut text, spaces.last_mut());
        }
    }
    let joined = known
        .iter()
        .filter(|known| held.iter().all(|held| held.id != known.id));
    for known in joined {
        let name = &known.name;
        text += &format!(
            "\n\n{name}\n  space   {}\n  joined, nothing is here yet: headwater sync {name}",
            known.id
        );
        let peers = peer_ids(known);
        spaces.push(json!({ "space": known.id, "name": name, "held": false, "peers": peers }));
        if let Some(live) = host.live(known.id) {
            tell_live(&live.status(), &mut text, spaces.last_mut());
        }
    }
    let node = if !host.is_serving() {
        "not running"
    } else if host.has_gossip() {
        "running"
    } else {
        "running without gossip"
    };
    let answer = json!({
        "data": folder.path(),
        "endpoint_id": endpoint_id,
        "running": host.is_serving(),
        "gossip": host.has_gossip(),
        "spaces": Value::Array(spaces),
    });
    let data = folder.path().display();
    let head = format!("data      {data}\nendpoint  {endpoint_id}\nnode      {node}");
    teller.answer(&answer, || head + &text).await
}

fn peer_ids(known: &crate::folder::KnownSpace) -> Vec<String> {
    known.peers.iter().map(|peer| peer.id.to_string()).collect()
}

/// What gossip says of a live space: in words after the others, and in its JSON object.
fn tell_live(status: &LiveStatus, text: &mut String, value: Option<&mut Value>) {
    let ids = |peers: &[EndpointId]| -> Vec<_> {
        let short = peers.iter().map(|peer| peer.fmt_short().to_string());
        short.collect()
    };
    let list = |peers: &[EndpointId]| match peers {
        [] => "none".to_owned(),
        peers => format!("{} ({})", peers.len(), ids(peers).join(", ")),
    };
    let counters = &status.counters;
    *text += &format!(
        "\n  live    neighbours {}\n  heads   {} announced, {} not yet, {} missing\n  \
         pulls   under way {}, {} since the start, {} failed",
        list(&status.neighbors),
        counters.announced,
        status.unannounced,
        status.missing_heads,
        list(&status.pulling_from),
        counters.pulls,
        counters.pulls_failed,
    );
    for it in status.standings.iter().filter(|it| it.demerits > 0) {
        let (peer, counters) = (it.peer.fmt_short(), &it.counters);
        let caught = if it.caught { ", caught lying" } else { "" };
        *text += &format!(
            "\n  behind  {peer}: {} of {} promises broken, {} withheld, {} of {} pulls failed{caught}",
            counters.promises_broken,
            counters.promises_kept + counters.promises_broken,
            counters.withheld,
            counters.pulls_failed,
            counters.pulls,
        );
    }
    let standings = status.standings.iter().map(|it| {
        json!({
            "peer": it.peer.to_string(),
            "demerits": it.demerits,
            "caught": it.caught,
            "pulls": it.counters.pulls,
            "pulls_failed": it.counters.pulls_failed,
            "promises_kept": it.counters.promises_kept,
            "promises_broken": it.counters.promises_broken,
            "withheld": it.counters.withheld,
            "unproven": it.counters.unproven,
        })
    });
    let full = |peers: &[EndpointId]| -> Vec<_> { peers.iter().map(ToString::to_string).collect() };
    let backed_off = status
        .backed_off
        .iter()
        .map(|(peer, wait)| json!({ "peer": peer.to_string(), "seconds": wait.as_secs() }));
    if let Some(value) = value {
        value["live"] = json!({
            "neighbors": full(&status.neighbors),
            "unsettled_neighbors": status.unsettled_neighbors,
            "announced": counters.announced,
            "announced_periodic": counters.announced_periodic,
            "suppressed": counters.suppressed,
            "unannounced_heads": status.unannounced,
            "missing_heads": status.missing_heads,
            "pulling_from": full(&status.pulling_from),
            "pulls": counters.pulls,
            "pulls_failed": counters.pulls_failed,
            "backed_off": backed_off.collect::<Vec<_>>(),
            "standings": standings.collect::<Vec<_>>(),
            "history_complete": status.history_complete,
        });
    }
}
