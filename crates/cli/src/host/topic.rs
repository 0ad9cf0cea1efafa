//! The gossip topic of a space: its secret, and joining it.

use headwater::{SpaceId, StoreError};
use headwater_gossip::TopicSecret;
use n0_future::StreamExt;

use super::{Host, live};
use crate::{
    error::CliError,
    folder::{DataFolder, OwnerLog},
};

impl Host {
    /// The secret of a space's gossip topic: the latest in the owner's log, else what a ticket said.
    /// Damage to that log hides what is behind it.
    ///
    /// # Errors
    ///
    /// The store or the list of spaces cannot be read or written.
    pub(crate) async fn topic_secret(
        &self,
        space: SpaceId,
    ) -> Result<Option<TopicSecret>, CliError> {
        let secret = self.find_topic_secret(space).await?;
        Ok(secret.map(|(secret, _by_owner)| secret))
    }

    /// The secret, and whether it is the owner's log that says so.
    async fn find_topic_secret(
        &self,
        space: SpaceId,
    ) -> Result<Option<(TopicSecret, bool)>, CliError> {
        let known = self.folder().blocking(DataFolder::spaces).await?;
        let known = known.get(space);
        let seen = known.map(|known| known.owner_log.clone());
        let seen = self.look_through_owner_log(space, seen.unwrap_or_default());
        let seen = seen.await?;
        if known.is_some_and(|known| known.owner_log != seen) {
            let seen = seen.clone();
            let remembering = self.folder().blocking(move |folder| {
                folder.change_spaces(|spaces| {
                    spaces.saw_owner_log(space, &seen);
                    Ok(())
                })
            });
            remembering.await?;
        }
        let told = known.and_then(|known| known.topic_secret.clone());
        let set = seen.topic_secret.map(|secret| (secret, true));
        Ok(set.or(told.map(|secret| (secret, false))))
    }

    async fn look_through_owner_log(
        &self,
        space: SpaceId,
        mut seen: OwnerLog,
    ) -> Result<OwnerLog, StoreError> {
        let space = self.node().space(space);
        let owner = match space.summary().await {
            Ok(Some(summary)) => summary.owner,
            Ok(None) | Err(StoreError::Damaged(_)) => return Ok(seen),
            Err(error) => return Err(error),
        };
        let mut events = space.events(owner, seen.through + 1..);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(StoreError::Damaged(_)) => break,
                Err(error) => return Err(error),
            };
            seen.through = event.header.seq;
            if let Some(secret) = event.topic_secret() {
                seen.topic_secret = Some(TopicSecret::from_bytes(secret));
            }
        }
        Ok(seen)
    }

    /// Makes a space live, if spaces are to be live here, peers may read this one, and its topic is
    /// known. Answers whether it is. Doing it again tells new peers of it.
    ///
    /// # Errors
    ///
    /// The topic cannot be joined, or the folder cannot be read.
    pub(crate) async fn go_live(&self, space: SpaceId) -> Result<bool, CliError> {
        let Some(network) = &self.0.network else {
            return Ok(false);
        };
        let Some(live) = &network.live else {
            return Ok(false);
        };
        // Nobody takes the space away between this question and the join.
        let _changing = live.changing().await;
        if !self.served().contains(space) {
            return Ok(false);
        }
        let Some((secret, by_owner)) = self.find_topic_secret(space).await? else {
            return Ok(false);
        };
        let known = self.folder().blocking(DataFolder::spaces).await?;
        let mut peers = Vec::new();
        if let Some(known) = known.get(space) {
            peers.extend_from_slice(&known.peers);
            peers.extend_from_slice(&known.met);
        }
        live::introduce(&network.addresses, &peers);
        live.join(space, secret, by_owner, &peers).await?;
        Ok(true)
    }
}
