//! `verify`: every stored run checked again, from bytes to heads tree.

use std::time::Duration;

use headwater::{Headwater, SpaceId, StoreError, VerifyProgress, VerifyReport};
use serde_json::json;
use tokio::sync::watch;

use super::{Context, name_of, wanted_space};
use crate::{
    control::{Progress, Request, Teller},
    error::CliError,
    host::{self, Host},
    output::{bytes, count},
};

/// How often it says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn run(context: &Context, space: Option<&str>) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = space.map(|text| wanted_space(&folder, text)).transpose()?;
    let space = space.map(|wanted| wanted.id);
    context.ask(&folder, Request::Verify { space }).await
}

/// Checks one space or all.
pub(super) async fn carry_out(
    host: &Host,
    space: Option<SpaceId>,
    teller: &Teller,
) -> Result<(), CliError> {
    let node = host.node();
    let held = host::space_ids(node).map_err(|error| match error {
        StoreError::Damaged(damage) => CliError::SpacesDamaged(damage),
        error => error.into(),
    })?;
    let spaces = match space {
        Some(space) if held.contains(&space) => vec![space],
        Some(space) => return Err(CliError::NotHeld(space)),
        None => held,
    };
    if spaces.is_empty() {
        teller.note("nothing is here yet").await?;
    }
    let mut damaged = 0;
    for id in spaces {
        let report = check(node, id, teller).await?;
        damaged += u64::from(!report.is_sound());
        say(teller, id, &name_of(host.folder(), id).await?, &report).await?;
    }
    match damaged {
        0 => Ok(()),
        damaged => Err(CliError::VerifyFailed(damaged)),
    }
}

/// Checks one space. Damage that ends the check is a fault of the space like any other, so that
/// the spaces after it are checked, too.
async fn check(node: &Headwater, id: SpaceId, teller: &Teller) -> Result<VerifyReport, CliError> {
    let (newest, mut progress) = watch::channel(None::<VerifyProgress>);
    let space = node.space(id);
    let checking = space.verify(move |at| {
        newest.send_replace(Some(at));
    });
    let telling = async {
        while progress.changed().await.is_ok() {
            let Some(at) = *progress.borrow_and_update() else {
                continue;
            };
            let told = Progress {
                what: "verify".into(),
                events: at.events,
                total_events: at.total_events,
                payload_bytes: 0,
                json: None,
            };
            teller.progress(told).await?;
            tokio::time::sleep(PROGRESS_EVERY).await;
        }
        Ok::<(), CliError>(())
    };
    let (checked, told) = tokio::join!(checking, telling);
    told?;
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

async fn say(
    teller: &Teller,
    id: SpaceId,
    name: &str,
    report: &VerifyReport,
) -> Result<(), CliError> {
    let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    let forks: Vec<_> = report
        .forks
        .iter()
        .map(|fork| {
            json!({
                "author": fork.author,
                "seq": fork.seq,
                "evidence_events": fork.evidence_events,
            })
        })
        .collect();
    let answer = json!({
        "space": id,
        "name": name,
        "sound": report.is_sound(),
        "authors": report.authors,
        "runs": report.runs,
        "events": report.events,
        "stubs": report.stubs,
        "payload_bytes": report.payload_bytes,
        "fork_count": report.fork_count,
        "forks": forks,
        "fault_count": report.fault_count,
        "faults": faults,
    });
    let text = || {
        let held = format!(
            "{} by {} in {}, {} of payload",
            count(report.events, "event"),
            count(report.authors, "author"),
            count(report.runs, "run"),
            bytes(report.payload_bytes)
        );
        let mut text = if report.is_sound() {
            format!("{name}: sound ({held})")
        } else {
            let faults = count(report.fault_count, "fault");
            format!("{name}: DAMAGED, {faults} ({held})")
        };
        for fault in &faults {
            text += &format!("\n  {fault}");
        }
        for fork in &report.forks {
            let evidence = count(fork.evidence_events, "event");
            text += &format!(
                "\n  log of {} forks at event {}; {evidence} kept as evidence and not shown",
                fork.author, fork.seq
            );
        }
        text
    };
    teller.answer(&answer, text).await
}
