//! Who may do what in a space: what its owner says of it, and reads back.

use std::time::Duration;

use headwater_store::{LogStore, StoreError};
use headwater_wire::{
    Acceptance, AuthorId, AuthorSecret, EventDraft, EventRef, Grant, Invitation, Revocation, Roles,
    RosterState, Subject,
};
use n0_future::StreamExt;

use crate::{
    node::{generate_author, now_ms, random},
    space::{Space, WriteError},
};

impl Space {
    /// Lets somebody do more: a control event in the owner's log, which every node follows that
    /// goes by a [`Roster`](crate::Roster). On return it is durable, and holds here.
    ///
    /// [`Roles::READ`] and [`Roles::PROVIDE`] go by a node's key ([`node_key`](crate::node_key)),
    /// [`Roles::WRITE`] by an author's. A writer whose role was revoked counts as a whole again.
    ///
    /// # Errors
    ///
    /// The log is unchanged on every error; [`WriteError::NotOwner`] if the key is another's.
    pub async fn grant(
        &self,
        owner: &AuthorSecret,
        subject: impl Into<Subject>,
        roles: Roles,
    ) -> Result<EventRef, WriteError> {
        self.check_owner(owner).await?;
        let grant = Grant::new(subject, roles);
        self.append(owner, EventDraft::grant(grant, now_ms())).await
    }

    /// Lets somebody do less: a control event in the owner's log. On return it is durable, and
    /// what runs here for those who lost access has been told to end.
    ///
    /// Of a writer, the last event held here is the last that counts, everywhere. What
    /// [`Subject::Anyone`] may do is taken from whoever is not named alone; of writers among those
    /// nothing counts any more, so grant it to those who are to stay first. Where a reader is
    /// revoked and the space has a topic secret, it gets a new one in the same transaction; until
    /// nodes join the new topic, a revoked reader can listen to the old one.
    ///
    /// # Errors
    ///
    /// The log is unchanged on every error; [`WriteError::NotOwner`] if the key is another's.
    pub async fn revoke(
        &self,
        owner: &AuthorSecret,
        subject: impl Into<Subject>,
        roles: Roles,
    ) -> Result<EventRef, WriteError> {
        self.check_owner(owner).await?;
        let subject = subject.into();
        let last = match subject {
            Subject::Key(key) if roles.contains(Roles::WRITE) => {
                let author = AuthorId::from_bytes(*key.as_bytes());
                let held = self.head(author).await.map_err(WriteError::store)?;
                held.map(|record| record.entry.head)
                    .filter(|head| head.seq > 0)
            }
            _ => None,
        };
        let revocation = Revocation {
            subject,
            roles,
            last,
        };
        let mut drafts = Vec::new();
        if roles.contains(Roles::READ) {
            let secret = self.topic_secret().await.map_err(WriteError::store)?;
            let renewed = secret.map(|_old| EventDraft::topic_secret(random(), now_ms()));
            drafts.extend(renewed);
        }
        drafts.push(EventDraft::revoke(revocation, now_ms()));
        let head = self.append_batch(owner, drafts).await?;
        Ok(EventRef {
            author: owner.id(),
            seq: head.seq,
            id: head.id,
        })
    }

    /// Signs an invite: whoever holds it may, once and within `valid_for`, ask a node that
    /// [acts for the owner](crate::Headwater::act_for) for `roles`. Nothing is stored.
    ///
    /// Whoever sees the invitation can use it: hand it over like a key.
    ///
    /// # Errors
    ///
    /// [`WriteError::NotOwner`] if the key is another's; if the space is not held.
    pub async fn invite(
        &self,
        owner: &AuthorSecret,
        roles: Roles,
        valid_for: Duration,
    ) -> Result<Invitation, WriteError> {
        self.check_owner(owner).await?;
        let valid_ms = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms().saturating_add(valid_ms);
        let one_use = generate_author();
        let id = self.id();
        Ok(Invitation::sign(owner, id, roles, expires_ms, one_use))
    }

    /// What the owner's log says about who may do what, as far as it is held here; `None` if the
    /// space is not held. If that log forks, revocations above the fork hold, whichever branch they
    /// are in, and grants above it do not. Says nothing about whether this node goes by it: that is its
    /// [policy](crate::AccessPolicy).
    ///
    /// Costs a look into memory on a node that goes by a [`Roster`](crate::Roster), and a reading
    /// of the owner's log on others.
    ///
    /// # Errors
    ///
    /// If the store fails, or what it holds is damaged.
    pub async fn members(&self) -> Result<Option<RosterState>, StoreError> {
        let policy = &self.node().inner().policy;
        if let Some(roster) = policy.roster() {
            roster.loaded().await;
            if let Some(state) = roster.state(self.id()) {
                return Ok(Some(state));
            }
        }
        let Some(held) = self.summary().await? else {
            return Ok(None);
        };
        let mut state = RosterState::new(held.owner);
        let mut events = self.events(held.owner, 1..);
        while let Some(event) = events.next().await {
            state.fold(&event?);
        }
        state.hold(&self.read(LogStore::revoked).await?);
        Ok(Some(state))
    }

    /// How much of an author's log this node accepts: what its policy says, and all of the owner's;
    /// `None` if the space is not held, so that it is not known yet whose it is.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn accepts(&self, author: AuthorId) -> Result<Option<Acceptance>, StoreError> {
        let accepted = self.node().inner().policy.accepts(self.id(), author);
        if accepted == Acceptance::All {
            return Ok(Some(accepted));
        }
        let held = self.summary().await?;
        Ok(held.map(|held| {
            if held.owner == author {
                Acceptance::All
            } else {
                accepted
            }
        }))
    }

    /// Authors whom requests leave out for now, as their logs are above a quota here: see
    /// [`Limits::author_quota`](crate::Limits::author_quota). Ascending.
    #[must_use]
    pub fn over_quota(&self) -> Vec<AuthorId> {
        let inner = self.node().inner();
        inner.left_out.of(self.id(), &*inner.policy).over_quota
    }

    /// Refuses a key that does not own the space, and a space that is not held.
    pub(crate) async fn check_owner(&self, owner: &AuthorSecret) -> Result<(), WriteError> {
        let held = self.summary().await.map_err(WriteError::store)?;
        let held = held.ok_or(WriteError::UnknownSpace { space: self.id() })?;
        if held.owner != owner.id() {
            return Err(WriteError::NotOwner { author: owner.id() });
        }
        Ok(())
    }
}
