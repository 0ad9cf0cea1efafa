//! What of a peer's announcements this node would not store, whoever brings it.

use headwater::{Acceptance, Space, SyncReport};
use headwater_wire::AuthorId;
use tracing::warn;

/// Of whom no pull can bring what was announced, among all above a quota here and those `wanted` of
/// the peer: whose events are no more accepted since it was asked, perhaps by what it brought.
pub(super) async fn not_taken(
    space: &Space,
    wanted: Vec<AuthorId>,
    report: Option<&SyncReport>,
) -> Vec<(AuthorId, Option<u64>)> {
    let mut above = space.over_quota();
    above.extend(report.iter().flat_map(|report| &report.over_quota));
    above.sort_unstable();
    above.dedup();
    // With more above a quota than are listed, it may be any of those wanted.
    let are_listed = report.is_none_or(|it| above.len() as u64 >= it.over_quota_authors);
    let mut not_taken: Vec<_> = above.into_iter().map(|author| (author, None)).collect();
    for author in wanted {
        if !are_listed {
            not_taken.push((author, None));
            continue;
        }
        match space.accepts(author).await {
            Ok(Some(Acceptance::Through(last))) => not_taken.push((author, Some(last.seq))),
            Ok(Some(Acceptance::Nothing)) => not_taken.push((author, Some(0))),
            Ok(None | Some(Acceptance::All)) => {}
            Err(error) => warn!(%error, "cannot read whose space it is"),
        }
    }
    not_taken
}
