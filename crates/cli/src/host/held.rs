//! What spaces a store holds, whatever state they are in.

use headwater::{Damage, Headwater, SpaceId, SpaceSummary, StoreError};

/// A space that is held: what its record says of it, or what is wrong with the record.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: SpaceId,
    pub(crate) summary: Result<SpaceSummary, Damage>,
}

/// The ids of the spaces held, ascending, whatever state they are in.
///
/// # Errors
///
/// The store cannot list them.
pub(crate) fn space_ids(node: &Headwater) -> Result<Vec<SpaceId>, StoreError> {
    tokio::task::block_in_place(|| node.store().spaces())
}

/// The spaces held, ascending by id. A damaged one does not hide the others.
///
/// # Errors
///
/// The store fails in another way than by damage to single spaces.
pub(crate) async fn held_spaces(node: &Headwater) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    for id in space_ids(node)? {
        let summary = match node.space(id).summary().await {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => continue,
            Err(StoreError::Damaged(damage)) => Err(damage),
            Err(error) => return Err(error),
        };
        held.push(Held { id, summary });
    }
    Ok(held)
}
