//! `status`: what this data folder holds.

use serde_json::{Value, json};

use super::Context;
use crate::{
    error::CliError,
    node::{self, Held},
    output::{bytes, count},
};

pub(super) async fn run(context: &Context) -> Result<(), CliError> {
    let folder = context.folder()?;
    let endpoint_id = folder.node_key()?.public().to_string();
    let known = folder.spaces()?;
    let node = node::open_offline(&folder)?;
    let held = node::held_spaces(&node).await;
    node.shutdown().await;
    let held = held?;

    let mut spaces = Vec::new();
    let mut text = format!(
        "data      {}\nendpoint  {endpoint_id}",
        folder.path().display()
    );
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
        spaces.push(json!({
            "space": summary.space,
            "name": name,
            "held": true,
            "owner": summary.owner,
            "authors": summary.authors,
            "events": summary.events,
            "payload_bytes": summary.payload_bytes,
            "digest": summary.digest,
            "generation": summary.generation,
            "peers": peers,
        }));
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
    }
    let answer = json!({
        "data": folder.path(), "endpoint_id": endpoint_id, "spaces": Value::Array(spaces),
    });
    context.output.answer(&answer, || text)
}

fn peer_ids(known: &crate::folder::KnownSpace) -> Vec<String> {
    known.peers.iter().map(|peer| peer.id.to_string()).collect()
}
