//! `verify`: every stored run checked again, from bytes to heads tree.

use headwater::{Headwater, SpaceId, StoreError, VerifyReport};
use serde_json::json;

use super::{Context, name_of, wanted_space};
use crate::{
    error::CliError,
    node,
    output::{bytes, count},
    progress::Bar,
};

pub(super) async fn run(context: &Context, space: Option<&str>) -> Result<(), CliError> {
    let folder = context.folder()?;
    let wanted = space.map(|text| wanted_space(&folder, text)).transpose()?;
    let node = node::open_offline(&folder)?;
    let held = node::space_ids(&node).map_err(|error| match error {
        StoreError::Damaged(damage) => CliError::SpacesDamaged(damage),
        error => error.into(),
    })?;
    let spaces = match wanted {
        Some(wanted) if held.contains(&wanted.id) => vec![wanted.id],
        Some(wanted) => return Err(CliError::NotHeld(wanted.id)),
        None => held,
    };
    if spaces.is_empty() {
        context.output.line("nothing is here yet")?;
    }
    let mut damaged = 0;
    for id in spaces {
        let report = check(context, &node, id).await?;
        damaged += u64::from(!report.is_sound());
        say(context, id, &name_of(&folder, id)?, &report)?;
    }
    node.shutdown().await;
    match damaged {
        0 => Ok(()),
        damaged => Err(CliError::VerifyFailed(damaged)),
    }
}

/// Checks one space. Damage that ends the check is a fault of the space like any other, so that
/// the spaces after it are checked, too.
async fn check(context: &Context, node: &Headwater, id: SpaceId) -> Result<VerifyReport, CliError> {
    let bar = Bar::new(context.output, "verify");
    let checked = node
        .space(id)
        .verify({
            let bar = bar.clone();
            move |at| bar.set(at.events, at.total_events)
        })
        .await;
    bar.finish();
    match checked {
        Ok(report) => Ok(report),
        Err(StoreError::Damaged(damage)) => {
            let mut report = VerifyReport::default();
            report.faults.push(damage);
            report.fault_count = 1;
            Ok(report)
        }
        Err(error) => Err(error.into()),
    }
}

fn say(context: &Context, id: SpaceId, name: &str, report: &VerifyReport) -> Result<(), CliError> {
    let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    let answer = json!({
        "space": id,
        "name": name,
        "sound": report.is_sound(),
        "authors": report.authors,
        "runs": report.runs,
        "events": report.events,
        "stubs": report.stubs,
        "payload_bytes": report.payload_bytes,
        "fault_count": report.fault_count,
        "faults": faults,
    });
    context.output.answer(&answer, || {
        let held = format!(
            "{} by {} in {}, {} of payload",
            count(report.events, "event"),
            count(report.authors, "author"),
            count(report.runs, "run"),
            bytes(report.payload_bytes)
        );
        if report.is_sound() {
            return format!("{name}: sound ({held})");
        }
        let mut text = format!(
            "{name}: DAMAGED, {} ({held})",
            count(report.fault_count, "fault")
        );
        for fault in faults {
            text += &format!("\n  {fault}");
        }
        text
    })
}
